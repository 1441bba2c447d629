// Runs of blocks in typed arrays, and the lists that thread through them: 18 bytes a run where two bytes hold its size, and
// 4.4 to 5 to find it. A Map of small objects takes 83 bytes a run and ends at 16.7 million.
//
// A slot is a row of parallel arrays, in pages, so that growing copies nothing; slot 0 means none. The index is a thousand
// small open-addressing tables of slot numbers: each grows by itself, so that no growing stalls the process.

import { strict as assert } from 'node:assert';
import { murmurFinalizer } from '../../protocol/hash.ts';
import type { RunKey, RunShape } from './eviction.ts';

const PAGE_BITS = 13;
const PAGE_SLOTS = 2 ** PAGE_BITS;
const SLOT_BITS = 26;
/** 537 million blocks in full runs. */
export const RUNS_MAX = 2 ** SLOT_BITS - 1;
const SLOT_MASK = RUNS_MAX;
const SEGMENT_BITS = 10;
const SEGMENT_CELLS_MIN = 8;
/** 80 to 92 of 100 cells are in use: searches are long but lie in a few cache lines, and tags keep them from the slots. */
const LOAD_MAX = 0.92;
const GROWTH = 1.15;
/** Segments differ: most hold less than this share more than the mean. */
const UNEVEN = 1.04;
const RUN_BITS = 21;
const RUN_MASK = 2 ** RUN_BITS - 1;
const MARK_MASK = 2 ** (32 - RUN_BITS) - 1;

interface Page {
  readonly assets: Uint32Array;
  /** Run number in the low 21 bits, the mark above. */
  readonly words: Uint32Array;
  readonly before: Uint32Array;
  readonly after: Uint32Array;
  readonly sizes: Uint16Array | Uint32Array;
}

