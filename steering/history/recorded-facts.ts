// What history has on disk of the present, so that only what differs from it is written: appliances by comparing them,
// titles by the catalog's revision, holdings by the titles that each inventory says have changed.

import { z } from 'zod';
import type { Title } from '../../protocol/catalog.ts';
import type { Catalog } from '../catalog.ts';
import type { Fleet } from '../fleet.ts';
import type { Change, Reading } from './store.ts';
import { Inventory, type InventoryMark } from '../inventory.ts';
import { applianceFact, FACT, lastOf, MAP_CHARS_MAX, type ApplianceFact, type GroundFact } from './replay.ts';

/** The two clocks drift apart, and a lease ends once. */
const LEASE_END_SLACK_MS = 2_000;

/** What is compared with. */
export interface Now {
  readonly fleet: Pick<Fleet, 'facts' | 'inventories'>;
  readonly catalog: Pick<Catalog, 'revision' | 'titles' | 'find'>;
  readonly ground: GroundFact;
  readonly mapText: string | null;
}

export interface Difference {
  readonly changes: readonly Change[];
  readonly notes: ReadonlyMap<string, unknown>;
  /** Whether everything is in it; what is not comes with the next. */
  readonly whole: boolean;
  /** To be called once it is on disk. */
  taken(): void;
}

interface RecordedTitle {
  /** The object that was compared last: the catalog makes a new one for each change. */
  readonly title: Title | null;
  readonly text: string;
}

const mark = z.object({ incarnation: z.string(), revision: z.number() });

export class Recorded {
  readonly #appliances: Map<string, ApplianceFact>;
  readonly #titles: Map<string, RecordedTitle>;
  /** States of inventories that are wholly on disk. */
  readonly #marks: Map<string, InventoryMark>;
  #catalog: number | null;
  /** As text, for comparison. */
  #ground: string;
  /** Inventories that were held against their mark. */
  readonly #marked = new WeakSet<Inventory>();
  /** Empty inventories of appliances that the fleet forgot, until their holdings have ended here too. */
  readonly #leaving = new Map<string, Inventory>();

  private constructor(given: {
    readonly appliances: Map<string, ApplianceFact>;
    readonly titles: Map<string, RecordedTitle>;
    readonly marks: Map<string, InventoryMark>;
    readonly catalog: number | null;
    readonly ground: string;
  }) {
    this.#appliances = given.appliances;
    this.#titles = given.titles;
    this.#marks = given.marks;
    this.#catalog = given.catalog;
    this.#ground = given.ground;
  }

  static async load(reading: Reading): Promise<Recorded> {
    const appliances = await reading.values(FACT.appliance(''), Infinity);
    const titles = await reading.values(FACT.title(''), Infinity);
    return new Recorded({
      appliances: new Map([...appliances].map(([fact, value]) => [lastOf(fact), applianceFact.parse(value)])),
      titles: new Map([...titles].map(([fact, value]) => [lastOf(fact), { title: null, text: JSON.stringify(value) }])),
      marks: new Map([...(await reading.notes())].map(([name, value]) => [name, mark.parse(value)])),
      catalog: z
        .number()
        .nullable()
        .parse(await reading.value(FACT.catalog, Infinity)),
      ground: JSON.stringify(await reading.value(FACT.ground, Infinity)),
    });
  }

