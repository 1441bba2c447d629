// Replays a trace against what decides in an appliance: the eviction order and the admission that serve, given capacity and
// room as the cache gives them. An object is cut into runs as an asset is.

import type { Admission } from '../appliance/store/admission.ts';
import {
  RUN_BLOCKS,
  runKey,
  type EvictionPolicy,
  type HashRun,
  type RunGeometry,
} from '../appliance/store/eviction.ts';
import { BLOCK_BYTES } from '../appliance/store/block-file.ts';
import { hashPart } from '../appliance/store/bloom-filter.ts';
import type { Trace } from './trace.ts';

export const RUN_BYTES = RUN_BLOCKS * BLOCK_BYTES;
/** Sizes to the byte, so that every policy and Belady deal in the same. */
export const EXACT_RUNS: RunGeometry = { unitBytes: 1, runBytesMax: RUN_BYTES };

/** What a trace is cut into: run r of object o is `first[o] + r`. */
export interface Runs {
  readonly first: Uint32Array;
  readonly bytes: Float64Array;
  /** By run. */
  readonly object: Uint32Array;
}

export function runsOf({ sizes }: Trace): Runs {
  const first = new Uint32Array(sizes.length + 1);
  for (const [object, size] of sizes.entries()) first[object + 1] = first[object]! + Math.ceil(size / RUN_BYTES);
  const total = first[sizes.length]!;
  const runs: Runs = { first, bytes: new Float64Array(total), object: new Uint32Array(total) };
  for (const [object, size] of sizes.entries()) {
    for (let run = first[object]!, left = size; run < first[object + 1]!; run += 1, left -= RUN_BYTES) {
      runs.bytes[run] = Math.min(RUN_BYTES, left);
      runs.object[run] = object;
    }
  }
  return runs;
}

/** Bytes of the objects that are asked for at all. */
export function footprintOf({ requests, sizes }: Trace): number {
  const seen = new Uint8Array(sizes.length);
  let bytes = 0;
  for (const object of requests) {
    if (seen[object] === 0) bytes += sizes[object]!;
    seen[object] = 1;
  }
  return bytes;
}

export interface Score {
  /** Requests of which every byte was there. */
  readonly objects: number;
  /** Bytes that were there, of those asked for. */
  readonly bytes: number;
  /** Bytes written to disk ÷ bytes asked for; NaN where nothing is written, as by an oracle that moves bytes at will. */
  readonly written: number;
  readonly bytesMost: number;
}

/** Adds up one request after another. */
export class Tally {
  #asked = 0;
  #hits = 0;
  #askedBytes = 0;
  #hitBytes = 0;
  writtenBytes = 0;
  bytesMost = 0;

  count(askedBytes: number, hitBytes: number): void {
    this.#asked += 1;
    this.#askedBytes += askedBytes;
    this.#hitBytes += hitBytes;
    if (hitBytes === askedBytes) this.#hits += 1;
  }

  get score(): Score {
    return {
      objects: this.#hits / this.#asked,
      bytes: this.#hitBytes / this.#askedBytes,
      written: this.writtenBytes / this.#askedBytes,
      bytesMost: this.bytesMost,
    };
  }
}

export interface Contest {
  readonly trace: Trace;
  readonly runs: Runs;
  readonly capacityBytes: number;
  /** Requests that fill the cache before any is counted. */
  readonly warm?: number;
}

export interface Decider {
  readonly admission: Admission;
  readonly newPolicy: (hashRun: HashRun) => EvictionPolicy;
}

export function replay({ trace, runs, capacityBytes, warm = 0 }: Contest, { admission, newPolicy }: Decider): Score {
  const present = new Uint8Array(runs.bytes.length);
  const order = newPolicy((key) => hashPart(Math.floor(key / 2 ** 21), key % 2 ** 21));
  let tally = new Tally();
  for (const [turn, object] of trace.requests.entries()) {
    if (turn === warm) tally = new Tally();
    const end = runs.first[object + 1]!;
    let missing = 0;
    for (let run = runs.first[object]!; run < end; run += 1) {
      if (present[run] === 1) order.touch(keyOf(runs, run));
      else missing += runs.bytes[run]!;
    }
    tally.count(trace.sizes[object]!, trace.sizes[object]! - missing);
    if (missing === 0 || !admission.admits(object)) continue;
    for (let run = runs.first[object]!; run < end; run += 1) {
      const bytes = runs.bytes[run]!;
      if (present[run] === 1 || bytes > capacityBytes) continue;
      while (order.bytes + bytes > capacityBytes) present[runAt(runs, order.evict()!)] = 0;
      order.add(keyOf(runs, run), bytes);
      present[run] = 1;
      tally.writtenBytes += bytes;
      tally.bytesMost = Math.max(tally.bytesMost, order.bytes);
    }
  }
  return tally.score;
}

const keyOf = (runs: Runs, run: number): number => {
  const object = runs.object[run]!;
  return runKey(object, (run - runs.first[object]!) * RUN_BLOCKS);
};

const runAt = (runs: Runs, key: number): number => runs.first[Math.floor(key / 2 ** 21)]! + (key % 2 ** 21);
