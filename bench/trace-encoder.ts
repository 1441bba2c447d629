// Encodes a trace in the formats that trace-file.ts reads. `node dist/bench/trace-encoder.js bench/test` writes the samples of the
// tests.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { RECORD_BYTES } from './trace-file.ts';
import { eveningTrace, type Trace } from './trace.ts';

const REQUEST_INTERVAL_MS = 250;

export const SAMPLE_SPEC = { titles: 5, viewers: 6, requests: 1_000, seed: 20_261_120 };

/** File contents by file name. */
export function encodeTrace({ requests, sizes }: Trace): Readonly<Record<string, Buffer>> {
  const rows = Array.from(requests, (object, turn) => ({
    second: Math.floor((turn * REQUEST_INTERVAL_MS) / 1_000),
    // Ids beyond 32 bits with gaps, like the hashes of real ids.
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
  for (const [name, bytes] of Object.entries(encodeTrace(eveningTrace(SAMPLE_SPEC))))
    writeFileSync(join(directory, name), bytes);
}
