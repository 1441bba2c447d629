// The accounts of the cache: budget, eviction, pins, and reservations that wait for workers.

import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { Fault } from '../../../protocol/faults.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { BLOCK_BYTES, blockBytes, blockCount, diskBytesOf, payloadOf } from '../block-file.ts';
import { INDEX_BYTES_RESERVED } from '../volume-budget.ts';
import { Cache, type BroadcastRemoval } from '../cache.ts';
import type { Entry, Volume } from '../volume.ts';
import { MemoryVolume } from './memory-volume.ts';

const BLOCK_ON_DISK = diskBytesOf(BLOCK_BYTES);

function cacheOf(spec: {
  readonly blocks: number;
  readonly pinned?: ReadonlySet<string>;
  readonly broadcast?: BroadcastRemoval;
  readonly volumes?: number | readonly Volume[];
}): Cache {
  const { volumes: given = 1 } = spec;
  const volumes = typeof given === 'number' ? Array.from({ length: given }, (_, at) => new MemoryVolume(at)) : given;
  return new Cache({
    volumes,
    storeBytes: volumes.length * (INDEX_BYTES_RESERVED + spec.blocks * BLOCK_ON_DISK),
    pinned: spec.pinned ?? new Set(),
    broadcast: spec.broadcast ?? (async () => undefined),
    clock: systemClock,
    counters: { add: () => undefined },
    log: silentLog,
  });
}

const metaOf = (key: string, blocks: number, holding: string | null = null) => ({
  key,
  version: '"v"',
  bytes: blocks * BLOCK_BYTES,
  headers: {},
  generatedAtMs: null,
  holding,
});

async function put(cache: Cache, entry: Entry, number: number): Promise<boolean> {
  const bytes = blockBytes(entry.bytes, number);
  if (!(await cache.reserve(entry, bytes))) return false;
  await cache.store(entry, number, payloadOf(Buffer.alloc(bytes)));
  return true;
}

const total = (cache: Cache): number =>
  cache
    .usage()
    .reduce((sum, use) => sum + use.pinnedBytes + use.demandBytes + use.reservedBytes + use.removingBytes, 0);

test('the least recently used asset is evicted first, a touched one stays', async () => {
  const cache = cacheOf({ blocks: 3 });
  const [a, b, c, d] = await Promise.all(['/a', '/b', '/c', '/d'].map((key) => cache.ensureEntry(metaOf(key, 1))));
  for (const entry of [a!, b!, c!]) expect(await put(cache, entry, 0)).toBe(true);
  cache.touch({ volume: 0, id: a!.id, number: 0 });
  expect(await put(cache, d!, 0)).toBe(true);
  expect(cache.find('/b')).toBeNull();
  expect(['/a', '/c', '/d'].every((key) => cache.find(key)!.blocks.has(0))).toBe(true);
});

