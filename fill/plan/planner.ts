// The plan of one site: which renditions each of its appliances should hold. Pure: values in, values out.
//
// Pinned titles come first. The others are ranked by popularity per byte, so that the disk holds the bytes most likely to be
// requested. Each rendition is placed on two appliances of a site that has two or more. Rendezvous hashing by title chooses
// them, so that the renditions of a title sit together and an appliance that leaves moves only its own; further copies are
// made only if nothing was left out for lack of space. A held rendition stays unless another is clearly more popular. The
// manifest rendition of a title goes wherever any of its renditions goes.

import type { Rendition } from '../../protocol/catalog.ts';
import { holdingOf, splitHolding } from '../../protocol/ids.ts';
import type { FillItem } from '../../protocol/plan.ts';
import { rendezvous } from '../../protocol/placement.ts';

const REPLICAS = 2;
/** Hysteresis: a held rendition is ranked as if it were this much more popular, so that small changes move nothing. */
const HELD_FACTOR = 1.25;
const HELD_MARGIN = 0.02;

/**
 * Upper bounds of the disk space that a rendition takes beyond its bytes: per asset, a block header and the rounding to whole
 * pages; per MiB, another header. Without them a plan of many small segments would not fit the disk.
 */
const OVERHEAD_PER_ASSET_BYTES = 8192;
const OVERHEAD_PER_MIB_BYTES = 4096;

export interface PlanAppliance {
  readonly id: string;
  readonly planBytes: number;
  /** Holdings that it has now. */
  readonly held: ReadonlySet<string>;
  readonly rateBitsPerSecond: number | null;
  /** Until its window closes; null is no limit. */
  readonly timeLeftMs: number | null;
}

export interface PlanTitle {
  readonly id: string;
  readonly revision: number;
  readonly renditions: readonly Rendition[];
}

export interface SiteInput {
  /** All fillable appliances of the site, also those that this run does not fill: placement depends on them. */
  readonly appliances: readonly PlanAppliance[];
  readonly titles: readonly PlanTitle[];
  /** Popularity by holding; 0 if absent. */
  readonly scores: ReadonlyMap<string, number>;
  readonly pinnedTitles: ReadonlySet<string>;
}

interface TitleInput extends SiteInput {
  /** Id of the title to add. */
  readonly title: string;
  /** Items of the current plan by appliance; an appliance without a plan keeps all that it holds. */
  readonly currentItems: ReadonlyMap<string, readonly FillItem[]>;
}

export interface AppliancePlan {
  readonly appliance: string;
  readonly add: readonly FillItem[];
  readonly keep: readonly FillItem[];
  readonly remove: readonly FillItem[];
  readonly addBytes: number;
  /** Null if the rate is unknown. */
  readonly expectedMs: number | null;
}

/** Plans every title of a site afresh. */
export function planSite(input: SiteInput): AppliancePlan[] {
  const plan = createSitePlan(input);
  const ranked = rankCandidates(unitsOf(input, input.titles), plan);
  const allPlaced = place(ranked, plan, { copiesMax: replicasFor(plan) });
  // Copies that exist are kept before new ones are made.
  const held = ranked.filter((candidate) => candidate.held);
  place(held, plan, { copiesMax: Number.POSITIVE_INFINITY });
  if (allPlaced) place(ranked, plan, { copiesMax: Number.POSITIVE_INFINITY });
  return appliancePlans(plan, input);
}

/** Adds one title to the current plans. Nothing of a current plan is dropped; whatever does not fit stays out. */
export function planTitle(input: TitleInput): AppliancePlan[] {
  const plan = createSitePlan(input);
  for (const budget of plan.budgets) reserveCurrent(budget, input);
  const title = input.titles.filter(({ id }) => id === input.title);
  const units = unitsOf(input, title).map((unit) => ({ ...unit, reason: unit.pinned ? unit.reason : 'asked' }));
  const ranked = rankCandidates(units, plan);
  if (place(ranked, plan, { copiesMax: replicasFor(plan) }))
    place(ranked, plan, { copiesMax: Number.POSITIVE_INFINITY });
  const held = rankCandidates(unitsOf(input, input.titles), plan).filter((candidate) => candidate.held);
  place(held, plan, { copiesMax: Number.POSITIVE_INFINITY });
  return appliancePlans(plan, input);
}

/** One rendition with the manifest rendition that accompanies it. */
interface FillUnit {
  readonly holding: string;
  readonly title: PlanTitle;
  readonly rendition: Rendition;
  readonly manifest: Rendition | null;
  /** Pinned titles come before all others. */
  readonly pinned: boolean;
  readonly score: number;
  readonly reason: string;
}

