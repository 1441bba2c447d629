// Every bench runs with small parameters, so that it keeps working. Its figures are not checked.

import { describe, expect, test } from 'vitest';
import { admission } from '../bench/admission.ts';
import type { Bench } from '../bench/bench.ts';
import { cold } from '../bench/cold.ts';
import { canThrottle, disk } from '../bench/disk.ts';
import { fill } from '../bench/fill.ts';
import { herd } from '../bench/herd.ts';
import { load } from '../bench/load.ts';
import { memory } from '../bench/memory.ts';
import { miss } from '../bench/miss.ts';
import { supportsTls } from '../bench/contestants.ts';
import { restart } from '../bench/restart.ts';
import { serve } from '../bench/serve.ts';
import { tls } from '../bench/tls.ts';
import { needsTool, type Tool } from './tools.ts';

interface Row {
  readonly bench: Bench;
  readonly tools: readonly Tool[];
  readonly findings: readonly string[];
  /** Whether this machine and this build support the bench; true if absent. */
  readonly supported?: boolean;
}

/** By rate and by CPU. */
const twice = (what: string): string[] => [what, what];
const SIZES = ['64 KiB', '1 MiB', '4 MiB'].flatMap(twice);
const tlsSupported = await supportsTls();
const ROWS: readonly Row[] = [
  { bench: serve, tools: ['nginx', 'varnishd', 'wrk'], findings: [...SIZES, ...twice('1 MiB of 4 tiers')] },
  { bench: tls, tools: ['nginx', 'wrk'], findings: SIZES, supported: tlsSupported },
  {
    bench: load,
    tools: ['h2load', 'nginx', 'varnishd'],
    findings: ['capacity', 'p99 at 70 % load', 'CPU core per Gb/s', 'resident memory', 'clients on time'],
  },
  {
    bench: cold,
    tools: ['nginx', 'varnishd'],
    findings: [
      'whole asset',
      'first byte at 5 of 10 GB',
      'fetched beyond the range',
      'whole asset, no limit',
      'first miss after a start',
    ],
  },
  { bench: miss, tools: ['nginx'], findings: ['a miss', 'a catalogued miss'] },
  { bench: fill, tools: ['aria2c'], findings: ['one big file', '20 small files'] },
  { bench: herd, tools: ['nginx', 'varnishd'], findings: ['last client done', 'fetches per origin byte'] },
  {
    bench: restart,
    tools: [],
    findings: ['0.01 M blocks', '0.1 M blocks', '0.001 M segments'].flatMap((what) => [
      `${what}: ready`,
      `${what}: memory`,
    ]),
  },
  {
    bench: memory,
    tools: ['nginx', 'varnishd'],
    findings: [
      'no connections',
      'per idle connection',
      'per stalled client',
      'all idle',
      'all stalled',
      ...(tlsSupported ? ['all idle over TLS'] : []),
    ],
  },
  {
    bench: disk,
    tools: ['h2load', 'nginx'],
    findings: ['hot p99 alone', 'hot p99 with cold reads', 'slowdown by cold reads', 'bytes of cold reads'],
    supported: canThrottle(),
  },
  {
    bench: admission,
    tools: [],
    findings: [
      ...['zipf 0.8', 'zipf+scan', 'evening'].flatMap((trace) =>
        ['hit ratio', 'byte hit ratio', 'write ratio'].map((what) => `${trace} ${what}`),
      ),
      'byte hits ÷ Belady',
      ...['0.8, 10 %', '1, 10 %', '0.8, 1 %', '1.2, 1 %'].map((point) => `lru, zipf ${point}`),
      'memory per run, lru',
      'memory per run, s3-fifo',
    ],
  },
];

describe.each(ROWS)('bench $bench.name', ({ bench, tools, findings: expected, supported }) => {
  const missing = tools.map(needsTool).includes(null);

  test.skipIf(missing || supported === false)('yields its findings in a small run', async () => {
    const { peers, findings } = await bench.run(bench.small, () => undefined);
    expect(findings.map(({ what }) => what)).toEqual(expected);
    for (const { what, larder, peers: peerFigures } of findings) {
      expect(larder, what).not.toBeNaN();
      expect([0, peers.length], what).toContain(peerFigures.length);
    }
  });
});
