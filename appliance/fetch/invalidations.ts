// Assets of which somebody told that they changed: what was asked of the origin before that tells of what is no more.

import { LRUCache } from 'lru-cache';

/** Fetches that began before a change are told apart from those after it for so long. */
const CHANGED_MS = 300_000;
const CHANGED_MAX = 50_000;

export class InvalidationEpochs {
  readonly #changed = new LRUCache<string, number>({ max: CHANGED_MAX, ttl: CHANGED_MS });
  #count = 0;

  /** How many have been told of. */
  get epoch(): number {
    return this.#count;
  }

  record(assetKeys: readonly string[]): void {
    this.#count += 1;
    for (const key of assetKeys) this.#changed.set(key, this.#count);
  }

  /** Whether the asset changed after so many changes. */
  isInvalidatedSince(assetKey: string, count: number): boolean {
    return (this.#changed.get(assetKey) ?? 0) > count;
  }
}
