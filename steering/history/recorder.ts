// Steering's memory of what its decisions were made from. Once a second what changed is written behind, one write at a
// time; an explanation of the past reads it back. Nothing waits for it: a history that fails costs explanations only.

import { Fault, isFault } from '../../protocol/faults.ts';
import { reasonOf } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Metrics } from '../../runtime/metrics.ts';
import type { HistoryStore, Reading, Span } from './store.ts';
import type { METRICS } from '../metrics.ts';
import { groundOf, readPast, type GroundFact, type Past, type Present } from './replay.ts';
import { Recorded, type Now } from './recorded-facts.ts';

/** How far back an explanation is promised, as far as `HISTORY_ROWS_MAX` lets it. */
export const HISTORY_AGE_MS = 7 * 86_400_000;
/** About 30 bytes on disk each; see decisions/0013-explain-history.md. */
export const HISTORY_ROWS_MAX = 10_000_000;
/** Changes written at once; more wait a second. They take the event loop some 10 ms. */
export const CHANGES_MAX = 2_000;
/** Twice as many are pruned at once, so that a flood of them is followed. */
const PRUNE_PACE = 2;
/** Nothing written for longer than this, and the time between is told as a gap. */
export const SPAN_BREAK_MS = 30_000;
export const REOPEN_MS = 10_000;
/** A clock may be so much ahead of steering's. */
export const AHEAD_MAX_MS = 60_000;
const COMPARE_MS_MAX = 300;

export interface HistoryDeps extends Pick<Now, 'fleet' | 'catalog'> {
  readonly open: () => Promise<HistoryStore>;
  readonly present: Present;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
  /** For tests that have no time for millions. */
  readonly limits?: { readonly rowsMax?: number; readonly changesMax?: number };
}

interface Opened {
  readonly store: HistoryStore;
  readonly recorded: Recorded;
  /** The one that goes on; null before the first whole commit. */
  span: Span | null;
}

export class History {
  readonly #deps: HistoryDeps;
  readonly #ground: GroundFact;
  #opened: Opened | null = null;
  #reopenAt = -Infinity;
  #failure: unknown = null;
  #spanned = false;
  #job: Promise<void> | null = null;

  constructor(deps: HistoryDeps) {
    this.#deps = deps;
    this.#ground = groundOf(deps.present);
  }

  /** Begins to write what changed; a disk that is still busy with an earlier second gets both with the next. */
  tick(): void {
    this.#job ??= this.#record().finally(() => (this.#job = null));
  }

  /** Resolves when what was begun is written, or has failed. */
  async settled(): Promise<void> {
    await this.#job;
  }

