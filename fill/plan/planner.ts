// The plan of one site: which renditions each of its appliances should hold. Pure: values in, values out.
//
// Pinned titles first, then by popularity per byte, which fills a disk with the bytes most likely to be asked for. Each
// rendition is placed twice in a site of two or more appliances (rendezvous hashing by title, so that the renditions of a
// title sit together and an appliance that leaves moves only its own); further copies only where nothing was left out for
// want of room. What is held stays unless something is clearly more popular. The manifest rendition goes with any other.

import type { Rendition } from '../../protocol/catalog.ts';
import { holdingOf, splitHolding } from '../../protocol/ids.ts';
import type { FillItem } from '../../protocol/plan.ts';
import { rendezvous } from '../../protocol/placement.ts';

export const REPLICAS = 2;
/** A newcomer displaces something held only if it is this much more popular, and by this much at least. */
export const KEEP_FACTOR = 1.25;
export const KEEP_MARGIN = 0.02;

/**
 * What a rendition takes on an appliance's disk beyond its bytes, at most: a head and the rounding to whole pages per asset,
 * and a head per MiB. Planning without it would fill a disk of small segments further than they fit.
 */
export const ALLOWANCE_PER_ASSET_BYTES = 8192;
export const ALLOWANCE_PER_MIB_BYTES = 4096;

export interface PlanAppliance {
  readonly id: string;
  readonly planBytes: number;
  readonly held: ReadonlySet<string>;
  readonly rateBitsPerSecond: number | null;
  /** Time left to fetch; null is no limit. */
  readonly windowMs: number | null;
}

export interface PlanTitle {
  readonly id: string;
  readonly revision: number;
  readonly renditions: readonly Rendition[];
}

export interface SiteInput {
  /** All appliances of the site that live, also those that are not to be filled now: placement depends on them. */
  readonly appliances: readonly PlanAppliance[];
  readonly titles: readonly PlanTitle[];
  /** By holding; absent is 0. */
  readonly score: ReadonlyMap<string, number>;
  /** Titles. */
  readonly pinned: ReadonlySet<string>;
}

export interface AskedInput extends SiteInput {
  readonly asked: string;
  /** Items of the plan in force by appliance; an appliance without one keeps all that it holds. */
  readonly inForce: ReadonlyMap<string, readonly FillItem[]>;
}

export interface AppliancePlan {
  readonly appliance: string;
  readonly add: readonly FillItem[];
  readonly keep: readonly FillItem[];
  readonly remove: readonly FillItem[];
  readonly addBytes: number;
  /** Null where no rate is known. */
  readonly expectedMs: number | null;
}

/** What tonight's fill does at a site. */
export function planSite(input: SiteInput): AppliancePlan[] {
  const desk = layOut(input);
  const units = unitsOf(input, input.titles);
  const wanted = candidates(units, desk);
  const all = place(wanted, desk, { copies: replicasAt(desk) });
  // A further copy that is there stays before a further copy is made.
  const held = wanted.filter((c) => c.held);
  place(held, desk, { copies: Number.POSITIVE_INFINITY });
  if (all) place(wanted, desk, { copies: Number.POSITIVE_INFINITY });
  return desk.shelves.map((shelf) => shelf.plan(desk.titles, input.score));
}

/** Adds one title to what is kept. Drops nothing of the plan in force; what does not fit stays out. */
export function planAsked(input: AskedInput): AppliancePlan[] {
  const desk = layOut(input);
  for (const shelf of desk.shelves) {
    const kept = input.inForce.get(shelf.appliance.id);
    const holdings = kept === undefined ? [...shelf.appliance.held] : kept.map((item) => item.holding);
    const reasons = new Map(kept?.map((item) => [item.holding, item.reason]));
    for (const unit of unitsOf(input, input.titles, new Set(holdings)))
      shelf.put({ ...unit, reason: reasons.get(unit.holding) ?? unit.reason });
  }
  const asked = input.titles.filter((title) => title.id === input.asked);
  const units = unitsOf(input, asked).map((unit) => ({ ...unit, reason: unit.first ? unit.reason : 'asked' }));
  const wanted = candidates(units, desk);
  if (place(wanted, desk, { copies: replicasAt(desk) })) place(wanted, desk, { copies: Number.POSITIVE_INFINITY });
  const others = candidates(unitsOf(input, input.titles), desk).filter((c) => c.held);
  place(others, desk, { copies: Number.POSITIVE_INFINITY });
  return desk.shelves.map((shelf) => shelf.plan(desk.titles, input.score));
}

