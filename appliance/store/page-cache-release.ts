// Drops newly written blocks from the page cache. They stay for a while, because readers of a miss may be slower than the disk; then
// those without another request are dropped. Most missed blocks are requested once and filled ones are for tomorrow, so this keeps
// the page cache for what is watched tonight.

import { closeSync } from 'node:fs';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Entry } from './volume.ts';

/** A reader at 0.8 Mb/s takes ten seconds for a block. */
const RETENTION_MS = 15_000;
const SWEEP_MS = 500;
/** Files held open. Beyond this the oldest are released early. */
const OPEN_MAX = 512;

interface WrittenBlock {
  /** Kept open, because the advice to drop pages takes a descriptor. */
  readonly fd: number;
  readonly entry: Entry;
  /** The entry's `touchedMs` when the block was written; a later one means that it was requested again. */
  readonly touchedMs: number;
  readonly writtenAtMs: number;
}

/** Drops the pages of a file that are already on disk from the page cache. */
export type DropPages = (fd: number) => Promise<void>;

export interface PageCacheReleaseDeps {
  readonly clock: Clock;
  readonly dropPages: DropPages;
}

export class PageCacheRelease {
  readonly #deps: PageCacheReleaseDeps;
  /** By path, oldest first. */
  readonly #blocks = new Map<string, WrittenBlock>();
  #sweepTimer: Timer | null = null;

  constructor(deps: PageCacheReleaseDeps) {
    this.#deps = deps;
  }

  /** Takes over the descriptor of a block that was just written, and closes it in the end. */
  add(path: string, entry: Entry, fd: number): void {
    const { clock } = this.#deps;
    this.remove(path);
    this.#blocks.set(path, { fd, entry, touchedMs: entry.touchedMs, writtenAtMs: clock.monotonic() });
    if (this.#sweepTimer === null) {
      this.#sweepTimer = clock.setInterval(() => this.#sweep(), SWEEP_MS);
      this.#sweepTimer.unref();
    }
    if (this.#blocks.size > OPEN_MAX) this.#release(this.#blocks.entries().next().value!);
  }

  /** Closes the descriptor of a block that is about to be unlinked, because an open one would keep its bytes on disk. */
  remove(path: string): void {
    const block = this.#blocks.get(path);
    if (block === undefined) return;
    this.#blocks.delete(path);
    closeSync(block.fd);
  }

  close(): void {
    for (const path of [...this.#blocks.keys()]) this.remove(path);
    this.#deps.clock.clear(this.#sweepTimer);
    this.#sweepTimer = null;
  }

  #sweep(): void {
    const nowMs = this.#deps.clock.monotonic();
    for (const each of this.#blocks) {
      if (nowMs - each[1].writtenAtMs < RETENTION_MS) return;
      this.#release(each);
    }
  }

  #release([path, { fd, entry, touchedMs }]: readonly [string, WrittenBlock]): void {
    this.#blocks.delete(path);
    if (entry.touchedMs !== touchedMs) closeSync(fd);
    else void this.#deps.dropPages(fd).finally(() => closeSync(fd));
  }
}
