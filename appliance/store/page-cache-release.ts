// Blocks that were written lately. They stay in memory for a while, for readers who are slower than the disk; then those that
// nobody else has asked for leave it. Most of what is missed is asked for once, and all of what a fill brings is for tomorrow:
// what is watched tonight keeps its place.

import { closeSync } from 'node:fs';
import type { Entry } from './volume.ts';

/** A reader at 0.8 Mb/s takes ten seconds for a block. */
const STAY_MS = 15_000;
const LOOK_MS = 500;
/** Files held open; beyond it the oldest leave early. */
const STAYING_MAX = 512;

interface NewBlock {
  /** Open, so that its pages are found again. */
  readonly fd: number;
  readonly entry: Entry;
  /** Of the entry, when the block was written. */
  readonly touchedMs: number;
  readonly writtenAt: number;
}

/** Takes what is on disk of a file out of the page cache. */
export type DropPages = (fd: number) => Promise<void>;

export class PageCacheRelease {
  readonly #leaveMemory: DropPages;
  readonly #now: () => number;
  /** By path, oldest first. */
  readonly #staying = new Map<string, NewBlock>();
  #looking: NodeJS.Timeout | null = null;

  /** `now` never goes back. */
  constructor(leaveMemory: DropPages, now: () => number) {
    this.#leaveMemory = leaveMemory;
    this.#now = now;
  }

  /** The descriptor is closed here. */
  add(path: string, entry: Entry, fd: number): void {
    this.remove(path);
    this.#staying.set(path, { fd, entry, touchedMs: entry.touchedMs, writtenAt: this.#now() });
    this.#looking ??= setInterval(() => this.look(), LOOK_MS).unref();
    if (this.#staying.size > STAYING_MAX) this.#leave(this.#staying.entries().next().value!);
  }

  /** The block is going from the disk: no descriptor may keep it there. */
  remove(path: string): void {
    const block = this.#staying.get(path);
    if (block === undefined) return;
    this.#staying.delete(path);
    closeSync(block.fd);
  }

  close(): void {
    for (const path of [...this.#staying.keys()]) this.remove(path);
    if (this.#looking !== null) clearInterval(this.#looking);
    this.#looking = null;
  }

  /** Lets go of those that have stayed long enough. */
  look(): void {
    for (const each of this.#staying) {
      if (this.#now() - each[1].writtenAt < STAY_MS) return;
      this.#leave(each);
    }
  }

  #leave([path, { fd, entry, touchedMs }]: readonly [string, NewBlock]): void {
    this.#staying.delete(path);
    if (entry.touchedMs !== touchedMs) closeSync(fd);
    else void this.#leaveMemory(fd).finally(() => closeSync(fd));
  }
}
