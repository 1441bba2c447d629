// The orders of eviction against naive ones that say the same in a few lines, the table under them against a Map, and what
// they take of memory.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DISK_RUNS, runKey, type EvictionPolicy, type RunKey } from '../eviction.ts';
import { Lru } from '../lru.ts';
import { newList, RunTable } from '../run-table.ts';
import { Ghosts, S3Fifo } from '../s3-fifo.ts';

const UNIT = DISK_RUNS.unitBytes;

interface NaiveRun {
  readonly key: RunKey;
  bytes: number;
  touches: number;
  epoch: number;
}

/** Front of the array is the newest. */
class NaiveLru {
  runs: NaiveRun[] = [];

  add(key: RunKey, bytes: number): void {
    const run = this.runs.find((each) => each.key === key) ?? { key, bytes: 0, touches: 0, epoch: 0 };
    run.bytes += bytes;
    this.runs = [run, ...this.runs.filter((each) => each !== run)];
  }

  subtract(key: RunKey, bytes: number): void {
    for (const run of this.runs) if (run.key === key) run.bytes -= bytes;
    this.runs = this.runs.filter((run) => run.bytes > 0);
  }

  touch(key: RunKey): void {
    this.runs = [...this.runs.filter((run) => run.key === key), ...this.runs.filter((run) => run.key !== key)];
  }

  evict(): RunKey | null {
    return this.runs.pop()?.key ?? null;
  }
}

class NaiveS3Fifo {
  small: NaiveRun[] = [];
  main: NaiveRun[] = [];
  readonly ghosts = new Set<RunKey>();
  epoch = 0;
  epochBytes = 0;
  evicted = false;

  get runs(): NaiveRun[] {
    return [...this.small, ...this.main];
  }

