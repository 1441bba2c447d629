// Benches run small with the tests, so that they never rot. What they measure here is not looked at.

import { describe, expect, test } from 'vitest';
import { admission } from '../bench/admission.ts';
import type { Bench } from '../bench/bench.ts';
import { cold } from '../bench/cold.ts';
import { canThrottle, disk } from '../bench/disk.ts';
import { herd } from '../bench/herd.ts';
import { load } from '../bench/load.ts';
import { memory } from '../bench/memory.ts';
import { knowsTls } from '../bench/peers.ts';
import { restart } from '../bench/restart.ts';
import { serve } from '../bench/serve.ts';
import { tls } from '../bench/tls.ts';
import { needsTool, type Tool } from './tools.ts';

interface Row {
  readonly bench: Bench;
  readonly tools: readonly Tool[];
  readonly findings: readonly string[];
  /** What this machine or this build must be able to do. */
  readonly able?: boolean;
}

const SIZES = ['64 KiB', '1 MiB', '4 MiB'].flatMap((size) => [size, `${size}, by CPU`]);
const speaksTls = await knowsTls();
const ROWS: readonly Row[] = [
  { bench: serve, tools: ['nginx', 'varnishd', 'wrk'], findings: SIZES },
  { bench: tls, tools: ['nginx', 'wrk'], findings: SIZES, able: speaksTls },
  {
    bench: load,
    tools: ['h2load', 'nginx', 'varnishd'],
    findings: ['capacity', 'p99 at the rate', 'core per Gb/s', 'memory with it', 'readers on time'],
  },
  {
    bench: cold,
    tools: ['nginx', 'varnishd'],
    findings: ['whole asset, cold', 'first byte at 5 of 10 GB', 'fetched beyond the range'],
  },
  { bench: herd, tools: ['nginx', 'varnishd'], findings: ['until the last has all', 'each byte asked of the origin'] },
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
      'nobody',
      'an idle connection',
      'a stalled reader',
      'all idle',
      'all stalled',
      ...(speaksTls ? ['all idle over TLS'] : []),
    ],
  },
  {
    bench: disk,
    tools: ['h2load', 'nginx'],
    findings: ['hot p99 alone', 'hot p99 beside cold', 'beside cold ÷ alone', 'read by the cold'],
    able: canThrottle(),
  },
  {
    bench: admission,
    tools: [],
    findings: [
      ...['zipf 0.8', 'zipf+scan', 'evening'].flatMap((trace) =>
        ['hits', 'bytes hit', 'written'].map((what) => `${trace} ${what}`),
      ),
      'bytes hit ÷ Belady',
      ...['0.8, 10 %', '1, 10 %', '0.8, 1 %', '1.2, 1 %'].map((point) => `lru, zipf ${point}`),
      'memory a run, lru',
      'memory a run, s3-fifo',
    ],
  },
];

describe.each(ROWS)('bench $bench.name', ({ bench, tools, findings: expected, able }) => {
  const missing = tools.map(needsTool).includes(null);

  test.skipIf(missing || able === false)('answers its question in small', async () => {
    const { peers, findings } = await bench.run(bench.small, () => undefined);
    expect(findings.map(({ what }) => what)).toEqual(expected);
    for (const { what, larder, peers: beside } of findings) {
      expect(larder, what).not.toBeNaN();
      expect([0, peers.length], what).toContain(beside.length);
    }
  });
});
