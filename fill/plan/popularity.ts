// Popularity is decayed bytes streamed ÷ bytes of the rendition, per rendition and site. Pure.
//
// Appliances report bytes served per rendition, steering reports plays requested per title. A play is expected to stream one
// video and one audio rendition. If fewer bytes were served than the plays account for (the origin served them, or nobody),
// the missing bytes are credited to the title's renditions in proportion to their size, so that a title that no appliance
// ever held becomes popular too. Exponential decay needs one number and one instant per row, whatever the order of reports.

import type { Rendition } from '../../protocol/catalog.ts';
import { holdingOf } from '../../protocol/ids.ts';

/** An amount at an instant; it halves with every half-life after that. */
export interface DecayingAmount {
  readonly amount: number;
  readonly atMs: number;
}

export interface DemandRow extends DecayingAmount {
  /** The holding, for bytes served; the title, for plays requested. */
  readonly key: string;
  /** Null for a play for which only the origin could be named. */
  readonly site: string | null;
}

export interface PopularityTitle {
  readonly id: string;
  readonly renditions: readonly Rendition[];
}

interface PopularityInput {
  readonly titles: readonly PopularityTitle[];
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

/** The amount left at an instant. It does not grow for an instant before its own, as after a clock step. */
export function decayedAmount(row: DecayingAmount, atMs: number, halfLifeMs: number): number {
  return row.amount * 2 ** (-Math.max(0, atMs - row.atMs) / halfLifeMs);
}

/** Adds an amount of the instant `atMs`. If that lies before the row's own instant, the added amount has decayed already. */
export function addAmount(
  row: DecayingAmount | null,
  amount: number,
  atMs: number,
  halfLifeMs: number,
): DecayingAmount {
  if (row === null) return { amount, atMs };
  if (atMs >= row.atMs) return { amount: decayedAmount(row, atMs, halfLifeMs) + amount, atMs };
  return { amount: row.amount + decayedAmount({ amount, atMs }, row.atMs, halfLifeMs), atMs: row.atMs };
}

/** One row per rendition and site with demand, and one with site null per rendition with any. */
export function computePopularity(input: PopularityInput): PopularityRow[] {
  const served = amountsBySite(input.served, input);
  const asked = amountsBySite(input.asked, input);
  const sites = new Set([...served.keys(), ...asked.keys()]);
  const rows: PopularityRow[] = [];
  for (const title of input.titles) {
    const totals = new Map<string, number>();
    for (const site of sites) {
      const streamed = streamedBytes(title, served.get(site), asked.get(site));
      for (const [holding, bytes] of streamed) {
        totals.set(holding, (totals.get(holding) ?? 0) + bytes);
        if (site !== null) rows.push(popularityRow(title, holding, site, bytes));
      }
    }
    for (const [holding, bytes] of totals) rows.push(popularityRow(title, holding, null, bytes));
  }
  return rows;
}

/**
 * The scores that a site's plan ranks by: its own popularity, plus that of all other demand divided by the number of sites. A
 * title that is popular elsewhere, or that only the origin served, thus enters a plan, behind those requested at the site.
 */
export function siteScores(rows: readonly PopularityRow[], site: string, sites: number): ReadonlyMap<string, number> {
  const own = new Map<string, number>();
  const scores = new Map<string, number>();
  for (const row of rows) if (row.site === site) own.set(row.holding, row.popularity);
  for (const row of rows) {
    if (row.site !== null) continue;
    const here = own.get(row.holding) ?? 0;
    scores.set(row.holding, here + Math.max(0, row.popularity - here) / Math.max(1, sites));
  }
  return scores;
}

/** Bytes of each holding of a title at one site: served by appliances, or estimated from plays that they did not serve. */
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
  const missingBytes = (asked?.get(title.id) ?? 0) * playBytes(title.renditions) - servedBytes;
  const media = title.renditions.filter((r) => r.kind === 'video' || r.kind === 'audio');
  const mediaBytes = sum(media.map((r) => r.bytes));
  if (missingBytes <= 0 || mediaBytes === 0) return streamed;
  for (const rendition of media) {
    const holding = holdingOf(title.id, rendition.id);
    streamed.set(holding, (streamed.get(holding) ?? 0) + (missingBytes * rendition.bytes) / mediaBytes);
  }
  return streamed;
}

/** Expected bytes of one play: a mean video rendition and a mean audio rendition. */
function playBytes(renditions: readonly Rendition[]): number {
  const mean = (kind: Rendition['kind']): number => {
    const sizes = renditions.filter((r) => r.kind === kind).map((r) => r.bytes);
    return sizes.length === 0 ? 0 : sum(sizes) / sizes.length;
  };
  return mean('video') + mean('audio');
}

function popularityRow(title: PopularityTitle, holding: string, site: string | null, bytes: number): PopularityRow {
  const rendition = title.renditions.find((r) => holdingOf(title.id, r.id) === holding)!;
  return { holding, site, popularity: bytes / Math.max(1, rendition.bytes), bytes: rendition.bytes };
}

function amountsBySite(
  rows: readonly DemandRow[],
  { atMs, halfLifeMs }: Pick<PopularityInput, 'atMs' | 'halfLifeMs'>,
): Map<string | null, Map<string, number>> {
  const sites = new Map<string | null, Map<string, number>>();
  for (const row of rows) {
    const amounts = sites.get(row.site) ?? new Map<string, number>();
    amounts.set(row.key, (amounts.get(row.key) ?? 0) + decayedAmount(row, atMs, halfLifeMs));
    sites.set(row.site, amounts);
  }
  return sites;
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
