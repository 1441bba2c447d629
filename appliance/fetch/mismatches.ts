// Blocks whose bytes at the origin are not those of the catalog. The origin is not asked for such a block again for a while: each viewer
// of the title would have it send a mebibyte that nobody may see. Their holdings make the appliance yellow until the title is imported
// again or the origin has the right bytes.

import { LRUCache } from 'lru-cache';
import { CAUSE_CHARS_MAX } from '../../protocol/heartbeat.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Entry } from '../store/volume.ts';

const PAUSE_MS = 10_000;
const ASSETS_MAX = 10_000;
/** Holdings that are named to the operator. */
const NAMED_MAX = 3;

interface Mismatch {
  readonly version: string;
  readonly holding: HoldingId | null;
  /** By number, until when the origin is not asked for the block, monotonic. */
  readonly blocks: Map<number, number>;
}

export class Mismatches {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #assets = new LRUCache<string, Mismatch>({ max: ASSETS_MAX });

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  mark(entry: Entry, number: number): void {
    // The catalog may have got another version of it meanwhile.
    if (entry.removed) return;
    const { key, version, holding } = entry;
    const mismatch = this.#find(entry) ?? { version, holding, blocks: new Map<number, number>() };
    mismatch.blocks.set(number, this.#clock.monotonic() + PAUSE_MS);
    this.#assets.set(key, mismatch);
  }

  /** The block has been found right. */
  clear(entry: Entry, number: number): void {
    const mismatch = this.#find(entry);
    if (mismatch?.blocks.delete(number) === true && mismatch.blocks.size === 0) this.#assets.delete(entry.key);
  }

  /** The catalog has another version of the asset, or none. */
  forget(key: string): void {
    this.#assets.delete(key);
  }

  isPaused(entry: Entry, number: number): boolean {
    return (this.#find(entry)?.blocks.get(number) ?? 0) > this.#clock.monotonic();
  }

  /** Holdings with blocks that differ. */
  holdings(): Set<HoldingId> {
    return new Set([...this.#assets.values()].flatMap(({ holding }) => holding ?? []));
  }

  /** What the operator should know; null when nothing differs. */
  healthCause(): string | null {
    const names = [...this.holdings()].sort();
    if (names.length === 0) return null;
    const more = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : '';
    const named = names.slice(0, NAMED_MAX).join(', ');
    return `the origin's bytes are not the catalog's: ${named}${more}`.slice(0, CAUSE_CHARS_MAX);
  }

  #find({ key, version }: Entry): Mismatch | undefined {
    const mismatch = this.#assets.get(key);
    return mismatch?.version === version ? mismatch : undefined;
  }
}
