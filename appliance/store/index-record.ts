// What the index of a volume holds: a record per asset version, and intents, each the name of a block in doubt.

import type { Entry } from './volume.ts';

export interface StoredRecord {
  readonly key: string;
  readonly version: string;
  readonly bytes: number;
  readonly headers: Record<string, string>;
  readonly bornMs: number | null;
  readonly holding: string | null;
  readonly blocks: string;
  readonly touchedMs: number;
}

export const recordKey = (id: number): string => `a${id.toString(36)}`;
export const intentKey = (id: number, number: number): string => `i${id.toString(36)}.${number}`;

export function encodeRecord(entry: Entry): string {
  const record: StoredRecord = {
    key: entry.key,
    version: entry.version,
    bytes: entry.bytes,
    headers: { ...entry.headers },
    bornMs: entry.bornMs,
    holding: entry.holding,
    blocks: Buffer.from(entry.blocks.toBytes()).toString('base64'),
    touchedMs: entry.touchedMs,
  };
  return JSON.stringify(record);
}
