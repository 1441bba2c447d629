// Benches run small with the tests, so that they never rot. What they measure here is not looked at.

import { describe, expect, test } from 'vitest';
import { serve } from '../bench/serve.ts';
import { needsTool } from './tools.ts';

const tools = [needsTool('nginx'), needsTool('wrk')];

describe.skipIf(tools.includes(null))('benches', () => {
  test('serve compares three sizes of range with nginx', async () => {
    const { peers, findings } = await serve.run(serve.small, () => undefined);
    expect(peers.map((peer) => peer.name)).toEqual(['nginx proxy_cache slice 1m', 'nginx static']);
    expect(findings.map((finding) => finding.what)).toEqual(['64 KiB ranges', '1 MiB ranges', '4 MiB ranges']);
    for (const { larder, peer, ratio } of findings)
      for (const figure of [larder, peer, ratio]) expect(figure).toBeGreaterThan(0);
  });
});
