// A volume on a real disk: block files below blocks/, a level index beside them.
//
// The index never claims what may not be there. Before a block file appears or goes, an intent is written: "look at this
// one". At start only intents are looked at, and the file itself says which of the two states it is in. A lost index is
// made again from the heads of the block files.

import { closeSync, rmSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Level } from 'level';
import { Fault, isFault } from '../../protocol/faults.ts';
import { LOCK_WAIT_MS, openLevel } from '../../runtime/level.ts';
import type { Log } from '../../runtime/log.ts';
import { blockBytes, blockCount, chunkCrcs, readBlock, readHead, writeBlock, type BlockHead } from './block-file.ts';
import { diskFault } from '../../runtime/disk.ts';
import { blockFiles, blockPath, directoryBytes, prepareVolume } from './layout.ts';
import { decodeRecord, encodeRecord, idOfRecordKey, intentKey, recordKey } from './index-record.ts';
import { IndexWriter, type Batch } from './index-writer.ts';
import { PageCacheRelease } from './page-cache-release.ts';
import { Bitmap } from './bitmap.ts';
import type { AssetMeta, Entry, Volume } from './volume.ts';

/** What came to be in this time is looked at after a crash: a few dozen blocks, a fraction of a second. */
const FLUSH_MS = 250;
/** Of the index, read at once. */
const LOAD_ROWS = 1_000;
const INDEX_MEASURE_MS = 1_000;
const INDEX_BUFFER_BYTES = 2 ** 20;

export class DiskVolume implements Volume {
  readonly number: number;
  readonly directory: string;
  readonly #log: Log;
  readonly #index: Level;
  readonly #entries = new Map<number, Entry>();
  readonly #writer: IndexWriter;
  /** Entries whose record is to be written with the next flush. */
  readonly #dirty = new Set<Entry>();
  /** Intents in force, with the number of writes and removals behind each. */
  readonly #intents = new Map<string, number>();
  /** Keys that the next flush takes out of the index. */
  readonly #struck = new Set<string>();
  /** Files on their way out, by intent: a block that comes back waits for it. */
  readonly #removing = new Map<string, Promise<void>>();
  readonly #newBlocks = new PageCacheRelease(leaveMemory, () => performance.now());
  #nextId = 1;
  #flushTimer: NodeJS.Timeout | null = null;
  #indexBytes = 0;
  #measuredAt = Number.NEGATIVE_INFINITY;

  private constructor(spec: { number: number; directory: string; log: Log; index: Level }) {
    this.number = spec.number;
    this.directory = spec.directory;
    this.#log = spec.log;
    this.#index = spec.index;
    this.#writer = new IndexWriter(spec.index, join(spec.directory, 'index'));
  }

