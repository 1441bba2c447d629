// Simulates a cache: replays a trace against an eviction and an admission policy of the appliance, as its cache applies them. Objects
// are split into runs of blocks, as assets are.

import type { Admission } from '../appliance/store/admission.ts';
import {
  RUN_BLOCKS,
  runKey,
  type EvictionPolicy,
  type HashRun,
  type RunGeometry,
} from '../appliance/store/eviction-policy.ts';
import { BLOCK_BYTES } from '../appliance/store/block-file.ts';
import { hashPart } from '../appliance/store/bloom-filter.ts';
import type { Trace } from './trace.ts';

export const RUN_BYTES = RUN_BLOCKS * BLOCK_BYTES;
/** Sizes exact to the byte, so that every policy and Belady use the same sizes. */
export const EXACT_RUNS: RunGeometry = { unitBytes: 1, runBytesMax: RUN_BYTES };

/** The runs of a trace. Run r of object o has the index `first[o] + r`. */
export interface TraceRuns {
  readonly first: Uint32Array;
  readonly bytes: Float64Array;
  /** The object of each run. */
  readonly object: Uint32Array;
}

export function splitIntoRuns({ sizes }: Trace): TraceRuns {
  const first = new Uint32Array(sizes.length + 1);
  for (const [object, size] of sizes.entries()) first[object + 1] = first[object]! + Math.ceil(size / RUN_BYTES);
  const total = first[sizes.length]!;
  const runs: TraceRuns = { first, bytes: new Float64Array(total), object: new Uint32Array(total) };
  for (const [object, size] of sizes.entries()) {
    for (let run = first[object]!, left = size; run < first[object + 1]!; run += 1, left -= RUN_BYTES) {
      runs.bytes[run] = Math.min(RUN_BYTES, left);
      runs.object[run] = object;
    }
  }
  return runs;
}

/** Bytes of all objects that are requested at least once. */
export function footprintBytes({ requests, sizes }: Trace): number {
  const seen = new Uint8Array(sizes.length);
  let bytes = 0;
  for (const object of requests) {
    if (seen[object] === 0) bytes += sizes[object]!;
    seen[object] = 1;
  }
  return bytes;
}

export interface HitStats {
  /** Share of requests for which every byte was cached. */
  readonly hitRatio: number;
  /** Share of requested bytes that were cached. */
  readonly byteHitRatio: number;
  /** Bytes written to disk ÷ bytes requested; NaN for Belady, which moves single bytes. */
  readonly writeRatio: number;
  readonly bytesHeldMax: number;
}

/** Accumulates hit statistics, one request at a time. */
export class HitCounter {
  #requests = 0;
  #hits = 0;
  #requestedBytes = 0;
  #hitBytes = 0;
  writtenBytes = 0;
  bytesHeldMax = 0;

  count(requestedBytes: number, hitBytes: number): void {
    this.#requests += 1;
    this.#requestedBytes += requestedBytes;
    this.#hitBytes += hitBytes;
    if (hitBytes === requestedBytes) this.#hits += 1;
  }

  get stats(): HitStats {
    return {
      hitRatio: this.#hits / this.#requests,
      byteHitRatio: this.#hitBytes / this.#requestedBytes,
      writeRatio: this.writtenBytes / this.#requestedBytes,
      bytesHeldMax: this.bytesHeldMax,
    };
  }
}

export interface Simulation {
  readonly trace: Trace;
  readonly runs: TraceRuns;
  readonly capacityBytes: number;
  /** Number of requests that fill the cache and are not counted. */
  readonly warmUpRequests?: number;
}

export interface CachePolicy {
  readonly admission: Admission;
  readonly newPolicy: (hashRun: HashRun) => EvictionPolicy;
}

export function replay(
  { trace, runs, capacityBytes, warmUpRequests = 0 }: Simulation,
  { admission, newPolicy }: CachePolicy,
): HitStats {
  const present = new Uint8Array(runs.bytes.length);
  const policy = newPolicy((key) => hashPart(Math.floor(key / 2 ** 21), key % 2 ** 21));
  let counter = new HitCounter();
  for (const [index, object] of trace.requests.entries()) {
    if (index === warmUpRequests) counter = new HitCounter();
    const end = runs.first[object + 1]!;
    let missing = 0;
    for (let run = runs.first[object]!; run < end; run += 1) {
      if (present[run] === 1) policy.touch(runKeyAt(runs, run));
      else missing += runs.bytes[run]!;
    }
    counter.count(trace.sizes[object]!, trace.sizes[object]! - missing);
    if (missing === 0 || !admission.admits(object)) continue;
    for (let run = runs.first[object]!; run < end; run += 1) {
      const bytes = runs.bytes[run]!;
      if (present[run] === 1 || bytes > capacityBytes) continue;
      while (policy.bytes + bytes > capacityBytes) present[runIndex(runs, policy.evict()!)] = 0;
      policy.add(runKeyAt(runs, run), bytes);
      present[run] = 1;
      counter.writtenBytes += bytes;
      counter.bytesHeldMax = Math.max(counter.bytesHeldMax, policy.bytes);
    }
  }
  return counter.stats;
}

const runKeyAt = (runs: TraceRuns, run: number): number => {
  const object = runs.object[run]!;
  return runKey(object, (run - runs.first[object]!) * RUN_BLOCKS);
};

const runIndex = (runs: TraceRuns, key: number): number => runs.first[Math.floor(key / 2 ** 21)]! + (key % 2 ** 21);
