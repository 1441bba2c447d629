// The simulation behind the admission bench: no policy exceeds the capacity or Belady's byte hits, Belady is optimal, LRU agrees with
// theory, and recorded traces are parsed correctly.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../runtime/paths.ts';
import { admission, CHE_POINTS, simulationOf, compareLruWithChe, simulatePolicies } from '../admission.ts';
import { belady } from '../belady.ts';
import { meetsBar } from '../bench.ts';
import { cheHitRatio } from '../che-approximation.ts';
import { FifoPolicy, SievePolicy } from '../eviction-policies.ts';
import { EXACT_RUNS, footprintBytes, splitIntoRuns, RUN_BYTES } from '../replay.ts';
import { readTrace } from '../trace-file.ts';
import { encodeTrace, SAMPLE_SPEC } from '../trace-encoder.ts';
import { eveningTrace, zipfTraceWithScans, zipfShares, type Trace } from '../trace.ts';

const traceOf = (requests: readonly number[], sizes: readonly number[]): Trace => ({
  name: 'made up',
  requests: Uint32Array.from(requests),
  sizes: Float64Array.from(sizes),
});

describe('replay', () => {
  test('property: no policy exceeds the capacity, and none has more byte hits than Belady', () => {
    const size = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 3 * RUN_BYTES }));
    const trace = fc
      .array(size, { minLength: 1, maxLength: 12 })
      .chain((sizes) =>
        fc
          .array(fc.integer({ min: 0, max: sizes.length - 1 }), { minLength: 1, maxLength: 150 })
          .map((requests) => traceOf(requests, sizes)),
      );
    fc.assert(
      fc.property(trace, fc.double({ min: 0.01, max: 10, noNaN: true }), (made, share) => {
        const simulation = simulationOf(made, share * footprintBytes(made));
        const { belady: best, ...others } = simulatePolicies(simulation);
        expect(best!.bytesHeldMax).toBeLessThanOrEqual(simulation.capacityBytes);
        for (const [name, score] of Object.entries(others)) {
          expect(score.bytesHeldMax, name).toBeLessThanOrEqual(simulation.capacityBytes);
          expect(score.byteHitRatio, name).toBeLessThanOrEqual(best!.byteHitRatio + 1e-12);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('property: no sequence of admissions and evictions has more hits than Belady', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 9 }),
        fc.integer({ min: 1, max: 3 }),
        (requests, capacityBytes) => {
          const trace = traceOf(requests, [1, 1, 1, 1]);
          const { byteHitRatio } = belady({ trace, runs: splitIntoRuns(trace), capacityBytes });
          expect(Math.round(byteHitRatio * requests.length)).toBe(mostHits(requests, [], capacityBytes));
        },
      ),
      { numRuns: 300 },
    );
  });

  test('with scans, second-hit has at least the hit ratio of LRU and writes less than a third', () => {
    const spec = { objects: 2_000, alpha: 0.9, requests: 60_000, every: 2_000, scan: 1_000, seed: 4 };
    const { lru, 'second-hit': second } = simulatePolicies(simulationOf(zipfTraceWithScans(spec), spec.objects));
    expect(second!.hitRatio).toBeGreaterThanOrEqual(lru!.hitRatio);
    expect(second!.writeRatio).toBeLessThan(lru!.writeRatio / 3);
  });
});

test('a small run meets every bar, and every bar can be missed', async () => {
  const { findings } = await admission.run({ ...admission.small, evening: 10_000 }, () => undefined);
  const barred = findings.filter(({ bar }) => bar !== null);
  expect(barred.filter((finding) => !meetsBar(finding))).toEqual([]);
  expect(barred.every((finding) => !meetsBar({ ...finding, larder: 25 }))).toBe(true);
});

/** The largest number of hits, by exhaustive search. */
function mostHits(requests: readonly number[], held: readonly number[], capacity: number): number {
  const [object, ...rest] = requests;
  if (object === undefined) return 0;
  if (held.includes(object)) return 1 + mostHits(rest, held, capacity);
  const choices = [held];
  if (held.length < capacity) choices.push([...held, object]);
  for (const victim of held) choices.push([...held.filter((each) => each !== victim), object]);
  return Math.max(...choices.map((choice) => mostHits(rest, choice, capacity)));
}

describe('LRU beside theory', () => {
  const published = [0.4367, 0.6756, 0.1566, 0.6563];

  test.each(CHE_POINTS.map((point, index) => ({ ...point, hits: published[index]! })))(
    'zipf $alpha of $percent % hits $hits',
    ({ alpha, percent, hits }) => {
      expect(cheHitRatio(zipfShares(10_000, alpha), 100 * percent)).toBeCloseTo(hits, 4);
      const { measured } = compareLruWithChe({ alpha, percent, objects: 10_000, requests: 500_000 });
      expect(Math.abs(measured - hits)).toBeLessThanOrEqual(0.005);
    },
  );
});

