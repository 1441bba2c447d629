// Benches run small with the tests, so that they never rot. What they measure here is not looked at.

import { describe, expect, test } from 'vitest';
import type { Bench } from '../bench/bench.ts';
import { serve } from '../bench/serve.ts';
import { needsTool, type Tool } from './tools.ts';

const ROWS: readonly {
  readonly bench: Bench;
  readonly tools: readonly Tool[];
  readonly findings: readonly string[];
}[] = [{ bench: serve, tools: ['nginx', 'varnishd', 'wrk'], findings: ['64 KiB', '1 MiB', '4 MiB'] }];

describe.each(ROWS)('bench $bench.name', ({ bench, tools, findings: expected }) => {
  const missing = tools.map(needsTool).includes(null);

  test.skipIf(missing)('answers its question in small', async () => {
    const { peers, findings } = await bench.run(bench.small, () => undefined);
    expect(findings.map(({ what }) => what)).toEqual(expected);
    for (const { larder, peers: beside } of findings) {
      expect(larder).toBeGreaterThan(0);
      expect([0, peers.length]).toContain(beside.length);
    }
  });
});
