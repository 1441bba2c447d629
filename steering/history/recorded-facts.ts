// A mirror in memory of the facts on disk, so that only differences are written. Appliances are compared field by field,
// titles by the revision of the catalog, and holdings by the titles that each inventory reports as changed.

import { z } from 'zod';
import type { Title } from '../../protocol/catalog.ts';
import type { Catalog } from '../catalog.ts';
import { applianceFacts, type ApplianceFacts } from '../decision-inputs.ts';
import type { Fleet } from '../fleet.ts';
import { Inventory, type InventoryVersion } from '../inventory.ts';
import { FACT_KEY, lastPartOf, MAP_CHARS_MAX, titleFactsOf, type SettingsFacts } from './replay.ts';
import type { FactChange, HistorySnapshot } from './store.ts';

/** Wall clock and monotonic clock drift apart, so the end of a lease that is over may vary by this much. */
const LEASE_END_SLACK_MS = 2_000;

/** The current state, which is compared with the recorded facts. */
export interface CurrentState {
  readonly fleet: Pick<Fleet, 'facts' | 'inventories'>;
  readonly catalog: Pick<Catalog, 'revision' | 'titles' | 'find'>;
  readonly settings: SettingsFacts;
  readonly mapText: string | null;
}

/** The changes that bring the disk up to date, or as many of them as one commit may have. */
export interface ChangeSet {
  readonly changes: readonly FactChange[];
  readonly checkpoints: ReadonlyMap<string, unknown>;
  /** False if changes are left for the next change set. */
  readonly complete: boolean;
  /** Updates the mirror; to be called once the changes are on disk. */
  committed(): void;
}

interface RecordedTitle {
  /** The object compared last. The catalog makes a new one for each change, so the same object needs no comparison. */
  readonly title: Title | null;
  readonly text: string;
}

const inventoryVersion = z.object({ incarnation: z.string(), revision: z.number() });

export class RecordedFacts {
  readonly #appliances: Map<string, ApplianceFacts>;
  readonly #titles: Map<string, RecordedTitle>;
  /** Checkpoints by appliance: versions of inventories that are completely on disk. */
  readonly #versions: Map<string, InventoryVersion>;
  #catalogRevision: number | null;
  /** As JSON, for comparison. */
  #settings: string;
  /** Inventories whose version was compared with their checkpoint. */
  readonly #verified = new WeakSet<Inventory>();
  /** Empty inventories of appliances that left the fleet, until the end of their holdings is recorded. */
  readonly #departed = new Map<string, Inventory>();

  private constructor(recorded: {
    readonly appliances: Map<string, ApplianceFacts>;
    readonly titles: Map<string, RecordedTitle>;
    readonly versions: Map<string, InventoryVersion>;
    readonly catalogRevision: number | null;
    readonly settings: string;
  }) {
    this.#appliances = recorded.appliances;
    this.#titles = recorded.titles;
    this.#versions = recorded.versions;
    this.#catalogRevision = recorded.catalogRevision;
    this.#settings = recorded.settings;
  }

  static async load(snapshot: HistorySnapshot): Promise<RecordedFacts> {
    const appliances = await snapshot.values(FACT_KEY.appliance(''), Infinity);
    const titles = await snapshot.values(FACT_KEY.title(''), Infinity);
    const versions = await snapshot.checkpoints();
    return new RecordedFacts({
      appliances: new Map([...appliances].map(([key, value]) => [lastPartOf(key), applianceFacts.parse(value)])),
      titles: new Map(
        [...titles].map(([key, value]) => [lastPartOf(key), { title: null, text: JSON.stringify(value) }]),
      ),
      versions: new Map([...versions].map(([appliance, value]) => [appliance, inventoryVersion.parse(value)])),
      catalogRevision: z
        .number()
        .nullable()
        .parse(await snapshot.value(FACT_KEY.catalog, Infinity)),
      settings: JSON.stringify(await snapshot.value(FACT_KEY.settings, Infinity)),
    });
  }

