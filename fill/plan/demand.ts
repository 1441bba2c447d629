// Demand, as play reports tell it: bytes served per rendition and site, plays asked per title and site, both decaying.
// A report counts once per (source, incarnation, seq): its rows and the mark that it was seen are one synced batch.

import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION, splitHolding } from '../../protocol/ids.ts';
import type { PlayReport, Popularity } from '../../protocol/plays.ts';
import { addTo, amountAt, popularityOf, type DemandRow, type PopularityRow } from './popularity.ts';
import type { Clock } from '../../runtime/clock.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, range, type State, type Write } from '../state.ts';

/** Numbers above the lowest gap that are kept for one incarnation; older gaps count as seen. */
export const SEEN_ABOVE_MAX = 100;
/** Incarnations remembered of one source; a report of a forgotten one counts as new. */
export const INCARNATIONS_MAX = 32;
/** Rows of each kind; one more site or rendition is refused with `overloaded`. Rows below one byte, or a millionth of a play, are dropped when the table is read. */
export const DEMAND_ROWS_MAX = 1_000_000;
const NEGLIGIBLE = { served: 1, asked: 1e-6 } as const;

/** Every seq up to `floor`, and those in `above`. */
interface Seen {
  readonly floor: number;
  readonly above: readonly number[];
  readonly touchedMs: number;
}

type Kind = 'served' | 'asked';

export interface DemandDeps {
  readonly state: State;
  readonly halfLifeMs: number;
  readonly clock: Clock;
  /** Whether the catalog has the title and, where one is given, the rendition. */
  readonly knows: (title: string, rendition: string | null) => boolean;
}

export class Demand {
  readonly #deps: DemandDeps;
  readonly #exclusively = mutex();
  readonly #rows: Record<Kind, Map<string, DemandRow>> = { served: new Map(), asked: new Map() };
  /** By `source!incarnation`. */
  readonly #seen = new Map<string, Seen>();

  private constructor(deps: DemandDeps) {
    this.#deps = deps;
  }

  static async open(deps: DemandDeps): Promise<Demand> {
    const demand = new Demand(deps);
    const gone: Write[] = [];
    for (const kind of ['served', 'asked'] as const) {
      for await (const [key, value] of deps.state.iterator(range(kind))) {
        const row = value as DemandRow;
        if (amountAt(row, deps.clock.now(), deps.halfLifeMs) < NEGLIGIBLE[kind]) gone.push({ type: 'del', key });
        else demand.#rows[kind].set(key, row);
      }
    }
    for await (const [key, value] of deps.state.iterator(range('seen')))
      demand.#seen.set(key.slice('seen!'.length), value as Seen);
    await commit(deps.state, gone);
    return demand;
  }

  /** True where the report was new. Resolves once it is on disk. */
  accept(report: PlayReport): Promise<boolean> {
    return this.#exclusively(async () => {
      const mark = `${report.source}!${report.incarnation}`;
      const seen = withSeq(this.#seen.get(mark) ?? null, report.seq, this.#deps.clock.now());
      if (seen === null) return false;
      // A clock that runs ahead would make demand that does not decay until then.
      const atMs = Math.min(Date.parse(report.to), this.#deps.clock.now());
      const rows = { served: this.#servedRows(report, atMs), asked: this.#askedRows(report, atMs) };
      for (const kind of ['served', 'asked'] as const)
        if (this.#rows[kind].size + rows[kind].size > DEMAND_ROWS_MAX)
          throw new Fault('overloaded', `demand has ${DEMAND_ROWS_MAX} rows of ${kind}, its maximum`);
      const forgotten = this.#oldest(report.source, mark);
      await commit(this.#deps.state, [
        { type: 'put', key: `seen!${mark}`, value: seen },
        ...forgotten.map((old): Write => ({ type: 'del', key: `seen!${old}` })),
        ...[...rows.served, ...rows.asked].map(([key, value]): Write => ({ type: 'put', key, value })),
      ]);
      for (const kind of ['served', 'asked'] as const)
        for (const [key, row] of rows[kind]) this.#rows[kind].set(key, row);
      for (const old of forgotten) this.#seen.delete(old);
      this.#seen.set(mark, seen);
      return true;
    });
  }

  rows(titles: Parameters<typeof popularityOf>[0]['titles']): PopularityRow[] {
    return popularityOf({
      titles,
      served: [...this.#rows.served.values()],
      asked: [...this.#rows.asked.values()],
      atMs: this.#deps.clock.now(),
      halfLifeMs: this.#deps.halfLifeMs,
    });
  }

  popularity(titles: Parameters<typeof popularityOf>[0]['titles']): Popularity {
    const at = new Date(this.#deps.clock.now()).toISOString();
    const rows = this.rows(titles).sort((a, b) => b.popularity - a.popularity);
    return { protocol: PROTOCOL_VERSION, at, rows: rows.map((row) => ({ ...row })) };
  }

  #servedRows(report: PlayReport, atMs: number): Map<string, DemandRow> {
    const rows = new Map<string, DemandRow>();
    for (const { holding, bytes } of report.served) {
      const { title, rendition } = splitHolding(holding);
      if (!this.#deps.knows(title, rendition)) continue;
      this.#add(rows, 'served', { key: holding, site: report.site, amount: bytes, atMs });
    }
    return rows;
  }

  #askedRows(report: PlayReport, atMs: number): Map<string, DemandRow> {
    const rows = new Map<string, DemandRow>();
    for (const { title, site, plays } of report.asked)
      if (this.#deps.knows(title, null)) this.#add(rows, 'asked', { key: title, site, amount: plays, atMs });
    return rows;
  }

  #add(rows: Map<string, DemandRow>, kind: Kind, more: DemandRow): void {
    const key = `${kind}!${more.site ?? ''}!${more.key}`;
    const before = rows.get(key) ?? this.#rows[kind].get(key) ?? null;
    rows.set(key, { ...more, ...addTo(before, more.amount, more.atMs, this.#deps.halfLifeMs) });
  }

  #oldest(source: string, mark: string): string[] {
    const marks = [...this.#seen].filter(([key]) => key.startsWith(`${source}!`) && key !== mark);
    marks.sort(([, a], [, b]) => b.touchedMs - a.touchedMs);
    return marks.slice(INCARNATIONS_MAX - 1).map(([key]) => key);
  }
}

/** Null where this seq was seen. */
function withSeq(seen: Seen | null, seq: number, nowMs: number): Seen | null {
  if (seen !== null && (seq <= seen.floor || seen.above.includes(seq))) return null;
  const above = [...(seen?.above ?? []), seq].sort((a, b) => a - b);
  let floor = seen?.floor ?? -1;
  while (above.length > 0 && (above[0] === floor + 1 || above.length > SEEN_ABOVE_MAX)) floor = above.shift()!;
  return { floor, above, touchedMs: nowMs };
}
