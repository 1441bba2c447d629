// The inventory of this appliance, as revisions and deltas. A holding is in it when every byte of every asset of the rendition is
// on disk. It is derived from the cache for each heartbeat, so the two cannot drift apart.

import type { Title } from '../../protocol/catalog.ts';
import { INVENTORY_DELTA_MAX, type InventoryDelta } from '../../protocol/heartbeat.ts';
import { holdingOf, type HoldingId } from '../../protocol/ids.ts';

export interface InventoryDeps {
  readonly titles: () => Iterable<Title>;
  readonly heldBytes: (holding: HoldingId) => number;
}

/** Holdings of which all bytes are on disk. */
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

/** One revision of an inventory. */
interface Snapshot {
  readonly revision: number;
  readonly held: ReadonlySet<HoldingId>;
}

/** Numbers the revisions of the inventory and tracks which one a receiver has. Each receiver needs its own. */
export class InventoryLog {
  #revision = 0;
  #current: ReadonlySet<HoldingId> = new Set();
  /** What the receiver has; null if unknown. */
  #acknowledged: Snapshot | null = null;
  /** What the receiver will have if it accepts the last delta. */
  #sent: Snapshot | null = null;

  get revision(): number {
    return this.#revision;
  }

  /** The delta for the next heartbeat; null if the receiver is up to date. */
  delta(held: ReadonlySet<HoldingId>): InventoryDelta | null {
    if (!sameSet(held, this.#current) || this.#revision === 0) {
      this.#revision += 1;
      this.#current = held;
    }
    if (this.#acknowledged?.revision === this.#revision) return null;
    const base: Snapshot = this.#acknowledged ?? { revision: 0, held: new Set() };
    const added = [...held].filter((holding) => !base.held.has(holding)).slice(0, INVENTORY_DELTA_MAX);
    const removed = [...base.held].filter((holding) => !held.has(holding)).slice(0, INVENTORY_DELTA_MAX);
    const result = new Set(base.held);
    for (const holding of added) result.add(holding);
    for (const holding of removed) result.delete(holding);
    // A delta over the limit is cut and counts as a revision of its own. The rest follows with the next heartbeat.
    if (!sameSet(result, held)) this.#current = result;
    this.#sent = { revision: this.#revision, held: result };
    return { since: base.revision, revision: this.#revision, added, removed };
  }

  /** Records which revision the receiver says that it has. An unexpected one causes a full inventory in the next heartbeat. */
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
