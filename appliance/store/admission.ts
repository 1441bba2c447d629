// Admission: whether a miss of a viewer is stored. Pinned holdings and fills skip it, because a plan decided already.
// Pure: no clock and no I/O; randomness is passed in as a seed.

import type { EvictionPolicy, HashRun, RunGeometry } from './eviction.ts';
import { RotatingBloomFilter } from './bloom-filter.ts';
import { Lru } from './lru.ts';
import { Ghosts, S3Fifo } from './s3-fifo.ts';

export interface Admission {
  /** Records a viewer's request for the asset whose key has this hash. True: blocks fetched for it may be stored. */
  admits(keyHash: number): boolean;
  readonly memoryBytes: number;
}

export const admitAll: Admission = { admits: () => true, memoryBytes: 0 };

/**
 * Stores an asset from its second request on, so that assets requested once never displace others. An asset of many ranges,
 * such as a film in one file, is requested twice by its first viewer already.
 */
export class SecondHit implements Admission {
  readonly #requested: RotatingBloomFilter;

  /** Remembers at least `assets` of them, and at most twice as many. */
  constructor(spec: { readonly assets: number; readonly seed: number }) {
    this.#requested = new RotatingBloomFilter({ generationKeys: () => spec.assets, seed: spec.seed });
  }

  get memoryBytes(): number {
    return this.#requested.memoryBytes;
  }

  admits(keyHash: number): boolean {
    const again = this.#requested.has(keyHash);
    this.#requested.add(keyHash);
    return again;
  }
}

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
