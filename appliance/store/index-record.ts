// Rows of a volume's index: one record per asset version, and one intent per block whose file is being written or removed.

import { blockCount } from './block-file.ts';
import { Bitmap } from './bitmap.ts';
import type { AssetMeta, Entry } from './volume.ts';

/** The JSON on disk, in layout 1. `bornMs` is what the code calls `generatedAtMs`; `blocks` is the bitmap in base64. */
interface StoredRecord extends Omit<AssetMeta, 'generatedAtMs'> {
  readonly bornMs: number | null;
  readonly blocks: string;
  readonly touchedMs: number;
}

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

export function encodeRecord(entry: Entry): string {
  const record: StoredRecord = {
    key: entry.key,
    version: entry.version,
    bytes: entry.bytes,
    headers: entry.headers,
    bornMs: entry.generatedAtMs,
    holding: entry.holding,
    blocks: Buffer.from(entry.blocks.toBytes()).toString('base64'),
    touchedMs: entry.touchedMs,
  };
  return JSON.stringify(record);
}

export function decodeRecord(text: string): AssetRecord {
  const { bornMs, blocks, touchedMs, ...meta } = JSON.parse(text) as StoredRecord;
  return {
    meta: { ...meta, generatedAtMs: bornMs },
    blocks: new Bitmap(blockCount(meta.bytes), Buffer.from(blocks, 'base64')),
    touchedMs,
  };
}
