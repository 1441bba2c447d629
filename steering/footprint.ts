// The map: which site serves which networks. It is read from a coverage-zone file as in Apache Traffic Control. A bad file is
// refused as a whole, with every problem listed, because half a map would silently send viewers to the wrong site.

import { Fault } from '../protocol/faults.ts';
import type { Position } from '../protocol/heartbeat.ts';
import { id } from '../protocol/ids.ts';
import { formatPrefix, parsePrefix, PrefixTable, type Address, type PrefixEntry } from './prefix-table.ts';

export const MAP_PREFIXES_MAX = 2_000_000;
export const MAP_PROBLEMS_SHOWN_MAX = 20;

export interface Zone {
  readonly site: string;
  readonly position: Position | null;
  readonly prefixes: number;
  /** Sites that come first, in this order, if this one cannot take a play. */
  readonly backups: readonly string[];
  /** False if the origin follows the backups directly, whatever lies near. */
  readonly nearestAfterBackups: boolean;
}

export interface Footprint {
  readonly zones: ReadonlyMap<string, Zone>;
  /** The site of the longest prefix that covers the address. */
  locate(address: Address): { readonly site: string; readonly prefix: string } | null;
}

export const emptyFootprint: Footprint = { zones: new Map(), locate: () => null };

/** Throws `map_invalid` with every problem found. `source` names the file in messages. */
export function parseFootprint(text: string, source: string): Footprint {
  const problems: string[] = [];
  const zones = new Map<string, Zone>();
  const entries = new Map<string, PrefixEntry<string>>();
  for (const [name, zone] of parseZones(text, source)) parseZone(name, zone, { zones, entries, problems });
  for (const zone of zones.values())
    for (const backup of zone.backups)
      if (!zones.has(backup))
        problems.push(`zone ${zone.site}: backupZones names ${backup}, which is not a zone of this file`);
  if (entries.size > MAP_PREFIXES_MAX)
    problems.push(`${entries.size} prefixes are more than the ${MAP_PREFIXES_MAX} that fit; merge neighbours`);
  if (problems.length > 0) throw mapInvalid(source, problems);
  const table = new PrefixTable([...entries.values()]);
  return {
    zones,
    locate: (address) => {
      const match = table.longest(address);
      return match === null ? null : { site: match.value, prefix: formatPrefix(match.prefix) };
    },
  };
}

function parseZones(text: string, source: string): [string, unknown][] {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw mapInvalid(source, [`it is not JSON: ${(error as Error).message}`]);
  }
  const zones = isObject(document) ? document['coverageZones'] : undefined;
  if (!isObject(zones)) throw mapInvalid(source, ['it has no object "coverageZones"; start with {"coverageZones":{}}']);
  return Object.entries(zones);
}

/** Where the functions below collect their results. */
interface MapDraft {
  readonly zones: Map<string, Zone>;
  /** By prefix in its normal form. */
  readonly entries: Map<string, PrefixEntry<string>>;
  readonly problems: string[];
}

const ZONE_KEYS = ['network', 'network6', 'coordinates', 'backupZones'];

function parseZone(site: string, zone: unknown, draft: MapDraft): void {
  const report = (problem: string): void => void draft.problems.push(`zone ${site}: ${problem}`);
  if (!id.safeParse(site).success) {
    report('the name is not a site id: use 1 to 63 of a-z 0-9 . _ - and start with a letter or digit');
    return;
  }
  if (!isObject(zone)) {
    report('it must be an object with network, network6 and coordinates');
    return;
  }
  for (const key of Object.keys(zone))
    if (!ZONE_KEYS.includes(key)) report(`"${key}" is not known; known are ${ZONE_KEYS.join(', ')}`);
  const prefixes =
    parseNetworks(site, { zone, key: 'network', bits: 32 }, draft) +
    parseNetworks(site, { zone, key: 'network6', bits: 128 }, draft);
  draft.zones.set(site, {
    site,
    position: parsePosition(zone['coordinates'], report),
    prefixes,
    ...parseBackups(zone['backupZones'], report),
  });
}

/** Returns the number of prefixes that the zone lists, duplicates not counted. */
function parseNetworks(
  site: string,
  {
    zone,
    key,
    bits,
  }: { readonly zone: Record<string, unknown>; readonly key: 'network' | 'network6'; readonly bits: 32 | 128 },
  { entries, problems }: MapDraft,
): number {
  const list = zone[key] ?? [];
  if (!Array.isArray(list)) {
    problems.push(`zone ${site}: ${key} must be a list of networks`);
    return 0;
  }
  let prefixes = 0;
  for (const text of list as unknown[]) {
    const report = (problem: string): void =>
      void problems.push(`zone ${site}: ${key} ${JSON.stringify(text)} ${problem}`);
    const prefix = typeof text === 'string' ? parsePrefix(text) : { problem: 'is not a string' };
    if ('problem' in prefix) {
      report(prefix.problem);
      continue;
    }
    if (prefix.bits !== bits) {
      report(`belongs under ${key === 'network' ? 'network6' : 'network'}`);
      continue;
    }
    const normalForm = formatPrefix(prefix);
    const before = entries.get(normalForm);
    if (before !== undefined && before.value !== site) {
      report(`is also a network of zone ${before.value}; keep it in one of them`);
      continue;
    }
    if (before === undefined) prefixes += 1;
    entries.set(normalForm, { prefix, value: site });
  }
  return prefixes;
}

function parsePosition(value: unknown, report: (problem: string) => void): Position | null {
  if (value === undefined || value === null) return null;
  const { latitude: lat, longitude: lon } = isObject(value) ? value : {};
  if (typeof lat !== 'number' || typeof lon !== 'number' || Math.abs(lat) > 90 || Math.abs(lon) > 180) {
    report(
      `coordinates ${JSON.stringify(value)} must be {"latitude": -90 to 90, "longitude": -180 to 180}; leave them out where unknown`,
    );
    return null;
  }
  return { lat, lon };
}

function parseBackups(
  value: unknown,
  report: (problem: string) => void,
): Pick<Zone, 'backups' | 'nearestAfterBackups'> {
  if (value === undefined || value === null) return { backups: [], nearestAfterBackups: true };
  const list = isObject(value) ? (value['list'] ?? []) : undefined;
  const closest = isObject(value) ? (value['fallbackToClosestGroup'] ?? true) : undefined;
  if (!Array.isArray(list) || list.some((name) => typeof name !== 'string') || typeof closest !== 'boolean') {
    report('backupZones must be {"list": ["zone", …], "fallbackToClosestGroup": true or false}');
    return { backups: [], nearestAfterBackups: true };
  }
  return { backups: list as string[], nearestAfterBackups: closest };
}

function mapInvalid(source: string, problems: readonly string[]): Fault {
  const shown = problems.slice(0, MAP_PROBLEMS_SHOWN_MAX);
  const more = problems.length > shown.length ? [`and ${problems.length - shown.length} more`] : [];
  return new Fault('map_invalid', `${source} is not a usable map:\n  ${[...shown, ...more].join('\n  ')}`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
