// History on disk: every value of every fact, each with the instant from which it holds. It has a level database of its own,
// so that its size, compactions and corruption never affect the registry. Instants are nine digits of base 36 in keys:
//   f!FACT!INSTANT → [value], or [] if the fact ended       j!INSTANT → facts that changed then; pruning follows these
//   s!INSTANT → a period of recording that began then       n!NAME → a checkpoint, overwritten in place

import assert from 'node:assert';
import { join } from 'node:path';
import type { Level } from 'level';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { openLevel } from '../../runtime/level.ts';

export const HISTORY_LAYOUT = 1;
/** Periods that one pruning step removes at most. Each start of steering begins one. */
const PERIODS_STEP_MAX = 1_000;
const META_KEY = 'meta';
const metaValue = z.object({
  layout: z.number(),
  /** Values before this instant may have been pruned. */
  horizon: z.number(),
  /** Rows of facts, superseded ones included. */
  rows: z.number(),
});
const periodValue = z.object({ to: z.number(), start: z.boolean() });

export interface FactChange {
  readonly fact: string;
  /** Null if the fact ended. */
  readonly value: unknown;
}

/** A period through which every change was recorded. */
export interface RecordedPeriod {
  readonly from: number;
  /** The last commit. If steering was killed it may have run longer. */
  readonly to: number;
  /** True for the first period of a run of steering; later ones follow an interruption of recording. */
  readonly start: boolean;
}

export interface HistoryCommit {
  /** Later than that of any commit before. */
  readonly at: number;
  readonly changes: readonly FactChange[];
  /** By name; null removes. */
  readonly checkpoints: ReadonlyMap<string, unknown>;
  readonly period: RecordedPeriod | null;
}

/** A consistent view of the history, which later commits and pruning do not change. */
export interface HistorySnapshot {
  readonly horizon: number;
  /** Null if the fact did not exist. */
  value(fact: string, at: number): Promise<unknown>;
  /** All facts that existed and whose names have the prefix. */
  values(prefix: string, at: number): Promise<Map<string, unknown>>;
  /** The last period that began at `at` or before, and the first that began later. */
  periods(at: number): Promise<{ readonly last: RecordedPeriod | null; readonly next: RecordedPeriod | null }>;
  checkpoints(): Promise<Map<string, unknown>>;
}

export interface PruneLimits {
  readonly before: number;
  readonly rowsMax: number;
  /** Changes examined in one step at most. */
  readonly stepMax: number;
}

interface PrunableChanges {
  /** Of superseded rows and of the change entries that led to them. */
  readonly keys: readonly string[];
  readonly rowsLeft: number;
  /** The new horizon. */
  readonly horizon: number;
  /** The last change examined. */
  readonly oldestAt: number;
  readonly more: boolean;
}

type HistoryDb = Level<string, unknown>;

export class HistoryStore {
  readonly #db: HistoryDb;
  #horizon: number;
  #rows: number;
  #lastAt: number;
  /** Lower bound of the changes and period ends on disk, so that most pruning steps can return at once. */
  #oldestAt = 0;

  private constructor(
    db: HistoryDb,
    state: { readonly horizon: number; readonly rows: number; readonly lastAt: number },
  ) {
    this.#db = db;
    this.#horizon = state.horizon;
    this.#rows = state.rows;
    this.#lastAt = state.lastAt;
  }

  /** Throws `store_locked`, `store_mismatch` or `disk_failed`. */
  static async open(directory: string): Promise<HistoryStore> {
    const path = join(directory, 'history');
    const db: HistoryDb = await openLevel({ path, valueEncoding: 'json' });
    try {
      const { layout, horizon, rows } = parseMeta(await db.get(META_KEY));
      if (layout !== HISTORY_LAYOUT)
        throw new Fault(
          'store_mismatch',
          `${path} has layout ${layout}, this version writes ${HISTORY_LAYOUT}; remove it while steering is stopped: only explanations of the past are lost`,
        );
      const [lastChange] = await db.keys({ gt: 'j!', lt: 'j"', reverse: true, limit: 1 }).all();
      const [lastPeriod] = await db.iterator({ gt: 's!', lt: 's"', reverse: true, limit: 1 }).all();
      const changedAt = lastChange === undefined ? 0 : instantOf(lastChange);
      const recordedTo = lastPeriod === undefined ? 0 : parsePeriod(lastPeriod).to;
      return new HistoryStore(db, { horizon, rows, lastAt: Math.max(changedAt, recordedTo) });
    } catch (error) {
      await db.close();
      throw error;
    }
  }

