// What one appliance holds, updated by deltas that are numbered within an incarnation. It also tracks the titles that changed
// since history last recorded them.

import type { Rendition, Title } from '../protocol/catalog.ts';
import type { InventoryDelta } from '../protocol/heartbeat.ts';
import { splitHolding } from '../protocol/ids.ts';
import type { InventoryRecord } from './registry.ts';

export const HOLDINGS_MAX = 1_000_000;

/** With more unrecorded titles than this, history compares the whole inventory instead. */
export const CHANGED_TITLES_MAX = 10_000;

/** Two states of an inventory with equal versions have equal holdings. */
export type InventoryVersion = Pick<InventoryRecord, 'incarnation' | 'revision'>;

export class Inventory {
  readonly #byTitle = new Map<string, Set<string>>();
  /** Titles whose changes are not recorded yet; null if that is unknown and only a comparison can tell. */
  #changed: Set<string> | null = new Set();
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

  /** An empty inventory that history compares with what it has recorded. */
  static emptyUncompared(): Inventory {
    const inventory = new Inventory();
    inventory.requireComparison();
    return inventory;
  }

  get size(): number {
    return this.#size;
  }

  /** Null if nothing of this incarnation was received, so that it must send its whole inventory. */
  revisionFor(incarnation: string): number | null {
    return this.#incarnation === incarnation ? this.#revision : null;
  }

  /**
   * Applies a delta, or returns false if it does not follow from the current revision. The holdings of an earlier incarnation
   * stay until the new one has reported its own, because the disk is the same.
   */
  apply(incarnation: string, delta: InventoryDelta): boolean {
    if (delta.since === 0) this.#replace(delta.added);
    else if (this.revisionFor(incarnation) !== delta.since) return false;
    else {
      for (const holding of delta.removed) this.#markChanged(this.#remove(holding));
      for (const holding of delta.added) this.#markChanged(this.#add(holding));
    }
    this.#incarnation = incarnation;
    this.#revision = delta.revision;
    return true;
  }

  /** Share of the title's bytes that are held, 0 to 1. Renditions that the title no longer has do not count. */
  heldShare(title: Title): number {
    return heldShare(this.#byTitle.get(title.id), title.renditions);
  }

  /** Held renditions of the title, sorted. */
  renditions(title: string): string[] {
    return [...(this.#byTitle.get(title) ?? [])].sort();
  }

  holdings(): string[] {
    return [...this.#byTitle].flatMap(([title, held]) => [...held].map((rendition) => `${title}:${rendition}`)).sort();
  }

  record(appliance: string): InventoryRecord {
    return { appliance, incarnation: this.#incarnation, revision: this.#revision, holdings: this.holdings() };
  }

  get version(): InventoryVersion {
    return { incarnation: this.#incarnation, revision: this.#revision };
  }

  /** Whether history must call `compareWith` before it can record changes. */
  get needsComparison(): boolean {
    return this.#changed === null;
  }

  requireComparison(): void {
    this.#changed = null;
  }

  /** Marks exactly those titles changed whose renditions differ from the recorded ones. */
  compareWith(recorded: ReadonlyMap<string, readonly string[]>): void {
    const differs = (title: string): boolean =>
      (recorded.get(title) ?? []).join('\0') !== this.renditions(title).join('\0');
    this.#changed = new Set([...recorded.keys(), ...this.#byTitle.keys()].filter(differs));
  }

  /** Returns at most `max` changed titles, which count as recorded from here on. */
  drainChangedTitles(max: number): string[] {
    const drained: string[] = [];
    for (const title of this.#changed ?? []) {
      if (drained.length >= max) break;
      drained.push(title);
    }
    for (const title of drained) this.#changed?.delete(title);
    return drained;
  }

  get hasUnrecordedChanges(): boolean {
    return this.#changed === null || this.#changed.size > 0;
  }

  /** An appliance that starts reports its whole inventory; holdings that it reported before are not changes. */
  #replace(holdings: readonly string[]): void {
    const before = new Map(this.#byTitle);
    this.#byTitle.clear();
    this.#size = 0;
    for (const holding of holdings) this.#add(holding);
    for (const title of new Set([...before.keys(), ...this.#byTitle.keys()]))
      if (!isSameSet(before.get(title), this.#byTitle.get(title))) this.#markChanged(title);
  }

  #markChanged(title: string | null): void {
    if (title === null || this.#changed === null) return;
    if (this.#changed.size < CHANGED_TITLES_MAX) this.#changed.add(title);
    else this.requireComparison();
  }

  /** Returns the title, or null if the holding was there already. */
  #add(holding: string): string | null {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title) ?? new Set();
    if (held.has(rendition)) return null;
    held.add(rendition);
    this.#byTitle.set(title, held);
    this.#size += 1;
    return title;
  }

  /** Returns the title, or null if the holding was not there. */
  #remove(holding: string): string | null {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title);
    if (held === undefined || !held.delete(rendition)) return null;
    this.#size -= 1;
    if (held.size === 0) this.#byTitle.delete(title);
    return title;
  }
}

/** Share of a title's bytes in the held renditions, 0 to 1; exactly 1 only if all are held. */
export function heldShare(
  held: ReadonlySet<string> | undefined,
  renditions: readonly Pick<Rendition, 'id' | 'bytes'>[],
): number {
  if (held === undefined) return 0;
  let totalBytes = 0;
  let heldBytes = 0;
  let heldCount = 0;
  for (const rendition of renditions) {
    totalBytes += rendition.bytes;
    if (!held.has(rendition.id)) continue;
    heldBytes += rendition.bytes;
    heldCount += 1;
  }
  if (heldCount === renditions.length) return 1;
  return totalBytes === 0 ? 0 : heldBytes / totalBytes;
}

const isSameSet = (a: ReadonlySet<string> | undefined, b: ReadonlySet<string> | undefined): boolean =>
  (a?.size ?? 0) === (b?.size ?? 0) && [...(a ?? [])].every((rendition) => b?.has(rendition));