  /** Inventories that must be compared with the disk, because their version is not that of the checkpoint, as after a kill. */
  uncompared({ fleet }: CurrentState): [string, Inventory][] {
    return this.#inventories(fleet).filter(([appliance, inventory]) => {
      if (!this.#verified.has(inventory) && !isSameVersion(this.#versions.get(appliance), inventory.version))
        inventory.requireComparison();
      this.#verified.add(inventory);
      return inventory.needsComparison;
    });
  }

  /** Compares the inventories with the disk, one after the other, until `isTimeUp`. */
  async compare(
    uncompared: readonly (readonly [string, Inventory])[],
    snapshot: HistorySnapshot,
    isTimeUp: () => boolean,
  ): Promise<void> {
    for (const [appliance, inventory] of uncompared) {
      if (isTimeUp()) return;
      const held = await snapshot.values(FACT_KEY.held(appliance, ''), Infinity);
      inventory.compareWith(new Map([...held].map(([key, renditions]) => [lastPartOf(key), renditions as string[]])));
    }
  }

  /** The differences between the current state and the disk, in at most `changesMax` changes. */
  difference(current: CurrentState, changesMax: number): ChangeSet {
    const draft = new ChangeSetDraft(changesMax);
    this.#addAppliances(draft, current.fleet.facts());
    this.#addSettings(draft, current);
    this.#addTitles(draft, current.catalog);
    this.#addHoldings(draft, current.fleet);
    return draft;
  }

  #addAppliances(draft: ChangeSetDraft, facts: ReadonlyMap<string, ApplianceFacts>): void {
    for (const [appliance, fact] of facts) {
      const before = this.#appliances.get(appliance);
      if (before === undefined || !isSameAppliance(before, fact))
        draft.add(FACT_KEY.appliance(appliance), fact, () => this.#appliances.set(appliance, fact));
    }
    for (const appliance of this.#appliances.keys())
      if (!facts.has(appliance))
        draft.add(FACT_KEY.appliance(appliance), null, () => this.#appliances.delete(appliance));
    // The holdings must end too, because an appliance may return under the same id with others.
    for (const appliance of this.#versions.keys()) {
      if (facts.has(appliance)) this.#departed.delete(appliance);
      else if (!this.#departed.has(appliance)) this.#departed.set(appliance, Inventory.emptyUncompared());
    }
  }

  #addSettings(draft: ChangeSetDraft, { settings, mapText }: CurrentState): void {
    const text = JSON.stringify(settings);
    if (text === this.#settings) return;
    const before = JSON.parse(this.#settings) as SettingsFacts | null;
    if ((before?.map ?? null) !== settings.map)
      draft.add(FACT_KEY.map, mapText !== null && mapText.length <= MAP_CHARS_MAX ? mapText : null);
    draft.add(FACT_KEY.settings, settings, () => (this.#settings = text));
  }

  #addTitles(draft: ChangeSetDraft, catalog: CurrentState['catalog']): void {
    if (catalog.revision === this.#catalogRevision) return;
    for (const title of catalog.titles) {
      const before = this.#titles.get(title.id);
      if (before?.title === title) continue;
      const facts = titleFactsOf(title);
      const text = JSON.stringify(facts);
      const committed = (): unknown => this.#titles.set(title.id, { title, text });
      if (before?.text === text) committed();
      else draft.add(FACT_KEY.title(title.id), facts, committed);
    }
    for (const id of this.#titles.keys())
      if (catalog.find(id) === null) draft.add(FACT_KEY.title(id), null, () => this.#titles.delete(id));
    const { revision } = catalog;
    if (draft.complete) draft.add(FACT_KEY.catalog, revision, () => (this.#catalogRevision = revision));
  }

  #addHoldings(draft: ChangeSetDraft, fleet: CurrentState['fleet']): void {
    for (const [appliance, inventory] of this.#inventories(fleet)) {
      for (const title of inventory.drainChangedTitles(draft.room)) {
        const held = inventory.renditions(title);
        draft.add(FACT_KEY.held(appliance, title), held.length === 0 ? null : held);
      }
      const { version } = inventory;
      const departed = this.#departed.has(appliance);
      // The holdings of a departed appliance affect no decision, so the change set counts as complete without them.
      if (inventory.hasUnrecordedChanges) draft.complete &&= departed;
      else if (departed) draft.addCheckpoint(appliance, null, () => this.#removeDeparted(appliance));
      else if (!isSameVersion(this.#versions.get(appliance), version))
        draft.addCheckpoint(appliance, version, () => this.#versions.set(appliance, version));
    }
  }

  #removeDeparted(appliance: string): void {
    this.#departed.delete(appliance);
    this.#versions.delete(appliance);
  }

  #inventories(fleet: CurrentState['fleet']): [string, Inventory][] {
    return [...fleet.inventories(), ...this.#departed];
  }
}

class ChangeSetDraft implements ChangeSet {
  readonly changes: FactChange[] = [];
  readonly checkpoints = new Map<string, unknown>();
  complete = true;
  readonly #changesMax: number;
  readonly #onCommitted: (() => unknown)[] = [];

  constructor(changesMax: number) {
    this.#changesMax = changesMax;
  }

  /** Changes that still fit. */
  get room(): number {
    return this.#changesMax - this.changes.length;
  }

  add(fact: string, value: unknown, onCommitted: () => unknown = () => undefined): void {
    if (this.room <= 0) {
      this.complete = false;
      return;
    }
    this.changes.push({ fact, value });
    this.#onCommitted.push(onCommitted);
  }

  addCheckpoint(name: string, value: unknown, onCommitted: () => unknown): void {
    this.checkpoints.set(name, value);
    this.#onCommitted.push(onCommitted);
  }

  committed(): void {
    for (const onCommitted of this.#onCommitted) onCommitted();
  }
}

function isSameAppliance(a: ApplianceFacts, b: ApplianceFacts): boolean {
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

const isSameVersion = (a: InventoryVersion | undefined, b: InventoryVersion): boolean =>
  a?.incarnation === b.incarnation && a.revision === b.revision;