test('property: entries that a volume has at start are accounted as if stored block by block, to the byte', async () => {
  const assets = fc.record({
    bytes: fc.integer({ min: 1, max: 40 * BLOCK_BYTES }),
    holding: fc.constantFrom(null, 't:pinned', 't:free'),
    blocks: fc.uniqueArray(fc.nat(39), { maxLength: 40 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(assets, { maxLength: 5 }), async (list) => {
      const volumes = [new MemoryVolume()];
      const pinned = new Set(['t:pinned']);
      const cache = cacheOf({ blocks: 200, pinned, volumes });
      for (const [at, { bytes, holding, blocks }] of list.entries()) {
        const entry = await cache.ensureEntry({ ...metaOf(`/${at}`, 1, holding), bytes });
        for (const number of blocks) if (number < blockCount(bytes)) await put(cache, entry, number);
        if (entry.blocks.count === 0) await cache.removeEntry(entry);
      }
      const restarted = cacheOf({ blocks: 200, pinned, volumes });
      const accounts = (each: Cache): unknown => [each.usage(), each.heldBytes('t:pinned'), each.heldBytes('t:free')];
      expect(accounts(restarted)).toEqual(accounts(cache));
      for (const entry of [...restarted.entries()]) await restarted.removeEntry(entry);
      expect(restarted.usage()).toMatchObject([{ pinnedBytes: 0, demandBytes: 0 }]);
    }),
    { numRuns: 40 },
  );
});

test('pinned blocks are never evicted; a reservation is refused when only pinned blocks are left', async () => {
  const cache = cacheOf({ blocks: 2, pinned: new Set(['t:video']) });
  const pinned = await cache.ensureEntry(metaOf('/pinned', 2, 't:video'));
  expect(await put(cache, pinned, 0)).toBe(true);
  expect(await put(cache, pinned, 1)).toBe(true);
  const other = await cache.ensureEntry(metaOf('/other', 1));
  expect(await put(cache, other, 0)).toBe(false);
  cache.setPinned(new Set());
  expect(await put(cache, other, 0)).toBe(true);
  expect(other.blocks.has(0)).toBe(true);
});

test('evicted bytes count against the budget until every worker has closed them', async () => {
  let closed = (): void => undefined;
  const cache = cacheOf({
    blocks: 1,
    broadcast: () =>
      new Promise((resolve) => {
        closed = resolve;
      }),
  });
  const a = await cache.ensureEntry(metaOf('/a', 1));
  await put(cache, a, 0);
  const b = await cache.ensureEntry(metaOf('/b', 1));
  let granted = false;
  const reserved = cache.reserve(b, BLOCK_BYTES).then((reserved) => (granted = reserved));
  await new Promise((resolve) => setImmediate(resolve));
  expect(granted).toBe(false);
  expect(cache.usage()[0]!.removingBytes).toBe(BLOCK_ON_DISK);
  closed();
  expect(await reserved).toBe(true);
  expect(cache.usage()[0]!.removingBytes).toBe(0);
});

test('workers are told to close evicted blocks also if the index cannot be written', async () => {
  const broadcast = vi.fn<BroadcastRemoval>(async () => undefined);
  const cache = cacheOf({ blocks: 1, broadcast });
  const a = await cache.ensureEntry(metaOf('/a', 1));
  await put(cache, a, 0);
  const removeEntry = a.volume.removeEntry.bind(a.volume);
  a.volume.removeEntry = async (entry) => {
    await removeEntry(entry);
    throw new Fault('disk_full', 'no space left on device');
  };
  await cache.removeEntry(a);
  expect(broadcast).toHaveBeenCalledWith({ keys: ['/a'], blocks: [{ volume: 0, id: a.id, number: 0 }] });
  expect(cache.usage()[0]!.removingBytes).toBe(0);
});

test('an entry of another version of a key replaces the first', async () => {
  const cache = cacheOf({ blocks: 4 });
  const first = await cache.ensureEntry(metaOf('/a', 1));
  await put(cache, first, 0);
  const second = await cache.ensureEntry({ ...metaOf('/a', 1), version: '"w"' });
  expect(first.removed).toBe(true);
  expect(cache.find('/a')).toBe(second);
  expect(total(cache)).toBe(0);
});

test('held bytes of a holding follow every block that is stored or removed', async () => {
  const cache = cacheOf({ blocks: 4 });
  const entry = await cache.ensureEntry({ ...metaOf('/a', 1, 't:video'), bytes: BLOCK_BYTES + 10 });
  await put(cache, entry, 0);
  await put(cache, entry, 1);
  expect(cache.heldBytes('t:video')).toBe(BLOCK_BYTES + 10);
  await cache.discardBlock(entry, 1);
  expect(cache.heldBytes('t:video')).toBe(BLOCK_BYTES);
  await cache.removeEntry(entry);
  expect(cache.heldBytes('t:video')).toBe(0);
});

test('property: through any stores, touches, pins and removals the budget holds and the accounts equal the blocks', async () => {
  const step = fc.record({
    act: fc.constantFrom('put', 'put', 'put', 'touch', 'remove', 'pin', 'unpin'),
    asset: fc.integer({ min: 0, max: 7 }),
    block: fc.integer({ min: 0, max: 11 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 80 }), fc.integer({ min: 1, max: 2 }), async (steps, volumes) => {
      const cache = cacheOf({ blocks: 10, volumes });
      const limit = cache.usage().reduce((sum, use) => sum + use.limitBytes - INDEX_BYTES_RESERVED, 0);
      let pinned = new Set<string>();
      for (const { act, asset, block } of steps) {
        const key = `/asset-${asset}`;
        if (act === 'put') {
          const entry = await cache.ensureEntry(metaOf(key, 12, `t:${asset}`));
          if (!entry.blocks.has(block)) await put(cache, entry, block);
        } else if (act === 'touch') {
          const entry = cache.find(key);
          if (entry !== null) cache.touch({ volume: entry.volume.number, id: entry.id, number: block });
        } else if (act === 'remove') {
          const entry = cache.find(key);
          if (entry !== null) await cache.removeEntry(entry);
        } else {
          pinned = new Set(pinned);
          if (act === 'pin') pinned.add(`t:${asset}`);
          else pinned.delete(`t:${asset}`);
          cache.setPinned(pinned);
        }
        let bytes = 0;
        for (const entry of cache.entries())
          for (const number of entry.blocks) bytes += diskBytesOf(blockBytes(entry.bytes, number));
        expect(total(cache)).toBe(bytes);
        expect(bytes).toBeLessThanOrEqual(limit);
      }
    }),
    { numRuns: 60 },
  );
});

test('property: the blocks of an asset cover its bytes exactly', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 * BLOCK_BYTES }), (bytes) => {
      let sum = 0;
      for (let number = 0; number < blockCount(bytes); number += 1) sum += blockBytes(bytes, number);
      expect(sum).toBe(bytes);
    }),
  );
});
