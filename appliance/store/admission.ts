// Admission: whether a miss of a viewer is stored. Pinned holdings and fills skip it, because a plan decided already.
// Pure: no clock and no I/O; randomness is passed in as a seed. demand-policy.ts chooses between these.

import { RotatingBloomFilter } from './bloom-filter.ts';

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
