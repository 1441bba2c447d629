// What one appliance holds, kept by deltas of an incarnation's revisions; with the titles where that changed, for history.

import type { Rendition, Title } from '../protocol/catalog.ts';
import type { InventoryDelta } from '../protocol/heartbeat.ts';
import { splitHolding } from '../protocol/ids.ts';
import type { InventoryRecord } from './registry.ts';

export const HOLDINGS_MAX = 1_000_000;

/** Beyond so many changed titles that history did not take, it compares the whole inventory with what it has. */
export const CHANGED_TITLES_MAX = 10_000;

/** The state that an inventory is in: equal marks, equal holdings. */
export type InventoryMark = Pick<InventoryRecord, 'incarnation' | 'revision'>;

export class Inventory {
  readonly #byTitle = new Map<string, Set<string>>();
  /** Titles changed since history took them; null where any may have. */
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

  /** Holds nothing, and history is to compare that with what it has. */
  static doubtful(): Inventory {
    const inventory = new Inventory();
    inventory.doubt();
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
    if (delta.since === 0) this.#replace(delta.added);
    else if (this.revisionFor(incarnation) !== delta.since) return false;
    else {
      for (const holding of delta.removed) this.#note(this.#remove(holding));
      for (const holding of delta.added) this.#note(this.#add(holding));
    }
    this.#incarnation = incarnation;
    this.#revision = delta.revision;
    return true;
  }

  /** Share of the title's bytes, 0 to 1. Renditions that the title no longer has do not count. */
  share(title: Title): number {
    return shareOf(this.#byTitle.get(title.id), title.renditions);
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

  get mark(): InventoryMark {
    return { incarnation: this.#incarnation, revision: this.#revision };
  }

  /** Whether history must `compare` before it can take changes. */
  get isDoubtful(): boolean {
    return this.#changed === null;
  }

  doubt(): void {
    this.#changed = null;
  }

  /** Ends a doubt: what differs from the renditions recorded by title is changed, the rest is not. */
  compare(recorded: ReadonlyMap<string, readonly string[]>): void {
    const differs = (title: string): boolean =>
      (recorded.get(title) ?? []).join('\0') !== this.renditions(title).join('\0');
    this.#changed = new Set([...recorded.keys(), ...this.#byTitle.keys()].filter(differs));
  }

  /** Changed titles, at most so many; they count as recorded from here on. */
  takeChanged(max: number): string[] {
    const taken: string[] = [];
    for (const title of this.#changed ?? []) {
      if (taken.length >= max) break;
      taken.push(title);
    }
    for (const title of taken) this.#changed?.delete(title);
    return taken;
  }

  get hasChanged(): boolean {
    return this.#changed === null || this.#changed.size > 0;
  }

  /** An appliance that starts says again all that it holds: what it held before is no change. */
  #replace(holdings: readonly string[]): void {
    const before = new Map(this.#byTitle);
    this.#byTitle.clear();
    this.#size = 0;
    for (const holding of holdings) this.#add(holding);
    for (const title of new Set([...before.keys(), ...this.#byTitle.keys()]))
      if (!isSame(before.get(title), this.#byTitle.get(title))) this.#note(title);
  }

  #note(title: string | null): void {
    if (title === null || this.#changed === null) return;
    if (this.#changed.size < CHANGED_TITLES_MAX) this.#changed.add(title);
    else this.doubt();
  }

  /** The title, where that changed it. */
  #add(holding: string): string | null {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title) ?? new Set();
    if (held.has(rendition)) return null;
    held.add(rendition);
    this.#byTitle.set(title, held);
    this.#size += 1;
    return title;
  }

  /** The title, where that changed it. */
  #remove(holding: string): string | null {
    const { title, rendition } = splitHolding(holding);
    const held = this.#byTitle.get(title);
    if (held === undefined || !held.delete(rendition)) return null;
    this.#size -= 1;
    if (held.size === 0) this.#byTitle.delete(title);
    return title;
  }
}

/** Share of a title's bytes in what is held of it, 0 to 1. */
export function shareOf(
  held: ReadonlySet<string> | undefined,
  renditions: readonly Pick<Rendition, 'id' | 'bytes'>[],
): number {
  if (held === undefined) return 0;
  let total = 0;
  let bytes = 0;
  let count = 0;
  for (const rendition of renditions) {
    total += rendition.bytes;
    if (!held.has(rendition.id)) continue;
    bytes += rendition.bytes;
    count += 1;
  }
  if (count === renditions.length) return 1;
  return total === 0 ? 0 : bytes / total;
}

const isSame = (a: ReadonlySet<string> | undefined, b: ReadonlySet<string> | undefined): boolean =>
  (a?.size ?? 0) === (b?.size ?? 0) && [...(a ?? [])].every((rendition) => b?.has(rendition));
