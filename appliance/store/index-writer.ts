// Writes to the index of a volume, in the order in which they are asked for. LevelDB takes concurrent batches in any order, so
// one is under way at a time; those that come meanwhile become the next one, with one sync for all that want it.

import type { Level } from 'level';
import { diskFault } from '../../runtime/disk.ts';

export type Batch = ({ type: 'put'; key: string; value: string } | { type: 'del'; key: string })[];

interface Group {
  readonly batch: Batch;
  sync: boolean;
  readonly done: Promise<void>;
  readonly settle: (work: Promise<void>) => void;
}

export class IndexWriter {
  readonly #index: Level;
  readonly #path: string;
  #next: Group | null = null;
  #writing: Promise<void> | null = null;

  constructor(index: Level, path: string) {
    this.#index = index;
    this.#path = path;
  }

  /** Resolves when the batch is in the index, on disk where `sync`. Throws `disk_full` or `disk_failed`. */
  write(batch: Batch, options: { readonly sync: boolean }): Promise<void> {
    const group = (this.#next ??= newGroup());
    for (const operation of batch) group.batch.push(operation);
    group.sync ||= options.sync;
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = null;
    });
    return group.done;
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  async #writeAll(): Promise<void> {
    for (let group = this.#next; group !== null; group = this.#next) {
      this.#next = null;
      const work = this.#index.batch(group.batch, { sync: group.sync }).catch((error: unknown) => {
        throw diskFault(error, this.#path);
      });
      group.settle(work);
      await work.catch(() => undefined);
    }
  }
}

function newGroup(): Group {
  let settle!: (work: Promise<void>) => void;
  const done = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { batch: [], sync: false, done, settle };
}
