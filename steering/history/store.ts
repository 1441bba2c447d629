// Facts as they were: rows in a level database of history's own, so that its size, its compactions and its damage are
// never the registry's. A row says what a fact is from an instant on. Keys, with instants as nine digits of base 36:
//   f!FACT!INSTANT → [value], [] where the fact ended       j!INSTANT → facts that changed then: what pruning follows
//   s!INSTANT → a span: how long history was kept from then  n!NAME → a note, overwritten in place

import assert from 'node:assert';
import { join } from 'node:path';
import type { Level } from 'level';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { openLevel } from '../../runtime/level.ts';

export const HISTORY_LAYOUT = 1;
/** Spans that one step of pruning removes at most; each start of steering makes one. */
const SPANS_STEP_MAX = 1_000;
const META = 'meta';
const meta = z.object({
  layout: z.number(),
  /** Instants before it cannot be answered any more. */
  horizon: z.number(),
  /** Rows of facts, superseded ones included. */
  rows: z.number(),
});
const spanValue = z.object({ to: z.number(), start: z.boolean() });

export interface Change {
  readonly fact: string;
  /** Null: the fact is gone. */
  readonly value: unknown;
}

/** A time through which every change was recorded. */
export interface Span {
  readonly from: number;
  /** Seen alive then; a later end is unknown where steering was killed. */
  readonly to: number;
  /** Whether steering started with it; else it could not write before, or stood still. */
  readonly start: boolean;
}

export interface Commit {
  /** Later than any before. */
  readonly at: number;
  readonly changes: readonly Change[];
  /** Null removes. */
  readonly notes: ReadonlyMap<string, unknown>;
  readonly span: Span | null;
}

/** History at one moment of its own: what is written or pruned meanwhile does not show. */
export interface Reading {
  readonly horizon: number;
  /** Null where the fact did not exist. */
  value(fact: string, at: number): Promise<unknown>;
  /** All facts whose names begin so, that existed. */
  values(prefix: string, at: number): Promise<Map<string, unknown>>;
  /** The last span that began at `at` or before, and the first after. */
  spans(at: number): Promise<{ readonly last: Span | null; readonly next: Span | null }>;
  notes(): Promise<Map<string, unknown>>;
}

type Db = Level<string, unknown>;

export class HistoryStore {
  readonly #db: Db;
  #horizon: number;
  #rows: number;
  #last: number;
  /** No change on disk is older, and no end of a span. */
  #oldest = 0;

  private constructor(db: Db, state: { readonly horizon: number; readonly rows: number; readonly last: number }) {
    this.#db = db;
    this.#horizon = state.horizon;
    this.#rows = state.rows;
    this.#last = state.last;
  }

