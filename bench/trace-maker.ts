// Writes a trace in the formats that trace-file.ts reads; `node dist/bench/trace-maker.js bench/test` makes those that tests read.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { RECORD_BYTES } from './trace-file.ts';
import { evening, type Trace } from './trace.ts';

/** Requests come so many milliseconds apart. */
const STEP_MS = 250;

export const SAMPLE = { titles: 5, viewers: 6, requests: 1_000, seed: 20_261_120 };

export function filesOf({ requests, sizes }: Trace): Readonly<Record<string, Buffer>> {
  const rows = Array.from(requests, (object, turn) => ({
    second: Math.floor((turn * STEP_MS) / 1_000),
    // Apart and beyond 32 bits, as the hashes of real ids are.
    id: object * 40_503 + 2 ** 33,
    size: sizes[object]!,
  }));
  const last = new Map<number, number>();
  const records = Buffer.alloc(rows.length * RECORD_BYTES);
  for (const [turn, { second, id, size }] of [...rows.entries()].reverse()) {
    const at = turn * RECORD_BYTES;
    records.writeUInt32LE(second, at);
    records.writeBigUInt64LE(BigInt(id), at + 4);
    records.writeUInt32LE(size, at + 12);
    records.writeBigInt64LE(BigInt(last.get(id) ?? -1), at + 16);
    last.set(id, turn);
  }
  const lines = (separator: string): string =>
    rows.map(({ second, id, size }) => [second, id, size].join(separator)).join('\n');
  return {
    'evening.csv': Buffer.from(`time,obj_id,obj_size\n${lines(',')}\n`),
    'evening.request.trace': Buffer.from(`${lines(' ')}\n`),
    'evening.oracleGeneral.bin': records,
  };
}

const directory = process.argv[2];
if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href && directory !== undefined) {
  mkdirSync(directory, { recursive: true });
  for (const [name, bytes] of Object.entries(filesOf(evening(SAMPLE)))) writeFileSync(join(directory, name), bytes);
}
