// A cache on volumes in memory, with upstream fetches from an origin that serves one body.

import { Readable } from 'node:stream';
import { systemClock, type Clock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { BLOCK_BYTES, diskBytesOf } from '../../store/block-file.ts';
import { Cache } from '../../store/cache.ts';
import { HeapBuffers, type BlockSlice } from '../../store/receive-buffer.ts';
import { MemoryVolume } from '../../store/test/memory-volume.ts';
import { INDEX_BYTES_RESERVED } from '../../store/volume-budget.ts';
import type { AssetMeta, Entry } from '../../store/volume.ts';
import { until } from '../../test/waiting.ts';
import { Inflight } from '../inflight.ts';
import type { Origin } from '../origin.ts';

export interface InflightRig {
  readonly cache: Cache;
  readonly inflight: Inflight;
  /** Requests that the origin got. */
  readonly requests: () => number;
}

/** `blocks` is the room on the volume; `digests` are those of the catalog, null where the asset is not catalogued. */
export function inflightRig(spec: {
  readonly blocks: number;
  readonly body: Buffer;
  readonly digests?: readonly string[];
  readonly clock?: Clock;
  /** What the origin's responses consist of, instead of the body. */
  readonly bytes?: Readable;
}): InflightRig {
  const cache = new Cache({
    volumes: [new MemoryVolume()],
    storeBytes: INDEX_BYTES_RESERVED + spec.blocks * diskBytesOf(BLOCK_BYTES),
    ...{ pinned: new Set<string>(), broadcast: async () => undefined },
    ...{ clock: systemClock, counters: { add: () => undefined }, log: silentLog },
  });
  let requests = 0;
  const origin = {
    countBytes: () => undefined,
    fetch: async (_pool: string, { first, last }: { readonly first: number; readonly last: number }) => {
      requests += 1;
      const body = spec.bytes ?? Readable.from([spec.body.subarray(first, last + 1)]);
      return { kind: 'bytes', first, last, total: spec.body.length, body };
    },
  };
  const inflight = new Inflight({
    ...{ cache, origin: origin as unknown as Origin },
    integrityOf: async () => ({ digests: spec.digests ?? null, originTag: null }),
    receive: (bytes) => new HeapBuffers().receive(bytes),
    ...{ clock: spec.clock ?? systemClock, counters: { add: () => undefined }, log: silentLog },
  });
  return { cache, inflight, requests: () => requests };
}

export const metaOf = (key: string, bytes: number, holding: string | null = null): AssetMeta => ({
  ...{ key, bytes, holding, generatedAtMs: null, version: `"${key}"`, headers: {} },
});

/** Fetches block 0 of the entry and waits until the fetch has ended. */
export async function fetchBlock(inflight: Inflight, entry: Entry): Promise<void> {
  await inflight.start(entry, { number: 0, lastWanted: 0, pool: 'fill' }).done;
  await until(() => entry.fetches === 0);
}

/** A copy of the bytes that a reader of a miss gets. */
export const bytesOf = (piece: Buffer | BlockSlice): Buffer =>
  Buffer.isBuffer(piece) ? Buffer.from(piece) : Buffer.concat(piece.buffers);