describe('eviction policies for comparison', () => {
  const steps = fc.array(
    fc.record({ act: fc.constantFrom('add', 'touch', 'evict', 'subtract'), key: fc.integer({ min: 1, max: 12 }) }),
    { maxLength: 200 },
  );

  test('property: FIFO and SIEVE evict the same keys as naive implementations', () => {
    fc.assert(
      fc.property(steps, fc.boolean(), (acts, isSieve) => {
        const order = isSieve ? new SievePolicy(EXACT_RUNS) : new FifoPolicy(EXACT_RUNS);
        // Oldest first. The hand is the index of the next candidate.
        let queue: { readonly key: number; hit: boolean }[] = [];
        let hand = 0;
        const remove = (at: number): void => {
          queue = queue.toSpliced(at, 1);
          if (at < hand) hand -= 1;
          // After the newest the hand moves to the oldest, even if entries are added meanwhile.
          if (hand >= queue.length) hand = 0;
        };
        for (const { act, key } of acts) {
          const at = queue.findIndex((each) => each.key === key);
          if (act === 'add' && at === -1) {
            order.add(key, 1);
            queue = [...queue, { key, hit: false }];
          } else if (act === 'touch') {
            order.touch(key);
            if (at !== -1 && isSieve) queue[at]!.hit = true;
          } else if (act === 'subtract') {
            order.subtract(key, 1);
            if (at !== -1) remove(at);
          } else if (act === 'evict') {
            let expected: number | null = null;
            if (queue.length > 0) {
              if (!isSieve || hand >= queue.length) hand = 0;
              for (; queue[hand]!.hit; hand = (hand + 1) % queue.length) queue[hand]!.hit = false;
              expected = queue[hand]!.key;
              remove(hand);
            }
            expect(order.evict()).toBe(expected);
          }
          expect(order.runs).toBe(queue.length);
        }
      }),
      { numRuns: 50000 },
    );
  });
});

describe('recorded traces', () => {
  const samples = join(packageRoot, 'bench', 'test');
  const directory = mkdtempSync(join(tmpdir(), 'larder-trace-'));
  afterAll(() => rmSync(directory, { recursive: true }));
  const write = (name: string, bytes: string | Buffer): string => {
    writeFileSync(join(directory, name), bytes);
    return join(directory, name);
  };

  test('the samples are those of trace-encoder.ts, and every format yields the same trace', async () => {
    const expected = eveningTrace(SAMPLE_SPEC);
    for (const [name, bytes] of Object.entries(encodeTrace(expected))) {
      expect(existsSync(join(samples, name)) && readFileSync(join(samples, name)).equals(bytes), name).toBe(true);
      const read = await readTrace(join(samples, name));
      expect(bytesOf(read), name).toEqual(bytesOf(expected));
      expect(new Set(read.requests).size, name).toBe(new Set(expected.requests).size);
    }
  });

  test('compressed traces, textual ids, reordered columns, sizes of 0 and an id with two sizes are read', async () => {
    const csv = 'op,key,time,size\nget,/a,1,10\nget,/b,2,0\nget,/a,3,10\nget,/a,4,7\n\nget,/c,5,3\n';
    for (const path of [write('odd.csv', csv), write('odd.csv.gz', gzipSync(csv))]) {
      const { requests, sizes } = await readTrace(path);
      expect([...requests]).toEqual([0, 0, 1, 2]);
      expect([...sizes]).toEqual([10, 7, 3]);
    }
  });

  test.each([
    ['cut.oracleGeneral.bin', Buffer.alloc(30, 1), /6 bytes are left over/],
    ['short.trace', '1 2 3\n4 5\n', /line 2 is no request: 4 5/],
    ['negative.csv', 'time,id,size\n1,2,-3\n', /line 2 is no request/],
    ['headless.csv', 'time,what,size\n1,2,3\n', /names no column id/],
    ['empty.csv', 'time,id,size\n', /holds no request/],
    ['packed.oracleGeneral.zst', 'x', /zstd -d/],
    ['endless.trace', '1 '.repeat(40_000), /line of more than/],
  ])('%s is rejected with the reason', async (name, content, message) => {
    await expect(readTrace(write(name, content))).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(message) as string,
    });
  });

  test('a missing file is rejected', async () => {
    await expect(readTrace(join(directory, 'none.csv'))).rejects.toMatchObject({ code: 'config_invalid' });
  });
});

/** The sizes of the requests, in order. */
const bytesOf = ({ requests, sizes }: Trace): number[] => Array.from(requests, (object) => sizes[object]!);