/** A unit that an appliance might hold. */
interface Candidate {
  readonly unit: FillUnit;
  readonly budget: ApplianceBudget;
  readonly held: boolean;
  /** The unit's score, raised by the hysteresis if the appliance holds it. */
  readonly score: number;
  /** Rank of the appliance in the title's rendezvous order. */
  readonly placementRank: number;
}

/** The plan of a site under construction. */
interface SitePlan {
  readonly budgets: readonly ApplianceBudget[];
  /** Rank of each appliance in the title's rendezvous order. */
  readonly placementRanks: (title: string) => ReadonlyMap<string, number>;
}

function createSitePlan(input: SiteInput): SitePlan {
  const members = input.appliances.map((a) => ({ id: a.id, weight: Math.max(1, a.planBytes) }));
  const ranksByTitle = new Map<string, ReadonlyMap<string, number>>();
  return {
    budgets: input.appliances.map((appliance) => new ApplianceBudget(appliance)),
    placementRanks: (title) => {
      const ranks =
        ranksByTitle.get(title) ?? new Map(rendezvous(title, members).map((member, rank) => [member.id, rank]));
      ranksByTitle.set(title, ranks);
      return ranks;
    },
  };
}

function appliancePlans(plan: SitePlan, { titles, scores }: SiteInput): AppliancePlan[] {
  const byId = new Map(titles.map((title) => [title.id, title]));
  return plan.budgets.map((budget) => budget.toPlan((holding) => removedItem(holding, byId, scores)));
}

const replicasFor = (plan: SitePlan): number => Math.min(REPLICAS, plan.budgets.length);

/** Reserves what the current plan of an appliance names, for the reasons given there; all that it holds if it has no plan. */
function reserveCurrent(budget: ApplianceBudget, input: TitleInput): void {
  const items = input.currentItems.get(budget.appliance.id);
  const holdings = items === undefined ? [...budget.appliance.held] : items.map((item) => item.holding);
  const reasons = new Map(items?.map((item) => [item.holding, item.reason]));
  for (const unit of unitsOf(input, input.titles, new Set(holdings)))
    budget.reserve({ ...unit, reason: reasons.get(unit.holding) ?? unit.reason });
}

/** Units of the titles given; of the holdings in `only` alone unless that is null. */
function unitsOf(input: SiteInput, titles: readonly PlanTitle[], only: ReadonlySet<string> | null = null): FillUnit[] {
  return titles.flatMap((title) => {
    const manifest = title.renditions.find((r) => r.kind === 'manifest') ?? null;
    const pinned = input.pinnedTitles.has(title.id);
    return title.renditions
      .filter((rendition) => rendition !== manifest)
      .map((rendition) => ({ rendition, holding: holdingOf(title.id, rendition.id) }))
      .filter(({ holding }) => only?.has(holding) ?? true)
      .map(({ rendition, holding }) => {
        const score = input.scores.get(holding) ?? 0;
        const popularity = score > 0 ? `popularity ${score.toFixed(2)}` : 'no demand yet, room is free';
        return { holding, title, rendition, manifest, pinned, score, reason: pinned ? 'pinned' : popularity };
      });
  });
}

const KIND_ORDER: Readonly<Record<Rendition['kind'], number>> = { manifest: 0, audio: 1, text: 2, video: 3, iframe: 4 };

/** Every pair of unit and appliance, best first. */
function rankCandidates(units: readonly FillUnit[], plan: SitePlan): Candidate[] {
  const candidates = units.flatMap((unit) =>
    plan.budgets.map((budget) => {
      const held = budget.appliance.held.has(unit.holding);
      const score = held ? unit.score * HELD_FACTOR + HELD_MARGIN : unit.score;
      const placementRank = plan.placementRanks(unit.title.id).get(budget.appliance.id)!;
      return { unit, budget, held, score, placementRank };
    }),
  );
  return candidates.sort(
    (a, b) =>
      Number(b.unit.pinned) - Number(a.unit.pinned) ||
      b.score - a.score ||
      b.unit.title.revision - a.unit.title.revision ||
      compare(a.unit.title.id, b.unit.title.id) ||
      KIND_ORDER[a.unit.rendition.kind] - KIND_ORDER[b.unit.rendition.kind] ||
      a.unit.rendition.bytes - b.unit.rendition.bytes ||
      compare(a.unit.holding, b.unit.holding) ||
      a.placementRank - b.placementRank,
  );
}

/**
 * Reserves candidates in order, up to `copiesMax` copies of each unit. True if every unit got as many copies as there are
 * appliances that could hold it when empty, or `copiesMax`.
 */
