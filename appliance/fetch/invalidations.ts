// Which assets were invalidated lately: a response that was requested from the origin before that describes what is no more.

import { LRUCache } from 'lru-cache';

/** A fetch that began before an invalidation is recognized for this long. */
const REMEMBERED_MS = 300_000;
const REMEMBERED_MAX = 50_000;

export class InvalidationEpochs {
  readonly #epochs = new LRUCache<string, number>({ max: REMEMBERED_MAX, ttl: REMEMBERED_MS });
  #epoch = 0;
  /** The epoch of the last invalidation that named no single assets. */
  #allEpoch = 0;

  /** Counts up with every invalidation. */
  get epoch(): number {
    return this.#epoch;
  }

  record(keys: readonly string[]): void {
    this.#epoch += 1;
    for (const key of keys) this.#epochs.set(key, this.#epoch);
  }

  /** Of so many assets that they are not remembered one by one: responses of others that are under way count as outdated, too. */
  recordAll(): void {
    this.#epoch += 1;
    this.#allEpoch = this.#epoch;
  }

  /** Whether the asset was invalidated after `epoch`. */
  isInvalidatedSince(key: string, epoch: number): boolean {
    return Math.max(this.#allEpoch, this.#epochs.get(key) ?? 0) > epoch;
  }
}
