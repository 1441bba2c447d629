// The port of a volume: one directory on one disk that keeps blocks of sealed asset versions and an index of them.
// `disk-volume.ts` is the real one; every implementation passes the same contract suite.

export interface AssetMeta {
  readonly key: string;
  /** Strong entity tag, or a name of our own for an answer without one that came whole. Never combined across versions. */
  readonly version: string;
  readonly bytes: number;
  /** End-to-end header fields of the answer, lower case, bounded. `etag` is what players see. */
  readonly headers: Readonly<Record<string, string>>;
  /** Instant from which its age counts; null where the asset is catalogued and does not age. */
  readonly bornMs: number | null;
  /** `title:rendition` where the asset is catalogued. */
  readonly holding: string | null;
}

export interface Entry extends AssetMeta {
  /** Changed by `Cache.freshen` alone. */
  headers: AssetMeta['headers'];
  bornMs: number | null;
  /** Unique on its volume for ever; names its block files. */
  readonly id: number;
  readonly volume: Volume;
  /** Which blocks are present; changed by the volume alone. */
  readonly blocks: Bitmap;
  /** Milliseconds since the epoch; saved now and then. */
  touchedMs: number;
  /** Fetches under way; an entry with one is not dropped for being empty. */
  flights: number;
  /** Set when the entry leaves the volume; nobody may write to it then. */
  dropped: boolean;
}

export interface Volume {
  /** Position among the appliance's volumes. */
  readonly number: number;
  readonly directory: string;
  entries(): IterableIterator<Entry>;
  /** By its id, until it is dropped. */
  entry(id: number): Entry | undefined;
  /** A new entry without blocks; persisted with its first intent. */
  create(meta: AssetMeta, nowMs: number): Entry;
  /** Puts blocks in doubt, on disk when it resolves. One `write` or `abandon` of each must follow. */
  intend(entry: Entry, numbers: readonly number[]): Promise<void>;
  /** Resolves when the block is on disk and counted present. Throws `disk_full` or `disk_failed`. */
  write(entry: Entry, number: number, payload: Buffer): Promise<void>;
  /** Ends the doubt about blocks that are not going to be written. */
  abandon(entry: Entry, numbers: readonly number[]): void;
  /** Whole and checked, or null. Throws `disk_corrupt` or `disk_failed`. */
  read(entry: Entry, number: number): Promise<Buffer | null>;
  /** Removes blocks; a crash in between leaves either state, never a lie. */
  remove(entry: Entry, numbers: readonly number[]): Promise<void>;
  /** Removes the entry and all its blocks. */
  drop(entry: Entry): Promise<void>;
  /** What is known of it has changed: to be saved soon. */
  update(entry: Entry): void;
  /** Its recency is to be saved with the next flush. */
  touch(entry: Entry): void;
  /** Bytes on disk beside the blocks: the index. */
  indexBytes(): number;
  /** Writes what is pending, recency included. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** How many bits of a byte are set. */
export const BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1;
  return bits;
});

/** So many bits are kept in a number. */
const FEW = 31;
const NONE = new Uint8Array(0);

/** A fixed-size set of block numbers. A segment of a film has one or two: for those a number will do, where an array takes 200 bytes. */
export class Bitmap {
  readonly #size: number;
  #few = 0;
  /** Null where the set is one of few. */
  readonly #many: Uint8Array | null;
  #count = 0;

  constructor(size: number, from: Uint8Array = NONE) {
    this.#size = size;
    this.#many = size <= FEW ? null : new Uint8Array(this.runs);
    for (let run = 0; run < Math.min(this.runs, from.length); run += 1) {
      // What lies beyond the size is nobody's block.
      const byte = from[run]! & (2 ** Math.min(8, size - run * 8) - 1);
      if (this.#many === null) this.#few |= byte << (run * 8);
      else this.#many[run] = byte;
      this.#count += BITS[byte]!;
    }
  }

  get count(): number {
    return this.#count;
  }

  /** Of eight blocks each, the last perhaps of fewer. */
  get runs(): number {
    return Math.ceil(this.#size / 8);
  }

  /** The eight bits of a run. */
  run(at: number): number {
    return this.#many === null ? (this.#few >> (at * 8)) & 0xff : this.#many[at]!;
  }

  /** Runs with one block at least. */
  get occupiedRuns(): number {
    let occupied = 0;
    for (let at = 0; at < this.runs; at += 1) if (this.run(at) !== 0) occupied += 1;
    return occupied;
  }

  has(at: number): boolean {
    return at < this.#size && (this.run(at >> 3) & (1 << (at & 7))) !== 0;
  }

  add(at: number): void {
    if (at >= this.#size || this.has(at)) return;
    this.#flip(at);
    this.#count += 1;
  }

  delete(at: number): void {
    if (!this.has(at)) return;
    this.#flip(at);
    this.#count -= 1;
  }

  /** A byte per run. */
  toBytes(): Uint8Array {
    return Uint8Array.from({ length: this.runs }, (_, at) => this.run(at));
  }

  *[Symbol.iterator](): IterableIterator<number> {
    for (let at = 0; at < this.#size; at += 1) if (this.has(at)) yield at;
  }

  #flip(at: number): void {
    if (this.#many === null) this.#few ^= 1 << at;
    else this.#many[at >> 3]! ^= 1 << (at & 7);
  }
}
