// The port of eviction: an order over runs of blocks that knows how many bytes could leave and names what leaves next. It
// deletes nothing, has no clock and does no I/O, so the bench replays traces through the very code that serves.
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

/** What sizes of runs are multiples of, and the largest: two bytes a size are enough on disk. */
export interface RunShape {
  readonly unitBytes: number;
  readonly runBytesMax: number;
}

export const DISK_RUNS: RunShape = { unitBytes: HEAD_BYTES, runBytesMax: RUN_BLOCKS * diskBytesOf(BLOCK_BYTES) };

/** A number for a run that stays when its asset leaves and comes back under another id; null where nobody knows the run. */
export type StableRunId = (key: RunKey) => number | null;

export interface EvictionPolicy {
  /** Bytes that could be evicted. */
  readonly bytes: number;
  readonly runs: number;
  /** What the order itself takes of memory, to the array. */
  readonly memoryBytes: number;
  /** So many runs are about to be added: room is made for them at once. */
  reserve(runs: number): void;
  /** Counts bytes to a run. */
  add(key: RunKey, bytes: number): void;
  /** The same for a run that is not in the order yet: nobody has to look for it. */
  append(key: RunKey, bytes: number): void;
  /** Takes bytes off a run; the last ones take it out. A run that is not in the order stays out. */
  subtract(key: RunKey, bytes: number): void;
  /** The run was asked for again. */
  touch(key: RunKey): void;
  /** Takes the next run out, or returns null where there is none. */
  evict(): RunKey | null;
}
