// Which sites there are and where: the map's word first, then what their appliances say. Pure.

import type { Position } from '../protocol/heartbeat.ts';
import type { Footprint } from './footprint.ts';

export interface SiteFacts {
  readonly position: Position | null;
  /** Appliances that report the site. */
  readonly appliances: number;
}

/** Sites that appliances report, with the position of the first of them, by id, that knows it. */
export function sitesOf(
  appliances: Iterable<{ readonly id: string; readonly site: string; readonly position: Position | null }>,
): Map<string, SiteFacts> {
  const sites = new Map<string, SiteFacts>();
  for (const { site, position } of [...appliances].sort((a, b) => (a.id < b.id ? -1 : 1))) {
    const before = sites.get(site);
    sites.set(site, { position: before?.position ?? position, appliances: (before?.appliances ?? 0) + 1 });
  }
  return sites;
}

/** The map's word on a site's position counts before its appliances'. */
export function sitePositions(
  reported: ReadonlyMap<string, SiteFacts>,
  { zones }: Pick<Footprint, 'zones'>,
): Map<string, Position | null> {
  const sites = new Map<string, Position | null>();
  for (const [site, { position }] of reported) sites.set(site, position);
  for (const [site, { position }] of zones) sites.set(site, position ?? sites.get(site) ?? null);
  return sites;
}
