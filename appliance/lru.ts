// Which blocks go first: least recently used, over runs of blocks, by bytes. It names victims and deletes nothing.
//
// A run is eight consecutive blocks of one asset, so that a film of 10 GB is 1,250 entries, not 10,000. lru-cache keeps
// the order; its own size limit is never reached, because the limit here moves with what is pinned.

import { LRUCache } from 'lru-cache';

export const RUN_BLOCKS = 8;
const RUNS_PER_ASSET = 2 ** 21;

/** One safe integer for (asset id, run): ids up to 2³², assets up to 16 TiB. */
export type RunKey = number;
export const runKey = (id: number, block: number): RunKey => id * RUNS_PER_ASSET + Math.floor(block / RUN_BLOCKS);
export const runAsset = (key: RunKey): number => Math.floor(key / RUNS_PER_ASSET);
export const runFirstBlock = (key: RunKey): number => (key % RUNS_PER_ASSET) * RUN_BLOCKS;

export class Lru {
  readonly #runs = new LRUCache<RunKey, number>({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: (bytes) => bytes,
  });

  /** Bytes that could be evicted. */
  get bytes(): number {
    return this.#runs.calculatedSize;
  }

  /** Counts bytes to a run and makes it the most recently used. */
  add(key: RunKey, bytes: number): void {
    this.#runs.set(key, (this.#runs.peek(key) ?? 0) + bytes);
  }

  subtract(key: RunKey, bytes: number): void {
    const left = (this.#runs.peek(key) ?? 0) - bytes;
    if (left <= 0) this.#runs.delete(key);
    else this.#runs.set(key, left);
  }

  touch(key: RunKey): void {
    this.#runs.get(key);
  }

  /** Takes the least recently used run out, or returns null where there is none. */
  evict(): RunKey | null {
    const [oldest] = this.#runs.rkeys();
    if (oldest === undefined) return null;
    this.#runs.delete(oldest);
    return oldest;
  }
}
