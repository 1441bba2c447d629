// How the cache distributes assets over its volumes, and what it does at once when their limit has been lowered.

import { expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { until } from '../../test/waiting.ts';
import { BLOCK_BYTES, diskBytesOf, payloadOf } from '../block-file.ts';
import { Cache } from '../cache.ts';
import type { Volume } from '../volume.ts';
import { INDEX_BYTES_RESERVED } from '../volume-budget.ts';
import { MemoryVolume } from './memory-volume.ts';

/** A cache with room for this many blocks on each volume. */
const cacheOf = (blocks: number, volumes: readonly Volume[]): Cache =>
  new Cache({
    volumes,
    storeBytes: volumes.length * (INDEX_BYTES_RESERVED + blocks * diskBytesOf(BLOCK_BYTES)),
    ...{ pinned: new Set<string>(), broadcast: async () => undefined },
    ...{ clock: systemClock, counters: { add: () => undefined }, log: silentLog },
  });

const metaOf = (key: string, blocks: number) => ({
  ...{ key, version: `"${key}"`, bytes: blocks * BLOCK_BYTES, headers: {} },
  ...{ generatedAtMs: null, holding: 'film:video' },
});

test('assets that are admitted together are spread over the volumes', async () => {
  const cache = cacheOf(100, [new MemoryVolume(0), new MemoryVolume(1)]);
  const entries = await Promise.all(['/a', '/b', '/c', '/d'].map((key) => cache.ensureEntry(metaOf(key, 40))));
  expect(entries.map((entry) => entry.volume.number).toSorted((a, b) => a - b)).toEqual([0, 0, 1, 1]);
});

test('a store above a limit that was lowered is brought below it at the start, without waiting for a miss', async () => {
  const volumes = [new MemoryVolume()];
  const before = cacheOf(8, volumes);
  for (const key of ['/a', '/b', '/c', '/d']) {
    const entry = await before.ensureEntry(metaOf(key, 1));
    expect(await before.reserve(entry, BLOCK_BYTES)).toBe(true);
    await before.store(entry, 0, payloadOf(Buffer.alloc(BLOCK_BYTES)));
  }
  const after = cacheOf(2, volumes);
  const [usage] = after.usage();
  expect(usage!.demandBytes).toBeGreaterThan(2 * diskBytesOf(BLOCK_BYTES));
  await until(() => {
    const { demandBytes, removingBytes } = after.usage()[0]!;
    return demandBytes + removingBytes <= 2 * diskBytesOf(BLOCK_BYTES);
  });
  expect(after.assets).toBe(2);
});
