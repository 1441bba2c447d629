// What one appliance holds, kept by deltas of an incarnation's revisions.

import type { Title } from '../protocol/catalog.ts';
import type { InventoryDelta } from '../protocol/heartbeat.ts';
import { splitHolding } from '../protocol/ids.ts';
import type { InventoryRecord } from './registry.ts';

export const HOLDINGS_MAX = 1_000_000;

export class Inventory {
  readonly #byTitle = new Map<string, Set<string>>();
  #size = 0;
  #incarnation = '';
  #revision = 0;

  static from(record: InventoryRecord): Inventory {
    const inventory = new Inventory();
    inventory.#incarnation = record.incarnation;
    inventory.#revision = record.revision;
    for (const holding of record.holdings) inventory.#add(holding);
    return inventory;
  }

  get size(): number {
    return this.#size;
  }

  /** Null where nothing of this incarnation is known: it must send everything. */
  revisionFor(incarnation: string): number | null {
    return this.#incarnation === incarnation ? this.#revision : null;
  }

  /**
   * True when it was applied; false when it does not follow from what is known. What an earlier incarnation held stays
   * until the new one has said what it holds: the disk is the same.
   */
  apply(incarnation: string, delta: InventoryDelta): boolean {
    if (delta.since === 0) {
      this.#byTitle.clear();
      this.#size = 0;
    } else if (this.revisionFor(incarnation) !== delta.since) return false;
    for (const holding of delta.removed) this.#remove(holding);
    for (const holding of delta.added) this.#add(holding);
    this.#incarnation = incarnation;
    this.#revision = delta.revision;
    return true;
  }

  /** Share of the title's bytes, 0 to 1. Renditions that the title no longer has do not count. */
  share(title: Title): number {
    const held = this.#byTitle.get(title.id);
    if (held === undefined) return 0;
    let total = 0;
    let bytes = 0;
    let count = 0;
    for (const rendition of title.renditions) {
      total += rendition.bytes;
      if (!held.has(rendition.id)) continue;
      bytes += rendition.bytes;
      count += 1;
    }
    if (count === title.renditions.length) return 1;
    return total === 0 ? 0 : bytes / total;
  }

  holdings(): string[] {
    return [...this.#byTitle].flatMap(([title, held]) => [...held].map((rendition) => `${title}:${rendition}`)).sort();
  }

  record(appliance: string): InventoryRecord {
    return { appliance, incarnation: this.#incarnation, revision: this.#revision, holdings: this.holdings() };
  }

  #add(holding: string): void {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title) ?? new Set();
    if (held.has(rendition)) return;
    held.add(rendition);
    this.#byTitle.set(title, held);
    this.#size += 1;
  }

  #remove(holding: string): void {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title);
    if (held === undefined || !held.delete(rendition)) return;
    this.#size -= 1;
    if (held.size === 0) this.#byTitle.delete(title);
  }
}
