// From a client's address to a site: the longest matching prefix of the map; else the site nearest to the position of the
// address; else the default site. Without any of these no site is preferred. Pure.

import type { ClientLocation } from '../protocol/decision.ts';
import type { Position } from '../protocol/heartbeat.ts';
import type { DecisionInputs } from './decision-inputs.ts';
import { parseAddress } from './prefix-table.ts';

export interface LocatedClient {
  readonly location: ClientLocation;
  /** Origin of distances: the client's own position or, if that is unknown, its site's. */
  readonly position: Position | null;
}

type LocationInputs = Pick<DecisionInputs, 'footprint' | 'geoip' | 'defaultSite' | 'sites'>;

/** Longest excerpt of the address that is echoed in answers; it may be text that a trusted proxy garbled. */
const ADDRESS_CHARS_MAX = 64;

export function locateClient(addressText: string, inputs: LocationInputs): LocatedClient {
  const address = addressText.slice(0, ADDRESS_CHARS_MAX);
  const parsed = parseAddress(addressText);
  const mapped = parsed === null ? null : inputs.footprint.locate(parsed);
  const position = parsed === null ? null : inputs.geoip.locate(parsed);
  if (mapped !== null) {
    return {
      location: { address, by: 'prefix', prefix: mapped.prefix, site: mapped.site },
      position: position ?? inputs.sites.get(mapped.site) ?? null,
    };
  }
  const nearest = position === null ? null : nearestSite(position, inputs.sites);
  if (nearest !== null) return { location: { address, by: 'position', prefix: null, site: nearest }, position };
  const site = inputs.defaultSite;
  return {
    location: { address, by: site === null ? 'none' : 'default', prefix: null, site },
    position: position ?? (site === null ? null : (inputs.sites.get(site) ?? null)),
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

/** Great-circle distance by the haversine formula, accurate to 0.5 % because it treats the earth as a sphere. */
export function distanceKm(a: Position, b: Position): number {
  const lat = radians(b.lat - a.lat) / 2;
  const lon = radians(b.lon - a.lon) / 2;
  const h = Math.sin(lat) ** 2 + Math.cos(radians(a.lat)) * Math.cos(radians(b.lat)) * Math.sin(lon) ** 2;
  return 2 * EARTH_RADIUS_KM * Math.asin(Math.min(1, Math.sqrt(h)));
}
