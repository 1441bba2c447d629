// Admission: whether what was fetched for a viewer is stored. Pins and fills are not asked about: a plan decided already.
// Pure: no clock, no I/O; chance comes in as a seed.

import type { EvictionPolicy, StableRunId, RunShape } from './eviction.ts';
import { RotatingBloomFilter } from './bloom-filter.ts';
import { Lru } from './lru.ts';
import { Ghosts, S3Fifo } from './s3-fifo.ts';

export interface Admission {
  /** A viewer asks for an asset by this name. True: what is fetched of it may be stored. */
  admits(name: number): boolean;
  readonly memoryBytes: number;
}

export const admitAll: Admission = { admits: () => true, memoryBytes: 0 };

/**
 * Stores an asset from the second time on that somebody asks for it: what nobody asks for twice never takes the place of
 * what is. An asset of many ranges, such as a film in one file, is asked for twice by its first viewer already.
 */
export class SecondHit implements Admission {
  readonly #asked: RotatingBloomFilter;

  /** Remembers that many assets at least, and twice as many at most. */
  constructor(spec: { readonly assets: number; readonly seed: number }) {
    this.#asked = new RotatingBloomFilter({ generationNames: () => spec.assets, seed: spec.seed });
  }

  get memoryBytes(): number {
    return this.#asked.memoryBytes;
  }

  admits(name: number): boolean {
    const before = this.#asked.has(name);
    this.#asked.add(name);
    return before;
  }
}

export const ADMISSION_POLICIES = ['lru', 'second-hit', 's3-fifo'] as const;
export type AdmissionPolicy = (typeof ADMISSION_POLICIES)[number];

/** What a choice of `--admission` is made of. */
export interface DemandPolicy {
  readonly admission: Admission;
  /** One per volume. */
  readonly newPolicy: (nameOf: StableRunId) => EvictionPolicy;
}

export function demandPolicy(
  policy: AdmissionPolicy,
  spec: {
    readonly shape: RunShape;
    /** About as many as the demand share holds. */
    readonly assets: number;
    readonly seed: number;
  },
): DemandPolicy {
  const { shape, assets, seed } = spec;
  const ghosts = new Ghosts(seed);
  return {
    admission: policy === 'second-hit' ? new SecondHit({ assets, seed }) : admitAll,
    newPolicy: (name) => (policy === 's3-fifo' ? new S3Fifo({ shape, ghosts, nameOf: name }) : new Lru(shape)),
  };
}

/** A generation of the filter: 1.5 bytes an asset, twice. */
const ASSETS_MIN = 2 ** 10;
const ASSETS_MAX = 2 ** 24;
const ASSET_BYTES = 2 ** 20;

/**
 * Assets to remember for so many bytes that demand may take: one per MiB, so one to two times what fits there. Longer
 * memories admit more, write more and hit less (bench admission).
 */
export const assetsToRemember = (demandBytes: number): number =>
  Math.min(ASSETS_MAX, Math.max(ASSETS_MIN, Math.ceil(demandBytes / ASSET_BYTES)));
