// The order of appliances for one client and one title. Sites come first: the client's own, then the backups that the map
// names for it, then the others by distance, with unknown distances last. Inside a site, appliances that hold more of the
// title come first; rendezvous hashing orders equals, so that plays of one title meet in one cache. Pure.

import type { Position } from '../protocol/heartbeat.ts';
import { hash32 } from '../protocol/hash.ts';
import { rendezvous } from '../protocol/placement.ts';
import { distanceKm } from './client-location.ts';
import type { ApplianceCandidate } from './decision-inputs.ts';

/** The client's own site and the policy of the map for plays that it cannot take. */
export interface HomeSite {
  /** Null if the client could not be located. */
  readonly site: string | null;
  /** Origin of distances. */
  readonly position: Position | null;
  readonly backups: readonly string[];
  /** False if the origin follows the backups directly, whatever lies near. */
  readonly nearestAfterBackups: boolean;
}

/** How a site relates to the client. Appliances in tier `outside` may not take the play. */
export type Tier = 'home' | 'backup' | 'near' | 'unknown' | 'outside';

export interface RankedCandidate {
  readonly candidate: ApplianceCandidate;
  readonly tier: Tier;
  readonly distanceKm: number | null;
}

export interface RankContext {
  /** Title id. */
  readonly title: string;
  readonly home: HomeSite;
  readonly sites: ReadonlyMap<string, Position | null>;
}

export function rank(candidates: readonly ApplianceCandidate[], context: RankContext): RankedCandidate[] {
  const bySite = new Map<string, ApplianceCandidate[]>();
  for (const candidate of candidates) {
    const sameSite = bySite.get(candidate.site);
    if (sameSite === undefined) bySite.set(candidate.site, [candidate]);
    else sameSite.push(candidate);
  }
  return rankSites([...bySite.keys()], context).flatMap(({ site, tier, distanceKm }) =>
    rankInsideSite(bySite.get(site)!, context.title).map((candidate) => ({ candidate, tier, distanceKm })),
  );
}

interface RankedSite {
  readonly site: string;
  readonly tier: Tier;
  readonly distanceKm: number | null;
}

const TIER_ORDER: Readonly<Record<Tier, number>> = { home: 0, backup: 1, near: 2, unknown: 3, outside: 4 };

function rankSites(siteIds: readonly string[], { title, home, sites }: RankContext): RankedSite[] {
  return siteIds
    .map((site): RankedSite => {
      const km = distanceTo(sites.get(site) ?? null, home.position);
      return { site, tier: tierOf(site, km, home), distanceKm: site === home.site && km === null ? 0 : km };
    })
    .sort(
      (a, b) =>
        TIER_ORDER[a.tier] - TIER_ORDER[b.tier] ||
        (a.tier === 'backup' ? home.backups.indexOf(a.site) - home.backups.indexOf(b.site) : 0) ||
        (a.distanceKm ?? Infinity) - (b.distanceKm ?? Infinity) ||
        // Hashing by title spreads the titles over sites that are otherwise equal.
        hash32(`${b.site}\0${title}`) - hash32(`${a.site}\0${title}`) ||
        (a.site < b.site ? -1 : 1),
    );
}

function tierOf(site: string, km: number | null, home: HomeSite): Tier {
  if (site === home.site) return 'home';
  if (home.backups.includes(site)) return 'backup';
  if (!home.nearestAfterBackups) return 'outside';
  return km === null ? 'unknown' : 'near';
}

const distanceTo = (to: Position | null, from: Position | null): number | null =>
  to === null || from === null ? null : distanceKm(from, to);

/** The sort is stable, so rendezvous order is kept within one holding class. */
const rankInsideSite = (candidates: readonly ApplianceCandidate[], title: string): ApplianceCandidate[] =>
  rendezvous(title, candidates).sort((a, b) => holdingClass(b.held) - holdingClass(a.held));

/** Shares of one tenth count as equal, because they differ by a subtitle here and there. Class 10 is a whole title only. */
export function holdingClass(held: number): number {
  if (held >= 1) return 10;
  return held <= 0 ? 0 : Math.min(9, Math.max(1, Math.floor(held * 10)));
}
