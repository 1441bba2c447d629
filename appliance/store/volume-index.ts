// The index of a disk volume: entries in memory, their records and intents in LevelDB.
//
// The index never claims a block that may be missing. Before a block file appears or disappears, an intent that names it is
// written; after a crash, recovery.ts examines only blocks with an intent. Presence, recency and the deletion of intents are
// batched into a flush, so an intent may outlive its write: that costs a check at the next start, never a wrong answer.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Level } from 'level';
import type { Clock, Timer } from '../../runtime/clock.ts';
import { LOCK_WAIT_MS, openLevel } from '../../runtime/level.ts';
import type { Log } from '../../runtime/log.ts';
import { Bitmap } from './bitmap.ts';
import { blockCount } from './block-file.ts';
import {
  decodeNextId,
  decodeRecord,
  idOfRecordKey,
  INTENT_KEYS,
  intentKey,
  NEXT_ID_KEY,
  nextIdRow,
  parseIntentKey,
  recordKey,
  recordRow,
  type AssetRecord,
} from './index-record.ts';
import { IndexWriter, type Batch } from './index-writer.ts';
import { directoryBytes } from './layout.ts';
import type { AssetMeta, Entry, Volume } from './volume.ts';

/** Blocks written within this time have intents after a crash: a few dozen, checked in a fraction of a second. */
const FLUSH_MS = 250;
/** Rows read from LevelDB at once. */
const LOAD_ROWS = 1_000;
const SIZE_MEASURE_MS = 1_000;
const WRITE_BUFFER_BYTES = 2 ** 20;

export interface LoadedIndex {
  /** False if the index is new or was never completed. */
  readonly complete: boolean;
  /** Ids of the records that fail their checksum. */
  readonly damaged: ReadonlySet<number>;
}

export interface VolumeIndexDeps {
  /** The volume of the entries. */
  readonly volume: Volume;
  readonly db: Level;
  readonly clock: Clock;
  readonly log: Log;
}

export class VolumeIndex {
  readonly #deps: VolumeIndexDeps;
  readonly #path: string;
  readonly #writer: IndexWriter;
  readonly #entries = new Map<number, Entry>();
  /** Entries whose record the next flush writes. */
  readonly #dirty = new Set<Entry>();
  /** Keys of the intents in force, with the number of writes and removals that need each of them. */
  readonly #intents = new Map<string, number>();
  /** Keys that the next flush deletes. */
  readonly #deletions = new Set<string>();
  #nextId = 1;
  #flushTimer: Timer | null = null;
  #sizeBytes = 0;
  #measuredAtMs = Number.NEGATIVE_INFINITY;

  constructor(deps: VolumeIndexDeps) {
    this.#deps = deps;
    this.#path = join(deps.volume.directory, 'index');
    this.#writer = new IndexWriter(deps.db, this.#path);
  }

