// The bench that decides about admission must itself be right: capacity is kept, nobody is better than Belady, Belady is
// the best there is, LRU is what theory says, and a recorded trace is read as it was written.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { packageRoot } from '../../runtime/paths.ts';
import { admission, CHE, contestOf, lruBesideChe, scoresOf } from '../admission.ts';
import { belady } from '../belady.ts';
import { meetsBar } from '../bench.ts';
import { cheHitRatio } from '../che.ts';
import { Fifo, Sieve } from '../orders.ts';
import { EXACT_RUNS, footprintOf, runsOf, RUN_BYTES } from '../replay.ts';
import { readTrace } from '../trace-file.ts';
import { filesOf, SAMPLE } from '../trace-maker.ts';
import { evening, zipfAndScan, zipfShares, type Trace } from '../trace.ts';

const traceOf = (requests: readonly number[], sizes: readonly number[]): Trace => ({
  name: 'made up',
  requests: Uint32Array.from(requests),
  sizes: Float64Array.from(sizes),
});

describe('replay', () => {
  test('property: on any trace nobody passes the capacity, and nobody hits more bytes than Belady', () => {
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
        const contest = contestOf(made, share * footprintOf(made));
        const { belady: best, ...others } = scoresOf(contest);
        expect(best!.bytesMost).toBeLessThanOrEqual(contest.capacityBytes);
        for (const [name, score] of Object.entries(others)) {
          expect(score.bytesMost, name).toBeLessThanOrEqual(contest.capacityBytes);
          expect(score.bytes, name).toBeLessThanOrEqual(best!.bytes + 1e-12);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('property: no choice at all, of what to take in and what to let go, hits more than Belady', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 9 }),
        fc.integer({ min: 1, max: 3 }),
        (requests, capacityBytes) => {
          const trace = traceOf(requests, [1, 1, 1, 1]);
          const { bytes } = belady({ trace, runs: runsOf(trace), capacityBytes });
          expect(Math.round(bytes * requests.length)).toBe(mostHits(requests, [], capacityBytes));
        },
      ),
      { numRuns: 300 },
    );
  });

  test('walks over what nobody asks for again: second-hit hits no less than LRU and writes a third of it', () => {
    const spec = { objects: 2_000, alpha: 0.9, requests: 60_000, every: 2_000, scan: 1_000, seed: 4 };
    const { lru, 'second-hit': second } = scoresOf(contestOf(zipfAndScan(spec), spec.objects));
    expect(second!.objects).toBeGreaterThanOrEqual(lru!.objects);
    expect(second!.written).toBeLessThan(lru!.written / 3);
  });
});

test('every bar of the bench is met in small, and each can be missed', async () => {
  const { findings } = await admission.run({ ...admission.small, evening: 10_000 }, () => undefined);
  const barred = findings.filter(({ bar }) => bar !== null);
  expect(barred.filter((finding) => !meetsBar(finding))).toEqual([]);
  expect(barred.every((finding) => !meetsBar({ ...finding, larder: 25 }))).toBe(true);
});

/** By trying everything. */
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

  test.each(CHE.map((point, at) => ({ ...point, hits: published[at]! })))(
    'zipf $alpha of $percent % hits $hits',
    ({ alpha, percent, hits }) => {
      expect(cheHitRatio(zipfShares(10_000, alpha), 100 * percent)).toBeCloseTo(hits, 4);
      const { measured } = lruBesideChe({ alpha, percent, objects: 10_000, requests: 500_000 });
      expect(Math.abs(measured - hits)).toBeLessThanOrEqual(0.005);
    },
  );
});

describe('orders to compare with', () => {
  const steps = fc.array(
    fc.record({ act: fc.constantFrom('add', 'touch', 'evict', 'subtract'), key: fc.integer({ min: 1, max: 12 }) }),
    { maxLength: 200 },
  );

  test('property: FIFO and SIEVE evict what naive ones evict', () => {
    fc.assert(
      fc.property(steps, fc.boolean(), (acts, spares) => {
        const order = spares ? new Sieve(EXACT_RUNS) : new Fifo(EXACT_RUNS);
        // Oldest first; the hand stands at the one to be looked at next.
        let line: { readonly key: number; asked: boolean }[] = [];
        let hand = 0;
        const leave = (at: number): void => {
          line = line.toSpliced(at, 1);
          if (at < hand) hand -= 1;
          // Behind the newest comes the oldest, whatever is added meanwhile.
          if (hand >= line.length) hand = 0;
        };
        for (const { act, key } of acts) {
          const at = line.findIndex((each) => each.key === key);
          if (act === 'add' && at === -1) {
            order.add(key, 1);
            line = [...line, { key, asked: false }];
          } else if (act === 'touch') {
            order.touch(key);
            if (at !== -1 && spares) line[at]!.asked = true;
          } else if (act === 'subtract') {
            order.subtract(key, 1);
            if (at !== -1) leave(at);
          } else if (act === 'evict') {
            let expected: number | null = null;
            if (line.length > 0) {
              if (!spares || hand >= line.length) hand = 0;
              for (; line[hand]!.asked; hand = (hand + 1) % line.length) line[hand]!.asked = false;
              expected = line[hand]!.key;
              leave(hand);
            }
            expect(order.evict()).toBe(expected);
          }
          expect(order.runs).toBe(line.length);
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

  test('the samples are what the script makes, and every format says the same', async () => {
    const made = evening(SAMPLE);
    for (const [name, bytes] of Object.entries(filesOf(made))) {
      expect(existsSync(join(samples, name)) && readFileSync(join(samples, name)).equals(bytes), name).toBe(true);
      const read = await readTrace(join(samples, name));
      expect(bytesOf(read), name).toEqual(bytesOf(made));
      expect(new Set(read.requests).size, name).toBe(new Set(made.requests).size);
    }
  });

  test('a packed trace, ids that are words, columns in another order, sizes of 0, and an id of two sizes', async () => {
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
  ])('%s is refused with what is wrong', async (name, content, message) => {
    await expect(readTrace(write(name, content))).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringMatching(message) as string,
    });
  });

  test('a file that is not there is named', async () => {
    await expect(readTrace(join(directory, 'none.csv'))).rejects.toMatchObject({ code: 'config_invalid' });
  });
});

/** Sizes in the order of the requests. */
const bytesOf = ({ requests, sizes }: Trace): number[] => Array.from(requests, (object) => sizes[object]!);
