// A hash table of runs of blocks in typed arrays, with doubly linked lists through its rows. A run takes 18 bytes where two
// hold its size, and 4.4 to 5 more in the index. A Map of small objects takes 83 bytes per run and ends at 16.7 million.
//
// A slot is a row of parallel arrays, which are allocated in pages, so that growing copies nothing. Slot 0 means none. The
// index is a thousand small open-addressing tables of slot numbers, each of which grows on its own, so that growing never
// stalls the process.

import { strict as assert } from 'node:assert';
import { murmurFinalizer } from '../../protocol/hash.ts';
import type { RunGeometry, RunKey } from './eviction-policy.ts';

const PAGE_BITS = 13;
const PAGE_SLOTS = 2 ** PAGE_BITS;
const SLOT_BITS = 26;
/** Enough for 537 million blocks in full runs. */
const RUNS_MAX = 2 ** SLOT_BITS - 1;
const SLOT_MASK = RUNS_MAX;
const SEGMENT_BITS = 10;
const SEGMENT_CELLS_MIN = 8;
/** 80 to 92 % of the cells are in use. Probe sequences are long but span few cache lines, and tags spare most slot reads. */
const LOAD_MAX = 0.92;
const GROWTH = 1.15;
/** Segments fill unevenly: most hold at most this many times the mean. */
const SKEW = 1.04;
const RUN_BITS = 21;
const RUN_MASK = 2 ** RUN_BITS - 1;
const MARK_MASK = 2 ** (32 - RUN_BITS) - 1;

interface Page {
  readonly assets: Uint32Array;
  /** Run number in the low 21 bits, the mark above. */
  readonly runsAndMarks: Uint32Array;
  readonly previous: Uint32Array;
  readonly next: Uint32Array;
  readonly sizes: Uint16Array | Uint32Array;
}

/** A doubly linked list of slots, with the bytes of its runs. */
export interface RunList {
  first: number;
  last: number;
  bytes: number;
}

export const newList = (): RunList => ({ first: 0, last: 0, bytes: 0 });

export class RunTable {
  readonly #unitBytes: number;
  readonly #unitsMax: number;
  readonly #pages: Page[] = [];
  readonly #segments: (Uint32Array | null)[] = Array.from({ length: 2 ** SEGMENT_BITS }, () => null);
  readonly #counts = new Uint32Array(2 ** SEGMENT_BITS);
  #cells = 0;
  #cellsMin = SEGMENT_CELLS_MIN;
  #runs = 0;
  /** The lowest slot that was never in use. */
  #unusedSlot = 1;
  /** Head of the free list, which is linked through `next`. */
  #freeSlot = 0;

