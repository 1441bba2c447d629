// The port of a volume: one directory on one disk that holds blocks of sealed asset versions and an index of them.
// `disk-volume.ts` is the real one; every implementation passes the same contract suite.

import type { Bitmap } from './bitmap.ts';
import type { BlockPayload } from './block-file.ts';

export interface AssetMeta {
  readonly key: string;
  /**
   * The strong entity tag, or a version of our own for a whole response without one. Blocks of different versions are never
   * combined.
   */
  readonly version: string;
  readonly bytes: number;
  /** End-to-end header fields of the response, in lower case and bounded. Players see its `etag`. */
  readonly headers: Readonly<Record<string, string>>;
  /** The instant from which its age counts; null for a catalogued asset, which does not age. */
  readonly generatedAtMs: number | null;
  /** `title:rendition` where the asset is catalogued. */
  readonly holding: string | null;
}

/** One version of an asset on a volume. */
export interface Entry extends AssetMeta {
  /** Written by `Cache.updateMetadata` alone, as is `generatedAtMs`. */
  headers: AssetMeta['headers'];
  generatedAtMs: number | null;
  /** Unique on its volume and never reused; part of the paths of its block files. */
  readonly id: number;
  readonly volume: Volume;
  /** The blocks that are present; written by the volume alone. */
  readonly blocks: Bitmap;
  /** Milliseconds since the epoch; saved by `Cache.flush`. */
  touchedMs: number;
  /** Whether it has been compared with one of its blocks since the start: see `Volume.confirm`. */
  confirmed: boolean;
  /** Fetches under way. While there are any, the entry is not removed for being empty. */
  fetches: number;
  /** Set when the entry is removed from its volume. It may not be written to after that. */
  removed: boolean;
}

export interface Volume {
  /** Position among the appliance's volumes. */
  readonly number: number;
  readonly directory: string;
  entries(): IterableIterator<Entry>;
  /** The entry with this id, until it is removed. */
  entry(id: number): Entry | undefined;
  /** Creates an entry without blocks. It is persisted with its first intent. */
  create(meta: AssetMeta, nowMs: number): Entry;
  /** Persists the intent to write these blocks. One `write` or `abandon` of each must follow. */
  intend(entry: Entry, numbers: readonly number[]): Promise<void>;
  /** Resolves when the block is on disk and counted present. Throws `disk_full` or `disk_failed`. */
  write(entry: Entry, number: number, payload: BlockPayload): Promise<void>;
  /** Withdraws the intent to write these blocks. */
  abandon(entry: Entry, numbers: readonly number[]): void;
  /** Compares an entry that the index had at start with the head of one of its blocks. False if they disagree. */
  confirm(entry: Entry): Promise<boolean>;
  /** The payload of a block, with its checksums verified, or null. Throws `disk_corrupt` or `disk_failed`. */
  read(entry: Entry, number: number): Promise<Buffer | null>;
  /** Drops a block from the page cache: it is in other memory now. */
  dropPages(entry: Entry, number: number): Promise<void>;
  /** Removes blocks. After a crash in between, each of them is either wholly present or gone. */
  removeBlocks(entry: Entry, numbers: readonly number[]): Promise<void>;
  /** Removes the entry and all its blocks. */
  removeEntry(entry: Entry): Promise<void>;
  /** Schedules a write of the entry's changed metadata. */
  update(entry: Entry): void;
  /** Includes the entry's recency in the next flush. */
  touch(entry: Entry): void;
  /** Bytes on disk besides the blocks: the index. */
  indexBytes(): number;
  /** Writes all pending changes, recency included. */
  flush(): Promise<void>;
  close(): Promise<void>;
}
