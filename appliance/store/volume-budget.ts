// The accounts of one volume: bytes pinned, evictable, promised, reserved and being removed, and its eviction policy.

import { mutex } from '../../runtime/semaphore.ts';
import {
  DISK_RUN_GEOMETRY,
  runAsset,
  runFirstBlock,
  type EvictionPolicy,
  type HashRun,
  type RunKey,
} from './eviction-policy.ts';
import { hashKey, hashPart } from './bloom-filter.ts';
import { Lru } from './lru.ts';
import type { Volume } from './volume.ts';

/** Set aside for the index of each volume from the start, so that its growth never breaks the budget. */
export const INDEX_BYTES_RESERVED = 12 * 2 ** 20;

export interface VolumeBudget {
  readonly volume: Volume;
  readonly policy: EvictionPolicy;
  readonly limitBytes: number;
  /** What its catalogued assets will take once all their blocks are present. */
  promisedBytes: number;
  pinnedBytes: number;
  reservedBytes: number;
  /** Blocks that are being unlinked, or are unlinked and perhaps still open in a worker. */
  removingBytes: number;
  /** Evictions under way. */
  readonly evictions: Set<Promise<void>>;
  /** Serialises reservations: each sees what the one before it left free. */
  readonly exclusively: <T>(task: () => Promise<T>) => Promise<T>;
}

export interface VolumeUsage {
  readonly volume: number;
  readonly directory: string;
  readonly limitBytes: number;
  readonly pinnedBytes: number;
  readonly demandBytes: number;
  readonly reservedBytes: number;
  readonly removingBytes: number;
  readonly indexBytes: number;
}

export function newVolumeBudget(
  volume: Volume,
  limitBytes: number,
  newPolicy?: (hashRun: HashRun) => EvictionPolicy,
): VolumeBudget {
  return {
    volume,
    policy: newPolicy?.((run) => hashRunOf(volume, run)) ?? new Lru(DISK_RUN_GEOMETRY),
    limitBytes,
    promisedBytes: 0,
    pinnedBytes: 0,
    reservedBytes: 0,
    removingBytes: 0,
    evictions: new Set(),
    exclusively: mutex(),
  };
}

/** Null once the asset was removed. */
function hashRunOf(volume: Volume, run: RunKey): number | null {
  const entry = volume.entry(runAsset(run));
  return entry === undefined ? null : hashPart(hashKey(entry.key), runFirstBlock(run));
}

export const usageOf = (budget: VolumeBudget): VolumeUsage => ({
  volume: budget.volume.number,
  directory: budget.volume.directory,
  limitBytes: budget.limitBytes,
  pinnedBytes: budget.pinnedBytes,
  demandBytes: budget.policy.bytes,
  reservedBytes: budget.reservedBytes,
  removingBytes: budget.removingBytes,
  indexBytes: budget.volume.indexBytes(),
});

export function freeBytes(budget: VolumeBudget): number {
  const index = Math.max(INDEX_BYTES_RESERVED, budget.volume.indexBytes());
  return (
    budget.limitBytes - index - budget.pinnedBytes - budget.policy.bytes - budget.reservedBytes - budget.removingBytes
  );
}
