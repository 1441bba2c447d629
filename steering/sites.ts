// Which sites exist and where they are. The map's position of a site takes precedence over what its appliances report. Pure.

import type { Position } from '../protocol/heartbeat.ts';
import type { Footprint } from './footprint.ts';

export interface ReportedSite {
  readonly position: Position | null;
  /** Appliances that report the site. */
  readonly appliances: number;
}

/** Sites that appliances report. The position is that of the first appliance, by id, that has one. */
export function reportedSites(
  appliances: Iterable<{ readonly id: string; readonly site: string; readonly position: Position | null }>,
): Map<string, ReportedSite> {
  const sites = new Map<string, ReportedSite>();
  for (const { site, position } of [...appliances].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const before = sites.get(site);
    sites.set(site, { position: before?.position ?? position, appliances: (before?.appliances ?? 0) + 1 });
  }
  return sites;
}

/** Positions of all sites, reported or mapped; null where neither knows one. */
export function sitePositions(
  reported: ReadonlyMap<string, ReportedSite>,
  { zones }: Pick<Footprint, 'zones'>,
): Map<string, Position | null> {
  const sites = new Map<string, Position | null>();
  for (const [site, { position }] of reported) sites.set(site, position);
  for (const [site, { position }] of zones) sites.set(site, position ?? sites.get(site) ?? null);
  return sites;
}
