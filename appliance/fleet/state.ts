// What an appliance must remember through a restart besides its blocks: pins, the catalog copy, finished plans and play reports
// that fill has not accepted. One LevelDB database in --state, written before the process acts on a change.

import { join } from 'node:path';
import type { Level } from 'level';
import { isFault, type Fault } from '../../protocol/faults.ts';
import { diskFault } from '../../runtime/disk.ts';
import { LOCK_WAIT_MS, openLevel } from '../../runtime/level.ts';

export type StateDb = Level<string, unknown>;

/** Throws `store_locked` if another process has the directory open for longer than a restart takes. */
export const openState = (directory: string): Promise<StateDb> =>
  openLevel({ path: join(directory, 'state.level'), valueEncoding: 'json', lockWaitMs: LOCK_WAIT_MS });

/** Converts an error of the database to a fault. Anything else but a fault is a defect and is rethrown. */
export function stateFault(error: unknown): Fault {
  if (isFault(error)) return error;
  if (!String((error as { code?: unknown }).code).startsWith('LEVEL_')) throw error;
  return diskFault(error, 'the state database');
}

/** A single value that is persisted under a name. */
export class PersistedValue<T> {
  readonly #db: StateDb;
  readonly #key: string;
  value: T;

  private constructor(db: StateDb, key: string, value: T) {
    this.#db = db;
    this.#key = key;
    this.value = value;
  }

  static async load<T>(db: StateDb, name: string, initial: T): Promise<PersistedValue<T>> {
    const key = `kept!${name}`;
    const stored = (await db.get(key)) as { readonly value: T } | undefined;
    return new PersistedValue(db, key, stored === undefined ? initial : stored.value);
  }

  /** Resolves when the value is on disk. */
  async set(value: T): Promise<void> {
    this.value = value;
    // Wrapped in an object, because the database stores no bare null.
    await this.#db.put(this.#key, { value }, { sync: true });
  }
}
