// A volume on a real disk: block files below blocks/, a level index beside them.
//
// The index never claims what may not be there. Before a block file appears or goes, an intent is written: "look at this
// one". At start only intents are looked at, and the file itself says which of the two states it is in. A lost index is
// made again from the heads of the block files.

import { rmSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Level } from 'level';
import { Fault } from '../protocol/faults.ts';
import type { Log } from '../runtime/log.ts';
import { blockBytes, blockCount, chunkCrcs, readBlock, readHead, writeBlock, type BlockHead } from './block-file.ts';
import { blockFiles, blockPath, directoryBytes, diskFault, openIndex, prepareDirectory } from './volume-directory.ts';
import { Bitmap, type AssetMeta, type Entry, type Volume } from './store.ts';

const FLUSH_MS = 25;
const INDEX_MEASURE_MS = 1_000;

interface StoredRecord {
  readonly key: string;
  readonly version: string;
  readonly bytes: number;
  readonly headers: Record<string, string>;
  readonly holding: string | null;
  readonly blocks: string;
  readonly touchedMs: number;
}

type Batch = ({ type: 'put'; key: string; value: string } | { type: 'del'; key: string })[];

export class DiskVolume implements Volume {
  readonly number: number;
  readonly directory: string;
  readonly #log: Log;
  readonly #index: Level;
  readonly #entries = new Map<number, Entry>();
  readonly #dirty = new Set<Entry>();
  #settled: string[] = [];
  #nextId = 1;
  #flushTimer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> = Promise.resolve();
  #indexBytes = 0;
  #measuredAt = Number.NEGATIVE_INFINITY;

  private constructor(spec: { number: number; directory: string; log: Log; index: Level }) {
    this.number = spec.number;
    this.directory = spec.directory;
    this.#log = spec.log;
    this.#index = spec.index;
  }

  /** Throws `store_mismatch`, `store_locked`, `disk_failed`. Mends what a crash left before it resolves. */
  static async open(spec: { number: number; directory: string; log: Log }): Promise<DiskVolume> {
    prepareDirectory(spec.directory);
    const volume = new DiskVolume({ ...spec, index: await openIndex(spec.directory, spec.log) });
    const known = await volume.#load();
    if (!known) await volume.#rebuild();
    await volume.#settleIntents();
    return volume;
  }

  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  create(meta: AssetMeta, nowMs: number): Entry {
    const entry = this.#entry(this.#nextId, meta, new Bitmap(blockCount(meta.bytes)), nowMs);
    this.#nextId += 1;
    return entry;
  }

  async intend(entry: Entry, numbers: readonly number[]): Promise<void> {
    const batch: Batch = numbers.map((number) => ({ type: 'put', key: intentKey(entry.id, number), value: '' }));
    batch.push({ type: 'put', key: recordKey(entry.id), value: encodeRecord(entry) });
    batch.push({ type: 'put', key: 'next', value: String(this.#nextId) });
    await this.#write(batch, true);
  }

  async write(entry: Entry, number: number, payload: Buffer): Promise<void> {
    const head: BlockHead = {
      key: entry.key,
      version: entry.version,
      assetBytes: entry.bytes,
      number,
      bytes: payload.length,
      crcs: chunkCrcs(payload),
      headers: entry.headers,
      holding: entry.holding,
    };
    const path = blockPath(this.directory, entry.id, number);
    try {
      await writeBlock(path, head, payload);
    } catch (error) {
      this.abandon(entry, [number]);
      throw diskFault(error, path);
    }
    if (entry.dropped) {
      // The entry went while its block was written: nobody will ask for the file.
      await unlink(path).catch(() => undefined);
      return;
    }
    entry.blocks.add(number);
    this.#dirty.add(entry);
    this.abandon(entry, [number]);
  }

  abandon(entry: Entry, numbers: readonly number[]): void {
    this.#settled.push(...numbers.map((number) => intentKey(entry.id, number)));
    this.#scheduleFlush();
  }

  async read(entry: Entry, number: number): Promise<Buffer | null> {
    const path = blockPath(this.directory, entry.id, number);
    try {
      const block = await readBlock(path);
      if (block === null) return null;
      if (!describes(block.head, entry, number))
        throw new Fault('disk_corrupt', `block file ${path} belongs to another asset`);
      return block.payload;
    } catch (error) {
      throw diskFault(error, path);
    }
  }

  async remove(entry: Entry, numbers: readonly number[]): Promise<void> {
    for (const number of numbers) entry.blocks.delete(number);
    const batch: Batch = numbers.map((number) => ({ type: 'put', key: intentKey(entry.id, number), value: '' }));
    batch.push({ type: 'put', key: recordKey(entry.id), value: encodeRecord(entry) });
    await this.#write(batch, false);
    await this.#unlink(entry, numbers);
  }

  async drop(entry: Entry): Promise<void> {
    const numbers = [...entry.blocks];
    entry.dropped = true;
    for (const number of numbers) entry.blocks.delete(number);
    this.#entries.delete(entry.id);
    this.#dirty.delete(entry);
    const batch: Batch = numbers.map((number) => ({ type: 'put', key: intentKey(entry.id, number), value: '' }));
    batch.push({ type: 'del', key: recordKey(entry.id) });
    await this.#write(batch, false);
    await this.#unlink(entry, numbers);
  }

  touch(entry: Entry): void {
    if (entry.blocks.count > 0 && !entry.dropped) this.#dirty.add(entry);
  }

  indexBytes(): number {
    if (performance.now() - this.#measuredAt > INDEX_MEASURE_MS) {
      this.#measuredAt = performance.now();
      this.#indexBytes = directoryBytes(join(this.directory, 'index'));
    }
    return this.#indexBytes;
  }

  flush(): Promise<void> {
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    this.#flushing = this.#flushing.then(() => this.#flushNow());
    return this.#flushing;
  }

  async close(): Promise<void> {
    for (const entry of this.#entries.values()) if (entry.blocks.count > 0) this.#dirty.add(entry);
    await this.flush();
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    await this.#index.close();
  }

  async #flushNow(): Promise<void> {
    const dirty = [...this.#dirty];
    const settled = this.#settled;
    this.#dirty.clear();
    this.#settled = [];
    if (dirty.length === 0 && settled.length === 0) return;
    await this.#write(
      [
        ...dirty.map((entry) => ({ type: 'put' as const, key: recordKey(entry.id), value: encodeRecord(entry) })),
        ...settled.map((key) => ({ type: 'del' as const, key })),
      ],
      false,
    );
  }

  #scheduleFlush(): void {
    this.#flushTimer ??= setTimeout(() => {
      this.flush().catch((error: unknown) =>
        this.#log.error({ err: error, volume: this.directory }, 'index write failed'),
      );
    }, FLUSH_MS);
  }

