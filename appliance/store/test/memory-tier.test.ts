// The memory tier: what enters it, what leaves it, and that a slot gets other bytes only when no worker may read it any more.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { RecordedCounters } from '../../test/metrics.ts';
import { noise } from '../../test/rig.ts';
import { deferred, eventLoopRounds, until } from '../../test/waiting.ts';
import { BLOCK_BYTES, payloadOf } from '../block-file.ts';
import { MemoryTier, SLOT_BYTES, type BlockName, type ResidentBlock } from '../memory-tier.ts';
import type { Entry } from '../volume.ts';
import { MemoryVolume } from './memory-volume.ts';

const SECOND_MS = 1_000;

/** A tier over memory of this process, with the view that one worker would have of it. */
class TierRig {
  readonly volume = new MemoryVolume();
  readonly memory: Buffer;
  readonly announced = new Map<string, ResidentBlock>();
  readonly counters = new RecordedCounters();
  readonly tier: MemoryTier;
  nowMs = 0;
  /** Awaited before a worker confirms. */
  confirmed: () => Promise<void> = async () => undefined;

  constructor(slots: number) {
    this.memory = Buffer.alloc(slots * SLOT_BYTES);
    const generations = new Int32Array(slots);
    this.tier = new MemoryTier({
      volumes: [this.volume],
      memory: {
        slots,
        slot: (slot) => this.memory.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES),
        generation: (slot) => generations[slot]!,
        renew: (slot) => (generations[slot]! += 1),
      },
      announce: (block) => void this.announced.set(nameOf(block), block),
      withdraw: async (blocks) => {
        await this.confirmed();
        for (const block of blocks) this.announced.delete(nameOf(block));
      },
      clock: { ...systemClock, monotonic: () => this.nowMs },
      ...{ counters: this.counters, log: silentLog, seed: 7 },
    });
  }

  async put(key: string, bytes: number): Promise<Entry> {
    const entry = this.volume.create(
      { key, version: '"v"', bytes, headers: {}, generatedAtMs: null, holding: null },
      0,
    );
    for (let number = 0; number * BLOCK_BYTES < bytes; number += 1) {
      const payload = bodyOf(entry).subarray(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
      await this.volume.write(entry, number, payloadOf(payload));
    }
    return entry;
  }

  /** What a worker would send of a block that it believes to be in the tier; null if it knows of none. */
  read(entry: Entry, number = 0): Buffer | null {
    const block = this.announced.get(nameOf({ volume: 0, id: entry.id, number }));
    if (block === undefined) return null;
    const chunks = block.slots.map((slot) => this.memory.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES));
    return Buffer.concat(chunks).subarray(0, block.bytes);
  }

  async touchTwice(entry: Entry, number = 0): Promise<void> {
    this.nowMs += SECOND_MS;
    for (let count = 0; count < 2; count += 1) this.tier.touch({ volume: 0, id: entry.id, number });
    await eventLoopRounds(4);
  }
}

const nameOf = ({ volume, id, number }: BlockName): string => `${volume}/${id}/${number}`;
const bodyOf = (entry: Entry): Buffer => noise(entry.bytes, entry.id);

test('a block enters on its second read, whole and only once', async () => {
  const rig = new TierRig(64);
  const entry = await rig.put('/film', BLOCK_BYTES + 70_000);
  rig.tier.touch({ volume: 0, id: entry.id, number: 1 });
  await eventLoopRounds(4);
  expect(rig.read(entry, 1)).toBeNull();
  for (let count = 0; count < 5; count += 1) rig.tier.touch({ volume: 0, id: entry.id, number: 1 });
  await until(() => rig.read(entry, 1) !== null);
  expect(rig.read(entry, 1)!.equals(bodyOf(entry).subarray(BLOCK_BYTES))).toBe(true);
  expect(rig.tier.bytes).toBe(2 * SLOT_BYTES);
  expect(rig.counters.value('larder_memory_blocks_total{event="filled"}')).toBe(1);
});