function place(ranked: readonly Candidate[], plan: SitePlan, { copiesMax }: { readonly copiesMax: number }): boolean {
  const copies = new Map<string, number>();
  for (const { unit } of ranked)
    if (!copies.has(unit.holding))
      copies.set(unit.holding, plan.budgets.filter((budget) => budget.has(unit.holding)).length);
  for (const { unit, budget } of ranked) {
    const count = copies.get(unit.holding)!;
    if (budget.has(unit.holding) || count >= copiesMax) continue;
    if (budget.reserve(unit)) copies.set(unit.holding, count + 1);
  }
  return ranked.every(({ unit }) => {
    const neededBytes = diskBytes(unit.rendition) + (unit.manifest === null ? 0 : diskBytes(unit.manifest));
    const capable = plan.budgets.filter((budget) => budget.appliance.planBytes >= neededBytes);
    return copies.get(unit.holding)! >= Math.min(copiesMax, capable.length);
  });
}

/** The holdings planned for one appliance, and what is left of its disk and of its time to fetch. */
class ApplianceBudget {
  readonly appliance: PlanAppliance;
  readonly #items = new Map<string, FillItem>();
  #diskBytesLeft: number;
  #fetchBytesLeft: number;

  constructor(appliance: PlanAppliance) {
    const { planBytes, rateBitsPerSecond: rate, timeLeftMs } = appliance;
    this.appliance = appliance;
    this.#diskBytesLeft = planBytes;
    this.#fetchBytesLeft =
      rate === null || timeLeftMs === null ? Number.POSITIVE_INFINITY : (rate / 8) * (timeLeftMs / 1000);
  }

  has(holding: string): boolean {
    return this.#items.has(holding);
  }

  /** Adds a unit with its manifest. False if disk or time do not suffice. */
  reserve(unit: FillUnit): boolean {
    if (this.has(unit.holding)) return true;
    const renditions = this.#withManifest(unit);
    const missing = renditions.filter((r) => !this.appliance.held.has(holdingOf(unit.title.id, r.id)));
    const neededDiskBytes = sum(renditions.map(diskBytes));
    const neededFetchBytes = sum(missing.map((r) => r.bytes));
    if (neededDiskBytes > this.#diskBytesLeft || neededFetchBytes > this.#fetchBytesLeft) return false;
    this.#diskBytesLeft -= neededDiskBytes;
    this.#fetchBytesLeft -= neededFetchBytes;
    for (const { id, bytes, kind } of renditions) {
      const holding = holdingOf(unit.title.id, id);
      const reason = kind === 'manifest' ? `manifest of ${unit.title.id}` : unit.reason;
      this.#items.set(holding, { holding, revision: unit.title.revision, bytes, reason });
    }
    return true;
  }

  toPlan(removedItem: (holding: string) => FillItem): AppliancePlan {
    const { id, held, rateBitsPerSecond: rate } = this.appliance;
    const items = [...this.#items.values()];
    const add = items.filter((item) => !held.has(item.holding));
    const addBytes = sum(add.map((item) => item.bytes));
    return {
      appliance: id,
      add,
      keep: items.filter((item) => held.has(item.holding)),
      remove: [...held].filter((holding) => !this.has(holding)).map(removedItem),
      addBytes,
      expectedMs: rate === null ? null : (addBytes * 8 * 1000) / rate,
    };
  }

  #withManifest({ title, rendition, manifest }: FillUnit): Rendition[] {
    return manifest === null || this.has(holdingOf(title.id, manifest.id)) ? [rendition] : [manifest, rendition];
  }
}

function removedItem(
  holding: string,
  titles: ReadonlyMap<string, PlanTitle>,
  scores: ReadonlyMap<string, number>,
): FillItem {
  const names = splitHolding(holding);
  const title = titles.get(names.title);
  const rendition = title?.renditions.find((r) => r.id === names.rendition);
  if (title === undefined || rendition === undefined)
    return { holding, revision: title?.revision ?? 1, bytes: 0, reason: 'no longer in the catalog' };
  const reason =
    rendition.kind === 'manifest'
      ? `nothing of ${title.id} is planned here`
      : `popularity ${(scores.get(holding) ?? 0).toFixed(2)}, less than what takes its room`;
  return { holding, revision: title.revision, bytes: rendition.bytes, reason };
}

function diskBytes({ bytes, assets }: Rendition): number {
  return bytes + assets * OVERHEAD_PER_ASSET_BYTES + Math.ceil(bytes / 2 ** 20) * OVERHEAD_PER_MIB_BYTES;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