  constructor(geometry: RunGeometry) {
    this.#unitBytes = geometry.unitBytes;
    this.#unitsMax = geometry.runBytesMax / geometry.unitBytes;
    assert(this.#unitsMax < 2 ** 32);
  }

  get runs(): number {
    return this.#runs;
  }

  get memoryBytes(): number {
    const slotBytes = this.#unitsMax < 2 ** 16 ? 18 : 20;
    return this.#pages.length * PAGE_SLOTS * slotBytes + 4 * (this.#cells + this.#counts.length);
  }

  /** Sizes the index for this many runs: each segment grows to its share at its next insert instead of step by step. */
  reserve(runs: number): void {
    const cells = Math.ceil((runs / 2 ** SEGMENT_BITS / LOAD_MAX) * SKEW);
    this.#cellsMin = Math.max(this.#cellsMin, cells);
  }

  /** The slot of a run; 0 where there is none. */
  find(key: RunKey): number {
    const hash = hashOf(assetOf(key), runOf(key));
    const cells = this.#segments[hash >>> (32 - SEGMENT_BITS)]!;
    if (cells === null) return 0;
    const tag = tagOf(hash);
    for (let at = homeOf(hash, cells.length); ; at = at + 1 === cells.length ? 0 : at + 1) {
      const cell = cells[at]!;
      if (cell === 0) return 0;
      if ((cell & ~SLOT_MASK) === tag && this.key(cell & SLOT_MASK) === key) return cell & SLOT_MASK;
    }
  }

  /** Inserts a run that must be new. Its slot has no bytes and is in no list. */
  insert(key: RunKey): number {
    const slot = this.#allocateSlot();
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    const asset = assetOf(key);
    const run = runOf(key);
    page.assets[row] = asset;
    page.runsAndMarks[row] = run;
    page.sizes[row] = 0;
    const hash = hashOf(asset, run);
    const segment = hash >>> (32 - SEGMENT_BITS);
    const cells = this.#segmentWithRoom(segment);
    insertCell(cells, hash, slot);
    this.#counts[segment]! += 1;
    this.#runs += 1;
    return slot;
  }

  /** The slot must be in no list. */
  remove(slot: number): void {
    const hash = this.#hash(slot);
    const segment = hash >>> (32 - SEGMENT_BITS);
    this.#deleteCell(this.#segments[segment]!, hash, slot);
    this.#counts[segment]! -= 1;
    this.#runs -= 1;
    this.#pages[slot >>> PAGE_BITS]!.next[slot & (PAGE_SLOTS - 1)] = this.#freeSlot;
    this.#freeSlot = slot;
  }

  key(slot: number): RunKey {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    return page.assets[row]! * 2 ** RUN_BITS + (page.runsAndMarks[row]! & RUN_MASK);
  }

  bytes(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.sizes[slot & (PAGE_SLOTS - 1)]! * this.#unitBytes;
  }

  /** Changes the bytes of a slot in the list, by a negative number to shrink it. */
  grow(list: RunList, slot: number, bytes: number): void {
    const units = (this.bytes(slot) + bytes) / this.#unitBytes;
    assert(Number.isInteger(units) && units >= 0 && units <= this.#unitsMax);
    this.#pages[slot >>> PAGE_BITS]!.sizes[slot & (PAGE_SLOTS - 1)] = units;
    list.bytes += bytes;
  }

  /** Eleven bits per run, for the use of the eviction policy. */
  mark(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.runsAndMarks[slot & (PAGE_SLOTS - 1)]! >>> RUN_BITS;
  }

  setMark(slot: number, mark: number): void {
    const { runsAndMarks } = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    runsAndMarks[row] = (runsAndMarks[row]! & RUN_MASK) | ((mark & MARK_MASK) << RUN_BITS);
  }

  /** The slot before this one in its list; 0 at the front. */
  previous(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.previous[slot & (PAGE_SLOTS - 1)]!;
  }

  /** Inserts a slot at the front of the list. */
  link(list: RunList, slot: number): void {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    page.previous[row] = 0;
    page.next[row] = list.first;
    if (list.first === 0) list.last = slot;
    else this.#pages[list.first >>> PAGE_BITS]!.previous[list.first & (PAGE_SLOTS - 1)] = slot;
    list.first = slot;
    list.bytes += page.sizes[row]! * this.#unitBytes;
  }

  unlink(list: RunList, slot: number): void {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    const previous = page.previous[row]!;
    const next = page.next[row]!;
    if (previous === 0) list.first = next;
    else this.#pages[previous >>> PAGE_BITS]!.next[previous & (PAGE_SLOTS - 1)] = next;
    if (next === 0) list.last = previous;
    else this.#pages[next >>> PAGE_BITS]!.previous[next & (PAGE_SLOTS - 1)] = previous;
    list.bytes -= page.sizes[row]! * this.#unitBytes;
  }

  #hash(slot: number): number {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    return hashOf(page.assets[row]!, page.runsAndMarks[row]! & RUN_MASK);
  }

  #allocateSlot(): number {
    const slot = this.#freeSlot;
    if (slot !== 0) {
      this.#freeSlot = this.#pages[slot >>> PAGE_BITS]!.next[slot & (PAGE_SLOTS - 1)]!;
      return slot;
    }
    assert(this.#unusedSlot <= RUNS_MAX, `more than ${RUNS_MAX} runs on one volume`);
    if (this.#unusedSlot >>> PAGE_BITS === this.#pages.length) this.#pages.push(this.#newPage());
    this.#unusedSlot += 1;
    return this.#unusedSlot - 1;
  }

  #newPage(): Page {
    return {
      assets: new Uint32Array(PAGE_SLOTS),
      runsAndMarks: new Uint32Array(PAGE_SLOTS),
      previous: new Uint32Array(PAGE_SLOTS),
      next: new Uint32Array(PAGE_SLOTS),
      sizes: this.#unitsMax < 2 ** 16 ? new Uint16Array(PAGE_SLOTS) : new Uint32Array(PAGE_SLOTS),
    };
  }

  /** The cells of the segment, grown so that one stays empty after the next insert: an empty cell ends a search. */
  #segmentWithRoom(segment: number): Uint32Array {
    const cells = this.#segments[segment]!;
    const size = cells?.length ?? 0;
    if (cells !== null && this.#counts[segment]! + 1 <= size * LOAD_MAX) return cells;
    const larger = new Uint32Array(Math.max(this.#cellsMin, Math.ceil(size * GROWTH)));
    for (const cell of cells ?? []) if (cell !== 0) insertCell(larger, this.#hash(cell & SLOT_MASK), cell & SLOT_MASK);
    this.#segments[segment] = larger;
    this.#cells += larger.length - size;
    return larger;
  }

  /** Backward-shift deletion: later cells move into the hole, so that no search for them ends there. */
  #deleteCell(cells: Uint32Array, hash: number, slot: number): void {
    const size = cells.length;
    let hole = homeOf(hash, size);
    while ((cells[hole]! & SLOT_MASK) !== slot) hole = hole + 1 === size ? 0 : hole + 1;
    for (let at = hole + 1 === size ? 0 : hole + 1; cells[at] !== 0; at = at + 1 === size ? 0 : at + 1) {
      const home = homeOf(this.#hash(cells[at]! & SLOT_MASK), size);
      const mayMove = hole < at ? home <= hole || home > at : home <= hole && home > at;
      if (!mayMove) continue;
      cells[hole] = cells[at]!;
      hole = at;
    }
    cells[hole] = 0;
  }
}

const assetOf = (key: RunKey): number => Math.floor(key / 2 ** RUN_BITS);
const runOf = (key: RunKey): number => key % 2 ** RUN_BITS;

function insertCell(cells: Uint32Array, hash: number, slot: number): void {
  let at = homeOf(hash, cells.length);
  while (cells[at] !== 0) at = at + 1 === cells.length ? 0 : at + 1;
  cells[at] = tagOf(hash) | slot;
}

/** Hashes both halves of the key. */
const hashOf = (asset: number, run: number): number =>
  murmurFinalizer(Math.imul(asset, 0x9e3779b1) ^ Math.imul(run + 0x7f4a7c15, 0x85ebca6b));

const homeOf = (hash: number, size: number): number =>
  Math.floor(((hash & (2 ** (32 - SEGMENT_BITS) - 1)) * size) / 2 ** (32 - SEGMENT_BITS));

/** Six bits stored beside the slot number, which rule out most other runs without reading their slots. */
const tagOf = (hash: number): number => Math.imul(hash, 0x2545f491) & ~SLOT_MASK;