test('a full tier evicts what was read longest ago', async () => {
  const rig = new TierRig(3);
  const [a, b, c, d] = await Promise.all(['/a', '/b', '/c', '/d'].map((key) => rig.put(key, 50_000)));
  for (const entry of [a!, b!, c!]) await rig.touchTwice(entry);
  rig.tier.touch({ volume: 0, id: a!.id, number: 0 });
  await rig.touchTwice(d!);
  await until(() => rig.read(d!) !== null);
  expect([a!, b!, c!, d!].map((entry) => rig.read(entry) !== null)).toEqual([true, false, true, true]);
  expect(rig.read(d!)!.equals(bodyOf(d!))).toBe(true);
});

test('where more is read than fits, a full tier is replaced at 8 MiB a second, and not at every read', async () => {
  const rig = new TierRig(16);
  const entries = await Promise.all(['/a', '/b', '/c', '/d'].map((key) => rig.put(key, BLOCK_BYTES)));
  for (let count = 0; count < 80; count += 1) {
    for (const entry of entries) rig.tier.touch({ volume: 0, id: entry.id, number: 0 });
    await eventLoopRounds(4);
    rig.nowMs += SECOND_MS / 40;
  }
  const evicted = rig.counters.value('larder_memory_blocks_total{event="evicted"}');
  expect(evicted).toBeGreaterThanOrEqual(12);
  expect(evicted).toBeLessThanOrEqual(17);
});

test('an evicted slot keeps its bytes until every worker has confirmed', async () => {
  const rig = new TierRig(1);
  const [a, b] = [await rig.put('/a', 60_000), await rig.put('/b', 60_000)];
  await rig.touchTwice(a);
  const confirmation = deferred();
  rig.confirmed = () => confirmation.promise;
  await rig.touchTwice(b);
  await eventLoopRounds(10);
  expect(rig.read(a)!.equals(bodyOf(a))).toBe(true);
  confirmation.resolve();
  await until(() => rig.read(b) !== null);
  expect([rig.read(a), rig.read(b)!.equals(bodyOf(b))]).toEqual([null, true]);
});

test('a block that left the disk while it was read for the tier does not enter, and its slot is free', async () => {
  const rig = new TierRig(1);
  const [a, b] = [await rig.put('/a', 60_000), await rig.put('/b', 60_000)];
  const reading = deferred();
  const { volume } = rig;
  const read = volume.read.bind(volume);
  volume.read = async (entry, number) => {
    const payload = await read(entry, number);
    if (entry === a) await reading.promise;
    return payload;
  };
  await rig.touchTwice(a);
  await rig.volume.removeEntry(a);
  rig.tier.remove([{ volume: 0, id: a.id, number: 0 }]).done();
  reading.resolve();
  await eventLoopRounds(10);
  expect(rig.read(a)).toBeNull();
  await rig.touchTwice(b);
  await until(() => rig.read(b) !== null);
});

const RECEIVING_SLOTS = 8 * (BLOCK_BYTES / SLOT_BYTES);

/** Receives a block, as a miss does. False when there is no room for it. */
async function receive(rig: TierRig, entry: Entry, number = 0): Promise<boolean> {
  const payload = bodyOf(entry).subarray(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES);
  const buffer = rig.tier.receive(payload.length);
  if (buffer === null) return false;
  for (const [at, chunk] of buffer.chunks.entries()) payload.copy(chunk, 0, at * SLOT_BYTES);
  buffer.keep(entry, number);
  await eventLoopRounds(2);
  return true;
}

test('a block that has arrived is there for its next readers, stays when it is read again, and else makes room for the next', async () => {
  // Room for two blocks that arrive.
  const rig = new TierRig(2 * RECEIVING_SLOTS);
  const entries = await Promise.all(Array.from({ length: 8 }, (_, at) => rig.put(`/${at}`, BLOCK_BYTES - at)));
  const [again] = entries;
  expect(await receive(rig, again!)).toBe(true);
  expect(rig.read(again!)!.equals(bodyOf(again!))).toBe(true);
  rig.tier.touch({ volume: 0, id: again!.id, number: 0 });
  await eventLoopRounds(4);
  for (const entry of entries.slice(1)) expect(await receive(rig, entry)).toBe(true);
  const resident = entries.filter((entry) => rig.read(entry) !== null);
  expect(resident).toContain(again);
  expect(resident).toContain(entries.at(-1));
  expect(resident.length).toBeLessThanOrEqual(3);
  for (const entry of resident) expect(rig.read(entry)!.equals(bodyOf(entry))).toBe(true);
  expect(rig.tier.bytes).toBeLessThanOrEqual(3 * BLOCK_BYTES);
});

