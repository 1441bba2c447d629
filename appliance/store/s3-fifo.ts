// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023), by bytes. New runs
// enter a small queue. Those requested twice while they pass through it move on to the main queue; the others are evicted and
// remembered as ghosts. A run that has a ghost enters the main queue at once, where each request earns it another round.
//
// Two things differ from the paper. The small queue is a tenth of the bytes that the policy holds, not of its capacity, which is
// unknown here because pins move it. And because a player reads a run in many requests, touches count once an epoch: the time
// in which a hundredth of the policy's bytes is added.

import type { EvictionPolicy, HashRun, RunGeometry, RunKey } from './eviction-policy.ts';
import { RotatingBloomFilter } from './bloom-filter.ts';
import { newList, RunTable, type RunList } from './run-table.ts';

const SMALL_SHARE = 0.1;
const EPOCHS_PER_FILL = 100;
/** Touches that promote a run from the small queue to the main one. */
const PROMOTION_TOUCHES = 2;
const TOUCHES_MAX = 3;
/** Runs that one eviction may reinsert. Past them the oldest is evicted anyway, which bounds the time of an eviction. */
const REINSERTIONS_MAX = 4_096;
const GHOSTS_MIN = 1_024;

/** The mark of a run: two bits of touches, one for the main queue, eight of the epoch that touched it last. */
const TOUCHES = 0b11;
const IN_MAIN = 0b100;
const EPOCH_SHIFT = 3;
const EPOCH_MASK = 0xff;

/** Runs evicted lately. The policies of all volumes share it: an asset may be fetched again to another volume. */
export class Ghosts {
  readonly #filter: RotatingBloomFilter;
  #runs = 0;

  constructor(seed: number) {
    // Two generations together remember two thirds as many as there are runs.
    this.#filter = new RotatingBloomFilter({
      generationKeys: () => Math.max(GHOSTS_MIN, Math.ceil(this.#runs / 3)),
      seed,
    });
  }

  get memoryBytes(): number {
    return this.#filter.memoryBytes;
  }

  /** Adjusts the number of runs in all policies, which sizes the next generation. */
  countRuns(change: 1 | -1): void {
    this.#runs += change;
  }

  has(hash: number): boolean {
    return this.#filter.has(hash);
  }

  add(hash: number): void {
    this.#filter.add(hash);
  }
}

export class S3Fifo implements EvictionPolicy {
  readonly #table: RunTable;
  readonly #ghosts: Ghosts;
  readonly #hashRun: HashRun;
  /** Newest first, as is `#main`. */
  readonly #small: RunList = newList();
  readonly #main: RunList = newList();
  #epoch = 0;
  #epochBytes = 0;
  #hasEvicted = false;

  constructor(spec: { readonly geometry: RunGeometry; readonly ghosts: Ghosts; readonly hashRun: HashRun }) {
    this.#table = new RunTable(spec.geometry);
    this.#ghosts = spec.ghosts;
    this.#hashRun = spec.hashRun;
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
    this.#advanceEpoch(bytes);
    this.#table.grow(this.#queueOf(slot), slot, bytes);
  }

  append(key: RunKey, bytes: number): void {
    this.#advanceEpoch(bytes);
    const slot = this.#table.insert(key);
    const hash = this.#hashRun(key);
    // Before the first eviction the main queue takes what the small one has no room for.
    const toMain = (hash !== null && this.#ghosts.has(hash)) || (!this.#hasEvicted && this.#isSmallFull());
    this.#table.setMark(slot, (toMain ? IN_MAIN : 0) | (this.#epoch << EPOCH_SHIFT));
    const queue = toMain ? this.#main : this.#small;
    this.#table.link(queue, slot);
    this.#table.grow(queue, slot, bytes);
    this.#ghosts.countRuns(1);
  }

  subtract(key: RunKey, bytes: number): void {
    const slot = this.#table.find(key);
    if (slot === 0) return;
    const queue = this.#queueOf(slot);
    this.#table.grow(queue, slot, -bytes);
    if (this.#table.bytes(slot) === 0) this.#remove(queue, slot);
  }

  touch(key: RunKey): void {
    const slot = this.#table.find(key);
    if (slot === 0) return;
    const mark = this.#table.mark(slot);
    if (mark >>> EPOCH_SHIFT === this.#epoch) return;
    const touches = Math.min(TOUCHES_MAX, (mark & TOUCHES) + 1);
    this.#table.setMark(slot, (mark & IN_MAIN) | touches | (this.#epoch << EPOCH_SHIFT));
  }

  evict(): RunKey | null {
    this.#hasEvicted = true;
    for (let reinsertions = 0; ; reinsertions += 1) {
      const fromSmall = this.#small.last !== 0 && (this.#main.last === 0 || this.#isSmallFull());
      const queue = fromSmall ? this.#small : this.#main;
      const slot = queue.last;
      if (slot === 0) return null;
      const mark = this.#table.mark(slot);
      const touches = mark & TOUCHES;
      if (reinsertions >= REINSERTIONS_MAX || touches < (fromSmall ? PROMOTION_TOUCHES : 1))
        return this.#evictSlot(queue, slot);
      this.#table.unlink(queue, slot);
      this.#table.link(this.#main, slot);
      this.#table.setMark(slot, (mark & ~TOUCHES) | IN_MAIN | (fromSmall ? 0 : touches - 1));
    }
  }

  /** A run evicted from the small queue leaves a ghost. */
  #evictSlot(queue: RunList, slot: number): RunKey {
    const key = this.#table.key(slot);
    const hash = queue === this.#small ? this.#hashRun(key) : null;
    if (hash !== null) this.#ghosts.add(hash);
    this.#remove(queue, slot);
    return key;
  }

  #remove(queue: RunList, slot: number): void {
    this.#table.unlink(queue, slot);
    this.#table.remove(slot);
    this.#ghosts.countRuns(-1);
  }

  #isSmallFull(): boolean {
    return this.#small.bytes > SMALL_SHARE * this.bytes;
  }

  #queueOf(slot: number): RunList {
    return (this.#table.mark(slot) & IN_MAIN) === 0 ? this.#small : this.#main;
  }

  #advanceEpoch(addedBytes: number): void {
    this.#epochBytes += addedBytes;
    if (this.#epochBytes * EPOCHS_PER_FILL < this.bytes) return;
    this.#epochBytes = 0;
    this.#epoch = (this.#epoch + 1) & EPOCH_MASK;
  }
}
