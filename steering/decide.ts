// A play, decided: candidates in rank order, the first N that may be given plays become pathways, the origin is last,
// and everybody looked at has a reason. Pure, so that `explain` shows exactly what a player got.

import type { Consideration, Pathway } from '../protocol/decision.ts';
import { withSession } from '../protocol/ids.ts';
import type { FallbackName } from '../runtime/fallbacks.ts';
import type { Client } from './client-location.ts';
import { rank, type Candidate, type Home, type Ranked, type Ranking } from './rank.ts';

export const ORIGIN_ID = 'origin';

export interface Contender extends Candidate {
  /** Base URL as players reach it, no trailing slash. */
  readonly base: string;
  /** Why it may not be given plays; null where it may. */
  readonly refusal: string | null;
}

export interface Question {
  readonly title: string;
  readonly session: string;
  readonly client: Client;
  readonly home: Pick<Home, 'backups' | 'nearestAfterBackups'>;
  readonly sites: Ranking['sites'];
  readonly contenders: readonly Contender[];
  /** Appliances named at most; the origin comes on top. */
  readonly pathways: number;
  readonly originBase: string;
}

export interface Verdict {
  readonly pathways: readonly Pathway[];
  readonly considered: readonly Consideration[];
  readonly fallbacks: readonly FallbackName[];
}

export function decide(question: Question): Verdict {
  const { footing, position } = question.client;
  const home: Home = { site: footing.site, position, ...question.home };
  const ranked = rank(question.contenders, { title: question.title, home, sites: question.sites });
  const chosen: Ranked<Contender>[] = [];
  const considered = ranked.map((place): Consideration => {
    const { candidate } = place;
    const refusal =
      candidate.refusal ?? (place.tier === 'outside' ? `site ${home.site} falls back to its backupZones only` : null);
    const outcome = refusal !== null ? 'refused' : chosen.length < question.pathways ? 'chosen' : 'spare';
    if (outcome === 'chosen') chosen.push(place);
    return {
      appliance: candidate.id,
      site: candidate.site,
      outcome,
      reason: refusal ?? reasonFor(place, question.client),
      distanceKm: place.distanceKm,
      held: candidate.held,
    };
  });
  return {
    pathways: [...chosen.map((place) => pathwayOf(place, question)), originOf(question, chosen.length)],
    considered,
    fallbacks: fallbacksOf(chosen, home.site),
  };
}

const pathwayOf = (place: Ranked<Contender>, question: Question): Pathway => ({
  id: place.candidate.id,
  site: place.candidate.site,
  base: place.candidate.base + withSession(question.session, ''),
  held: place.candidate.held,
  reason: reasonFor(place, question.client),
});

/** No session there: the origin is any HTTP server and knows no prefix. */
const originOf = (question: Question, appliances: number): Pathway => ({
  id: ORIGIN_ID,
  site: null,
  base: question.originBase,
  held: 1,
  reason: appliances === 0 ? 'no appliance can take the play' : 'last resort: the source of every asset',
});

function fallbacksOf(chosen: readonly Ranked<Contender>[], home: string | null): FallbackName[] {
  if (chosen.length === 0) return ['appliances_down_origin'];
  return home !== null && chosen[0]!.tier !== 'home' ? ['site_down_next_site'] : [];
}

function reasonFor(place: Ranked<Contender>, client: Client): string {
  return `${whyThisSite(place, client)}; ${whatItHolds(place.candidate.held)}`;
}

function whyThisSite({ tier, distanceKm }: Ranked<Contender>, { footing }: Client): string {
  if (tier === 'home') {
    if (footing.by === 'prefix') return `its site serves ${footing.prefix}`;
    return footing.by === 'position' ? 'its site is the nearest to the address' : 'its site is the default';
  }
  if (tier === 'backup') return `its site is a backup of ${footing.site}`;
  if (tier === 'near') return `its site is ${Math.round(distanceKm!)} km away`;
  return footing.site === null ? 'nothing is known of the address' : 'the distance of its site is unknown';
}

function whatItHolds(held: number): string {
  if (held >= 1) return 'holds the title';
  return held <= 0 ? 'holds none of it and would pull it through' : `holds ${Math.max(1, Math.floor(held * 100))} %`;
}
