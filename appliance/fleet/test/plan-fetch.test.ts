// A fill keeps as many ranges under way as its plan allows, whether they are of one big asset or of many small ones.

import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import type { CatalogAsset } from '../../../protocol/catalog.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { Inflight } from '../../fetch/inflight.ts';
import type { Origin } from '../../fetch/origin.ts';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import { Cache } from '../../store/cache.ts';
import { HeapBuffers, type ReceiveBuffer } from '../../store/receive-buffer.ts';
import { MemoryVolume } from '../../store/test/memory-volume.ts';
import { RecordedCounters } from '../../test/metrics.ts';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds } from '../../test/waiting.ts';
import type { Catalog } from '../catalog.ts';
import { FillProgressTracker } from '../fill-progress.ts';
import { PlanFetch } from '../plan-fetch.ts';

const CONCURRENCY = 4;
const HOLDING = 'film:video';

/** Fills assets of these sizes, and returns the most requests that the origin had at once. */
async function fill(sizes: readonly number[]): Promise<{ readonly most: number; readonly held: number }> {
  const bodies = new Map(sizes.map((bytes, at) => [`/film/${at}`, noise(bytes, at + 1)]));
  let [active, most] = [0, 0];
  const origin = {
    countBytes: () => undefined,
    fetch: async (_pool: string, { key, first, last }: { key: string; first: number; last: number }) => {
      active += 1;
      most = Math.max(most, active);
      await eventLoopRounds(20);
      active -= 1;
      const body = bodies.get(key)!;
      return {
        ...{ kind: 'bytes', first, last, total: body.length, unstorable: null },
        body: Readable.from([body.subarray(first, last + 1)]),
      };
    },
  } as unknown as Origin;
  const assets = [...bodies].map(([path, body]): CatalogAsset => {
    const chunks: string[] = [];
    for (let at = 0; at < body.length; at += BLOCK_BYTES)
      chunks.push(
        createHash('sha256')
          .update(body.subarray(at, at + BLOCK_BYTES))
          .digest('hex'),
      );
    return {
      ...{ path, bytes: body.length, etag: `"${path}"`, validator: 'origin', rendition: 'video', lastModified: null },
      ...{ contentType: 'video/mp4', digest: { root: chunks[0]!, chunks } },
    };
  });
  const common = { clock: systemClock, counters: new RecordedCounters(), log: silentLog };
  const cache = new Cache({
    ...{ volumes: [new MemoryVolume()], storeBytes: 2 ** 30, pinned: new Set<string>() },
    broadcast: async () => undefined,
    ...common,
  });
  const find = (path: string): CatalogAsset => assets.find((asset) => asset.path === path)!;
  const integrityOf = async ({ key }: { key: string }) => ({ digests: find(key).digest.chunks, originTag: `"${key}"` });
  const receive = (each: number): ReceiveBuffer => new HeapBuffers().receive(each);
  const inflight = new Inflight({ cache, origin, integrityOf, isPlanned: () => true, receive, ...common });
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const plan = {
    ...{ protocol: 1 as const, id: 'p1', run: 'r1', appliance: 'box', closesAt: null, keep: [], remove: [] },
    ...{ rateBitsPerSecond: null, concurrency: CONCURRENCY, addBytes: bytes },
    add: [{ holding: HOLDING, bytes, assets: sizes.length, score: 1 }],
  } as unknown as ConstructorParameters<typeof FillProgressTracker>[0];
  const heldBytes = (holding: string): number => cache.heldBytes(holding);
  const tracker = new FillProgressTracker(plan, { appliance: 'box', heldBytes, clock: systemClock });
  const catalog = {
    assetsOf: async () => assets,
    get: async (path: string) => ({ asset: find(path), title: 'film' }),
  } as unknown as Catalog;
  await new PlanFetch({
    ...{ plan, tracker, planBytes: 2 ** 30, rateBitsPerSecond: null, cache, inflight, catalog },
    ...{ isPinned: () => false, pin: async () => undefined, stopped: () => false },
    ...common,
  }).run();
  expect(tracker.complete).toBe(true);
  return { most, held: cache.heldBytes(HOLDING) };
}

test('one big asset is fetched in as many ranges at once as many small ones', async () => {
  const big = [70 * BLOCK_BYTES + 5];
  const small = Array.from({ length: 40 }, () => 50_000);
  expect(await fill(big)).toEqual({ most: CONCURRENCY, held: big[0] });
  expect(await fill(small)).toEqual({ most: CONCURRENCY, held: 40 * 50_000 });
});
