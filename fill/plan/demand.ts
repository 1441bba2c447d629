// Demand, from play reports: bytes served per rendition and site, plays requested per title and site, both decaying. A report
// counts once per (source, incarnation, seq): its rows and its sequence number are written in one synced batch.

import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION, splitHolding } from '../../protocol/ids.ts';
import type { PlayReport, Popularity } from '../../protocol/plays.ts';
import type { Clock } from '../../runtime/clock.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, prefixRange, type Database, type WriteOperation } from '../database.ts';
import {
  addAmount,
  computePopularity,
  decayedAmount,
  type DemandRow,
  type PopularityRow,
  type PopularityTitle,
} from './popularity.ts';

/** Sequence numbers stored individually per incarnation; beyond that, the lowest gap counts as seen. */
export const SEQS_ABOVE_MAX = 100;
/** Incarnations remembered per source; a report of an older one counts as new. */
export const INCARNATIONS_MAX = 32;
/** Rows of each kind; beyond it, reports are refused with `overloaded`. */
const DEMAND_ROWS_MAX = 1_000_000;
/** Rows that have decayed below one byte, or below a millionth of a play, are dropped when the database is opened. */
const NEGLIGIBLE = { served: 1, asked: 1e-6 } as const;
const KINDS = ['served', 'asked'] as const;

type DemandKind = (typeof KINDS)[number];

/** Sequence numbers seen of one incarnation: all up to `floor`, and those in `above`. */
interface SeenSeqs {
  readonly floor: number;
  readonly above: readonly number[];
  readonly touchedMs: number;
}

interface DemandDeps {
  readonly database: Database;
  readonly halfLifeMs: number;
  readonly clock: Clock;
  /** Whether the catalog has the title and the rendition; any rendition if that is null. */
  readonly isCatalogued: (title: string, rendition: string | null) => boolean;
}

export class Demand {
  readonly #deps: DemandDeps;
  readonly #exclusively = mutex();
  /** By database key. */
  readonly #rows: Readonly<Record<DemandKind, Map<string, DemandRow>>> = { served: new Map(), asked: new Map() };
  /** By `source!incarnation`. */
  readonly #seen = new Map<string, SeenSeqs>();

  private constructor(deps: DemandDeps) {
    this.#deps = deps;
  }

  static async open(deps: DemandDeps): Promise<Demand> {
    const { database, clock, halfLifeMs } = deps;
    const demand = new Demand(deps);
    const deletions: WriteOperation[] = [];
    for (const kind of KINDS) {
      for await (const [key, value] of database.iterator(prefixRange(kind))) {
        const row = value as DemandRow;
        const negligible = decayedAmount(row, clock.now(), halfLifeMs) < NEGLIGIBLE[kind];
        if (negligible) deletions.push({ type: 'del', key });
        else demand.#rows[kind].set(key, row);
      }
    }
    for await (const [key, value] of database.iterator(prefixRange('seen')))
      demand.#seen.set(key.slice('seen!'.length), value as SeenSeqs);
    await commit(database, deletions);
    return demand;
  }

  /** Resolves once the report is on disk; to false if it had been counted before. Throws `overloaded`. */
  accept(report: PlayReport): Promise<boolean> {
    return this.#exclusively(() => this.#accept(report));
  }

  rows(titles: readonly PopularityTitle[]): PopularityRow[] {
    return computePopularity({
      titles,
      served: [...this.#rows.served.values()],
      asked: [...this.#rows.asked.values()],
      atMs: this.#deps.clock.now(),
      halfLifeMs: this.#deps.halfLifeMs,
    });
  }

  popularity(titles: readonly PopularityTitle[]): Popularity {
    const at = new Date(this.#deps.clock.now()).toISOString();
    const rows = this.rows(titles).sort((a, b) => b.popularity - a.popularity);
    return { protocol: PROTOCOL_VERSION, at, rows: rows.map((row) => ({ ...row })) };
  }

  async #accept(report: PlayReport): Promise<boolean> {
    const { database, clock } = this.#deps;
    const incarnation = `${report.source}!${report.incarnation}`;
    const seen = withSeq(this.#seen.get(incarnation) ?? null, report.seq, clock.now());
    if (seen === null) return false;
    // Demand dated ahead, by a reporter whose clock is fast, would not decay until then.
    const atMs = Math.min(Date.parse(report.to), clock.now());
    const rows = { served: this.#servedRows(report, atMs), asked: this.#askedRows(report, atMs) };
    for (const kind of KINDS)
      if (this.#rows[kind].size + rows[kind].size > DEMAND_ROWS_MAX)
        throw new Fault('overloaded', `demand has ${DEMAND_ROWS_MAX} rows of ${kind}, its maximum`);
    const expired = this.#incarnationsBeyondLimit(report.source, incarnation);
    await commit(database, [
      { type: 'put', key: `seen!${incarnation}`, value: seen },
      ...expired.map((old): WriteOperation => ({ type: 'del', key: `seen!${old}` })),
      ...[...rows.served, ...rows.asked].map(([key, value]): WriteOperation => ({ type: 'put', key, value })),
    ]);
    for (const kind of KINDS) for (const [key, row] of rows[kind]) this.#rows[kind].set(key, row);
    for (const old of expired) this.#seen.delete(old);
    this.#seen.set(incarnation, seen);
    return true;
  }

  #servedRows(report: PlayReport, atMs: number): Map<string, DemandRow> {
    const rows = new Map<string, DemandRow>();
    for (const { holding, bytes } of report.served) {
      const { title, rendition } = splitHolding(holding);
      if (!this.#deps.isCatalogued(title, rendition)) continue;
      this.#addRow(rows, 'served', { key: holding, site: report.site, amount: bytes, atMs });
    }
    return rows;
  }

  #askedRows(report: PlayReport, atMs: number): Map<string, DemandRow> {
    const rows = new Map<string, DemandRow>();
    for (const { title, site, plays } of report.asked)
      if (this.#deps.isCatalogued(title, null)) this.#addRow(rows, 'asked', { key: title, site, amount: plays, atMs });
    return rows;
  }

  /** Adds to the row of the same report, else to the one in memory, which stays as it is until the commit. */
  #addRow(rows: Map<string, DemandRow>, kind: DemandKind, added: DemandRow): void {
    const key = `${kind}!${added.site ?? ''}!${added.key}`;
    const before = rows.get(key) ?? this.#rows[kind].get(key) ?? null;
    rows.set(key, { ...added, ...addAmount(before, added.amount, added.atMs, this.#deps.halfLifeMs) });
  }

  /** The incarnations of a source that make room for `current`, those longest without a report. */
  #incarnationsBeyondLimit(source: string, current: string): string[] {
    const others = [...this.#seen].filter(([key]) => key.startsWith(`${source}!`) && key !== current);
    others.sort(([, a], [, b]) => b.touchedMs - a.touchedMs);
    return others.slice(INCARNATIONS_MAX - 1).map(([key]) => key);
  }
}

/** Null if this number has been seen. */
function withSeq(seen: SeenSeqs | null, seq: number, nowMs: number): SeenSeqs | null {
  if (seen !== null && (seq <= seen.floor || seen.above.includes(seq))) return null;
  const above = [...(seen?.above ?? []), seq].sort((a, b) => a - b);
  let floor = seen?.floor ?? -1;
  while (above.length > 0 && (above[0] === floor + 1 || above.length > SEQS_ABOVE_MAX)) floor = above.shift()!;
  return { floor, above, touchedMs: nowMs };
}
