// Recorded traces in the formats in which they are published. Of each request two fields are read, the object's id and its
// size in bytes; requests follow each other as they stand in the file. An id that comes with another size is another object,
// as webcachesim and Caffeine have it; a size of 0 is skipped, as libCacheSim does.
//
// | format          | recognized by                | fields                                                             |
// | oracleGeneral   | `oracleGeneral` in the name  | libCacheSim's records of 24 bytes, little-endian: uint32 time, uint64 id, uint32 size, int64 next_access_vtime; bytes 4–15 are read |
// | CSV             | `.csv`                       | commas; a first line with letters names the columns: id, obj_id, object_id or key, and size, obj_size or object_size; without one they are time, id, size |
// | request.trace   | any other name               | AdaptSize's and webcachesim's lines: time, id, size and whatever, parted by white space |
//
// `.gz` is unpacked on the way; Node 20 cannot unpack `.zst`: `zstd -d` does.

import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { createGunzip } from 'node:zlib';
import { Fault } from '../protocol/faults.ts';
import type { Trace } from './trace.ts';

export const RECORD_BYTES = 24;
/** Where a Map of ids ends, and what fits into memory beside it. */
const OBJECTS_MAX = 16_000_000;
const REQUESTS_MAX = 200_000_000;
const LINE_CHARS_MAX = 65_536;

const ID_COLUMNS = ['id', 'obj_id', 'object_id', 'key'];
const SIZE_COLUMNS = ['size', 'obj_size', 'object_size'];

/** Throws `config_invalid` where the file is none of these. */
export async function readTrace(path: string): Promise<Trace> {
  const name = basename(path);
  if (name.endsWith('.zst')) throw unreadable(path, 'is packed by zstd; unpack it first: zstd -d');
  const file = createReadStream(path, { highWaterMark: 2 ** 20 });
  const bytes = name.endsWith('.gz') ? file.pipe(createGunzip()) : file;
  file.on('error', (error) => bytes.destroy(error));
  const collected = new Collected(path);
  try {
    if (/oraclegeneral/i.test(name)) await readRecords(bytes, collected);
    else await readLines(bytes, collected, /\.csv(?:\.gz)?$/i.test(name));
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw unreadable(path, `cannot be read: ${(error as Error).message}`);
  }
  return collected.trace(name);
}

const unreadable = (path: string, why: string): Fault => new Fault('config_invalid', `trace ${path} ${why}`);

class Collected {
  readonly #path: string;
  readonly #known = new Map<string | number, number>();
  readonly #sizes: number[] = [];
  #requests = new Uint32Array(2 ** 16);
  #count = 0;

  constructor(path: string) {
    this.#path = path;
  }

  fail(why: string): never {
    throw unreadable(this.#path, why);
  }

  add(id: string | number, size: number): void {
    if (!Number.isSafeInteger(size) || size < 0) this.fail(`has a size of ${size} at request ${this.#count + 1}`);
    if (size === 0) return;
    let object = this.#known.get(id);
    if (object !== undefined && this.#sizes[object] !== size) {
      id = `${id} of ${size}`;
      object = this.#known.get(id);
    }
    if (object === undefined) {
      object = this.#sizes.push(size) - 1;
      this.#known.set(id, object);
      if (object === OBJECTS_MAX) this.fail(`has more than ${OBJECTS_MAX} objects; take a sample of them`);
    }
    if (this.#count === this.#requests.length) {
      if (this.#count >= REQUESTS_MAX) this.fail(`has more than ${REQUESTS_MAX} requests; take its first ones`);
      const larger = new Uint32Array(this.#count * 2);
      larger.set(this.#requests);
      this.#requests = larger;
    }
    this.#requests[this.#count] = object;
    this.#count += 1;
  }

  trace(name: string): Trace {
    if (this.#count === 0) this.fail('holds no request');
    return { name, requests: this.#requests.slice(0, this.#count), sizes: Float64Array.from(this.#sizes) };
  }
}

async function readRecords(bytes: AsyncIterable<Buffer>, collected: Collected): Promise<void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of bytes) {
    const whole = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    for (; at + RECORD_BYTES <= whole.length; at += RECORD_BYTES) {
      const low = whole.readUInt32LE(at + 4);
      // 53 bits of the id: where it is a hash, two of 16 million objects look alike in one file of 70.
      const high = whole.readUInt32LE(at + 8) & (2 ** 21 - 1);
      collected.add(high * 2 ** 32 + low, whole.readUInt32LE(at + 12));
    }
    rest = whole.subarray(at);
  }
  if (rest.length > 0) collected.fail(`is no oracleGeneral trace: ${rest.length} bytes are left over`);
}

async function readLines(bytes: AsyncIterable<Buffer>, collected: Collected, csv: boolean): Promise<void> {
  let columns = { id: 1, size: 2 };
  let lines = 0;
  const take = (line: string): void => {
    lines += 1;
    if (line.trim() === '') return;
    const fields = csv ? line.split(',').map((field) => field.trim()) : line.trim().split(/\s+/);
    if (csv && lines === 1 && /[a-z]/i.test(fields[1] ?? fields[0]!) && !/^\d/.test(fields[0]!)) {
      columns = { id: columnOf(fields, ID_COLUMNS), size: columnOf(fields, SIZE_COLUMNS) };
      if (columns.id === -1 || columns.size === -1)
        collected.fail(`names no column ${columns.id === -1 ? ID_COLUMNS.join(', ') : SIZE_COLUMNS.join(', ')}`);
      return;
    }
    const [id, size] = [fields[columns.id], fields[columns.size]];
    if (id === undefined || size === undefined || !/^\d{1,15}$/.test(size))
      collected.fail(`line ${lines} is no request: ${line.slice(0, 80)}`);
    collected.add(/^\d{1,15}$/.test(id) ? Number(id) : id, Number(size));
  };
  let rest = '';
  const decoder = new TextDecoder();
  for await (const chunk of bytes) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop()!;
    if (rest.length > LINE_CHARS_MAX) collected.fail(`has a line of more than ${LINE_CHARS_MAX} characters`);
    for (const part of parts) take(part);
  }
  take(rest);
}

const columnOf = (heads: readonly string[], names: readonly string[]): number =>
  heads.findIndex((head) => names.includes(head.toLowerCase()));
