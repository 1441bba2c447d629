// Rows of a volume's index: one record per asset version, and one intent per block whose file is being written or removed. A record
// begins with a crc32 of its key and itself, because LevelDB does not check what it reads: a flipped digit in a length would make
// truncated files whole.

import { crc32 } from '../../runtime/crc32.ts';
import { blockCount } from './block-file.ts';
import { Bitmap } from './bitmap.ts';
import type { AssetMeta, Entry } from './volume.ts';

/** The JSON on disk, in layout 2. `blocks` is the bitmap in base64. Fields of a newer release are ignored. */
interface StoredRecord extends AssetMeta {
  readonly blocks: string;
  readonly touchedMs: number;
}

const CRC_DIGITS = 8;

/** What the index stores of an asset version. */
export interface AssetRecord {
  readonly meta: AssetMeta;
  readonly blocks: Bitmap;
  readonly touchedMs: number;
}

/** The id that the next asset version gets. Its row is written last, so an index that has it is complete. */
export const NEXT_ID_KEY = 'next';
/** Bounds of the keys of intents. */
export const INTENT_KEYS = { gte: 'i', lt: 'j' } as const;

export const recordKey = (id: number): string => `a${id.toString(36)}`;
export const intentKey = (id: number, number: number): string => `i${id.toString(36)}.${number}`;

/** The asset id of a record's key; null for a key of another kind. */
export const idOfRecordKey = (key: string): number | null =>
  key.startsWith('a') ? Number.parseInt(key.slice(1), 36) : null;

/** The asset id and block number of an intent's key. */
export function parseIntentKey(key: string): { readonly id: number; readonly number: number } {
  const [id, number] = key.slice(1).split('.') as [string, string];
  return { id: Number.parseInt(id, 36), number: Number(number) };
}

/** The row under which the record of an entry is stored. */
export function recordRow(entry: Entry): { readonly type: 'put'; readonly key: string; readonly value: string } {
  const key = recordKey(entry.id);
  const record: StoredRecord = {
    key: entry.key,
    version: entry.version,
    bytes: entry.bytes,
    headers: entry.headers,
    generatedAtMs: entry.generatedAtMs,
    holding: entry.holding,
    blocks: Buffer.from(entry.blocks.toBytes()).toString('base64'),
    touchedMs: entry.touchedMs,
  };
  return { type: 'put', key, value: sealed(key, JSON.stringify(record)) };
}

/** Null if the record is damaged. */
export function decodeRecord(rowKey: string, value: string): AssetRecord | null {
  const text = unsealed(rowKey, value);
  if (text === null) return null;
  const { key, version, bytes, headers, generatedAtMs, holding, blocks, touchedMs } = JSON.parse(text) as StoredRecord;
  return {
    meta: { key, version, bytes, headers, generatedAtMs, holding },
    blocks: new Bitmap(blockCount(bytes), Buffer.from(blocks, 'base64')),
    touchedMs,
  };
}

/** The row of the next id. */
export const nextIdRow = (id: number): { readonly type: 'put'; readonly key: string; readonly value: string } => ({
  ...{ type: 'put', key: NEXT_ID_KEY, value: sealed(NEXT_ID_KEY, String(id)) },
});

/** Null if the row is damaged. */
export function decodeNextId(value: string): number | null {
  const text = unsealed(NEXT_ID_KEY, value);
  return text === null ? null : Number(text);
}

/** The value of a row: its checksum, then its text. */
export const sealed = (key: string, text: string): string => checksumOf(key, text) + text;

/** The text of a row; null if it is damaged. */
export function unsealed(key: string, value: string): string | null {
  const text = value.slice(CRC_DIGITS);
  return value.slice(0, CRC_DIGITS) === checksumOf(key, text) ? text : null;
}

/** Covers the key, so that a record that is found under the key of another one is damaged, too. */
const checksumOf = (key: string, text: string): string =>
  crc32(text, crc32(key)).toString(16).padStart(CRC_DIGITS, '0');