  /** Inventories of which it is not known what history has of them: not as their mark says, as after a kill. */
  doubtful({ fleet }: Now): [string, Inventory][] {
    return this.#inventories(fleet).filter(([appliance, inventory]) => {
      if (!this.#marked.has(inventory) && !isSameMark(this.#marks.get(appliance), inventory.mark)) inventory.doubt();
      this.#marked.add(inventory);
      return inventory.isDoubtful;
    });
  }

  /** Compares them title by title, until it is enough. */
  async compare(
    doubtful: readonly (readonly [string, Inventory])[],
    reading: Reading,
    enough: () => boolean,
  ): Promise<void> {
    for (const [appliance, inventory] of doubtful) {
      if (enough()) return;
      const held = await reading.values(FACT.held(appliance, ''), Infinity);
      inventory.compare(new Map([...held].map(([fact, list]) => [lastOf(fact), list as string[]])));
    }
  }

  /** What differs now, in at most so many changes. */
  difference(now: Now, changesMax: number): Difference {
    const draft = new Draft(changesMax);
    this.#putAppliances(draft, now.fleet.facts());
    this.#putGround(draft, now);
    this.#putTitles(draft, now.catalog);
    this.#putHoldings(draft, now.fleet);
    return draft;
  }

  #putAppliances(draft: Draft, facts: ReadonlyMap<string, ApplianceFact>): void {
    for (const [appliance, fact] of facts) {
      const before = this.#appliances.get(appliance);
      if (before === undefined || !isSameAppliance(before, fact))
        draft.put(FACT.appliance(appliance), fact, () => this.#appliances.set(appliance, fact));
    }
    for (const appliance of this.#appliances.keys())
      if (!facts.has(appliance)) draft.put(FACT.appliance(appliance), null, () => this.#appliances.delete(appliance));
    // It may come back under this name one day, holding something else.
    for (const appliance of this.#marks.keys()) {
      if (facts.has(appliance)) this.#leaving.delete(appliance);
      else if (!this.#leaving.has(appliance)) this.#leaving.set(appliance, Inventory.doubtful());
    }
  }

  #putGround(draft: Draft, { ground, mapText }: Now): void {
    const text = JSON.stringify(ground);
    if (text === this.#ground) return;
    const before = JSON.parse(this.#ground) as GroundFact | null;
    if ((before?.map ?? null) !== ground.map)
      draft.put(FACT.map, mapText !== null && mapText.length <= MAP_CHARS_MAX ? mapText : null);
    draft.put(FACT.ground, ground, () => (this.#ground = text));
  }

  #putTitles(draft: Draft, catalog: Now['catalog']): void {
    if (catalog.revision === this.#catalog) return;
    for (const title of catalog.titles) {
      const before = this.#titles.get(title.id);
      if (before?.title === title) continue;
      const fact = { renditions: title.renditions.map(({ id, bytes }) => ({ id, bytes })) };
      const text = JSON.stringify(fact);
      const remember = (): unknown => this.#titles.set(title.id, { title, text });
      if (before?.text === text) remember();
      else draft.put(FACT.title(title.id), fact, remember);
    }
    for (const id of this.#titles.keys())
      if (catalog.find(id) === null) draft.put(FACT.title(id), null, () => this.#titles.delete(id));
    const { revision } = catalog;
    if (draft.whole) draft.put(FACT.catalog, revision, () => (this.#catalog = revision));
  }

  #putHoldings(draft: Draft, fleet: Now['fleet']): void {
    for (const [appliance, inventory] of this.#inventories(fleet)) {
      for (const title of inventory.takeChanged(draft.room)) {
        const held = inventory.renditions(title);
        draft.put(FACT.held(appliance, title), held.length === 0 ? null : held);
      }
      const { mark: reached } = inventory;
      const isLeaving = this.#leaving.has(appliance);
      // What an appliance held that is gone matters to nobody yet.
      if (inventory.hasChanged) draft.whole &&= isLeaving;
      else if (isLeaving) draft.note(appliance, null, () => this.#left(appliance));
      else if (!isSameMark(this.#marks.get(appliance), reached))
        draft.note(appliance, reached, () => this.#marks.set(appliance, reached));
    }
  }

  #left(appliance: string): void {
    this.#leaving.delete(appliance);
    this.#marks.delete(appliance);
  }

  #inventories(fleet: Now['fleet']): [string, Inventory][] {
    return [...fleet.inventories(), ...this.#leaving];
  }
}

class Draft implements Difference {
  readonly changes: Change[] = [];
  readonly notes = new Map<string, unknown>();
  whole = true;
  readonly #changesMax: number;
  readonly #taken: (() => unknown)[] = [];

  constructor(changesMax: number) {
    this.#changesMax = changesMax;
  }

  get room(): number {
    return this.#changesMax - this.changes.length;
  }

  put(fact: string, value: unknown, taken: () => unknown = () => undefined): void {
    if (this.room <= 0) {
      this.whole = false;
      return;
    }
    this.changes.push({ fact, value });
    this.#taken.push(taken);
  }

  note(name: string, value: unknown, taken: () => unknown = () => undefined): void {
    this.notes.set(name, value);
    this.#taken.push(taken);
  }

  taken(): void {
    for (const taken of this.#taken) taken();
  }
}

function isSameAppliance(a: ApplianceFact, b: ApplianceFact): boolean {
  return (
    a.site === b.site &&
    a.weight === b.weight &&
    a.base === b.base &&
    a.refusal === b.refusal &&
    a.position?.lat === b.position?.lat &&
    a.position?.lon === b.position?.lon &&
    (a.leaseEndedAt === null) === (b.leaseEndedAt === null) &&
    Math.abs((a.leaseEndedAt ?? 0) - (b.leaseEndedAt ?? 0)) <= LEASE_END_SLACK_MS
  );
}

const isSameMark = (a: InventoryMark | undefined, b: InventoryMark): boolean =>
  a?.incarnation === b.incarnation && a.revision === b.revision;