  async #write(batch: Batch, sync: boolean): Promise<void> {
    try {
      await this.#index.batch(batch, { sync });
    } catch (error) {
      throw diskFault(error, join(this.directory, 'index'));
    }
  }

  async #unlink(entry: Entry, numbers: readonly number[]): Promise<void> {
    for (const number of numbers) {
      const path = blockPath(this.directory, entry.id, number);
      await unlink(path).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') this.#log.error({ err: error, path }, 'block file cannot be removed');
      });
    }
    this.abandon(entry, numbers);
  }

  /** False where the index is new although the store is not. */
  async #load(): Promise<boolean> {
    let known = false;
    for await (const [key, value] of this.#index.iterator()) {
      if (key === 'next') {
        this.#nextId = Math.max(this.#nextId, Number(value));
        known = true;
      } else if (key.startsWith('a')) {
        const id = Number.parseInt(key.slice(1), 36);
        const record = JSON.parse(value) as StoredRecord;
        this.#entry(
          id,
          record,
          new Bitmap(blockCount(record.bytes), Buffer.from(record.blocks, 'base64')),
          record.touchedMs,
        );
        this.#nextId = Math.max(this.#nextId, id + 1);
      }
    }
    return known;
  }

  async #rebuild(): Promise<void> {
    let blocks = 0;
    for (const path of blockFiles(this.directory)) {
      const name = /([0-9a-z]+)\.(\d+)$/.exec(path);
      const head = name === null ? null : headOrNull(path);
      if (name === null || head === null) {
        rmSync(path, { force: true });
        continue;
      }
      const id = Number.parseInt(name[1]!, 36);
      const entry =
        this.#entries.get(id) ??
        this.#entry(id, { ...head, bytes: head.assetBytes }, new Bitmap(blockCount(head.assetBytes)), 0);
      if (!describes(head, entry, Number(name[2]))) {
        rmSync(path, { force: true });
        continue;
      }
      entry.blocks.add(head.number);
      this.#dirty.add(entry);
      this.#nextId = Math.max(this.#nextId, id + 1);
      blocks += 1;
    }
    if (blocks > 0)
      this.#log.warn(
        { volume: this.directory, assets: this.#entries.size, blocks },
        'index was lost, rebuilt from block files',
      );
    // `next` says that the index is whole, so it comes last.
    await this.flush();
    await this.#write([{ type: 'put', key: 'next', value: String(this.#nextId) }], true);
  }

  /** What a crash left in doubt: the file decides. */
  async #settleIntents(): Promise<void> {
    for await (const key of this.#index.keys({ gte: 'i', lt: 'j' })) {
      const [id, number] = key.slice(1).split('.');
      const entry = this.#entries.get(Number.parseInt(id!, 36));
      const path = blockPath(this.directory, Number.parseInt(id!, 36), Number(number));
      await unlink(`${path}.tmp`).catch(() => undefined);
      const whole = entry !== undefined && (await this.read(entry, Number(number)).catch(() => null)) !== null;
      if (whole) entry.blocks.add(Number(number));
      else {
        entry?.blocks.delete(Number(number));
        await unlink(path).catch(() => undefined);
      }
      if (entry !== undefined) this.#dirty.add(entry);
      this.#settled.push(key);
    }
    await this.flush();
  }

  #entry(id: number, meta: AssetMeta, blocks: Bitmap, touchedMs: number): Entry {
    const entry: Entry = {
      id,
      volume: this,
      key: meta.key,
      version: meta.version,
      bytes: meta.bytes,
      headers: meta.headers,
      holding: meta.holding,
      blocks,
      touchedMs,
      flights: 0,
      dropped: false,
    };
    this.#entries.set(id, entry);
    return entry;
  }
}

const recordKey = (id: number): string => `a${id.toString(36)}`;
const intentKey = (id: number, number: number): string => `i${id.toString(36)}.${number}`;

function encodeRecord(entry: Entry): string {
  const record: StoredRecord = {
    key: entry.key,
    version: entry.version,
    bytes: entry.bytes,
    headers: { ...entry.headers },
    holding: entry.holding,
    blocks: Buffer.from(entry.blocks.bytes).toString('base64'),
    touchedMs: entry.touchedMs,
  };
  return JSON.stringify(record);
}

const describes = (head: BlockHead, entry: Entry, number: number): boolean =>
  head.key === entry.key &&
  head.version === entry.version &&
  head.assetBytes === entry.bytes &&
  head.number === number &&
  head.bytes === blockBytes(entry.bytes, number);

function headOrNull(path: string): BlockHead | null {
  try {
    return readHead(path);
  } catch {
    return null;
  }
}
