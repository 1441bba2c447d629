// The port of a volume: one directory on one disk that keeps blocks of sealed asset versions and an index of them.
// `disk-volume.ts` is the real one; every implementation passes the same contract suite.

import type { Bitmap } from './bitmap.ts';

export interface AssetMeta {
  readonly key: string;
  /** Strong entity tag, or a name of our own for an answer without one that came whole. Never combined across versions. */
  readonly version: string;
  readonly bytes: number;
  /** End-to-end header fields of the answer, lower case, bounded. `etag` is what players see. */
  readonly headers: Readonly<Record<string, string>>;
  /** Instant from which its age counts; null where the asset is catalogued and does not age. */
  readonly generatedAtMs: number | null;
  /** `title:rendition` where the asset is catalogued. */
  readonly holding: string | null;
}

export interface Entry extends AssetMeta {
  /** Changed by `Cache.freshen` alone. */
  headers: AssetMeta['headers'];
  generatedAtMs: number | null;
  /** Unique on its volume for ever; names its block files. */
  readonly id: number;
  readonly volume: Volume;
  /** Which blocks are present; changed by the volume alone. */
  readonly blocks: Bitmap;
  /** Milliseconds since the epoch; saved now and then. */
  touchedMs: number;
  /** Fetches under way; an entry with one is not dropped for being empty. */
  fetches: number;
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
