// The one database of fill. Every accepted change is one synced batch: after `kill -9` it is wholly there or not at all.
//
//   meta!…      layout, catalog revision, counters          import!ID   imports accepted, until they end
//   title!ID    a title            asset!TITLE!REV!N        run!NUMBER  runs;  plan!APPLIANCE  the plan in force
//   change!REV  what changed at a catalog revision          pin!TITLE;  served!…, asked!…, seen!…  demand
//   opened!APPLIANCE  the last window opening that was planned for;  fleet  the last view of the fleet

import { mkdirSync } from 'node:fs';
import { Level } from 'level';
import { Fault } from '../protocol/faults.ts';

export const LAYOUT = 1;

export type State = Level<string, unknown>;
export type Write =
  | { readonly type: 'put'; readonly key: string; readonly value: unknown }
  | { readonly type: 'del'; readonly key: string };

/** Throws `store_locked` where another fill has it open, `store_mismatch` for another layout. */
export async function openState(directory: string): Promise<State> {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const state: State = new Level<string, unknown>(directory, { valueEncoding: 'json' });
  try {
    await state.open();
  } catch (error) {
    const cause = (error as { cause?: { code?: string; message?: string } }).cause;
    if (cause?.code === 'LEVEL_LOCKED')
      throw new Fault('store_locked', `${directory} is open in another process`, { cause: error });
    throw new Fault('disk_failed', `${directory} cannot be opened: ${cause?.message ?? String(error)}`, {
      cause: error,
    });
  }
  const layout = await state.get('meta!layout');
  if (layout === undefined) await state.put('meta!layout', LAYOUT, { sync: true });
  else if (layout !== LAYOUT) {
    await state.close();
    throw new Fault(
      'store_mismatch',
      `${directory} has layout ${JSON.stringify(layout)}, this version writes ${LAYOUT}`,
    );
  }
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

/** Runs tasks one after another; a failed one does not stop the next. */
export function serially(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const next = last.then(task, task);
    last = next.catch(() => undefined);
    return next;
  };
}
