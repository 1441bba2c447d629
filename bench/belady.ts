// Belady's algorithm by bytes, with knowledge of the future: it evicts the bytes whose next request is furthest away, and does not
// admit bytes whose next request is further away than that. Objects may be cached in part. No eviction and admission policy has
// more byte hits. If all objects have the same size, it is Belady's MIN (1966) with bypass.

import { HitCounter, type Simulation, type HitStats } from './replay.ts';

const NEVER = 2 ** 32 - 1;

export function belady({ trace, runs, capacityBytes }: Simulation): HitStats {
  const { requests, sizes } = trace;
  const next = nextRequestIndexes(requests, sizes.length);
  const held = new Float64Array(runs.bytes.length);
  const heap = new MaxHeap(runs.bytes.length);
  const counter = new HitCounter();
  let free = capacityBytes;
  for (const [index, object] of requests.entries()) {
    const due = next[index]!;
    let hitBytes = 0;
    for (let run = runs.first[object]!; run < runs.first[object + 1]!; run += 1) {
      hitBytes += held[run]!;
      if (due === NEVER) {
        free += held[run]!;
        held[run] = 0;
        heap.remove(run);
        continue;
      }
      if (held[run]! > 0) heap.set(run, due);
      let wanted = runs.bytes[run]! - held[run]!;
      while (wanted > 0) {
        if (free === 0) {
          const last = heap.top;
          // All runs of this object have the same next request, so none is evicted for another.
          if (last === -1 || heap.keyOf(last) <= due) break;
          const evicted = Math.min(wanted, held[last]!);
          held[last]! -= evicted;
          free += evicted;
          if (held[last] === 0) heap.remove(last);
        }
        const admitted = Math.min(wanted, free);
        held[run]! += admitted;
        free -= admitted;
        wanted -= admitted;
      }
      if (held[run]! > 0) heap.set(run, due);
    }
    counter.count(sizes[object]!, hitBytes);
    counter.bytesHeldMax = Math.max(counter.bytesHeldMax, capacityBytes - free);
  }
  return { ...counter.stats, writeRatio: Number.NaN };
}

/** For each request, the index of the next request for the same object. */
function nextRequestIndexes(requests: Uint32Array, objects: number): Uint32Array {
  const next = new Uint32Array(requests.length);
  const last = new Uint32Array(objects).fill(NEVER);
  for (let index = requests.length - 1; index >= 0; index -= 1) {
    next[index] = last[requests[index]!]!;
    last[requests[index]!] = index;
  }
  return next;
}

/** A binary heap of items with the largest key on top. Each item occurs at most once. */
class MaxHeap {
  readonly #items: Int32Array;
  readonly #keys: Float64Array;
  /** Index of each item in the heap, or −1. */
  readonly #position: Int32Array;
  #count = 0;

  constructor(items: number) {
    this.#items = new Int32Array(items);
    this.#keys = new Float64Array(items);
    this.#position = new Int32Array(items).fill(-1);
  }

  get top(): number {
    return this.#count === 0 ? -1 : this.#items[0]!;
  }

  keyOf(item: number): number {
    return this.#keys[item]!;
  }

  set(item: number, key: number): void {
    this.#keys[item] = key;
    if (this.#position[item] === -1) {
      this.#put(this.#count, item);
      this.#count += 1;
    }
    this.#down(this.#up(this.#position[item]!));
  }

  remove(item: number): void {
    const position = this.#position[item]!;
    if (position === -1) return;
    this.#position[item] = -1;
    this.#count -= 1;
    if (position === this.#count) return;
    this.#put(position, this.#items[this.#count]!);
    this.#down(this.#up(position));
  }

  #put(position: number, item: number): void {
    this.#items[position] = item;
    this.#position[item] = position;
  }

  #up(from: number): number {
    const item = this.#items[from]!;
    let position = from;
    while (position > 0) {
      const parent = (position - 1) >>> 1;
      if (this.#keys[this.#items[parent]!]! >= this.#keys[item]!) break;
      this.#put(position, this.#items[parent]!);
      position = parent;
    }
    this.#put(position, item);
    return position;
  }

  #down(from: number): void {
    const item = this.#items[from]!;
    let position = from;
    for (;;) {
      let child = 2 * position + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && this.#keys[this.#items[child + 1]!]! > this.#keys[this.#items[child]!]!)
        child += 1;
      if (this.#keys[this.#items[child]!]! <= this.#keys[item]!) break;
      this.#put(position, this.#items[child]!);
      position = child;
    }
    this.#put(position, item);
  }
}
