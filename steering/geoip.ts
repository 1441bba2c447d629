// Positions of addresses that the map does not cover, from an optional CSV file with the columns network, latitude and
// longitude, as in the GeoLite2 City Blocks files. Columns are found by header and others ignored; rows without a position are
// skipped.

import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { Fault } from '../protocol/faults.ts';
import type { Position } from '../protocol/heartbeat.ts';
import { parsePrefix, PrefixTable, type Address, type PrefixEntry } from './prefix-table.ts';

export const GEOIP_ROWS_MAX = 12_000_000;

export interface GeoIp {
  locate(address: Address): Position | null;
}

export const noGeoIp: GeoIp = { locate: () => null };

export async function readGeoIp(file: string): Promise<GeoIp> {
  const lines = createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY });
  try {
    return await parseGeoIp(lines, file);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault('config_invalid', `--geoip ${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** Throws `config_invalid`, naming the line, the value and the remedy. */
export async function parseGeoIp(lines: AsyncIterable<string>, source: string): Promise<GeoIp> {
  const entries: PrefixEntry<Position>[] = [];
  let columns: Columns | null = null;
  let lineNumber = 0;
  for await (const line of lines) {
    lineNumber += 1;
    if (line.trim() === '') continue;
    const cells = splitCsv(line);
    if (columns === null) {
      columns = parseHeader(cells, source);
      continue;
    }
    const entry = parseRow(cells, columns, `${source} line ${lineNumber}`);
    if (entry !== null) entries.push(entry);
    if (entries.length > GEOIP_ROWS_MAX)
      throw new Fault('config_invalid', `${source} has more than ${GEOIP_ROWS_MAX} rows; leave out distant countries`);
  }
  if (columns === null) throw new Fault('config_invalid', `${source} is empty; it needs a header and rows`);
  const table = new PrefixTable(entries);
  return { locate: (address) => table.longest(address)?.value ?? null };
}

/** Indexes of the columns that are read. */
interface Columns {
  readonly network: number;
  readonly lat: number;
  readonly lon: number;
}

function parseHeader(header: readonly string[], source: string): Columns {
  const names = header.map((name) =>
    name
      .trim()
      .toLowerCase()
      .replace(/^\uFEFF/, ''),
  );
  const indexOf = (name: string): number => {
    const index = names.indexOf(name);
    if (index < 0)
      throw new Fault(
        'config_invalid',
        `${source} has no column "${name}" in its first line; found ${names.join(', ')}`,
      );
    return index;
  };
  return { network: indexOf('network'), lat: indexOf('latitude'), lon: indexOf('longitude') };
}

function parseRow(cells: readonly string[], columns: Columns, where: string): PrefixEntry<Position> | null {
  const [lat, lon] = [cells[columns.lat] ?? '', cells[columns.lon] ?? ''].map((cell) => cell.trim());
  if (lat === '' || lon === '') return null;
  const text = (cells[columns.network] ?? '').trim();
  const prefix = parsePrefix(text);
  if ('problem' in prefix) throw new Fault('config_invalid', `${where}: network "${text}" ${prefix.problem}`);
  const position = { lat: Number(lat), lon: Number(lon) };
  if (!(Math.abs(position.lat) <= 90 && Math.abs(position.lon) <= 180))
    throw new Fault('config_invalid', `${where}: latitude ${lat}, longitude ${lon} are out of range; use degrees`);
  return { prefix, value: position };
}

/** Handles quotes as in RFC 4180, but not line breaks inside them: the columns that are read never contain any. */
function splitCsv(line: string): string[] {
  if (!line.includes('"')) return line.split(',');
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    (match) => match[1]?.replaceAll('""', '"') ?? match[2] ?? '',
  );
}
