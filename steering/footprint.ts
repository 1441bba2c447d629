// The map: which site serves which networks. Reads Apache Traffic Control's coverage-zone file and refuses a bad one
// whole, naming every zone, value and remedy: half a map would send viewers to the wrong town without a word.

import { Fault } from '../protocol/faults.ts';
import type { Position } from '../protocol/heartbeat.ts';
import { id } from '../protocol/ids.ts';
import { formatPrefix, parsePrefix, PrefixTable, type Address, type Entry } from './prefix-table.ts';

export const MAP_PREFIXES_MAX = 2_000_000;
export const MAP_PROBLEMS_SHOWN_MAX = 20;

export interface Zone {
  readonly site: string;
  readonly position: Position | null;
  readonly prefixes: number;
  /** Sites to go to before any other when this one cannot take a play, in order. */
  readonly backups: readonly string[];
  /** False: beyond the backups the origin comes at once, whatever lies near. */
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
  const entries = new Map<string, Entry<string>>();
  for (const [name, zone] of zonesOf(text, source)) readZone(name, zone, { zones, entries, problems });
  for (const zone of zones.values())
    for (const backup of zone.backups)
      if (!zones.has(backup))
        problems.push(`zone ${zone.site}: backupZones names ${backup}, which is no zone of this file`);
  if (entries.size > MAP_PREFIXES_MAX)
    problems.push(`${entries.size} prefixes are more than the ${MAP_PREFIXES_MAX} that fit; merge neighbours`);
  if (problems.length > 0) throw invalid(source, problems);
  const table = new PrefixTable([...entries.values()]);
  return {
    zones,
    locate: (address) => {
      const match = table.longest(address);
      return match === null ? null : { site: match.value, prefix: formatPrefix(match.prefix) };
    },
  };
}

function zonesOf(text: string, source: string): [string, unknown][] {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid(source, [`it is not JSON: ${(error as Error).message}`]);
  }
  const zones = isObject(document) ? document['coverageZones'] : undefined;
  if (!isObject(zones)) throw invalid(source, ['it has no object "coverageZones"; start with {"coverageZones":{}}']);
  return Object.entries(zones);
}

interface Reading {
  readonly zones: Map<string, Zone>;
  readonly entries: Map<string, Entry<string>>;
  readonly problems: string[];
}

const ZONE_KEYS = ['network', 'network6', 'coordinates', 'backupZones'];

function readZone(site: string, zone: unknown, into: Reading): void {
  const say = (problem: string): void => void into.problems.push(`zone ${site}: ${problem}`);
  if (!id.safeParse(site).success) {
    say('the name is no site id: use 1 to 63 of a-z 0-9 . _ - and start with a letter or digit');
    return;
  }
  if (!isObject(zone)) {
    say('it must be an object with network, network6 and coordinates');
    return;
  }
  for (const key of Object.keys(zone))
    if (!ZONE_KEYS.includes(key)) say(`"${key}" is not known; known are ${ZONE_KEYS.join(', ')}`);
  const prefixes =
    readNetworks(site, { zone, key: 'network', bits: 32 }, into) +
    readNetworks(site, { zone, key: 'network6', bits: 128 }, into);
  into.zones.set(site, {
    site,
    position: readPosition(zone['coordinates'], say),
    prefixes,
    ...readBackups(zone['backupZones'], say),
  });
}

function readNetworks(
  site: string,
  where: { readonly zone: Record<string, unknown>; readonly key: 'network' | 'network6'; readonly bits: 32 | 128 },
  { entries, problems }: Reading,
): number {
  const list = where.zone[where.key] ?? [];
  if (!Array.isArray(list)) {
    problems.push(`zone ${site}: ${where.key} must be a list of networks`);
    return 0;
  }
  let prefixes = 0;
  for (const text of list as unknown[]) {
    const say = (problem: string): void =>
      void problems.push(`zone ${site}: ${where.key} ${JSON.stringify(text)} ${problem}`);
    const prefix = typeof text === 'string' ? parsePrefix(text) : { problem: 'is no text' };
    if ('problem' in prefix) {
      say(prefix.problem);
      continue;
    }
    if (prefix.bits !== where.bits) {
      say(`belongs under ${where.key === 'network' ? 'network6' : 'network'}`);
      continue;
    }
    const key = formatPrefix(prefix);
    const before = entries.get(key);
    if (before !== undefined && before.value !== site) {
      say(`is also a network of zone ${before.value}; keep it in one of them`);
      continue;
    }
    if (before === undefined) prefixes += 1;
    entries.set(key, { prefix, value: site });
  }
  return prefixes;
}

function readPosition(value: unknown, say: (problem: string) => void): Position | null {
  if (value === undefined || value === null) return null;
  const { latitude: lat, longitude: lon } = isObject(value) ? value : {};
  if (typeof lat !== 'number' || typeof lon !== 'number' || Math.abs(lat) > 90 || Math.abs(lon) > 180) {
    say(
      `coordinates ${JSON.stringify(value)} must be {"latitude": -90 to 90, "longitude": -180 to 180}; leave them out where unknown`,
    );
    return null;
  }
  return { lat, lon };
}

function readBackups(value: unknown, say: (problem: string) => void): Pick<Zone, 'backups' | 'nearestAfterBackups'> {
  if (value === undefined || value === null) return { backups: [], nearestAfterBackups: true };
  const list = isObject(value) ? (value['list'] ?? []) : undefined;
  const closest = isObject(value) ? (value['fallbackToClosestGroup'] ?? true) : undefined;
  if (!Array.isArray(list) || list.some((name) => typeof name !== 'string') || typeof closest !== 'boolean') {
    say('backupZones must be {"list": ["zone", …], "fallbackToClosestGroup": true or false}');
    return { backups: [], nearestAfterBackups: true };
  }
  return { backups: list as string[], nearestAfterBackups: closest };
}

function invalid(source: string, problems: readonly string[]): Fault {
  const shown = problems.slice(0, MAP_PROBLEMS_SHOWN_MAX);
  const more = problems.length > shown.length ? [`and ${problems.length - shown.length} more`] : [];
  return new Fault('map_invalid', `${source} is no usable map:\n  ${[...shown, ...more].join('\n  ')}`);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
