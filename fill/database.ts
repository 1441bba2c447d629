// The one database of fill, in LevelDB. Every accepted change is one synced batch: after `kill -9` it is there whole or not at
// all. Memory is updated after the commit, never before. Keys:
//
//   meta!layout, meta!revision      the layout of these keys, the catalog revision
//   title!ID                        a title
//   asset!TITLE!REVISION!N          an asset of a title's current revision
//   change!REVISION                 the title that changed at a catalog revision
//   import!NUMBER, run!NUMBER       import jobs and runs, the oldest ended ones dropped
//   plan!APPLIANCE                  the current plan of an appliance
//   opened!APPLIANCE                the opening of the last fill window that the appliance was planned for
//   pin!TITLE                       a pin
//   served!SITE!HOLDING             decayed bytes served; asked!SITE!TITLE holds decayed plays
//   seen!SOURCE!INCARNATION         sequence numbers of the play reports that were counted
//   fleet                           the last view of the fleet

import type { Level } from 'level';
import { checkLayout, openLevel } from '../runtime/level.ts';

const LAYOUT = 1;

export type Database = Level<string, unknown>;
export type WriteOperation =
  | { readonly type: 'put'; readonly key: string; readonly value: unknown }
  | { readonly type: 'del'; readonly key: string };

/** Throws `store_locked` if another fill has the directory open, `store_mismatch` for another layout. */
export async function openDatabase(directory: string): Promise<Database> {
  const database: Database = await openLevel({ path: directory, valueEncoding: 'json' });
  await checkLayout(database, { key: 'meta!layout', layout: LAYOUT, directory });
  return database;
}

export const commit = (database: Database, operations: readonly WriteOperation[]): Promise<void> =>
  database.batch([...operations], { sync: true });

/** All values whose keys begin with `prefix!`, in key order. */
export async function readAll<V>(database: Database, prefix: string): Promise<V[]> {
  const values: V[] = [];
  for await (const [, value] of database.iterator(prefixRange(prefix))) values.push(value as V);
  return values;
}

/** The keys that begin with `prefix!`: `"` follows `!` in ASCII. */
export const prefixRange = (prefix: string): { gte: string; lt: string } => ({ gte: `${prefix}!`, lt: `${prefix}"` });

/** A number as text of fixed width, so that keys sort by number. */
export const sortableNumber = (value: number): string => String(value).padStart(12, '0');