  get size(): number {
    return this.#entries.size;
  }

  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  get(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  create(meta: AssetMeta, nowMs: number): Entry {
    const blocks = new Bitmap(blockCount(meta.bytes));
    return this.add(this.#nextId, { meta, blocks, touchedMs: nowMs }, { confirmed: true });
  }

  /** Adds an entry in memory alone. */
  add(id: number, { meta, blocks, touchedMs }: AssetRecord, { confirmed }: { readonly confirmed: boolean }): Entry {
    const entry: Entry = {
      id,
      volume: this.#deps.volume,
      key: meta.key,
      version: meta.version,
      bytes: meta.bytes,
      headers: meta.headers,
      generatedAtMs: meta.generatedAtMs,
      holding: meta.holding,
      blocks,
      touchedMs,
      confirmed,
      fetches: 0,
      removed: false,
    };
    this.#entries.set(id, entry);
    this.#nextId = Math.max(this.#nextId, id + 1);
    return entry;
  }

  /** Persists intents to write blocks, and the entry's record with them. */
  async intendWrites(entry: Entry, numbers: readonly number[]): Promise<void> {
    const batch = this.#addIntents(entry, numbers);
    batch.push(recordRow(entry), nextIdRow(this.#nextId));
    await this.#writer.write(batch, { sync: true });
  }

  /** Marks blocks absent and resolves when that and the intents to remove their files are written. */
  removeBlocks(entry: Entry, numbers: readonly number[]): Promise<void> {
    for (const number of numbers) this.markAbsent(entry, number);
    const batch = this.#addIntents(entry, numbers);
    batch.push(recordRow(entry));
    return this.#writer.write(batch, { sync: false });
  }

  /** Removes an entry and resolves when its record is deleted and the intents to remove its files are written. */
  removeEntry(entry: Entry): Promise<void> {
    const numbers = [...entry.blocks];
    entry.removed = true;
    for (const number of numbers) entry.blocks.delete(number);
    this.#entries.delete(entry.id);
    this.#dirty.delete(entry);
    this.#deletions.add(recordKey(entry.id));
    const batch = this.#addIntents(entry, numbers);
    batch.push({ type: 'del', key: recordKey(entry.id) });
    return this.#writer.write(batch, { sync: false });
  }

  markPresent(entry: Entry, number: number): void {
    entry.blocks.add(number);
    this.#dirty.add(entry);
  }

  markAbsent(entry: Entry, number: number): void {
    entry.blocks.delete(number);
    this.#dirty.add(entry);
  }

  /** Ends one write or removal of each block. The next flush deletes the intents that no other one needs. */
  endIntents(entry: Entry, numbers: readonly number[]): void {
    for (const number of numbers) {
      const key = intentKey(entry.id, number);
      const others = (this.#intents.get(key) ?? 1) - 1;
      if (others > 0) this.#intents.set(key, others);
      else {
        this.#intents.delete(key);
        this.#deletions.add(key);
      }
    }
    this.scheduleFlush();
  }

  /** Includes the entry's record in the next flush. An entry without blocks needs none. */
  markChanged(entry: Entry): void {
    if (entry.blocks.count > 0 && !entry.removed) this.#dirty.add(entry);
  }

  scheduleFlush(): void {
    this.#flushTimer ??= this.#deps.clock.setTimeout(() => void this.#flushOrLog(), FLUSH_MS);
  }

  /** Writes all pending changes. On failure they stay pending. Throws `disk_full` or `disk_failed`. */
  async flush(): Promise<void> {
    this.#deps.clock.clear(this.#flushTimer);
    this.#flushTimer = null;
    const dirty = [...this.#dirty];
    const deletions = [...this.#deletions].filter((key) => !this.#intents.has(key));
    this.#dirty.clear();
    this.#deletions.clear();
    if (dirty.length === 0 && deletions.length === 0) return this.#writer.idle();
    const batch: Batch = [...dirty.map(recordRow), ...deletions.map((key) => ({ type: 'del' as const, key }))];
    try {
      await this.#writer.write(batch, { sync: false });
    } catch (error) {
      for (const entry of dirty) if (!entry.removed) this.#dirty.add(entry);
      for (const key of deletions) this.#deletions.add(key);
      throw error;
    }
  }

  /** Size on disk, measured at most once a second. */
  bytes(): number {
    const { clock, log, volume } = this.#deps;
    if (clock.monotonic() - this.#measuredAtMs <= SIZE_MEASURE_MS) return this.#sizeBytes;
    this.#measuredAtMs = clock.monotonic();
    try {
      this.#sizeBytes = directoryBytes(this.#path);
    } catch (error) {
      // Reads and writes report a failing disk; until then the last measurement stands.
      log.warn({ err: error, volume: volume.directory }, 'the size of the index cannot be measured');
    }
    return this.#sizeBytes;
  }

  /** Saves recency of all entries, then closes the database. */
  async close(): Promise<void> {
    for (const entry of this.#entries.values()) this.markChanged(entry);
    await this.#flushOrLog();
    this.#deps.clock.clear(this.#flushTimer);
    await this.#deps.db.close();
  }

  /** Reads all records into memory. */
  async load(): Promise<LoadedIndex> {
    let complete = false;
    const damaged = new Set<number>();
    const rows = this.#deps.db.iterator();
    for (let page = await rows.nextv(LOAD_ROWS); page.length > 0; page = await rows.nextv(LOAD_ROWS)) {
      for (const [key, value] of page) {
        const id = idOfRecordKey(key);
        if (id !== null) {
          const record = decodeRecord(key, value);
          if (record !== null) this.add(id, record, { confirmed: false });
          else if (key === recordKey(id)) damaged.add(id);
          else this.#deletions.add(key);
        }
        if (key !== NEXT_ID_KEY) continue;
        this.#nextId = Math.max(this.#nextId, decodeNextId(value) ?? 0);
        complete = true;
      }
    }
    await rows.close();
    return { complete, damaged };
  }

  /** Replaces a damaged record by that of the entry, or deletes it when there is none. */
  replaceRecord(id: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) this.#deletions.add(recordKey(id));
    else this.#dirty.add(entry);
  }

  /** Writes all entries, then the row that marks the index complete. */
  async complete(): Promise<void> {
    await this.flush();
    await this.#writer.write([nextIdRow(this.#nextId)], { sync: true });
  }

  /** Blocks whose intents a former process left behind. */
  async *leftIntents(): AsyncGenerator<{ readonly id: number; readonly number: number }> {
    for await (const key of this.#deps.db.keys(INTENT_KEYS)) yield parseIntentKey(key);
  }

  /** Deletes an intent of a former process with the next flush. */
  deleteIntent(id: number, number: number): void {
    this.#deletions.add(intentKey(id, number));
  }

  /** The intents for these blocks, to be written before their files are touched. */
  #addIntents(entry: Entry, numbers: readonly number[]): Batch {
    return numbers.map((number) => {
      const key = intentKey(entry.id, number);
      this.#intents.set(key, (this.#intents.get(key) ?? 0) + 1);
      return { type: 'put', key, value: '' };
    });
  }

  async #flushOrLog(): Promise<void> {
    const { log, volume } = this.#deps;
    await this.flush().catch((error: unknown) =>
      log.error({ err: error, volume: volume.directory }, 'the index cannot be written'),
    );
  }
}

/** Opens the database of an index. One that is damaged beyond opening is deleted, to be rebuilt from the block files. */
export function openIndexDb({ directory, log }: { readonly directory: string; readonly log: Log }): Promise<Level> {
  const path = join(directory, 'index');
  return openLevel<string>({
    path,
    valueEncoding: 'utf8',
    lockWaitMs: LOCK_WAIT_MS,
    writeBufferBytes: WRITE_BUFFER_BYTES,
    repair: (error) => {
      log.error({ err: error, path }, 'the index cannot be read, rebuilding it from block files');
      rmSync(path, { recursive: true, force: true });
      return true;
    },
    log,
  });
}