  /** What decisions were made from at an instant. Throws `request_malformed`, `history_missing`, `not_found`, `disk_failed`. */
  async past(ask: { readonly at: number; readonly title: string; readonly address: string }): Promise<Past> {
    const now = this.#deps.clock.now();
    if (ask.at > now + AHEAD_MAX_MS)
      throw new Fault(
        'request_malformed',
        `query.at is ${iso(ask.at)}, which lies ahead (here it is ${iso(now)}); ask for an instant of the past`,
        { detail: { field: 'query.at' } },
      );
    const unreadable = (reason: unknown): Fault =>
      new Fault('disk_failed', `the history cannot be read: ${reasonOf(reason)}`, { cause: reason });
    const opened = this.#opened;
    if (opened === null) throw unreadable(this.#failure ?? 'it is being opened');
    try {
      return await opened.store.read(async (reading) => {
        await checkKept(reading, ask.at, opened.span);
        return readPast(reading, ask, { ...this.#deps.present, ground: this.#ground });
      });
    } catch (error) {
      throw isFault(error) ? error : unreadable(error);
    }
  }

  /** The last moment of this run, then nothing more. */
  async close(): Promise<void> {
    await this.#job;
    if (this.#opened !== null) await this.#record();
    await this.#letGo();
  }

  async #record(): Promise<void> {
    try {
      if (this.#opened === null) {
        if (this.#deps.clock.monotonic() < this.#reopenAt) return;
        this.#opened = await this.#open();
      }
      await this.#write(this.#opened);
      if (this.#failure !== null) this.#deps.log.info('history is written again');
      this.#failure = null;
    } catch (error) {
      await this.#failed(error);
    }
  }

  async #open(): Promise<Opened> {
    const store = await this.#deps.open();
    try {
      return { store, recorded: await store.read((reading) => Recorded.load(reading)), span: null };
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  async #write(opened: Opened): Promise<void> {
    const { clock, metrics, fleet, catalog, present } = this.#deps;
    const { store, recorded } = opened;
    const now: Now = { fleet, catalog, ground: this.#ground, mapText: present.mapText };
    const doubtful = recorded.doubtful(now);
    const enoughAt = clock.monotonic() + COMPARE_MS_MAX;
    if (doubtful.length > 0)
      await store.read((reading) => recorded.compare(doubtful, reading, () => clock.monotonic() > enoughAt));
    const at = clock.now();
    // Somebody set the clock back: an instant has one truth, and it is told already.
    if (at <= store.last) return this.#checkBehind(store.last - at);
    const { rowsMax = HISTORY_ROWS_MAX, changesMax = CHANGES_MAX } = this.#deps.limits ?? {};
    const difference = recorded.difference(now, changesMax);
    const span = this.#spanAt(at, opened.span, difference.whole);
    // Every second, changes or not: it is how one knows later that steering ran.
    await store.commit({ at, changes: difference.changes, notes: difference.notes, span });
    difference.taken();
    opened.span = span;
    this.#spanned ||= span !== null;
    await store.prune({ before: at - HISTORY_AGE_MS, rowsMax, stepMax: changesMax * PRUNE_PACE });
    metrics.set('larder_steering_history_rows', store.rows);
  }

  /** A span begins once everything of the present is on disk, and breaks where nobody looked for what changed. */
  #spanAt(at: number, before: Span | null, whole: boolean): Span | null {
    if (before !== null && at - before.to <= SPAN_BREAK_MS) return { ...before, to: at };
    return whole ? { from: at, to: at, start: !this.#spanned } : null;
  }

  #checkBehind(behindMs: number): void {
    if (behindMs <= SPAN_BREAK_MS) return;
    throw new Fault(
      'state_conflict',
      `the clock is ${Math.round(behindMs / 1000)} s behind what was recorded last; it goes on from there, or at once where STATE/history is removed while steering is stopped`,
    );
  }

  async #failed(error: unknown): Promise<void> {
    const { metrics, log, clock } = this.#deps;
    metrics.add('larder_fallback_total', 1, { name: 'history_down_unrecorded' });
    if (this.#failure === null)
      log.error(
        { reason: reasonOf(error), err: isFault(error) ? undefined : error },
        'history is not written; this time cannot be explained later',
      );
    this.#failure = error;
    this.#reopenAt = clock.monotonic() + REOPEN_MS;
    await this.#letGo();
  }

  /** Level writes nothing more after a failed write until it is opened again. */
  async #letGo(): Promise<void> {
    const opened = this.#opened;
    this.#opened = null;
    try {
      await opened?.store.close();
    } catch (error) {
      this.#deps.log.warn({ reason: reasonOf(error) }, 'the history cannot be closed');
    }
  }
}

/** Throws `history_missing`, saying from when to when there is none. */
async function checkKept(reading: Reading, at: number, running: Span | null): Promise<void> {
  const { last, next } = await reading.spans(at);
  const missing = (why: string): Fault =>
    new Fault('history_missing', `nothing can be told of ${iso(at)}: ${why}`, { detail: { field: 'query.at' } });
  if (at < reading.horizon || last === null) {
    const begin = await beginOf(reading);
    throw missing(begin === null ? 'steering has no history yet' : `history begins at ${iso(begin)}`);
  }
  if (at <= last.to || last.from === running?.from) return;
  if (next === null) throw missing(`history was not written after ${iso(last.to)}; see the log of steering`);
  throw missing(
    next.start
      ? `steering did not run: it was last seen at ${iso(last.to)} and started at ${iso(next.from)}`
      : `history was not written from ${iso(last.to)} to ${iso(next.from)}`,
  );
}

/** The first instant that can be told of. */
async function beginOf(reading: Reading): Promise<number | null> {
  const { last, next } = await reading.spans(reading.horizon);
  return last !== null && reading.horizon <= last.to ? reading.horizon : (next?.from ?? null);
}

const iso = (ms: number): string => new Date(ms).toISOString();
