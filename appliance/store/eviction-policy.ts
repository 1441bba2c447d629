// The interface of an eviction policy: it orders runs of blocks, knows how many bytes it can evict and names the next victim. lru.ts is
// the default, s3-fifo.ts what `--admission s3-fifo` selects (demand-policy.ts). Pinned blocks are never given to a policy.
//
// A policy deletes nothing, has no clock and does no I/O, so the bench replays traces through the code that serves. `Cache.#evict` in
// cache.ts asks it for victims, and `DiskVolume.#unlinkAfter` in disk-volume.ts unlinks their block files.
//
// A run is eight consecutive blocks of one asset, so that a film of 10 GB is 1,250 entries, not 10,000.

import { BLOCK_BYTES, diskBytesOf, HEAD_BYTES } from './block-file.ts';

export const RUN_BLOCKS = 8;
const RUNS_PER_ASSET = 2 ** 21;

/** One safe integer for (asset id, run): ids up to 2³², assets up to 16 TiB. */
export type RunKey = number;
export const runKey = (id: number, block: number): RunKey => id * RUNS_PER_ASSET + Math.floor(block / RUN_BLOCKS);
export const runAsset = (key: RunKey): number => Math.floor(key / RUNS_PER_ASSET);
export const runFirstBlock = (key: RunKey): number => (key % RUNS_PER_ASSET) * RUN_BLOCKS;

/** Bounds on the size of a run, from which a table chooses how many bytes it spends on a size. */
export interface RunGeometry {
  /** Every size is a multiple of this. */
  readonly unitBytes: number;
  readonly runBytesMax: number;
}

export const DISK_RUN_GEOMETRY: RunGeometry = {
  unitBytes: HEAD_BYTES,
  runBytesMax: RUN_BLOCKS * diskBytesOf(BLOCK_BYTES),
};

/**
 * A hash of the asset's key and the run's position, the same after the asset was removed and fetched again under another id.
 * Null for a run of an unknown asset.
 */
export type HashRun = (key: RunKey) => number | null;

export interface EvictionPolicy {
  /** Bytes that can be evicted. */
  readonly bytes: number;
  readonly runs: number;
  /** Memory that the policy itself takes, measured from its arrays. */
  readonly memoryBytes: number;
  /** Announces that about this many runs are to be added, so that tables grow once. */
  reserve(runs: number): void;
  /** Adds bytes to a run, which is inserted if it is new. */
  add(key: RunKey, bytes: number): void;
  /** Like `add`, for a run that is known to be new: it is not looked up first. */
  append(key: RunKey, bytes: number): void;
  /** Subtracts bytes from a run, which is removed with its last byte. Unknown runs are ignored. */
  subtract(key: RunKey, bytes: number): void;
  /** Records a request for the run. Unknown runs are ignored. */
  touch(key: RunKey): void;
  /** Removes the next victim and returns it, or null where the policy is empty. */
  evict(): RunKey | null;
}