test('without room a block is received elsewhere, and what is let go is room again', async () => {
  const rig = new TierRig(RECEIVING_SLOTS);
  const [first, second] = [rig.tier.receive(BLOCK_BYTES), rig.tier.receive(1)];
  expect([first === null, second]).toEqual([false, null]);
  expect(first!.chunks.reduce((sum, { length }) => sum + length, 0)).toBe(BLOCK_BYTES);
  first!.release();
  expect(rig.tier.bytes).toBe(0);
  expect(rig.tier.receive(1)!.chunks[0]!.length).toBe(1);
  expect(new TierRig(RECEIVING_SLOTS - 1).tier.receive(1)).toBeNull();
});

test('the slots of a received block that leaves get other bytes only once it is confirmed, which its readers can tell', async () => {
  const rig = new TierRig(RECEIVING_SLOTS);
  const [a, b] = [await rig.put('/a', BLOCK_BYTES), await rig.put('/b', BLOCK_BYTES)];
  const buffer = rig.tier.receive(BLOCK_BYTES)!;
  buffer.keep(a, 0);
  const { done } = rig.tier.remove([{ volume: 0, id: a.id, number: 0 }]);
  expect([await receive(rig, b), buffer.holds(0)]).toEqual([false, true]);
  done();
  expect([await receive(rig, b), buffer.holds(0)]).toEqual([true, false]);
});

test('blocks that arrive at the same time and fill their share make room for the next ones all the same', async () => {
  const rig = new TierRig(2 * RECEIVING_SLOTS);
  const [a, b, c] = await Promise.all(['/a', '/b', '/c'].map((key) => rig.put(key, BLOCK_BYTES)));
  const buffers = [rig.tier.receive(BLOCK_BYTES), rig.tier.receive(BLOCK_BYTES)];
  buffers[0]!.keep(a!, 0);
  buffers[1]!.keep(b!, 0);
  expect(rig.tier.receive(BLOCK_BYTES)).toBeNull();
  await eventLoopRounds(4);
  expect(await receive(rig, c!)).toBe(true);
  expect(rig.read(c!)!.equals(bodyOf(c!))).toBe(true);
});

test('a block that has left the disk when it is kept does not enter', async () => {
  const rig = new TierRig(RECEIVING_SLOTS);
  const a = await rig.put('/a', BLOCK_BYTES);
  const buffer = rig.tier.receive(BLOCK_BYTES)!;
  await rig.volume.removeEntry(a);
  buffer.keep(a, 0);
  expect([rig.announced.size, rig.tier.bytes]).toEqual([0, 0]);
});

test('whatever is read, removed and confirmed in any order, what a worker finds in the tier is right', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(fc.constantFrom('touch', 'touch', 'touch', 'receive', 'receive', 'remove', 'confirm'), fc.nat(5)),
        {
          maxLength: 120,
        },
      ),
      async (acts) => {
        const rig = new TierRig(RECEIVING_SLOTS + 7);
        const entries = await Promise.all(
          Array.from({ length: 6 }, (_, at) => rig.put(`/${at}`, 40_000 + at * 45_000)),
        );
        let waiting: (() => void)[] = [];
        rig.confirmed = () => new Promise((resolve) => waiting.push(resolve));
        const confirm = (): void => {
          for (const resolve of waiting) resolve();
          waiting = [];
        };
        for (const [act, at] of acts) {
          const entry = entries[at]!;
          const block = { volume: 0, id: entry.id, number: 0 };
          rig.nowMs += SECOND_MS;
          if (act === 'touch') rig.tier.touch(block);
          else if (act === 'receive') await receive(rig, entry);
          else if (act === 'confirm') confirm();
          else if (!entry.removed) {
            await rig.volume.removeEntry(entry);
            const { done } = rig.tier.remove([block]);
            // The worker is told, and confirms.
            rig.announced.delete(nameOf(block));
            done();
            entries[at] = await rig.put(`/${at}`, 40_000 + at * 45_000);
          }
          await eventLoopRounds(1);
          for (const each of entries) expect(rig.read(each)?.equals(bodyOf(each)) ?? true).toBe(true);
        }
        confirm();
      },
    ),
    { numRuns: 40 },
  );
});
