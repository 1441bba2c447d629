// The order of appliances for one client and one title. Sites first: the client's own, the backups that the map names
// for it, then by distance, unknown distance last. Inside a site: who holds more of the title, and among equals
// rendezvous hashing, so that plays of one title meet in one cache.

import type { Position } from '../protocol/heartbeat.ts';
import { hash32 } from '../protocol/hash.ts';
import { rendezvous } from '../protocol/placement.ts';
import { distanceKm } from './client-location.ts';

export interface Candidate {
  readonly id: string;
  readonly site: string;
  /** Relative capacity, > 0. */
  readonly weight: number;
  /** Share of the title's bytes, 0 to 1. */
  readonly held: number;
}

export interface Home {
  /** The client's own site; null where nothing is known of it. */
  readonly site: string | null;
  readonly position: Position | null;
  readonly backups: readonly string[];
  readonly nearestAfterBackups: boolean;
}

export type Tier = 'home' | 'backup' | 'near' | 'unknown' | 'outside';

export interface Ranked<C extends Candidate> {
  readonly candidate: C;
  readonly tier: Tier;
  readonly distanceKm: number | null;
}

export interface Ranking {
  readonly title: string;
  readonly home: Home;
  readonly sites: ReadonlyMap<string, Position | null>;
}

export function rank<C extends Candidate>(candidates: readonly C[], ranking: Ranking): Ranked<C>[] {
  const bySite = new Map<string, C[]>();
  for (const candidate of candidates) {
    const beside = bySite.get(candidate.site);
    if (beside === undefined) bySite.set(candidate.site, [candidate]);
    else beside.push(candidate);
  }
  return rankSites([...bySite.keys()], ranking).flatMap((place) =>
    rankInside(bySite.get(place.site)!, ranking.title).map((candidate) => ({
      candidate,
      tier: place.tier,
      distanceKm: place.distanceKm,
    })),
  );
}

interface Place {
  readonly site: string;
  readonly tier: Tier;
  readonly distanceKm: number | null;
}

const TIER_ORDER: Readonly<Record<Tier, number>> = { home: 0, backup: 1, near: 2, unknown: 3, outside: 4 };

function rankSites(sites: readonly string[], { title, home, sites: positions }: Ranking): Place[] {
  return sites
    .map((site): Place => {
      const km = distanceTo(positions.get(site) ?? null, home.position);
      return { site, tier: tierOf(site, km, home), distanceKm: site === home.site && km === null ? 0 : km };
    })
    .sort(
      (a, b) =>
        TIER_ORDER[a.tier] - TIER_ORDER[b.tier] ||
        (a.tier === 'backup' ? home.backups.indexOf(a.site) - home.backups.indexOf(b.site) : 0) ||
        (a.distanceKm ?? Infinity) - (b.distanceKm ?? Infinity) ||
        // Sites that nothing tells apart share the titles between them.
        hash32(`${b.site}\0${title}`) - hash32(`${a.site}\0${title}`) ||
        (a.site < b.site ? -1 : 1),
    );
}

function tierOf(site: string, km: number | null, home: Home): Tier {
  if (site === home.site) return 'home';
  if (home.backups.includes(site)) return 'backup';
  if (!home.nearestAfterBackups) return 'outside';
  return km === null ? 'unknown' : 'near';
}

const distanceTo = (to: Position | null, from: Position | null): number | null =>
  to === null || from === null ? null : distanceKm(from, to);

/** Rendezvous keeps its order among those of one class. */
function rankInside<C extends Candidate>(candidates: readonly C[], title: string): C[] {
  return rendezvous(title, candidates).sort((a, b) => holdingClass(b.held) - holdingClass(a.held));
}

/** Shares differ by a subtitle here and there: tenths are equal enough, and only a whole title is 10. */
export function holdingClass(held: number): number {
  if (held >= 1) return 10;
  return held <= 0 ? 0 : Math.min(9, Math.max(1, Math.floor(held * 10)));
}
