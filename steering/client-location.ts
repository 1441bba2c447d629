// From a client's address to a site: the longest prefix of the map; else the position of the address and the site
// nearest to it; else the default site; else none, and sites are then taken without preference.

import type { Footing } from '../protocol/decision.ts';
import type { Position } from '../protocol/heartbeat.ts';
import type { Footprint } from './footprint.ts';
import type { GeoIp } from './geoip.ts';
import { parseAddress } from './prefix-table.ts';

export interface Client {
  readonly footing: Footing;
  /** Where distances are measured from: the client, or its site where the client's position is unknown. */
  readonly position: Position | null;
}

export interface Ground {
  readonly footprint: Footprint;
  readonly geoip: GeoIp;
  readonly defaultSite: string | null;
  /** Positions of all sites, from the map or else from heartbeats. */
  readonly sites: ReadonlyMap<string, Position | null>;
}

const ADDRESS_CHARS_MAX = 64;

export function findFooting(text: string, ground: Ground): Client {
  const address = parseAddress(text);
  const shown = text.slice(0, ADDRESS_CHARS_MAX);
  const mapped = address === null ? null : ground.footprint.locate(address);
  const position = address === null ? null : ground.geoip.locate(address);
  if (mapped !== null) {
    return {
      footing: { address: shown, by: 'prefix', prefix: mapped.prefix, site: mapped.site },
      position: position ?? ground.sites.get(mapped.site) ?? null,
    };
  }
  const nearest = position === null ? null : nearestSite(position, ground.sites);
  if (nearest !== null) return { footing: { address: shown, by: 'position', prefix: null, site: nearest }, position };
  const site = ground.defaultSite;
  return {
    footing: { address: shown, by: site === null ? 'none' : 'default', prefix: null, site },
    position: position ?? (site === null ? null : (ground.sites.get(site) ?? null)),
  };
}

function nearestSite(from: Position, sites: ReadonlyMap<string, Position | null>): string | null {
  let best: { readonly site: string; readonly km: number } | null = null;
  for (const [site, position] of sites) {
    if (position === null) continue;
    const km = distanceKm(from, position);
    if (best === null || km < best.km || (km === best.km && site < best.site)) best = { site, km };
  }
  return best?.site ?? null;
}

const EARTH_RADIUS_KM = 6371.0088;

const radians = (degrees: number): number => (degrees * Math.PI) / 180;

/** Great circle by the haversine formula; good to 0.5 %, as the earth is no sphere. */
export function distanceKm(a: Position, b: Position): number {
  const lat = radians(b.lat - a.lat) / 2;
  const lon = radians(b.lon - a.lon) / 2;
  const h = Math.sin(lat) ** 2 + Math.cos(radians(a.lat)) * Math.cos(radians(b.lat)) * Math.sin(lon) ** 2;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.min(1, Math.sqrt(h)));
}
