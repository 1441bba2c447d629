// Popularity = decayed bytes streamed ÷ bytes, per rendition and site. Pure.
//
// Appliances report bytes served per rendition; steering reports plays asked per title. A play is expected to stream one
// video and one audio rendition. Where fewer bytes were served than the plays asked for (the origin served them, or nobody),
// the missing bytes count for the title's renditions in proportion to their size: so a title that no appliance ever held
// still becomes popular. Exponential decay needs one number and one instant per row, whatever the order of reports.

import type { Rendition } from '../../protocol/catalog.ts';
import { holdingOf } from '../../protocol/ids.ts';

/** An amount that halves with every half-life after `atMs`. */
export interface Decayed {
  readonly amount: number;
  readonly atMs: number;
}

export interface DemandRow extends Decayed {
  /** A holding for bytes served, a title for plays asked. */
  readonly key: string;
  /** Null: a play for which only the origin could be named. */
  readonly site: string | null;
}

export interface PopularityInput {
  readonly titles: readonly { readonly id: string; readonly renditions: readonly Rendition[] }[];
  /** Bytes, keyed by holding. */
  readonly served: readonly DemandRow[];
  /** Plays, keyed by title. */
  readonly asked: readonly DemandRow[];
  readonly atMs: number;
  readonly halfLifeMs: number;
}

export interface PopularityRow {
  readonly holding: string;
  /** Null sums all sites and the plays of no site. */
  readonly site: string | null;
  readonly popularity: number;
  readonly bytes: number;
}

export function amountAt(row: Decayed, atMs: number, halfLifeMs: number): number {
  return row.amount * 2 ** (-Math.max(0, atMs - row.atMs) / halfLifeMs);
}

/** Adds to a row what happened at `atMs`, which may lie before the row's instant: a late report has decayed already. */
export function addTo(row: Decayed | null, amount: number, atMs: number, halfLifeMs: number): Decayed {
  if (row === null) return { amount, atMs };
  if (atMs >= row.atMs) return { amount: amountAt(row, atMs, halfLifeMs) + amount, atMs };
  return { amount: row.amount + amountAt({ amount, atMs }, row.atMs, halfLifeMs), atMs: row.atMs };
}

/** One row per rendition and site with demand, and one with site null per rendition with any. */
export function popularityOf(input: PopularityInput): PopularityRow[] {
  const served = bySite(input.served, input);
  const asked = bySite(input.asked, input);
  const sites = new Set([...served.keys(), ...asked.keys()]);
  const rows: PopularityRow[] = [];
  for (const title of input.titles) {
    const everywhere = new Map<string, number>();
    for (const site of sites) {
      const streamed = streamedBytes(title, served.get(site), asked.get(site));
      for (const [holding, bytes] of streamed) {
        everywhere.set(holding, (everywhere.get(holding) ?? 0) + bytes);
        if (site !== null) rows.push(rowOf(title, holding, site, bytes));
      }
    }
    for (const [holding, bytes] of everywhere) rows.push(rowOf(title, holding, null, bytes));
  }
  return rows;
}

/**
 * What a site's plan ranks by: its own popularity, plus that of everywhere else divided by the number of sites. A title that
 * became popular elsewhere, or that only the origin served, thus enters a plan, behind those that the site itself asks for.
 */
export function scoreFor(rows: readonly PopularityRow[], site: string, sites: number): ReadonlyMap<string, number> {
  const own = new Map<string, number>();
  const score = new Map<string, number>();
  for (const row of rows) if (row.site === site) own.set(row.holding, row.popularity);
  for (const row of rows) {
    if (row.site !== null) continue;
    const here = own.get(row.holding) ?? 0;
    score.set(row.holding, here + Math.max(0, row.popularity - here) / Math.max(1, sites));
  }
  return score;
}

type PopularityTitle = PopularityInput['titles'][number];

function streamedBytes(
  title: PopularityTitle,
  served: ReadonlyMap<string, number> | undefined,
  asked: ReadonlyMap<string, number> | undefined,
): Map<string, number> {
  const streamed = new Map<string, number>();
  let servedBytes = 0;
  for (const rendition of title.renditions) {
    const holding = holdingOf(title.id, rendition.id);
    const bytes = served?.get(holding) ?? 0;
    servedBytes += bytes;
    if (bytes > 0) streamed.set(holding, bytes);
  }
  const missing = (asked?.get(title.id) ?? 0) * playBytes(title.renditions) - servedBytes;
  const media = title.renditions.filter((r) => r.kind === 'video' || r.kind === 'audio');
  const mediaBytes = sum(media.map((r) => r.bytes));
  if (missing <= 0 || mediaBytes === 0) return streamed;
  for (const rendition of media) {
    const holding = holdingOf(title.id, rendition.id);
    streamed.set(holding, (streamed.get(holding) ?? 0) + (missing * rendition.bytes) / mediaBytes);
  }
  return streamed;
}

/** Expected bytes of one play: a mean video rendition and a mean audio one. */
function playBytes(renditions: readonly Rendition[]): number {
  const mean = (kind: Rendition['kind']): number => {
    const sizes = renditions.filter((r) => r.kind === kind).map((r) => r.bytes);
    return sizes.length === 0 ? 0 : sum(sizes) / sizes.length;
  };
  return mean('video') + mean('audio');
}

function rowOf(title: PopularityTitle, holding: string, site: string | null, bytes: number): PopularityRow {
  const rendition = title.renditions.find((r) => holdingOf(title.id, r.id) === holding)!;
  return { holding, site, popularity: bytes / Math.max(1, rendition.bytes), bytes: rendition.bytes };
}

function bySite(
  rows: readonly DemandRow[],
  at: { readonly atMs: number; readonly halfLifeMs: number },
): Map<string | null, Map<string, number>> {
  const sites = new Map<string | null, Map<string, number>>();
  for (const row of rows) {
    const amounts = sites.get(row.site) ?? new Map<string, number>();
    amounts.set(row.key, (amounts.get(row.key) ?? 0) + amountAt(row, at.atMs, at.halfLifeMs));
    sites.set(row.site, amounts);
  }
  return sites;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