/** One rendition with the manifest that goes with it. */
interface Unit {
  readonly holding: string;
  readonly title: PlanTitle;
  readonly rendition: Rendition;
  readonly manifest: Rendition | null;
  /** Pinned titles come before all others. */
  readonly first: boolean;
  readonly score: number;
  readonly reason: string;
}

interface Candidate {
  readonly unit: Unit;
  readonly shelf: Shelf;
  readonly held: boolean;
  readonly worth: number;
  /** Place of the appliance in the title's rendezvous order. */
  readonly rank: number;
}

interface Desk {
  readonly shelves: readonly Shelf[];
  readonly titles: ReadonlyMap<string, PlanTitle>;
  readonly ranks: (title: string) => ReadonlyMap<string, number>;
}

function layOut(input: SiteInput): Desk {
  const members = input.appliances.map((a) => ({ id: a.id, weight: Math.max(1, a.planBytes) }));
  const known = new Map<string, ReadonlyMap<string, number>>();
  return {
    shelves: input.appliances.map((appliance) => new Shelf(appliance)),
    titles: new Map(input.titles.map((title) => [title.id, title])),
    ranks: (title) => {
      const ranks = known.get(title) ?? new Map(rendezvous(title, members).map((member, rank) => [member.id, rank]));
      known.set(title, ranks);
      return ranks;
    },
  };
}

const replicasAt = (desk: Desk): number => Math.min(REPLICAS, desk.shelves.length);

function unitsOf(input: SiteInput, titles: readonly PlanTitle[], only: ReadonlySet<string> | null = null): Unit[] {
  return titles.flatMap((title) => {
    const manifest = title.renditions.find((r) => r.kind === 'manifest') ?? null;
    const first = input.pinned.has(title.id);
    return title.renditions
      .filter((rendition) => rendition !== manifest)
      .map((rendition) => ({ rendition, holding: holdingOf(title.id, rendition.id) }))
      .filter(({ holding }) => only?.has(holding) ?? true)
      .map(({ rendition, holding }) => {
        const score = input.score.get(holding) ?? 0;
        const reason = first ? 'pinned' : score > 0 ? `popularity ${score.toFixed(2)}` : 'no demand yet, room is free';
        return { holding, title, rendition, manifest, first, score, reason };
      });
  });
}

function storedBytes({ bytes, assets }: Rendition): number {
  return bytes + assets * ALLOWANCE_PER_ASSET_BYTES + Math.ceil(bytes / 2 ** 20) * ALLOWANCE_PER_MIB_BYTES;
}

const KIND_ORDER: Readonly<Record<Rendition['kind'], number>> = { manifest: 0, audio: 1, text: 2, video: 3, iframe: 4 };

/** Every pair of rendition and appliance, best first. */
function candidates(units: readonly Unit[], desk: Desk): Candidate[] {
  const pairs = units.flatMap((unit) =>
    desk.shelves.map((shelf) => {
      const held = shelf.appliance.held.has(unit.holding);
      const worth = held ? unit.score * KEEP_FACTOR + KEEP_MARGIN : unit.score;
      return { unit, shelf, held, worth, rank: desk.ranks(unit.title.id).get(shelf.appliance.id)! };
    }),
  );
  return pairs.sort(
    (a, b) =>
      Number(b.unit.first) - Number(a.unit.first) ||
      b.worth - a.worth ||
      b.unit.title.revision - a.unit.title.revision ||
      compare(a.unit.title.id, b.unit.title.id) ||
      KIND_ORDER[a.unit.rendition.kind] - KIND_ORDER[b.unit.rendition.kind] ||
      a.unit.rendition.bytes - b.unit.rendition.bytes ||
      compare(a.unit.holding, b.unit.holding) ||
      a.rank - b.rank,
  );
}

