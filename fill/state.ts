// The one database of fill. Every accepted change is one synced batch: after `kill -9` it is wholly there or not at all.
//
//   meta!…      layout, catalog revision, counters          import!ID   imports accepted, until they end
//   title!ID    a title            asset!TITLE!REV!N        run!NUMBER  runs;  plan!APPLIANCE  the plan in force
//   change!REV  what changed at a catalog revision          pin!TITLE;  served!…, asked!…, seen!…  demand
//   opened!APPLIANCE  the last window opening that was planned for;  fleet  the last view of the fleet

import type { Level } from 'level';
import { checkLayout, openLevel } from '../runtime/level.ts';

export const LAYOUT = 1;

export type State = Level<string, unknown>;
export type Write =
  | { readonly type: 'put'; readonly key: string; readonly value: unknown }
  | { readonly type: 'del'; readonly key: string };

/** Throws `store_locked` where another fill has it open, `store_mismatch` for another layout. */
export async function openState(directory: string): Promise<State> {
  const state: State = await openLevel({ path: directory, valueEncoding: 'json' });
  await checkLayout(state, { key: 'meta!layout', layout: LAYOUT, directory });
  return state;
}

export const commit = (state: State, writes: readonly Write[]): Promise<void> =>
  state.batch([...writes], { sync: true });

/** Every value below a prefix, in key order. */
export async function under<V>(state: State, prefix: string): Promise<V[]> {
  const values: V[] = [];
  for await (const [, value] of state.iterator(range(prefix))) values.push(value as V);
  return values;
}

/** `!` ends a prefix; `"` is the next character. */
export const range = (prefix: string): { gte: string; lt: string } => ({ gte: `${prefix}!`, lt: `${prefix}"` });

/** A number as a key that sorts as the number does. */
export const ordered = (value: number): string => String(value).padStart(12, '0');
