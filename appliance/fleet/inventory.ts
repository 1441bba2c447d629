// What this appliance holds, as revisions and deltas. A holding is held when every byte of every asset of the rendition is
// on disk. Derived from the cache at each beat, so that it cannot drift from it.

import type { Title } from '../../protocol/catalog.ts';
import { INVENTORY_DELTA_MAX, type InventoryDelta } from '../../protocol/heartbeat.ts';
import { holdingOf, type HoldingId } from '../../protocol/ids.ts';

export interface InventoryDeps {
  readonly titles: () => Iterable<Title>;
  readonly heldBytes: (holding: HoldingId) => number;
}

/** Holdings whose bytes are all there. */
export function currentInventory(deps: InventoryDeps): Set<HoldingId> {
  const held = new Set<HoldingId>();
  for (const title of deps.titles()) {
    for (const rendition of title.renditions) {
      const holding = holdingOf(title.id, rendition.id);
      if (rendition.bytes > 0 && deps.heldBytes(holding) >= rendition.bytes) held.add(holding);
    }
  }
  return held;
}

/** Counts a revision up whenever the set changes, and remembers what one receiver has. One per receiver. */
export class InventoryLog {
  #revision = 0;
  #current: ReadonlySet<HoldingId> = new Set();
  #acknowledged: { readonly revision: number; readonly held: ReadonlySet<HoldingId> } | null = null;
  #sent: { readonly revision: number; readonly held: ReadonlySet<HoldingId> } | null = null;

  get revision(): number {
    return this.#revision;
  }

  /** What to send with the next beat; null where the receiver has everything. */
  delta(held: ReadonlySet<HoldingId>): InventoryDelta | null {
    if (!sameSet(held, this.#current) || this.#revision === 0) {
      this.#revision += 1;
      this.#current = held;
    }
    if (this.#acknowledged?.revision === this.#revision) return null;
    const base = this.#acknowledged ?? { revision: 0, held: new Set<HoldingId>() };
    const added = [...held].filter((holding) => !base.held.has(holding)).slice(0, INVENTORY_DELTA_MAX);
    const removed = [...base.held].filter((holding) => !held.has(holding)).slice(0, INVENTORY_DELTA_MAX);
    const reached = new Set(base.held);
    for (const holding of added) reached.add(holding);
    for (const holding of removed) reached.delete(holding);
    // A delta that had to be cut names a revision of its own; the rest follows with the next beat.
    if (!sameSet(reached, held)) {
      this.#current = reached;
    }
    this.#sent = { revision: this.#revision, held: reached };
    return { since: base.revision, revision: this.#revision, added, removed };
  }

  /** The receiver's word on what it has; anything unexpected starts again from nothing. */
  acknowledge(revision: number | null): void {
    if (revision !== null && this.#sent?.revision === revision) this.#acknowledged = this.#sent;
    else if (revision !== this.#acknowledged?.revision) this.#acknowledged = null;
  }
}

function sameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a.size !== b.size) return false;
  for (const item of a) if (!b.has(item)) return false;
  return true;
}
