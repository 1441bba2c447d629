// A volume on a real disk: block files below blocks/, an index beside them (volume-index.ts), recovered at start (recovery.ts).
//
// Every change of a block goes through both in this order: write an intent to the index, write or unlink the file, then update
// the record and end the intent.

import { open, unlink } from 'node:fs/promises';
import type { Level } from 'level';
import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { diskFault } from '../../runtime/disk.ts';
import type { Log } from '../../runtime/log.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import { LIMITS } from '../limits.ts';
import {
  HEAD_BYTES,
  isBlockOf,
  readBlock,
  readHead,
  unlinkIfPresent,
  writeBlock,
  type BlockHead,
  type BlockPayload,
} from './block-file.ts';
import { intentKey } from './index-record.ts';
import { blockPath, prepareVolume } from './layout.ts';
import { recover } from './recovery.ts';
import type { AssetMeta, Entry, Volume } from './volume.ts';
import { openIndexDb, VolumeIndex } from './volume-index.ts';

/** Blocks of an entry whose heads are read in the search for one that is not damaged. */
const CONFIRM_ATTEMPTS_MAX = 3;

export interface DiskVolumeSpec {
  readonly number: number;
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Log;
}

export class DiskVolume implements Volume {
  readonly number: number;
  readonly directory: string;
  readonly #log: Log;
  readonly #index: VolumeIndex;
  /** Calls under way on the files. */
  readonly #calls = new Semaphore({ permits: LIMITS.diskCallsPerVolumeMax });
  /** Removals under way, by block. A block that is fetched again waits for its former file to go. */
  readonly #removals = new Map<string, Promise<void>>();
  /** Pages for the heads of blocks that are written beside the page cache. */
  readonly #headPages: Buffer[] = [];
  #canWriteDirectly = true;

  private constructor({ number, directory, clock, log }: DiskVolumeSpec, db: Level) {
    this.number = number;
    this.directory = directory;
    this.#log = log;
    this.#index = new VolumeIndex({ volume: this, db, clock, log });
  }

  /** Recovers from a crash before it resolves. Throws `store_mismatch`, `store_locked`, `disk_full` or `disk_failed`. */
  static async open(spec: DiskVolumeSpec): Promise<DiskVolume> {
    prepareVolume(spec.directory);
    const volume = new DiskVolume(spec, await openIndexDb(spec));
    try {
      await recover({ volume, index: volume.#index, log: spec.log });
    } catch (error) {
      throw typeof (error as NodeJS.ErrnoException).code === 'string' ? diskFault(error, spec.directory) : error;
    }
    return volume;
  }

  entries(): IterableIterator<Entry> {
    return this.#index.entries();
  }

  entry(id: number): Entry | undefined {
    return this.#index.get(id);
  }

  create(meta: AssetMeta, nowMs: number): Entry {
    return this.#index.create(meta, nowMs);
  }

  intend(entry: Entry, numbers: readonly number[]): Promise<void> {
    return this.#index.intendWrites(entry, numbers);
  }

  async write(entry: Entry, number: number, payload: BlockPayload): Promise<void> {
    const path = blockPath(this.directory, entry.id, number);
    await this.#removals.get(intentKey(entry.id, number));
    try {
      await this.#calls.run(() => this.#writeFile(path, headOf(entry, number, payload), payload));
      // The entry may have been removed while its block was written: then nothing refers to the file.
      if (entry.removed) await unlink(path);
      else this.#index.markPresent(entry, number);
    } catch (error) {
      throw diskFault(error, path);
    } finally {
      this.abandon(entry, [number]);
    }
  }

  /** Beside the page cache if possible: what comes from the memory tier stays there for its next readers. */
  async #writeFile(path: string, head: BlockHead, payload: BlockPayload): Promise<void> {
    if (!payload.inPages || !this.#canWriteDirectly) return writeBlock(path, head, payload);
    const headPage = this.#headPages.pop() ?? (await newPage());
    try {
      await writeBlock(path, head, payload, headPage);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
      this.#canWriteDirectly = false;
      this.#log.info({ volume: this.directory }, 'this file system writes through the page cache alone');
      await writeBlock(path, head, payload);
    } finally {
      this.#headPages.push(headPage);
    }
  }

  abandon(entry: Entry, numbers: readonly number[]): void {
    this.#index.endIntents(entry, numbers);
  }

  async confirm(entry: Entry): Promise<boolean> {
    let attempts = 0;
    for (const number of entry.blocks) {
      attempts += 1;
      if (attempts > CONFIRM_ATTEMPTS_MAX) break;
      const path = blockPath(this.directory, entry.id, number);
      // A block that is missing or damaged tells nothing about the entry; its readers will meet the fault.
      const head = await this.#calls.run(() => readHead(path)).catch(() => null);
      if (head === null) continue;
      entry.confirmed = isBlockOf(head, entry, number);
      return entry.confirmed;
    }
    return true;
  }

  async read(entry: Entry, number: number): Promise<Buffer | null> {
    const path = blockPath(this.directory, entry.id, number);
    try {
      const block = await this.#calls.run(() => readBlock(path));
      if (block === null) return null;
      if (!isBlockOf(block.head, entry, number))
        throw new Fault('disk_corrupt', `block file ${path} belongs to another asset`);
      return block.payload;
    } catch (error) {
      throw diskFault(error, path);
    }
  }

  async dropPages(entry: Entry, number: number): Promise<void> {
    await this.#calls.run(async () => {
      const file = await open(blockPath(this.directory, entry.id, number), 'r').catch(() => null);
      if (file === null) return;
      try {
        await dropPages(file.fd);
      } finally {
        await file.close();
      }
    });
  }

