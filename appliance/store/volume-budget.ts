// The sums of one volume: what its blocks take, what is promised, reserved or on its way out, and the order in which blocks
// leave.

import { DISK_RUNS, runAsset, runFirstBlock, type EvictionOrder, type NameOf, type RunKey } from './eviction.ts';
import { nameOf, partOf } from './bloom-filter.ts';
import { Lru } from './lru.ts';
import type { Volume } from './volume.ts';

/** Left to the index of each volume from the start, so that its growth never breaks the budget. */
export const INDEX_BYTES_RESERVED = 12 * 2 ** 20;

export interface Book {
  readonly volume: Volume;
  readonly order: EvictionOrder;
  readonly limitBytes: number;
  /** What its catalogued assets take once they are whole. */
  promisedBytes: number;
  pinnedBytes: number;
  reservedBytes: number;
  /** Unlinked, but perhaps still open in a worker. */
  leavingBytes: number;
  readonly leaving: Set<Promise<void>>;
  /** Reservations take turns. */
  queue: Promise<unknown>;
}

export interface VolumeUse {
  readonly volume: number;
  readonly directory: string;
  readonly limitBytes: number;
  readonly pinnedBytes: number;
  readonly demandBytes: number;
  readonly reservedBytes: number;
  readonly leavingBytes: number;
  readonly indexBytes: number;
}

export function newBook(volume: Volume, limitBytes: number, newOrder?: (nameOf: NameOf) => EvictionOrder): Book {
  return {
    volume,
    order: newOrder?.((run) => nameIn(volume, run)) ?? new Lru(DISK_RUNS),
    limitBytes,
    promisedBytes: 0,
    pinnedBytes: 0,
    reservedBytes: 0,
    leavingBytes: 0,
    leaving: new Set(),
    queue: Promise.resolve(),
  };
}

/** Until its asset is dropped. */
function nameIn(volume: Volume, run: RunKey): number | null {
  const entry = volume.entry(runAsset(run));
  return entry === undefined ? null : partOf(nameOf(entry.key), runFirstBlock(run));
}

export const useOf = (book: Book): VolumeUse => ({
  volume: book.volume.number,
  directory: book.volume.directory,
  limitBytes: book.limitBytes,
  pinnedBytes: book.pinnedBytes,
  demandBytes: book.order.bytes,
  reservedBytes: book.reservedBytes,
  leavingBytes: book.leavingBytes,
  indexBytes: book.volume.indexBytes(),
});

export function freeBytes(book: Book): number {
  const index = Math.max(INDEX_BYTES_RESERVED, book.volume.indexBytes());
  return book.limitBytes - index - book.pinnedBytes - book.order.bytes - book.reservedBytes - book.leavingBytes;
}
