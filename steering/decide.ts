// The decision for one play: locate the client, rank the appliances, make the first N that may be given plays its pathways,
// append the origin, and give a reason for every appliance considered. Pure, so that `explain` shows exactly what a player
// got and history can repeat a decision of the past.

import type { ClientLocation, Consideration, Decision, Pathway } from '../protocol/decision.ts';
import { hash32 } from '../protocol/hash.ts';
import { PROTOCOL_VERSION, withSession } from '../protocol/ids.ts';
import type { FallbackName } from '../runtime/fallbacks.ts';
import { locateClient, type LocatedClient } from './client-location.ts';
import type { DecisionInputs, PlayRequest } from './decision-inputs.ts';
import { rank, type HomeSite, type RankedCandidate } from './rank.ts';

/** Pathway id of the origin. */
export const ORIGIN_ID = 'origin';

export interface PlayDecision {
  readonly decision: Decision;
  /** Every appliance in rank order, chosen or not. */
  readonly considered: readonly Consideration[];
  /** Named fallbacks that the decision had to use. */
  readonly fallbacks: readonly FallbackName[];
}

export function decide(inputs: DecisionInputs, playRequest: PlayRequest): PlayDecision {
  const { title, session, pathwaysMax } = playRequest;
  const client = locateClient(playRequest.address, inputs);
  const { location } = client;
  const ranked = rank(inputs.candidates, { title, home: homeOf(client, inputs), sites: inputs.sites });
  const considered = consider(ranked, location, pathwaysMax);
  const chosen = ranked.filter((_, index) => considered[index]!.outcome === 'chosen');
  const decision: Decision = {
    protocol: PROTOCOL_VERSION,
    id: session,
    at: new Date(inputs.at).toISOString(),
    title,
    client: location,
    ttlS: jitteredTtlS(inputs.ttlMs, hash32(session) / 2 ** 32),
    pathways: [
      ...chosen.map((each) => pathwayOf(each, session, location)),
      originPathway(inputs.originBase, chosen.length),
    ],
  };
  return { decision, considered, fallbacks: fallbacksUsed(chosen, location.site) };
}

function homeOf({ location: { site }, position }: LocatedClient, { footprint }: DecisionInputs): HomeSite {
  const zone = site === null ? undefined : footprint.zones.get(site);
  return {
    site,
    position,
    backups: zone?.backups ?? [],
    nearestAfterBackups: zone?.nearestAfterBackups ?? true,
  };
}

/** One consideration per ranked candidate, in the same order. */
function consider(ranked: readonly RankedCandidate[], location: ClientLocation, pathwaysMax: number): Consideration[] {
  let chosen = 0;
  return ranked.map((each): Consideration => {
    const { candidate, tier, distanceKm } = each;
    const refusal =
      candidate.refusal ?? (tier === 'outside' ? `site ${location.site} falls back to its backupZones only` : null);
    const outcome = refusal !== null ? 'refused' : chosen < pathwaysMax ? 'chosen' : 'spare';
    if (outcome === 'chosen') chosen += 1;
    return {
      appliance: candidate.id,
      site: candidate.site,
      outcome,
      reason: refusal ?? reasonFor(each, location),
      distanceKm,
      held: candidate.held,
    };
  });
}

const pathwayOf = (ranked: RankedCandidate, session: string, location: ClientLocation): Pathway => ({
  id: ranked.candidate.id,
  site: ranked.candidate.site,
  base: ranked.candidate.base + withSession(session, ''),
  held: ranked.candidate.held,
  reason: reasonFor(ranked, location),
});

/** The base has no session prefix: the origin may be any HTTP server, which would not know it. */
const originPathway = (originBase: string, appliances: number): Pathway => ({
  id: ORIGIN_ID,
  site: null,
  base: originBase,
  held: 1,
  reason: appliances === 0 ? 'no appliance can take the play' : 'last resort: the source of every asset',
});

function fallbacksUsed(chosen: readonly RankedCandidate[], homeSite: string | null): FallbackName[] {
  if (chosen.length === 0) return ['appliances_down_origin'];
  return homeSite !== null && chosen[0]!.tier !== 'home' ? ['site_down_next_site'] : [];
}

function reasonFor(ranked: RankedCandidate, location: ClientLocation): string {
  return `${whyThisSite(ranked, location)}; ${whatItHolds(ranked.candidate.held)}`;
}

function whyThisSite({ tier, distanceKm }: RankedCandidate, location: ClientLocation): string {
  if (tier === 'home') {
    if (location.by === 'prefix') return `its site serves ${location.prefix}`;
    return location.by === 'position' ? 'its site is the nearest to the address' : 'its site is the default';
  }
  if (tier === 'backup') return `its site is a backup of ${location.site}`;
  if (tier === 'near') return `its site is ${Math.round(distanceKm!)} km away`;
  return location.site === null ? 'nothing is known of the address' : 'the distance of its site is unknown';
}

function whatItHolds(held: number): string {
  if (held >= 1) return 'holds the title';
  return held <= 0 ? 'holds none of it and would pull it through' : `holds ${Math.max(1, Math.floor(held * 100))} %`;
}

/** The TTL spread over ± 20 %, so that players that started together do not return together. `fraction` lies in [0, 1). */
export const jitteredTtlS = (ttlMs: number, fraction: number): number =>
  Math.max(1, Math.round((ttlMs / 1000) * (0.8 + 0.4 * fraction)));
