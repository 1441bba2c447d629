// What `--admission` selects: the admission and the eviction policy of the demand share, which is the part of a store that plans may
// not pin. `lru` and `s3-fifo` admit everything and evict by that policy; `second-hit` admits at the second request and evicts by LRU.

import { admitAll, SecondHit, type Admission } from './admission.ts';
import type { EvictionPolicy, HashRun, RunGeometry } from './eviction-policy.ts';
import { Lru } from './lru.ts';
import { Ghosts, S3Fifo } from './s3-fifo.ts';

export const ADMISSION_POLICIES = ['lru', 'second-hit', 's3-fifo'] as const;
export type AdmissionPolicy = (typeof ADMISSION_POLICIES)[number];

/** The admission and the eviction policy that a value of `--admission` selects. */
export interface DemandPolicy {
  readonly admission: Admission;
  /** Called once per volume. */
  readonly newPolicy: (hashRun: HashRun) => EvictionPolicy;
}

export function demandPolicy(
  policy: AdmissionPolicy,
  spec: {
    readonly geometry: RunGeometry;
    /** About as many as the demand share holds. */
    readonly assets: number;
    readonly seed: number;
  },
): DemandPolicy {
  const { geometry, assets, seed } = spec;
  const ghosts = new Ghosts(seed);
  return {
    admission: policy === 'second-hit' ? new SecondHit({ assets, seed }) : admitAll,
    newPolicy: (hashRun) => (policy === 's3-fifo' ? new S3Fifo({ geometry, ghosts, hashRun }) : new Lru(geometry)),
  };
}

/** A generation of the filter takes 1.5 bytes per asset, and there are two. */
const ASSETS_MIN = 2 ** 10;
const ASSETS_MAX = 2 ** 24;
const ASSET_BYTES = 2 ** 20;

/**
 * How many assets to remember for a demand share of this size: one per MiB, so one to two times what fits there. Longer
 * memories admit more, write more and hit less (bench admission).
 */
export const assetsToRemember = (demandBytes: number): number =>
  Math.min(ASSETS_MAX, Math.max(ASSETS_MIN, Math.ceil(demandBytes / ASSET_BYTES)));
