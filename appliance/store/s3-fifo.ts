// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023), by bytes. New runs
// enter a small queue; those asked for twice while they pass through it go on to the main queue, the others leave and are
// remembered as ghosts. What a ghost names goes straight to the main queue, where what was asked for gets another round.
//
// Two things differ from the paper. The small queue's tenth is of what is in the order, for how much that may be is not known
// here: pins move it. And a player reads a run in many requests, so touches count once an epoch: the time in which a hundredth
// of the order's bytes comes in.

import type { EvictionPolicy, StableRunId, RunKey, RunShape } from './eviction.ts';
import { RotatingBloomFilter } from './bloom-filter.ts';
import { newList, RunTable, type RunList } from './run-table.ts';

const SMALL_SHARE = 0.1;
const EPOCHS_PER_FILL = 100;
/** Touches that carry a run from the small queue to the main one. */
const PROMOTED_AT = 2;
const TOUCHES_MAX = 3;
/** Runs that one eviction gives another round, at most: past them the oldest goes, so that no eviction takes long. */
const ROUNDS_MAX = 4_096;
const GHOSTS_MIN = 1_024;

/** The mark of a run: two bits of touches, one for the main queue, eight of the epoch that touched it last. */
const TOUCHES = 0b11;
const MAIN = 0b100;
const EPOCH_SHIFT = 3;
const EPOCH_MASK = 0xff;

/** Shared by the orders of all volumes: what left one of them may come back to another. */
export class Ghosts {
  readonly #filter: RotatingBloomFilter;
  #runs = 0;

  constructor(seed: number) {
    // Two generations together remember two thirds as many as there are runs.
    this.#filter = new RotatingBloomFilter({
      generationNames: () => Math.max(GHOSTS_MIN, Math.ceil(this.#runs / 3)),
      seed,
    });
  }

  get memoryBytes(): number {
    return this.#filter.memoryBytes;
  }

  /** The orders have so many runs more, or less. */
  count(runs: number): void {
    this.#runs += runs;
  }

  has(name: number): boolean {
    return this.#filter.has(name);
  }

  add(name: number): void {
    this.#filter.add(name);
  }
}

export class S3Fifo implements EvictionPolicy {
  readonly #table: RunTable;
  readonly #ghosts: Ghosts;
  readonly #nameOf: StableRunId;
  readonly #small: RunList = newList();
  readonly #main: RunList = newList();
  #epoch = 0;
  #epochBytes = 0;
  #evicted = false;

  constructor(spec: { readonly shape: RunShape; readonly ghosts: Ghosts; readonly nameOf: StableRunId }) {
    this.#table = new RunTable(spec.shape);
    this.#ghosts = spec.ghosts;
    this.#nameOf = spec.nameOf;
  }

  get bytes(): number {
    return this.#small.bytes + this.#main.bytes;
  }

  get runs(): number {
    return this.#table.runs;
  }

  get memoryBytes(): number {
    return this.#table.memoryBytes + this.#ghosts.memoryBytes;
  }

  reserve(runs: number): void {
    this.#table.reserve(runs);
  }

  add(key: RunKey, bytes: number): void {
    const slot = this.#table.find(key);
    if (slot === 0) return this.append(key, bytes);
    this.#pass(bytes);
    this.#table.grow(this.#listOf(slot), slot, bytes);
  }

  append(key: RunKey, bytes: number): void {
    this.#pass(bytes);
    const fresh = this.#table.insert(key);
    const name = this.#nameOf(key);
    // Until something had to leave there is room in the main queue for what the small one cannot take.
    const main = (name !== null && this.#ghosts.has(name)) || (!this.#evicted && this.#isSmallFull());
    this.#table.setMark(fresh, (main ? MAIN : 0) | (this.#epoch << EPOCH_SHIFT));
    const list = main ? this.#main : this.#small;
    this.#table.link(list, fresh);
    this.#table.grow(list, fresh, bytes);
    this.#ghosts.count(1);
  }

  subtract(key: RunKey, bytes: number): void {
    const slot = this.#table.find(key);
    if (slot === 0) return;
    const list = this.#listOf(slot);
    this.#table.grow(list, slot, -bytes);
    if (this.#table.bytes(slot) === 0) this.#remove(list, slot);
  }

  touch(key: RunKey): void {
    const slot = this.#table.find(key);
    if (slot === 0) return;
    const mark = this.#table.mark(slot);
    if (mark >>> EPOCH_SHIFT === this.#epoch) return;
    const touches = Math.min(TOUCHES_MAX, (mark & TOUCHES) + 1);
    this.#table.setMark(slot, (mark & MAIN) | touches | (this.#epoch << EPOCH_SHIFT));
  }

  evict(): RunKey | null {
    this.#evicted = true;
    for (let rounds = 0; ; rounds += 1) {
      const fromSmall = this.#small.last !== 0 && (this.#main.last === 0 || this.#isSmallFull());
      const list = fromSmall ? this.#small : this.#main;
      const slot = list.last;
      if (slot === 0) return null;
      const mark = this.#table.mark(slot);
      const touches = mark & TOUCHES;
      if (rounds >= ROUNDS_MAX || touches < (fromSmall ? PROMOTED_AT : 1)) return this.#leave(list, slot);
      this.#table.unlink(list, slot);
      this.#table.link(this.#main, slot);
      this.#table.setMark(slot, (mark & ~TOUCHES) | MAIN | (fromSmall ? 0 : touches - 1));
    }
  }

  #leave(list: RunList, slot: number): RunKey {
    const key = this.#table.key(slot);
    const name = list === this.#small ? this.#nameOf(key) : null;
    if (name !== null) this.#ghosts.add(name);
    this.#remove(list, slot);
    return key;
  }

  #remove(list: RunList, slot: number): void {
    this.#table.unlink(list, slot);
    this.#table.remove(slot);
    this.#ghosts.count(-1);
  }

  #isSmallFull(): boolean {
    return this.#small.bytes > SMALL_SHARE * this.bytes;
  }

  #listOf(slot: number): RunList {
    return (this.#table.mark(slot) & MAIN) === 0 ? this.#small : this.#main;
  }

  #pass(bytes: number): void {
    this.#epochBytes += bytes;
    if (this.#epochBytes * EPOCHS_PER_FILL < this.bytes) return;
    this.#epochBytes = 0;
    this.#epoch = (this.#epoch + 1) & EPOCH_MASK;
  }
}