  /** Throws `store_locked`, `store_mismatch` or `disk_failed`. */
  static async open(directory: string): Promise<HistoryStore> {
    const path = join(directory, 'history');
    const db: Db = await openLevel({ path, valueEncoding: 'json' });
    try {
      const { layout, horizon, rows } = metaOf(await db.get(META));
      if (layout !== HISTORY_LAYOUT)
        throw new Fault(
          'store_mismatch',
          `${path} has layout ${layout}, this version writes ${HISTORY_LAYOUT}; remove it while steering is stopped: only explanations of the past are lost`,
        );
      const [change] = await db.keys({ gt: 'j!', lt: 'j"', reverse: true, limit: 1 }).all();
      const [span] = await db.iterator({ gt: 's!', lt: 's"', reverse: true, limit: 1 }).all();
      const ends = [change === undefined ? 0 : instantOf(change), span === undefined ? 0 : spanOf(span).to];
      return new HistoryStore(db, { horizon, rows, last: Math.max(...ends) });
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  get rows(): number {
    return this.#rows;
  }

  /** The newest instant on disk. */
  get last(): number {
    return this.#last;
  }

  get horizon(): number {
    return this.#horizon;
  }

  /** One atomic batch. Not while another commit or pruning is under way. */
  async commit({ at, changes, notes, span }: Commit): Promise<void> {
    assert(at > this.#last, 'history goes forward');
    const rows = this.#rows + changes.length;
    const batch = this.#db.batch().put(META, { layout: HISTORY_LAYOUT, rows, horizon: this.#horizon });
    for (const { fact, value } of changes) batch.put(rowKey(fact, at), value === null ? [] : [value]);
    if (changes.length > 0)
      batch.put(
        `j!${digits(at)}`,
        changes.map(({ fact }) => fact),
      );
    for (const [name, value] of notes)
      if (value === null) batch.del(`n!${name}`);
      else batch.put(`n!${name}`, value);
    if (span !== null) batch.put(`s!${digits(span.from)}`, { to: span.to, start: span.start });
    await batch.write();
    this.#rows = rows;
    this.#last = at;
  }

  /**
   * A step of letting go, oldest changes first: of those up to `before`, and of later ones while there are more rows than
   * `rowsMax`. The newest row of a fact up to the horizon stays, for it holds there. True where more is to be done.
   */
  async prune(limits: {
    readonly before: number;
    readonly rowsMax: number;
    readonly stepMax: number;
  }): Promise<boolean> {
    if (limits.before < this.#oldest && this.#rows <= limits.rowsMax) return false;
    const gone = new Set<string>();
    let left = this.#rows;
    let horizon = this.#horizon;
    let looked = 0;
    let more = false;
    let oldest = this.#last;
    const rows = rowsOf(this.#db);
    try {
      for await (const [key, value] of this.#db.iterator({ gt: 'j!', lt: 'j"' })) {
        const at = instantOf(key);
        oldest = at;
        if (at > limits.before && left <= limits.rowsMax) break;
        more = looked >= limits.stepMax;
        if (more) break;
        const facts = z.array(z.string()).parse(value);
        const before = gone.size;
        for (const fact of facts) for (const row of await superseded(rows, fact, at)) gone.add(row);
        left -= gone.size - before;
        gone.add(key);
        looked += facts.length;
        horizon = at;
      }
    } finally {
      await rows.close();
    }
    for await (const entry of this.#db.iterator({ gt: 's!', lt: 's"', limit: SPANS_STEP_MAX })) {
      const { to } = spanOf(entry);
      oldest = Math.min(oldest, to);
      if (to >= Math.max(horizon, limits.before)) break;
      gone.add(entry[0]);
    }
    this.#oldest = oldest;
    if (gone.size === 0) return false;
    const batch = this.#db.batch().put(META, { layout: HISTORY_LAYOUT, rows: left, horizon });
    for (const key of gone) batch.del(key);
    await batch.write();
    this.#rows = left;
    this.#horizon = horizon;
    return more;
  }

  async read<T>(use: (reading: Reading) => Promise<T>): Promise<T> {
    const snapshot = this.#db.snapshot();
    const rows = rowsOf(this.#db, snapshot);
    try {
      return await use({
        horizon: metaOf(await this.#db.get(META, { snapshot })).horizon,
        value: async (fact, at) => {
          rows.seek(rowKey(fact, at));
          const row = await rows.next();
          return row !== undefined && factOf(row[0]) === fact ? valueOf(row[1]) : null;
        },
        values: (prefix, at) => newest(rows, prefix, at),
        spans: async (at) => {
          const key = `s!${digits(at)}`;
          const [last] = await this.#db.iterator({ gt: 's!', lte: key, reverse: true, limit: 1, snapshot }).all();
          const [next] = await this.#db.iterator({ gt: key, lt: 's"', limit: 1, snapshot }).all();
          return { last: last === undefined ? null : spanOf(last), next: next === undefined ? null : spanOf(next) };
        },
        notes: async () => {
          const notes = await this.#db.iterator({ gt: 'n!', lt: 'n"', snapshot }).all();
          return new Map(notes.map(([key, value]) => [key.slice(2), value]));
        },
      });
    } finally {
      await rows.close();
      await snapshot.close();
    }
  }

  close(): Promise<void> {
    return this.#db.close();
  }
}

const rowsOf = (db: Db, snapshot?: ReturnType<Db['snapshot']>) =>
  db.iterator<string, unknown>({ gt: 'f!', lt: 'f"', reverse: true, snapshot });
type Rows = ReturnType<typeof rowsOf>;

/** What need not be kept once nobody asks for an instant before `at`, when the fact changed. */
async function superseded(rows: Rows, fact: string, at: number): Promise<string[]> {
  rows.seek(rowKey(fact, at));
  const [row, previous] = await rows.nextv(2);
  const gone: string[] = [];
  if (row !== undefined && row[0] === rowKey(fact, at) && valueOf(row[1]) === null) gone.push(row[0]);
  if (previous !== undefined && factOf(previous[0]) === fact) gone.push(previous[0]);
  return gone;
}

/** Backwards from fact to fact: two seeks each, however many rows one has. */
async function newest(rows: Rows, prefix: string, at: number): Promise<Map<string, unknown>> {
  const found = new Map<string, unknown>();
  rows.seek(`f!${prefix}~`);
  let row = await rows.next();
  while (row !== undefined && row[0].startsWith(`f!${prefix}`)) {
    const fact = factOf(row[0]);
    if (instantOf(row[0]) > at) {
      rows.seek(rowKey(fact, at));
      row = await rows.next();
      if (row === undefined || factOf(row[0]) !== fact) continue;
    }
    const value = valueOf(row[1]);
    if (value !== null) found.set(fact, value);
    rows.seek(`f!${fact}!`);
    row = await rows.next();
  }
  return found;
}

const INSTANT_DIGITS = 9;
/** Sorts as the numbers do; enough until the year 5188. */
const digits = (at: number): string =>
  Math.min(Math.max(0, at), 36 ** INSTANT_DIGITS - 1)
    .toString(36)
    .padStart(INSTANT_DIGITS, '0');
const rowKey = (fact: string, at: number): string => `f!${fact}!${digits(at)}`;
const factOf = (key: string): string => key.slice(2, -INSTANT_DIGITS - 1);
const instantOf = (key: string): number => Number.parseInt(key.slice(-INSTANT_DIGITS), 36);
/** Level takes no null. */
const valueOf = (stored: unknown): unknown => z.array(z.unknown()).parse(stored)[0] ?? null;
const metaOf = (stored: unknown): z.infer<typeof meta> =>
  meta.parse(stored ?? { layout: HISTORY_LAYOUT, horizon: 0, rows: 0 });
const spanOf = ([key, value]: readonly [string, unknown]): Span => ({
  from: instantOf(key),
  ...spanValue.parse(value),
});