  async removeBlocks(entry: Entry, numbers: readonly number[]): Promise<void> {
    const removal = this.#unlinkAfter(this.#index.removeBlocks(entry, numbers), entry, numbers);
    const settled = removal.catch(() => undefined);
    for (const number of numbers) this.#removals.set(intentKey(entry.id, number), settled);
    try {
      await removal;
    } finally {
      for (const number of numbers) {
        const key = intentKey(entry.id, number);
        if (this.#removals.get(key) === settled) this.#removals.delete(key);
      }
    }
  }

  async removeEntry(entry: Entry): Promise<void> {
    const numbers = [...entry.blocks];
    await this.#unlinkAfter(this.#index.removeEntry(entry), entry, numbers);
  }

  update(entry: Entry): void {
    this.#index.markChanged(entry);
    this.#index.scheduleFlush();
  }

  touch(entry: Entry): void {
    this.#index.markChanged(entry);
  }

  indexBytes(): number {
    return this.#index.bytes();
  }

  flush(): Promise<void> {
    return this.#index.flush();
  }

  close(): Promise<void> {
    return this.#index.close();
  }

  /**
   * Unlinks block files once the index is written, and even if that fails: on a full disk unlinking is what makes room, and a
   * block that the index lists without a file is fetched again when it is read.
   */
  async #unlinkAfter(indexWritten: Promise<void>, entry: Entry, numbers: readonly number[]): Promise<void> {
    const failure = await indexWritten.then(
      () => null,
      (error: unknown) => error,
    );
    for (const number of numbers) {
      const path = blockPath(this.directory, entry.id, number);
      try {
        await this.#calls.run(() => unlinkIfPresent(path));
        this.abandon(entry, [number]);
      } catch (error) {
        // The intent stays, so that the next start tries again.
        this.#log.error({ err: error, path }, 'a block file cannot be removed');
      }
    }
    if (failure !== null) throw failure;
  }
}

const headOf = (entry: Entry, number: number, payload: BlockPayload): BlockHead => ({
  key: entry.key,
  version: entry.version,
  assetBytes: entry.bytes,
  number,
  bytes: payload.bytes,
  crcs: payload.crcs,
  headers: entry.headers,
  generatedAtMs: entry.generatedAtMs,
  holding: entry.holding,
});

// The foreign function library takes long to load: it is loaded at first use.

async function newPage(): Promise<Buffer> {
  const { alignedBuffer } = await import('../io/nonblocking-io.ts');
  return alignedBuffer(HEAD_BYTES);
}

async function dropPages(fd: number): Promise<void> {
  const { dropPages: drop } = await import('../io/nonblocking-io.ts');
  await drop(fd);
}