/** A list of slots, first to last. */
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
  /** Slots below have been in use. */
  #fresh = 1;
  /** Slots to be used again, through `after`. */
  #free = 0;

  constructor(shape: RunShape) {
    this.#unitBytes = shape.unitBytes;
    this.#unitsMax = shape.runBytesMax / shape.unitBytes;
    assert(this.#unitsMax < 2 ** 32);
  }

  get runs(): number {
    return this.#runs;
  }

  get memoryBytes(): number {
    const slotBytes = this.#unitsMax < 2 ** 16 ? 18 : 20;
    return this.#pages.length * PAGE_SLOTS * slotBytes + 4 * (this.#cells + this.#counts.length);
  }

  /** The index grows to so many runs at the next touch of each segment, not step by step. */
  reserve(runs: number): void {
    const cells = Math.ceil((runs / 2 ** SEGMENT_BITS / LOAD_MAX) * UNEVEN);
    this.#cellsMin = Math.max(this.#cellsMin, cells);
  }

  /** 0 where there is no such run. */
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

  /** A slot of no bytes for a run that has none, in no list. */
  insert(key: RunKey): number {
    const slot = this.#takeSlot();
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    const asset = assetOf(key);
    const run = runOf(key);
    page.assets[row] = asset;
    page.words[row] = run;
    page.sizes[row] = 0;
    const hash = hashOf(asset, run);
    const segment = hash >>> (32 - SEGMENT_BITS);
    const cells = this.#roomIn(segment);
    place(cells, hash, slot);
    this.#counts[segment]! += 1;
    this.#runs += 1;
    return slot;
  }

  /** The slot is in no list any more. */
  remove(slot: number): void {
    const hash = this.#hash(slot);
    const segment = hash >>> (32 - SEGMENT_BITS);
    this.#emptyCell(this.#segments[segment]!, hash, slot);
    this.#counts[segment]! -= 1;
    this.#runs -= 1;
    this.#pages[slot >>> PAGE_BITS]!.after[slot & (PAGE_SLOTS - 1)] = this.#free;
    this.#free = slot;
  }

  key(slot: number): RunKey {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    return page.assets[row]! * 2 ** RUN_BITS + (page.words[row]! & RUN_MASK);
  }

  bytes(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.sizes[slot & (PAGE_SLOTS - 1)]! * this.#unitBytes;
  }

  /** Of a slot in the list. */
  grow(list: RunList, slot: number, bytes: number): void {
    const units = (this.bytes(slot) + bytes) / this.#unitBytes;
    assert(Number.isInteger(units) && units >= 0 && units <= this.#unitsMax);
    this.#pages[slot >>> PAGE_BITS]!.sizes[slot & (PAGE_SLOTS - 1)] = units;
    list.bytes += bytes;
  }

  /** Eleven bits that whoever orders the runs may use. */
  mark(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.words[slot & (PAGE_SLOTS - 1)]! >>> RUN_BITS;
  }

  setMark(slot: number, mark: number): void {
    const { words } = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    words[row] = (words[row]! & RUN_MASK) | ((mark & MARK_MASK) << RUN_BITS);
  }

  before(slot: number): number {
    return this.#pages[slot >>> PAGE_BITS]!.before[slot & (PAGE_SLOTS - 1)]!;
  }

  link(list: RunList, slot: number): void {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    page.before[row] = 0;
    page.after[row] = list.first;
    if (list.first === 0) list.last = slot;
    else this.#pages[list.first >>> PAGE_BITS]!.before[list.first & (PAGE_SLOTS - 1)] = slot;
    list.first = slot;
    list.bytes += page.sizes[row]! * this.#unitBytes;
  }

  unlink(list: RunList, slot: number): void {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    const before = page.before[row]!;
    const after = page.after[row]!;
    if (before === 0) list.first = after;
    else this.#pages[before >>> PAGE_BITS]!.after[before & (PAGE_SLOTS - 1)] = after;
    if (after === 0) list.last = before;
    else this.#pages[after >>> PAGE_BITS]!.before[after & (PAGE_SLOTS - 1)] = before;
    list.bytes -= page.sizes[row]! * this.#unitBytes;
  }

  #hash(slot: number): number {
    const page = this.#pages[slot >>> PAGE_BITS]!;
    const row = slot & (PAGE_SLOTS - 1);
    return hashOf(page.assets[row]!, page.words[row]! & RUN_MASK);
  }

  #takeSlot(): number {
    const slot = this.#free;
    if (slot !== 0) {
      this.#free = this.#pages[slot >>> PAGE_BITS]!.after[slot & (PAGE_SLOTS - 1)]!;
      return slot;
    }
    assert(this.#fresh <= RUNS_MAX, `more than ${RUNS_MAX} runs on one volume`);
    if (this.#fresh >>> PAGE_BITS === this.#pages.length) this.#pages.push(this.#newPage());
    this.#fresh += 1;
    return this.#fresh - 1;
  }

  #newPage(): Page {
    return {
      assets: new Uint32Array(PAGE_SLOTS),
      words: new Uint32Array(PAGE_SLOTS),
      before: new Uint32Array(PAGE_SLOTS),
      after: new Uint32Array(PAGE_SLOTS),
      sizes: this.#unitsMax < 2 ** 16 ? new Uint16Array(PAGE_SLOTS) : new Uint32Array(PAGE_SLOTS),
    };
  }

  /** The segment, with an empty cell at least besides the one that is about to be filled. */
  #roomIn(segment: number): Uint32Array {
    const cells = this.#segments[segment]!;
    const size = cells?.length ?? 0;
    if (cells !== null && this.#counts[segment]! + 1 <= size * LOAD_MAX) return cells;
    const larger = new Uint32Array(Math.max(this.#cellsMin, Math.ceil(size * GROWTH)));
    for (const cell of cells ?? []) if (cell !== 0) place(larger, this.#hash(cell & SLOT_MASK), cell & SLOT_MASK);
    this.#segments[segment] = larger;
    this.#cells += larger.length - size;
    return larger;
  }

  /** Those behind move up, so that no search ends at the hole before it comes to them. */
  #emptyCell(cells: Uint32Array, hash: number, slot: number): void {
    const size = cells.length;
    let hole = homeOf(hash, size);
    while ((cells[hole]! & SLOT_MASK) !== slot) hole = hole + 1 === size ? 0 : hole + 1;
    for (let at = hole + 1 === size ? 0 : hole + 1; cells[at] !== 0; at = at + 1 === size ? 0 : at + 1) {
      const home = homeOf(this.#hash(cells[at]! & SLOT_MASK), size);
      const reaches = hole < at ? home <= hole || home > at : home <= hole && home > at;
      if (!reaches) continue;
      cells[hole] = cells[at]!;
      hole = at;
    }
    cells[hole] = 0;
  }
}

const assetOf = (key: RunKey): number => Math.floor(key / 2 ** RUN_BITS);
const runOf = (key: RunKey): number => key % 2 ** RUN_BITS;

function place(cells: Uint32Array, hash: number, slot: number): void {
  let at = homeOf(hash, cells.length);
  while (cells[at] !== 0) at = at + 1 === cells.length ? 0 : at + 1;
  cells[at] = tagOf(hash) | slot;
}

/** Over both halves of the key. */
const hashOf = (asset: number, run: number): number =>
  murmurFinalizer(Math.imul(asset, 0x9e3779b1) ^ Math.imul(run + 0x7f4a7c15, 0x85ebca6b));

const homeOf = (hash: number, size: number): number =>
  Math.floor(((hash & (2 ** (32 - SEGMENT_BITS) - 1)) * size) / 2 ** (32 - SEGMENT_BITS));

/** Six bits beside the slot number that tell most others apart without a look at their slots. */
const tagOf = (hash: number): number => Math.imul(hash, 0x2545f491) & ~SLOT_MASK;
