// The cache joins volumes, eviction and pins under one budget: what is on disk, what is about to be and what workers
// still hold open never exceeds --store-bytes. Eviction decides, the volume deletes, this file does the sums.

import { isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { freeBytes, newBook, useOf, type Book, type VolumeUse } from './volume-budget.ts';
import { assetDiskBytes, BLOCK_BYTES, blockBytes, blockCount, diskBytesOf } from './block-file.ts';
import {
  RUN_BLOCKS,
  runAsset,
  runFirstBlock,
  runKey,
  type EvictionOrder,
  type NameOf,
  type RunKey,
} from './eviction.ts';
import type { Tally } from '../metrics.ts';
import { BITS, type AssetMeta, type Entry, type Volume } from './volume.ts';

/** How long a reservation waits for workers to close what was evicted. */
const CLOSE_WAIT_MS = 1_000;
/** Evictions under way on one volume. */
const LEAVING_MAX = 256;

/** What workers must forget; resolves when none of them has it open any more. */
export interface Forgotten {
  readonly keys: readonly string[];
  readonly blocks: readonly { readonly volume: number; readonly id: number; readonly number: number }[];
}
export type Broadcast = (forgotten: Forgotten) => Promise<void>;

export interface CacheDeps {
  readonly volumes: readonly Volume[];
  readonly storeBytes: number;
  readonly pinned: ReadonlySet<HoldingId>;
  /** The order in which what is not pinned leaves a volume; least recently used if absent. */
  readonly newOrder?: (nameOf: NameOf) => EvictionOrder;
  readonly broadcast: Broadcast;
  readonly clock: Clock;
  readonly tally: Tally;
  readonly log: Log;
}

export class Cache {
  readonly #deps: CacheDeps;
  readonly #books: readonly Book[];
  readonly #byKey = new Map<string, Entry>();
  #pinned: ReadonlySet<HoldingId>;
  readonly #holdings = new Map<HoldingId, Set<Entry>>();
  /** Payload bytes present per holding: what inventory is made of. */
  readonly #held = new Map<HoldingId, number>();
  #changes = 0;
  readonly #touched = new Set<Entry>();

  constructor(deps: CacheDeps) {
    this.#deps = deps;
    this.#pinned = deps.pinned;
    const limitBytes = Math.floor(deps.storeBytes / deps.volumes.length);
    this.#books = deps.volumes.map((volume) => newBook(volume, limitBytes, deps.newOrder));
    for (const book of this.#books) this.#adopt(book);
    // The limit may be lower than it was.
    for (const book of this.#books) void this.#inTurn(book, () => this.#makeRoom(book, 0));
  }

  find(key: string): Entry | null {
    return this.#byKey.get(key) ?? null;
  }

  /** Counts up with every block that comes or goes: whoever caches a view of the inventory compares it. */
  get changes(): number {
    return this.#changes;
  }

  get assets(): number {
    return this.#byKey.size;
  }

  entries(): IterableIterator<Entry> {
    return this.#byKey.values();
  }

  heldBytes(holding: HoldingId): number {
    return this.#held.get(holding) ?? 0;
  }

  use(): VolumeUse[] {
    return this.#books.map(useOf);
  }

  /** The entry for a sealed version; an entry of another version of the key leaves. */
  async admit(meta: AssetMeta): Promise<Entry> {
    // While another version leaves somebody else may have admitted the key: look again after each wait.
    for (let before = this.#byKey.get(meta.key); before !== undefined; before = this.#byKey.get(meta.key)) {
      if (before.version === meta.version && before.bytes === meta.bytes && before.holding === meta.holding)
        return before;
      await this.drop(before);
    }
    const book = this.#roomiest();
    const entry = book.volume.create(meta, this.#deps.clock.now());
    this.#byKey.set(meta.key, entry);
    this.#join(book, entry);
    return entry;
  }

  /**
   * Makes room for payload bytes on the entry's volume, evicting if it must. False: no room can be made, so the bytes
   * pass through. True obliges the caller to `store` or `release`.
   */
  reserve(entry: Entry, payloadBytes: number): Promise<boolean> {
    const book = this.#bookOf(entry);
    return this.#inTurn(book, () => this.#makeRoom(book, diskBytesOf(payloadBytes)));
  }

  release(entry: Entry, payloadBytes: number): void {
    this.#bookOf(entry).reservedBytes -= diskBytesOf(payloadBytes);
  }

  /** Writes a reserved block. Throws `disk_full` or `disk_failed`; the reservation is gone either way. */
  async store(entry: Entry, number: number, payload: Buffer): Promise<void> {
    const book = this.#bookOf(entry);
    try {
      await entry.volume.write(entry, number, payload);
    } finally {
      book.reservedBytes -= diskBytesOf(payload.length);
    }
    if (entry.dropped) return;
    this.#count(book, entry, number, 1);
    this.#deps.tally.add('larder_blocks_stored_total');
  }

  /** Whether blocks `first` to `last` of an entry are on disk. */
  present(spec: {
    readonly volume: number;
    readonly id: number;
    readonly first: number;
    readonly last: number;
  }): boolean {
    const entry = this.#books[spec.volume]?.volume.entry(spec.id);
    for (let number = spec.first; number <= spec.last; number += 1)
      if (entry?.blocks.has(number) !== true) return false;
    return true;
  }

  touch(volume: number, run: RunKey): void {
    const book = this.#books[volume];
    const entry = book?.volume.entry(runAsset(run));
    if (book === undefined || entry === undefined) return;
    entry.touchedMs = this.#deps.clock.now();
    this.#touched.add(entry);
    book.order.touch(run);
  }

  /** The origin said that the stored version holds, and what its fields are now. */
  freshen(entry: Entry, news: { readonly headers: Entry['headers']; readonly bornMs: number }): void {
    entry.headers = news.headers;
    entry.bornMs = news.bornMs;
    entry.volume.update(entry);
  }

  /** Removes a block that is not what the index says. */
  async discard(entry: Entry, number: number): Promise<void> {
    if (entry.dropped || !entry.blocks.has(number)) return;
    this.#deps.tally.add('larder_blocks_discarded_total');
    await this.#take(this.#bookOf(entry), entry, [number]);
  }

  /** Takes an asset version out of the cache. Its readers end on what they have open. */
  async drop(entry: Entry): Promise<void> {
    if (entry.dropped) return;
    const book = this.#bookOf(entry);
    const numbers = [...entry.blocks];
    let bytes = 0;
    for (const number of numbers) bytes += this.#count(book, entry, number, -1);
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key);
    this.#part(book, entry);
    await this.#leave(book, bytes, entry.volume.drop(entry), {
      keys: [entry.key],
      blocks: numbers.map((number) => ({ volume: book.volume.number, id: entry.id, number })),
    });
  }

  isPinned(entry: Entry): boolean {
    return entry.holding !== null && this.#pinned.has(entry.holding);
  }

  /** Pinned holdings leave the eviction order; unpinned ones join it as most recently used. */
  setPinned(pinned: ReadonlySet<HoldingId>): void {
    const changed = differing(pinned, this.#pinned).flatMap((holding) => [...(this.#holdings.get(holding) ?? [])]);
    const place = (sign: 1 | -1): void => {
      for (const entry of changed) {
        for (const number of entry.blocks) this.#place(this.#bookOf(entry), entry, number, sign);
      }
    };
    place(-1);
    this.#pinned = pinned;
    place(1);
  }

  /** Saves recency and whatever else is pending. */
  async flush(): Promise<void> {
    for (const entry of this.#touched) entry.volume.touch(entry);
    this.#touched.clear();
    await Promise.all(this.#books.map((book) => book.volume.flush()));
  }

  #join(book: Book, entry: Entry): void {
    if (entry.holding === null) return;
    book.promisedBytes += assetDiskBytes(entry.bytes);
    const members = this.#holdings.get(entry.holding);
    if (members === undefined) this.#holdings.set(entry.holding, new Set([entry]));
    else members.add(entry);
  }

  #part(book: Book, entry: Entry): void {
    if (entry.holding === null) return;
    book.promisedBytes -= assetDiskBytes(entry.bytes);
    const members = this.#holdings.get(entry.holding);
    members?.delete(entry);
    if (members?.size === 0) this.#holdings.delete(entry.holding);
  }

  #bookOf(entry: Entry): Book {
    return this.#books[entry.volume.number]!;
  }

  /** Counting what is still to come of catalogued assets: a fill admits many before the first of them is whole. */
  #roomiest(): Book {
    const taken = (book: Book): number => Math.max(book.promisedBytes, book.pinnedBytes + book.order.bytes);
    return this.#books.reduce((best, book) => (taken(book) < taken(best) ? book : best));
  }

  /** Takes over what a volume found at start, oldest first; of two versions of a key the one used last wins. */
  #adopt(book: Book): void {
    const entries = [...book.volume.entries()].sort((a, b) => a.touchedMs - b.touchedMs);
    book.order.reserve(entries.reduce((sum, { blocks }) => sum + blocks.occupiedRuns, 0));
    for (const entry of entries) {
      const other = this.#byKey.get(entry.key);
      const keep = other === undefined || other.touchedMs <= entry.touchedMs ? entry : other;
      this.#byKey.set(entry.key, keep);
      this.#join(book, entry);
      this.#countAll(book, entry);
      const loser = keep === entry ? other : entry;
      if (loser !== undefined)
        void this.drop(loser).catch((error: unknown) =>
          this.#deps.log.error({ err: error }, 'duplicate asset cannot be dropped'),
        );
    }
  }

  /** Reservations of a volume take turns: each sees what the one before it left. */
  #inTurn<T>(book: Book, work: () => Promise<T>): Promise<T> {
    const turn = book.queue.then(work);
    book.queue = turn.catch(() => undefined);
    return turn;
  }

  async #makeRoom(book: Book, bytes: number): Promise<boolean> {
    while (freeBytes(book) + book.leavingBytes < bytes) {
      const victim = book.order.evict();
      if (victim === null) return false;
      const leaving = this.#evict(book, victim).finally(() => book.leaving.delete(leaving));
      book.leaving.add(leaving);
      if (book.leaving.size >= LEAVING_MAX) await Promise.race(book.leaving);
    }
    if (freeBytes(book) < bytes) {
      const timeout = new Promise((resolve) => setTimeout(resolve, CLOSE_WAIT_MS).unref());
      await Promise.race([Promise.all(book.leaving), timeout]);
    }
    if (freeBytes(book) < bytes) return false;
    book.reservedBytes += bytes;
    return true;
  }

  async #evict(book: Book, run: RunKey): Promise<void> {
    const entry = book.volume.entry(runAsset(run));
    if (entry === undefined) return;
    const first = runFirstBlock(run);
    const numbers: number[] = [];
    for (let number = first; number < first + RUN_BLOCKS; number += 1)
      if (entry.blocks.has(number)) numbers.push(number);
    this.#deps.tally.add('larder_blocks_evicted_total', numbers.length);
    if (numbers.length === entry.blocks.count && entry.flights === 0) await this.drop(entry);
    else await this.#take(book, entry, numbers);
  }

  async #take(book: Book, entry: Entry, numbers: readonly number[]): Promise<void> {
    let bytes = 0;
    for (const number of numbers) bytes += this.#count(book, entry, number, -1);
    await this.#leave(book, bytes, entry.volume.remove(entry, numbers), {
      keys: [],
      blocks: numbers.map((number) => ({ volume: book.volume.number, id: entry.id, number })),
    });
  }

  async #leave(book: Book, bytes: number, removal: Promise<void>, forgotten: Forgotten): Promise<void> {
    book.leavingBytes += bytes;
    try {
      await removal;
      await this.#deps.broadcast(forgotten);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#deps.tally.add('larder_faults_total', 1, { code: error.code });
      this.#deps.log.error({ err: error, volume: book.volume.directory }, 'removal failed');
    } finally {
      book.leavingBytes -= bytes;
    }
  }

  /** Adds all blocks of an entry at once: a byte of its bitmap is a run. */
  #countAll(book: Book, entry: Entry): void {
    const { blocks, holding } = entry;
    if (blocks.count === 0) return;
    const last = blockCount(entry.bytes) - 1;
    const shorter = blocks.has(last) ? BLOCK_BYTES - blockBytes(entry.bytes, last) : 0;
    const shorterOnDisk = shorter === 0 ? 0 : diskBytesOf(BLOCK_BYTES) - diskBytesOf(BLOCK_BYTES - shorter);
    const payload = blocks.count * BLOCK_BYTES - shorter;
    if (holding !== null) this.#held.set(holding, (this.#held.get(holding) ?? 0) + payload);
    if (this.isPinned(entry)) book.pinnedBytes += blocks.count * diskBytesOf(BLOCK_BYTES) - shorterOnDisk;
    else
      for (let run = 0; run < blocks.runs; run += 1) {
        const bits = BITS[blocks.run(run)]!;
        const tail = run === Math.floor(last / RUN_BLOCKS) ? shorterOnDisk : 0;
        if (bits > 0) book.order.append(runKey(entry.id, run * RUN_BLOCKS), bits * diskBytesOf(BLOCK_BYTES) - tail);
      }
    this.#changes += blocks.count;
  }

  /** Adds (1) or takes off (−1) a block in every sum. Returns its bytes on disk. */
  #count(book: Book, entry: Entry, number: number, sign: 1 | -1): number {
    this.#changes += 1;
    if (entry.holding !== null) {
      const left = (this.#held.get(entry.holding) ?? 0) + sign * blockBytes(entry.bytes, number);
      if (left <= 0) this.#held.delete(entry.holding);
      else this.#held.set(entry.holding, left);
    }
    return this.#place(book, entry, number, sign);
  }

  #place(book: Book, entry: Entry, number: number, sign: 1 | -1): number {
    const bytes = diskBytesOf(blockBytes(entry.bytes, number));
    const key = runKey(entry.id, number);
    if (this.isPinned(entry)) book.pinnedBytes += sign * bytes;
    else if (sign === 1) book.order.add(key, bytes);
    else book.order.subtract(key, bytes);
    return bytes;
  }
}

const differing = (a: ReadonlySet<HoldingId>, b: ReadonlySet<HoldingId>): HoldingId[] => [
  ...[...a].filter((holding) => !b.has(holding)),
  ...[...b].filter((holding) => !a.has(holding)),
];
