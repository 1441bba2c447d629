// The sums of one volume: what its blocks take, what is promised, reserved or on its way out, and the order in which blocks
// leave.

import { DISK_RUNS, runAsset, runFirstBlock, type EvictionPolicy, type StableRunId, type RunKey } from './eviction.ts';
import { hashKey, hashPart } from './bloom-filter.ts';
import { Lru } from './lru.ts';
import type { Volume } from './volume.ts';

/** Left to the index of each volume from the start, so that its growth never breaks the budget. */
export const INDEX_BYTES_RESERVED = 12 * 2 ** 20;

export interface VolumeBudget {
  readonly volume: Volume;
  readonly policy: EvictionPolicy;
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

export interface VolumeUsage {
  readonly volume: number;
  readonly directory: string;
  readonly limitBytes: number;
  readonly pinnedBytes: number;
  readonly demandBytes: number;
  readonly reservedBytes: number;
  readonly leavingBytes: number;
  readonly indexBytes: number;
}

export function newVolumeBudget(
  volume: Volume,
  limitBytes: number,
  newOrder?: (nameOf: StableRunId) => EvictionPolicy,
): VolumeBudget {
  return {
    volume,
    policy: newOrder?.((run) => nameIn(volume, run)) ?? new Lru(DISK_RUNS),
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
  return entry === undefined ? null : hashPart(hashKey(entry.key), runFirstBlock(run));
}

export const usageOf = (budget: VolumeBudget): VolumeUsage => ({
  volume: budget.volume.number,
  directory: budget.volume.directory,
  limitBytes: budget.limitBytes,
  pinnedBytes: budget.pinnedBytes,
  demandBytes: budget.policy.bytes,
  reservedBytes: budget.reservedBytes,
  leavingBytes: budget.leavingBytes,
  indexBytes: budget.volume.indexBytes(),
});

export function freeBytes(budget: VolumeBudget): number {
  const index = Math.max(INDEX_BYTES_RESERVED, budget.volume.indexBytes());
  return (
    budget.limitBytes - index - budget.pinnedBytes - budget.policy.bytes - budget.reservedBytes - budget.leavingBytes
  );
}
