// A volume in memory, for tests of the cache that need no disk. It passes the same contract suite as the real one.

import { Bitmap } from '../bitmap.ts';
import type { AssetMeta, Entry, Volume } from '../volume.ts';
import { blockCount, type BlockPayload } from '../block-file.ts';

export class MemoryVolume implements Volume {
  readonly number: number;
  readonly directory = '(memory)';
  readonly #entries = new Map<number, Entry>();
  readonly #payloads = new Map<string, Buffer>();
  #nextId = 1;

  constructor(number = 0) {
    this.number = number;
  }

  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  entry(id: number): Entry | undefined {
    return this.#entries.get(id);
  }

  create(meta: AssetMeta, nowMs: number): Entry {
    const entry: Entry = {
      ...meta,
      id: this.#nextId,
      volume: this,
      blocks: new Bitmap(blockCount(meta.bytes)),
      touchedMs: nowMs,
      confirmed: true,
      fetches: 0,
      removed: false,
    };
    this.#nextId += 1;
    this.#entries.set(entry.id, entry);
    return entry;
  }

  async intend(): Promise<void> {}

  async write(entry: Entry, number: number, payload: BlockPayload): Promise<void> {
    if (entry.removed) return;
    this.#payloads.set(`${entry.id}.${number}`, Buffer.concat(payload.chunks));
    entry.blocks.add(number);
  }

  abandon(): void {}

  async confirm(): Promise<boolean> {
    return true;
  }

  async read(entry: Entry, number: number): Promise<Buffer | null> {
    return this.#payloads.get(`${entry.id}.${number}`) ?? null;
  }

  async dropPages(): Promise<void> {}

  async removeBlocks(entry: Entry, numbers: readonly number[]): Promise<void> {
    for (const number of numbers) {
      entry.blocks.delete(number);
      this.#payloads.delete(`${entry.id}.${number}`);
    }
  }

  async removeEntry(entry: Entry): Promise<void> {
    entry.removed = true;
    this.#entries.delete(entry.id);
    await this.removeBlocks(entry, [...entry.blocks]);
  }

  update(): void {}

  touch(): void {}

  indexBytes(): number {
    return 0;
  }

  async flush(): Promise<void> {}

  async close(): Promise<void> {}
}
