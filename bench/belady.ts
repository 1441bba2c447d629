// Belady's choice, by bytes: whoever knows the future lets go of the bytes that are asked for again last, and takes in none
// that are asked for later than those. A byte is as good as any other, so an object may be there in part, and no order and
// no admission on earth hits more bytes; where all objects are of one size it is the MIN of 1966, with bypass.

import { Tally, type Contest, type Score } from './replay.ts';

const NEVER = 2 ** 32 - 1;

export function belady({ trace, runs, capacityBytes }: Contest): Score {
  const { requests, sizes } = trace;
  const next = nextUses(requests, sizes.length);
  const held = new Float64Array(runs.bytes.length);
  const heap = new Heap(runs.bytes.length);
  const tally = new Tally();
  let free = capacityBytes;
  for (const [turn, object] of requests.entries()) {
    const due = next[turn]!;
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
          // Of this object's own runs none is better than another.
          if (last === -1 || heap.keyOf(last) <= due) break;
          const given = Math.min(wanted, held[last]!);
          held[last]! -= given;
          free += given;
          if (held[last] === 0) heap.remove(last);
        }
        const taken = Math.min(wanted, free);
        held[run]! += taken;
        free -= taken;
        wanted -= taken;
      }
      if (held[run]! > 0) heap.set(run, due);
    }
    tally.count(sizes[object]!, hitBytes);
    tally.bytesMost = Math.max(tally.bytesMost, capacityBytes - free);
  }
  return { ...tally.score, written: Number.NaN };
}

/** The turn of the next request for the same object, by turn. */
function nextUses(requests: Uint32Array, objects: number): Uint32Array {
  const next = new Uint32Array(requests.length);
  const last = new Uint32Array(objects).fill(NEVER);
  for (let turn = requests.length - 1; turn >= 0; turn -= 1) {
    next[turn] = last[requests[turn]!]!;
    last[requests[turn]!] = turn;
  }
  return next;
}

/** Items by key, the largest on top; each at most once. */
class Heap {
  readonly #items: Int32Array;
  readonly #keys: Float64Array;
  /** Place of an item, −1 for none. */
  readonly #place: Int32Array;
  #count = 0;

  constructor(items: number) {
    this.#items = new Int32Array(items);
    this.#keys = new Float64Array(items);
    this.#place = new Int32Array(items).fill(-1);
  }

  get top(): number {
    return this.#count === 0 ? -1 : this.#items[0]!;
  }

  keyOf(item: number): number {
    return this.#keys[item]!;
  }

  set(item: number, key: number): void {
    this.#keys[item] = key;
    if (this.#place[item] === -1) {
      this.#put(this.#count, item);
      this.#count += 1;
    }
    this.#down(this.#up(this.#place[item]!));
  }

  remove(item: number): void {
    const place = this.#place[item]!;
    if (place === -1) return;
    this.#place[item] = -1;
    this.#count -= 1;
    if (place === this.#count) return;
    this.#put(place, this.#items[this.#count]!);
    this.#down(this.#up(place));
  }

  #put(place: number, item: number): void {
    this.#items[place] = item;
    this.#place[item] = place;
  }

  #up(from: number): number {
    const item = this.#items[from]!;
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      if (this.#keys[this.#items[parent]!]! >= this.#keys[item]!) break;
      this.#put(place, this.#items[parent]!);
      place = parent;
    }
    this.#put(place, item);
    return place;
  }

  #down(from: number): void {
    const item = this.#items[from]!;
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && this.#keys[this.#items[child + 1]!]! > this.#keys[this.#items[child]!]!)
        child += 1;
      if (this.#keys[this.#items[child]!]! <= this.#keys[item]!) break;
      this.#put(place, this.#items[child]!);
      place = child;
    }
    this.#put(place, item);
  }
}