  add(key: RunKey, bytes: number): void {
    this.epochBytes += bytes;
    if (this.epochBytes >= sum(this.runs) / 100) {
      this.epoch += 1;
      this.epochBytes = 0;
    }
    const known = this.runs.find((run) => run.key === key);
    if (known !== undefined) known.bytes += bytes;
    else {
      const queue = this.ghosts.has(key) || (!this.evicted && this.#isSmallFull()) ? this.main : this.small;
      queue.unshift({ key, bytes, touches: 0, epoch: this.epoch });
    }
  }

  subtract(key: RunKey, bytes: number): void {
    for (const run of this.runs) if (run.key === key) run.bytes -= bytes;
    this.small = this.small.filter((run) => run.bytes > 0);
    this.main = this.main.filter((run) => run.bytes > 0);
  }

  touch(key: RunKey): void {
    const run = this.runs.find((each) => each.key === key);
    if (run === undefined || run.epoch === this.epoch) return;
    run.touches = Math.min(3, run.touches + 1);
    run.epoch = this.epoch;
  }

  evict(): RunKey | null {
    this.evicted = true;
    while (this.runs.length > 0) {
      if (this.small.length > 0 && (this.main.length === 0 || this.#isSmallFull())) {
        const run = this.small.pop()!;
        if (run.touches < 2) {
          this.ghosts.add(run.key);
          return run.key;
        }
        this.main.unshift({ ...run, touches: 0 });
      } else {
        const run = this.main.pop()!;
        if (run.touches === 0) return run.key;
        this.main.unshift({ ...run, touches: run.touches - 1 });
      }
    }
    return null;
  }

  #isSmallFull(): boolean {
    return sum(this.small) > 0.1 * sum(this.runs);
  }
}

const sum = (runs: readonly NaiveRun[]): number => runs.reduce((bytes, run) => bytes + run.bytes, 0);

const ORDERS = {
  lru: () => ({ order: new Lru(DISK_RUNS) as EvictionPolicy, naive: new NaiveLru() }),
  's3-fifo': () => ({
    order: new S3Fifo({ shape: DISK_RUNS, ghosts: new Ghosts(7), nameOf: (key) => key }) as EvictionPolicy,
    naive: new NaiveS3Fifo(),
  }),
};

describe.each(Object.entries(ORDERS))('%s', (_, make) => {
  test('property: evicts what a naive model evicts, and counts what it counts', () => {
    const step = fc.record({
      act: fc.constantFrom('add', 'add', 'add', 'touch', 'touch', 'subtract', 'evict'),
      id: fc.integer({ min: 1, max: 30 }),
      block: fc.constantFrom(0, 8),
      units: fc.integer({ min: 1, max: 40 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const { order, naive } = make();
        for (const { act, id, block, units } of steps) {
          const key = runKey(id, block);
          const held = naive.runs.find((run) => run.key === key)?.bytes ?? 0;
          if (act === 'add' && held + units * UNIT <= DISK_RUNS.runBytesMax) {
            order.add(key, units * UNIT);
            naive.add(key, units * UNIT);
          } else if (act === 'subtract') {
            const bytes = Math.min(held, units * UNIT);
            order.subtract(key, bytes);
            naive.subtract(key, bytes);
          } else if (act === 'touch') {
            order.touch(key);
            naive.touch(key);
          } else if (act === 'evict') expect(order.evict()).toBe(naive.evict());
          expect([order.bytes, order.runs]).toEqual([sum(naive.runs), naive.runs.length]);
        }
        while (naive.runs.length > 0) expect(order.evict()).toBe(naive.evict());
        expect([order.evict(), order.bytes, order.runs]).toEqual([null, 0, 0]);
      }),
      { numRuns: 200 },
    );
  });

  test('a run that is not in the order is neither touched nor taken from', () => {
    const { order } = make();
    order.touch(runKey(1, 0));
    order.subtract(runKey(1, 0), UNIT);
    expect([order.bytes, order.runs, order.evict()]).toEqual([0, 0, null]);
  });
});

test('what left the small queue unasked and comes back is in no hurry to leave again', () => {
  const order = new S3Fifo({ shape: DISK_RUNS, ghosts: new Ghosts(7), nameOf: (key) => key % 1_000 });
  for (let id = 1; id <= 100; id += 1) order.add(id, UNIT);
  order.evict();
  order.add(101, UNIT);
  order.add(102, UNIT);
  const gone = order.evict()!;
  // Under another id, as an asset that was dropped and fetched again.
  order.add(gone + 1_000, UNIT);
  const left = Array.from({ length: 101 }, () => order.evict());
  expect(left.at(-1)).toBe(gone + 1_000);
});

test('many touches of one moment count once: one viewer does not carry a run into the main queue', () => {
  const order = new S3Fifo({ shape: DISK_RUNS, ghosts: new Ghosts(7), nameOf: () => null });
  for (let id = 1; id <= 1_000; id += 1) order.add(id, UNIT);
  order.evict();
  order.add(2_000, UNIT);
  for (let touch = 0; touch < 10; touch += 1) order.touch(2_000);
  for (let id = 3_000; id < 3_200; id += 1) {
    order.add(id, UNIT);
    if (order.evict() === 2_000) return;
  }
  throw new Error('it stayed');
});

test('an eviction among runs that were all asked for ends, and ends soon', () => {
  const order = new S3Fifo({ shape: DISK_RUNS, ghosts: new Ghosts(7), nameOf: () => null });
  for (let id = 1; id <= 100_000; id += 1) order.add(id, UNIT);
  for (let epoch = 0; epoch < 4; epoch += 1) {
    for (let id = 1; id <= 100_000; id += 1) order.touch(id);
    for (let id = 0; id < 3_000; id += 1) order.add(200_000 + epoch * 3_000 + id, UNIT);
  }
  const before = performance.now();
  expect(order.evict()).not.toBeNull();
  expect(performance.now() - before).toBeLessThan(100);
});

test('the table finds what a Map finds, whatever comes and goes', () => {
  const table = new RunTable(DISK_RUNS);
  const list = newList();
  const known = new Map<RunKey, number>();
  let state = 1;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  let wrong = 0;
  for (let step = 0; step < 200_000; step += 1) {
    const key = runKey(2 ** 32 - 1 - random(20_000), random(2) * 8 * (2 ** 21 - 1));
    const slot = known.get(key);
    if (table.find(key) !== (slot ?? 0)) wrong += 1;
    if (slot === undefined) {
      const fresh = table.insert(key);
      table.link(list, fresh);
      known.set(key, fresh);
    } else if (random(2) === 0) {
      table.unlink(list, slot);
      table.remove(slot);
      known.delete(key);
    }
  }
  for (const [key, slot] of known) if (table.find(key) !== slot || table.key(slot) !== key) wrong += 1;
  expect([wrong, table.runs]).toEqual([0, known.size]);
});

test('a run takes at most 24 bytes, at whatever fill of the table', () => {
  const before = process.memoryUsage().arrayBuffers;
  const order = new Lru(DISK_RUNS);
  let most = 0;
  for (let id = 1; id <= 400_000; id += 1) {
    order.add(runKey(id, 0), UNIT);
    if (id >= 100_000 && id % 1_000 === 0) most = Math.max(most, order.memoryBytes / id);
  }
  expect(most).toBeLessThanOrEqual(24.5);
  expect(order.memoryBytes / 400_000).toBeLessThanOrEqual(24);
  expect(process.memoryUsage().arrayBuffers - before).toBeGreaterThan(order.memoryBytes / 2);
});
