// Where a client without a mapped prefix may be: an optional CSV with the columns network, latitude and longitude (by
// header; others are ignored), as the GeoLite2 City Blocks files have them. Rows without a position are skipped.

import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { Fault } from '../protocol/faults.ts';
import type { Position } from '../protocol/heartbeat.ts';
import { parsePrefix, PrefixTable, type Address, type Entry } from './prefix-table.ts';

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

/** Throws `config_invalid` naming line, value and remedy. */
export async function parseGeoIp(lines: AsyncIterable<string>, source: string): Promise<GeoIp> {
  const entries: Entry<Position>[] = [];
  let columns: { readonly network: number; readonly lat: number; readonly lon: number } | null = null;
  let at = 0;
  for await (const line of lines) {
    at += 1;
    if (line.trim() === '') continue;
    const cells = splitCsv(line);
    if (columns === null) {
      columns = columnsOf(cells, source);
      continue;
    }
    const entry = readRow(cells, columns, `${source} line ${at}`);
    if (entry !== null) entries.push(entry);
    if (entries.length > GEOIP_ROWS_MAX)
      throw new Fault('config_invalid', `${source} has more than ${GEOIP_ROWS_MAX} rows; leave out far countries`);
  }
  if (columns === null) throw new Fault('config_invalid', `${source} is empty; it needs a header and rows`);
  const table = new PrefixTable(entries);
  return { locate: (address) => table.longest(address)?.value ?? null };
}

type Columns = { readonly network: number; readonly lat: number; readonly lon: number };

function columnsOf(header: readonly string[], source: string): Columns {
  const names = header.map((name) =>
    name
      .trim()
      .toLowerCase()
      .replace(/^\uFEFF/, ''),
  );
  const find = (name: string): number => {
    const index = names.indexOf(name);
    if (index < 0)
      throw new Fault(
        'config_invalid',
        `${source} has no column "${name}" in its first line; found ${names.join(', ')}`,
      );
    return index;
  };
  return { network: find('network'), lat: find('latitude'), lon: find('longitude') };
}

function readRow(cells: readonly string[], columns: Columns, where: string): Entry<Position> | null {
  const [lat, lon] = [cells[columns.lat] ?? '', cells[columns.lon] ?? ''].map((cell) => cell.trim());
  if (lat === '' || lon === '') return null;
  const text = (cells[columns.network] ?? '').trim();
  const prefix = parsePrefix(text);
  if ('problem' in prefix) throw new Fault('config_invalid', `${where}: network "${text}" ${prefix.problem}`);
  const position = { lat: Number(lat), lon: Number(lon) };
  if (!(Math.abs(position.lat) <= 90 && Math.abs(position.lon) <= 180))
    throw new Fault('config_invalid', `${where}: latitude ${lat}, longitude ${lon} lie on no globe; use degrees`);
  return { prefix, value: position };
}

/** RFC 4180 quotes; the columns that are read never hold a line break. */
function splitCsv(line: string): string[] {
  if (!line.includes('"')) return line.split(',');
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    (match) => match[1]?.replaceAll('""', '"') ?? match[2] ?? '',
  );
}
