// Writes batches to the index of a volume in the order of the calls. LevelDB may apply concurrent batches in any order, so one
// is under way at a time. Batches that arrive meanwhile are merged into the next one, which is synced if any of them asks for it.

import type { Level } from 'level';
import { diskFault } from '../../runtime/disk.ts';

export type Batch = ({ type: 'put'; key: string; value: string } | { type: 'del'; key: string })[];

/** Batches merged into one, not written yet. */
interface PendingWrite {
  readonly batch: Batch;
  sync: boolean;
  readonly done: Promise<void>;
  /** Makes `done` follow the write. */
  readonly settle: (write: Promise<void>) => void;
}

export class IndexWriter {
  readonly #index: Level;
  readonly #path: string;
  #next: PendingWrite | null = null;
  #writing: Promise<void> | null = null;

  constructor(index: Level, path: string) {
    this.#index = index;
    this.#path = path;
  }

  /** Resolves when the batch is in the index, and on disk if `sync`. Throws `disk_full` or `disk_failed`. */
  write(batch: Batch, options: { readonly sync: boolean }): Promise<void> {
    const pending = (this.#next ??= newPendingWrite());
    for (const operation of batch) pending.batch.push(operation);
    pending.sync ||= options.sync;
    this.#writing ??= this.#writePending().finally(() => {
      this.#writing = null;
    });
    return pending.done;
  }

  /** Resolves when no write is under way. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  async #writePending(): Promise<void> {
    for (let pending = this.#next; pending !== null; pending = this.#next) {
      this.#next = null;
      const write = this.#index.batch(pending.batch, { sync: pending.sync }).catch((error: unknown) => {
        throw diskFault(error, this.#path);
      });
      pending.settle(write);
      await write.catch(() => undefined);
    }
  }
}

function newPendingWrite(): PendingWrite {
  let settle!: (write: Promise<void>) => void;
  const done = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { batch: [], sync: false, done, settle };
}