  /** Throws `store_mismatch`, `store_locked`, `disk_failed`. Mends what a crash left before it resolves. */
  static async open(spec: { number: number; directory: string; log: Log }): Promise<DiskVolume> {
    prepareVolume(spec.directory);
    const volume = new DiskVolume({ ...spec, index: await openIndex(spec) });
    const known = await volume.#load();
    if (!known) await volume.#rebuild();
    await volume.#settleIntents();
    return volume;
  }

  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  entry(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  create(meta: AssetMeta, nowMs: number): Entry {
    const entry = this.#entry(this.#nextId, meta, new Bitmap(blockCount(meta.bytes)), nowMs);
    this.#nextId += 1;
    return entry;
  }

  async intend(entry: Entry, numbers: readonly number[]): Promise<void> {
    const batch = this.#hold(entry, numbers);
    batch.push({ type: 'put', key: recordKey(entry.id), value: encodeRecord(entry) });
    batch.push({ type: 'put', key: 'next', value: String(this.#nextId) });
    await this.#writer.write(batch, { sync: true });
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
      generatedAtMs: entry.generatedAtMs,
      holding: entry.holding,
    };
    const path = blockPath(this.directory, entry.id, number);
    await this.#removing.get(intentKey(entry.id, number));
    try {
      const fd = await writeBlock(path, head, payload);
      if (entry.dropped) {
        // The entry went while its block was written: nobody will ask for the file.
        closeSync(fd);
        await unlink(path);
        return;
      }
      this.#newBlocks.add(path, entry, fd);
      entry.blocks.add(number);
      this.#dirty.add(entry);
    } catch (error) {
      throw diskFault(error, path);
    } finally {
      this.abandon(entry, [number]);
    }
  }

  abandon(entry: Entry, numbers: readonly number[]): void {
    for (const number of numbers) {
      const key = intentKey(entry.id, number);
      const others = (this.#intents.get(key) ?? 1) - 1;
      if (others > 0) this.#intents.set(key, others);
      else {
        this.#intents.delete(key);
        this.#struck.add(key);
      }
    }
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
    this.#dirty.add(entry);
    const batch = this.#hold(entry, numbers);
    batch.push({ type: 'put', key: recordKey(entry.id), value: encodeRecord(entry) });
    const removal = this.#unlinkAfter(this.#writer.write(batch, { sync: false }), entry, numbers);
    const gone = removal.catch(() => undefined);
    for (const number of numbers) this.#removing.set(intentKey(entry.id, number), gone);
    try {
      await removal;
    } finally {
      for (const number of numbers) {
        const key = intentKey(entry.id, number);
        if (this.#removing.get(key) === gone) this.#removing.delete(key);
      }
    }
  }

  async drop(entry: Entry): Promise<void> {
    const numbers = [...entry.blocks];
    entry.dropped = true;
    for (const number of numbers) entry.blocks.delete(number);
    this.#entries.delete(entry.id);
    this.#dirty.delete(entry);
    this.#struck.add(recordKey(entry.id));
    const batch = this.#hold(entry, numbers);
    batch.push({ type: 'del', key: recordKey(entry.id) });
    await this.#unlinkAfter(this.#writer.write(batch, { sync: false }), entry, numbers);
  }

  update(entry: Entry): void {
    this.touch(entry);
    this.#scheduleFlush();
  }

  touch(entry: Entry): void {
    if (entry.blocks.count > 0 && !entry.dropped) this.#dirty.add(entry);
  }

  indexBytes(): number {
    if (performance.now() - this.#measuredAt > INDEX_MEASURE_MS) {
      this.#measuredAt = performance.now();
      try {
        this.#indexBytes = directoryBytes(join(this.directory, 'index'));
      } catch (error) {
        // A disk that fails says so where it is read and written; the last measure stands.
        this.#log.warn({ err: error, volume: this.directory }, 'index cannot be measured');
      }
    }
    return this.#indexBytes;
  }

  /** What cannot be written stays pending. Throws `disk_full` or `disk_failed`. */
  async flush(): Promise<void> {
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    const dirty = [...this.#dirty];
    const struck = [...this.#struck].filter((key) => !this.#intents.has(key));
    this.#dirty.clear();
    this.#struck.clear();
    if (dirty.length === 0 && struck.length === 0) return this.#writer.idle();
    const batch: Batch = [
      ...dirty.map((entry) => ({ type: 'put' as const, key: recordKey(entry.id), value: encodeRecord(entry) })),
      ...struck.map((key) => ({ type: 'del' as const, key })),
    ];
    try {
      await this.#writer.write(batch, { sync: false });
    } catch (error) {
      for (const entry of dirty) if (!entry.dropped) this.#dirty.add(entry);
      for (const key of struck) this.#struck.add(key);
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const entry of this.#entries.values()) if (entry.blocks.count > 0) this.#dirty.add(entry);
    await this.flush().catch((error: unknown) => this.#cannotFlush(error));
    if (this.#flushTimer !== null) clearTimeout(this.#flushTimer);
    this.#newBlocks.close();
    await this.#index.close();
  }

  #scheduleFlush(): void {
    this.#flushTimer ??= setTimeout(() => {
      this.flush().catch((error: unknown) => this.#cannotFlush(error));
    }, FLUSH_MS);
  }

  #cannotFlush(error: unknown): void {
    this.#log.error({ err: error, volume: this.directory }, 'index write failed');
  }

  /** The intents of these blocks, to be written before anything is done to their files. */
  #hold(entry: Entry, numbers: readonly number[]): Batch {
    return numbers.map((number) => {
      const key = intentKey(entry.id, number);
      this.#intents.set(key, (this.#intents.get(key) ?? 0) + 1);
      return { type: 'put', key, value: '' };
    });
  }

  /**
   * The files go even where the index cannot be written: on a full disk that is what makes room, and a block that is
   * missed when it is read is fetched again.
   */
  async #unlinkAfter(written: Promise<void>, entry: Entry, numbers: readonly number[]): Promise<void> {
    const failure = await written.then(
      () => null,
      (error: unknown) => error,
    );
    for (const number of numbers) {
      const path = blockPath(this.directory, entry.id, number);
      this.#newBlocks.remove(path);
      try {
        await unlink(path).catch(unlessGone);
        this.abandon(entry, [number]);
      } catch (error) {
        // Its intent stays, so that the next start tries again.
        this.#log.error({ err: error, path }, 'block file cannot be removed');
      }
    }
    if (failure !== null) throw failure;
  }

  /** False where the index is new although the store is not. */
  async #load(): Promise<boolean> {
    let known = false;
    const rows = this.#index.iterator();
    for (let some = await rows.nextv(LOAD_ROWS); some.length > 0; some = await rows.nextv(LOAD_ROWS)) {
      for (const [key, value] of some) {
        if (key === 'next') {
          this.#nextId = Math.max(this.#nextId, Number(value));
          known = true;
        } else this.#restore(key, value);
      }
    }
    await rows.close();
    return known;
  }

  #restore(key: string, value: string): void {
    const id = idOfRecordKey(key);
    if (id === null) return;
    const { meta, blocks, touchedMs } = decodeRecord(value);
    this.#entry(id, meta, blocks, touchedMs);
    this.#nextId = Math.max(this.#nextId, id + 1);
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
    await this.#writer.write([{ type: 'put', key: 'next', value: String(this.#nextId) }], { sync: true });
  }

  /** What a crash left in doubt: the file decides. */
  async #settleIntents(): Promise<void> {
    for await (const key of this.#index.keys({ gte: 'i', lt: 'j' })) {
      const [id, number] = key.slice(1).split('.') as [string, string];
      const entry = this.#entries.get(Number.parseInt(id, 36));
      const path = blockPath(this.directory, Number.parseInt(id, 36), Number(number));
      try {
        await unlink(`${path}.tmp`).catch(unlessGone);
        if (entry !== undefined && (await this.#isWhole(entry, Number(number)))) entry.blocks.add(Number(number));
        else {
          entry?.blocks.delete(Number(number));
          await unlink(path).catch(unlessGone);
        }
        this.#struck.add(key);
      } catch (error) {
        // A disk that fails proves nothing: the file and its intent stay for the next start.
        entry?.blocks.delete(Number(number));
        this.#log.error({ err: error, path }, 'block file in doubt cannot be read');
      }
      if (entry !== undefined) this.#dirty.add(entry);
    }
    await this.flush();
  }

  async #isWhole(entry: Entry, number: number): Promise<boolean> {
    try {
      return (await this.read(entry, number)) !== null;
    } catch (error) {
      if (isFault(error) && error.code === 'disk_corrupt') return false;
      throw error;
    }
  }

  #entry(id: number, meta: AssetMeta, blocks: Bitmap, touchedMs: number): Entry {
    const entry: Entry = {
      id,
      volume: this,
      key: meta.key,
      version: meta.version,
      bytes: meta.bytes,
      headers: meta.headers,
      generatedAtMs: meta.generatedAtMs,
      holding: meta.holding,
      blocks,
      touchedMs,
      fetches: 0,
      dropped: false,
    };
    this.#entries.set(id, entry);
    return entry;
  }
}

/** An index that is damaged beyond opening is set aside and rebuilt from the block files. */
function openIndex({ directory, log }: { directory: string; log: Log }): Promise<Level> {
  const path = join(directory, 'index');
  return openLevel<string>({
    path,
    valueEncoding: 'utf8',
    lockWaitMs: LOCK_WAIT_MS,
    writeBufferBytes: INDEX_BUFFER_BYTES,
    repair: (error) => {
      log.error({ err: error, path }, 'the index cannot be read, rebuilding it from block files');
      rmSync(path, { recursive: true, force: true });
      return true;
    },
    log,
  });
}

/** libc is called by a library that takes its time to load: not before it is needed. */
async function leaveMemory(fd: number): Promise<void> {
  const { dropPages: leave } = await import('./nonblocking-io.ts');
  await leave(fd);
}

function unlessGone(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
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
