// Reads recorded traces in the formats in which they are published. Two fields of each request are used, the id of the object and its
// size in bytes; requests keep the order of the file. An id with a different size is a different object, as in webcachesim and
// Caffeine; requests with a size of 0 are skipped, as in libCacheSim.
//
// | format          | recognized by                | fields                                                             |
// | oracleGeneral   | `oracleGeneral` in the name  | libCacheSim's records of 24 bytes, little-endian: uint32 time, uint64 id, uint32 size, int64 next_access_vtime; bytes 4–15 are read |
// | CSV             | `.csv`                       | commas; a first line with letters names the columns: id, obj_id, object_id or key, and size, obj_size or object_size; without one they are time, id, size |
// | request.trace   | any other name               | lines of AdaptSize and webcachesim: time, id, size and further fields, separated by white space |
//
// `.gz` files are decompressed while reading. Node 20 cannot decompress `.zst`; use `zstd -d`.

import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { createGunzip } from 'node:zlib';
import { Fault } from '../protocol/faults.ts';
import type { Trace } from './trace.ts';

export const RECORD_BYTES = 24;
/** The capacity of a Map, and the number of requests that fit in memory. */
const OBJECTS_MAX = 16_000_000;
const REQUESTS_MAX = 200_000_000;
const LINE_CHARS_MAX = 65_536;

const ID_COLUMNS = ['id', 'obj_id', 'object_id', 'key'];
const SIZE_COLUMNS = ['size', 'obj_size', 'object_size'];

/** Throws `config_invalid` if the file has none of these formats. */
export async function readTrace(path: string): Promise<Trace> {
  const name = basename(path);
  if (name.endsWith('.zst')) throw unreadable(path, 'is packed by zstd; unpack it first: zstd -d');
  const file = createReadStream(path, { highWaterMark: 2 ** 20 });
  const bytes = name.endsWith('.gz') ? file.pipe(createGunzip()) : file;
  file.on('error', (error) => bytes.destroy(error));
  const builder = new TraceBuilder(path);
  try {
    if (/oraclegeneral/i.test(name)) await readRecords(bytes, builder);
    else await readLines(bytes, builder, /\.csv(?:\.gz)?$/i.test(name));
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw unreadable(path, `cannot be read: ${(error as Error).message}`);
  }
  return builder.build(name);
}

const unreadable = (path: string, why: string): Fault => new Fault('config_invalid', `trace ${path} ${why}`);

class TraceBuilder {
  readonly #path: string;
  readonly #objectIds = new Map<string | number, number>();
  readonly #sizes: number[] = [];
  #requests = new Uint32Array(2 ** 16);
  #requestCount = 0;

  constructor(path: string) {
    this.#path = path;
  }

  fail(why: string): never {
    throw unreadable(this.#path, why);
  }

  add(id: string | number, size: number): void {
    if (!Number.isSafeInteger(size) || size < 0)
      this.fail(`has a size of ${size} at request ${this.#requestCount + 1}`);
    if (size === 0) return;
    let object = this.#objectIds.get(id);
    if (object !== undefined && this.#sizes[object] !== size) {
      id = `${id} of ${size}`;
      object = this.#objectIds.get(id);
    }
    if (object === undefined) {
      object = this.#sizes.push(size) - 1;
      this.#objectIds.set(id, object);
      if (object === OBJECTS_MAX) this.fail(`has more than ${OBJECTS_MAX} objects; take a sample of them`);
    }
    if (this.#requestCount === this.#requests.length) {
      if (this.#requestCount >= REQUESTS_MAX) this.fail(`has more than ${REQUESTS_MAX} requests; take its first ones`);
      const larger = new Uint32Array(this.#requestCount * 2);
      larger.set(this.#requests);
      this.#requests = larger;
    }
    this.#requests[this.#requestCount] = object;
    this.#requestCount += 1;
  }

  build(name: string): Trace {
    if (this.#requestCount === 0) this.fail('holds no request');
    return { name, requests: this.#requests.slice(0, this.#requestCount), sizes: Float64Array.from(this.#sizes) };
  }
}

async function readRecords(bytes: AsyncIterable<Buffer>, builder: TraceBuilder): Promise<void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of bytes) {
    const whole = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (; at + RECORD_BYTES <= whole.length; at += RECORD_BYTES) {
      const low = whole.readUInt32LE(at + 4);
      // 53 bits of the id. If ids are hashes, 16 million objects have a collision in one of 70 files.
      const high = whole.readUInt32LE(at + 8) & (2 ** 21 - 1);
      builder.add(high * 2 ** 32 + low, whole.readUInt32LE(at + 12));
    }
    rest = whole.subarray(at);
  }
  if (rest.length > 0) builder.fail(`is no oracleGeneral trace: ${rest.length} bytes are left over`);
}

async function readLines(bytes: AsyncIterable<Buffer>, builder: TraceBuilder, csv: boolean): Promise<void> {
  let columns = { id: 1, size: 2 };
  let lines = 0;
  const parseLine = (line: string): void => {
    lines += 1;
    if (line.trim() === '') return;
    const fields = csv ? line.split(',').map((field) => field.trim()) : line.trim().split(/\s+/);
    if (csv && lines === 1 && /[a-z]/i.test(fields[1] ?? fields[0]!) && !/^\d/.test(fields[0]!)) {
      columns = { id: columnOf(fields, ID_COLUMNS), size: columnOf(fields, SIZE_COLUMNS) };
      if (columns.id === -1 || columns.size === -1)
        builder.fail(`names no column ${columns.id === -1 ? ID_COLUMNS.join(', ') : SIZE_COLUMNS.join(', ')}`);
      return;
    }
    const [id, size] = [fields[columns.id], fields[columns.size]];
    if (id === undefined || size === undefined || !/^\d{1,15}$/.test(size))
      builder.fail(`line ${lines} is no request: ${line.slice(0, 80)}`);
    builder.add(/^\d{1,15}$/.test(id) ? Number(id) : id, Number(size));
  };
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of bytes) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop()!;
    if (rest.length > LINE_CHARS_MAX) builder.fail(`has a line of more than ${LINE_CHARS_MAX} characters`);
    for (const part of parts) parseLine(part);
  }
  parseLine(rest);
}

const columnOf = (heads: readonly string[], names: readonly string[]): number =>
  heads.findIndex((head) => names.includes(head.toLowerCase()));