  get rows(): number {
    return this.#rows;
  }

  /** The newest instant on disk. */
  get lastAt(): number {
    return this.#lastAt;
  }

  get horizon(): number {
    return this.#horizon;
  }

  /** Writes one atomic batch. Commits and pruning must not overlap. */
  async commit({ at, changes, checkpoints, period }: HistoryCommit): Promise<void> {
    assert(at > this.#lastAt, 'history goes forward');
    const rows = this.#rows + changes.length;
    const batch = this.#db.batch().put(META_KEY, { layout: HISTORY_LAYOUT, rows, horizon: this.#horizon });
    for (const { fact, value } of changes) batch.put(rowKey(fact, at), value === null ? [] : [value]);
    if (changes.length > 0)
      batch.put(
        `j!${digits(at)}`,
        changes.map(({ fact }) => fact),
      );
    for (const [name, value] of checkpoints)
      if (value === null) batch.del(`n!${name}`);
      else batch.put(`n!${name}`, value);
    if (period !== null) batch.put(`s!${digits(period.from)}`, { to: period.to, start: period.start });
    await batch.write();
    this.#rows = rows;
    this.#lastAt = at;
  }

  /**
   * One step of pruning, oldest changes first: those up to `before`, and later ones while there are more rows than `rowsMax`.
   * The newest row of a fact at the horizon stays, because its value holds there. Returns true if another step is needed.
   */
  async prune(limits: PruneLimits): Promise<boolean> {
    if (limits.before < this.#oldestAt && this.#rows <= limits.rowsMax) return false;
    const { keys, rowsLeft, horizon, oldestAt, more } = await this.#prunableChanges(limits);
    const periods = await this.#prunablePeriods(Math.max(horizon, limits.before));
    this.#oldestAt = Math.min(oldestAt, periods.oldestAt);
    if (keys.length + periods.keys.length === 0) return false;
    const batch = this.#db.batch().put(META_KEY, { layout: HISTORY_LAYOUT, rows: rowsLeft, horizon });
    for (const key of [...keys, ...periods.keys]) batch.del(key);
    await batch.write();
    this.#rows = rowsLeft;
    this.#horizon = horizon;
    return more;
  }

  async #prunableChanges({ before, rowsMax, stepMax }: PruneLimits): Promise<PrunableChanges> {
    const superseded = new Set<string>();
    const changes: string[] = [];
    let examined = 0;
    let horizon = this.#horizon;
    let oldestAt = this.#lastAt;
    let more = false;
    const rows = iterateRows(this.#db);
    try {
      for await (const [key, value] of this.#db.iterator({ gt: 'j!', lt: 'j"' })) {
        const at = instantOf(key);
        oldestAt = at;
        if (at > before && this.#rows - superseded.size <= rowsMax) break;
        more = examined >= stepMax;
        if (more) break;
        const facts = z.array(z.string()).parse(value);
        for (const fact of facts) for (const row of await supersededRows(rows, fact, at)) superseded.add(row);
        changes.push(key);
        examined += facts.length;
        horizon = at;
      }
    } finally {
      await rows.close();
    }
    return { keys: [...superseded, ...changes], rowsLeft: this.#rows - superseded.size, horizon, oldestAt, more };
  }

  async #prunablePeriods(
    endedBefore: number,
  ): Promise<{ readonly keys: readonly string[]; readonly oldestAt: number }> {
    const keys: string[] = [];
    let oldestAt = Infinity;
    for await (const entry of this.#db.iterator({ gt: 's!', lt: 's"', limit: PERIODS_STEP_MAX })) {
      const { to } = parsePeriod(entry);
      oldestAt = Math.min(oldestAt, to);
      if (to >= endedBefore) break;
      keys.push(entry[0]);
    }
    return { keys, oldestAt };
  }

  /** The snapshot is valid until the promise of `use` settles. */
  async read<T>(use: (snapshot: HistorySnapshot) => Promise<T>): Promise<T> {
    const snapshot = this.#db.snapshot();
    const rows = iterateRows(this.#db, snapshot);
    try {
      return await use({
        horizon: parseMeta(await this.#db.get(META_KEY, { snapshot })).horizon,
        value: async (fact, at) => {
          rows.seek(rowKey(fact, at));
          const row = await rows.next();
          return row !== undefined && factOf(row[0]) === fact ? parseValue(row[1]) : null;
        },
        values: (prefix, at) => valuesAt(rows, prefix, at),
        periods: async (at) => {
          const key = `s!${digits(at)}`;
          const [last] = await this.#db.iterator({ gt: 's!', lte: key, reverse: true, limit: 1, snapshot }).all();
          const [next] = await this.#db.iterator({ gt: key, lt: 's"', limit: 1, snapshot }).all();
          return {
            last: last === undefined ? null : parsePeriod(last),
            next: next === undefined ? null : parsePeriod(next),
          };
        },
        checkpoints: async () => {
          const entries = await this.#db.iterator({ gt: 'n!', lt: 'n"', snapshot }).all();
          return new Map(entries.map(([key, value]) => [key.slice(2), value]));
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

/** Iterates backwards: after a seek the next row is the newest one at or before the key. */
const iterateRows = (db: HistoryDb, snapshot?: ReturnType<HistoryDb['snapshot']>) =>
  db.iterator<string, unknown>({ gt: 'f!', lt: 'f"', reverse: true, snapshot });
type RowIterator = ReturnType<typeof iterateRows>;

/** Rows of a fact, which changed at `at`, that no instant from `at` on needs. */
async function supersededRows(rows: RowIterator, fact: string, at: number): Promise<string[]> {
  rows.seek(rowKey(fact, at));
  const [row, previous] = await rows.nextv(2);
  const superseded: string[] = [];
  if (row !== undefined && row[0] === rowKey(fact, at) && parseValue(row[1]) === null) superseded.push(row[0]);
  if (previous !== undefined && factOf(previous[0]) === fact) superseded.push(previous[0]);
  return superseded;
}

/** Walks backwards from fact to fact with two seeks each, however many rows a fact has. */
async function valuesAt(rows: RowIterator, prefix: string, at: number): Promise<Map<string, unknown>> {
  const values = new Map<string, unknown>();
  rows.seek(`f!${prefix}~`);
  let row = await rows.next();
  while (row !== undefined && row[0].startsWith(`f!${prefix}`)) {
    const fact = factOf(row[0]);
    if (instantOf(row[0]) > at) {
      rows.seek(rowKey(fact, at));
      row = await rows.next();
      if (row === undefined || factOf(row[0]) !== fact) continue;
    }
    const value = parseValue(row[1]);
    if (value !== null) values.set(fact, value);
    rows.seek(`f!${fact}!`);
    row = await rows.next();
  }
  return values;
}

const INSTANT_DIGITS = 9;
/** Sorts like the number; sufficient until the year 5188. */
const digits = (at: number): string =>
  Math.min(Math.max(0, at), 36 ** INSTANT_DIGITS - 1)
    .toString(36)
    .padStart(INSTANT_DIGITS, '0');
const rowKey = (fact: string, at: number): string => `f!${fact}!${digits(at)}`;
const factOf = (key: string): string => key.slice(2, -INSTANT_DIGITS - 1);
const instantOf = (key: string): number => Number.parseInt(key.slice(-INSTANT_DIGITS), 36);
/** Values are wrapped in an array, because level cannot store null. */
const parseValue = (stored: unknown): unknown => z.array(z.unknown()).parse(stored)[0] ?? null;
const parseMeta = (stored: unknown): z.infer<typeof metaValue> =>
  metaValue.parse(stored ?? { layout: HISTORY_LAYOUT, horizon: 0, rows: 0 });
const parsePeriod = ([key, value]: readonly [string, unknown]): RecordedPeriod => ({
  from: instantOf(key),
  ...periodValue.parse(value),
});