/** True where every rendition that some empty appliance could hold got its copies. */
function place(wanted: readonly Candidate[], desk: Desk, limit: { readonly copies: number }): boolean {
  const copies = new Map<string, number>();
  const count = (holding: string): void => void copies.set(holding, (copies.get(holding) ?? 0) + 1);
  for (const { unit } of wanted)
    if (!copies.has(unit.holding))
      copies.set(unit.holding, desk.shelves.filter((shelf) => shelf.has(unit.holding)).length);
  for (const { unit, shelf } of wanted) {
    if (shelf.has(unit.holding) || copies.get(unit.holding)! >= limit.copies) continue;
    if (shelf.put(unit)) count(unit.holding);
  }
  return wanted.every(({ unit }) => {
    const needed = storedBytes(unit.rendition) + (unit.manifest === null ? 0 : storedBytes(unit.manifest));
    const able = desk.shelves.filter((shelf) => shelf.appliance.planBytes >= needed);
    return copies.get(unit.holding)! >= Math.min(limit.copies, able.length);
  });
}

/** What one appliance will hold, within its disk and the time it has to fetch. */
class Shelf {
  readonly appliance: PlanAppliance;
  readonly #items = new Map<string, FillItem>();
  #roomBytes: number;
  #fetchBytes: number;

  constructor(appliance: PlanAppliance) {
    this.appliance = appliance;
    this.#roomBytes = appliance.planBytes;
    const { rateBitsPerSecond: rate, windowMs } = appliance;
    this.#fetchBytes = rate === null || windowMs === null ? Number.POSITIVE_INFINITY : (rate / 8) * (windowMs / 1000);
  }

  has(holding: string): boolean {
    return this.#items.has(holding);
  }

  /** False where disk or time do not suffice. */
  put(unit: Unit): boolean {
    if (this.has(unit.holding)) return true;
    const renditions = this.#withManifest(unit);
    const fetched = renditions.filter((r) => !this.appliance.held.has(holdingOf(unit.title.id, r.id)));
    const roomBytes = sum(renditions.map(storedBytes));
    const fetchBytes = sum(fetched.map((r) => r.bytes));
    if (roomBytes > this.#roomBytes || fetchBytes > this.#fetchBytes) return false;
    this.#roomBytes -= roomBytes;
    this.#fetchBytes -= fetchBytes;
    for (const { id, bytes, kind } of renditions) {
      const holding = holdingOf(unit.title.id, id);
      const reason = kind === 'manifest' ? `manifest of ${unit.title.id}` : unit.reason;
      this.#items.set(holding, { holding, revision: unit.title.revision, bytes, reason });
    }
    return true;
  }

  plan(titles: ReadonlyMap<string, PlanTitle>, score: SiteInput['score']): AppliancePlan {
    const chosen = [...this.#items.values()];
    const { held } = this.appliance;
    const add = chosen.filter((item) => !held.has(item.holding));
    const addBytes = sum(add.map((item) => item.bytes));
    const rate = this.appliance.rateBitsPerSecond;
    return {
      appliance: this.appliance.id,
      add,
      keep: chosen.filter((item) => held.has(item.holding)),
      remove: [...held].filter((holding) => !this.has(holding)).map((holding) => removal(holding, titles, score)),
      addBytes,
      expectedMs: rate === null ? null : (addBytes * 8 * 1000) / rate,
    };
  }

  #withManifest({ title, rendition, manifest }: Unit): Rendition[] {
    return manifest === null || this.has(holdingOf(title.id, manifest.id)) ? [rendition] : [manifest, rendition];
  }
}

function removal(holding: string, titles: ReadonlyMap<string, PlanTitle>, score: SiteInput['score']): FillItem {
  const name = splitHolding(holding);
  const title = titles.get(name.title);
  const rendition = title?.renditions.find((r) => r.id === name.rendition);
  if (title === undefined || rendition === undefined)
    return { holding, revision: title?.revision ?? 1, bytes: 0, reason: 'no longer in the catalog' };
  const reason =
    rendition.kind === 'manifest'
      ? `nothing of ${title.id} is planned here`
      : `popularity ${(score.get(holding) ?? 0).toFixed(2)}, less than what takes its room`;
  return { holding, revision: title.revision, bytes: rendition.bytes, reason };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
