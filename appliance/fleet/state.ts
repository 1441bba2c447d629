// What an appliance must still know after a restart, beside its blocks: pins, the catalog copy, orders carried out,
// reports not yet taken. One level database in --state, written before it is acted on.

import { join } from 'node:path';
import type { Level } from 'level';
import { isFault, type Fault } from '../../protocol/faults.ts';
import { diskFault } from '../../runtime/disk.ts';
import { LOCK_WAIT_MS, openLevel } from '../../runtime/level.ts';

export type StateDb = Level<string, unknown>;

/** Throws `store_locked` where another appliance has the directory for longer than a restart takes. */
export const openState = (directory: string): Promise<StateDb> =>
  openLevel({ path: join(directory, 'state.level'), valueEncoding: 'json', lockWaitMs: LOCK_WAIT_MS });

/** What the disk below the database did, as a fault; anything else is a defect and is thrown on. */
export function stateFault(error: unknown): Fault {
  if (isFault(error)) return error;
  if (!String((error as { code?: unknown }).code).startsWith('LEVEL_')) throw error;
  return diskFault(error, 'the state database');
}

/** A single value under a name of its own. */
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
    const found = (await db.get(key)) as { readonly value: T } | undefined;
    return new PersistedValue(db, key, found === undefined ? initial : found.value);
  }

  /** On disk when resolved. */
  async set(value: T): Promise<void> {
    this.value = value;
    // Wrapped, because the database takes no bare null.
    await this.#db.put(this.#key, { value }, { sync: true });
  }
}
