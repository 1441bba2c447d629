// Records what decisions are made from, and reads it back to explain decisions of the past. Each second the changes are
// written behind, one write at a time. Nothing waits for history: if it fails, only explanations are lost.

import { Fault, isFault } from '../../protocol/faults.ts';
import { reasonOf } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Metrics } from '../../runtime/metrics.ts';
import type { METRICS } from '../metrics.ts';
import { RecordedFacts, type CurrentState } from './recorded-facts.ts';
import {
  readPastInputs,
  settingsFactsOf,
  type HistorySettings,
  type PastInputs,
  type PastQuery,
  type SettingsFacts,
} from './replay.ts';
import type { HistorySnapshot, HistoryStore, RecordedPeriod } from './store.ts';

/** How far back explanations reach, unless `HISTORY_ROWS_MAX` is exceeded before. */
export const HISTORY_AGE_MS = 7 * 86_400_000;
/** About 30 bytes on disk each; see decisions/0013-explain-history.md. */
export const HISTORY_ROWS_MAX = 10_000_000;
/** Changes in one commit, which occupy the event loop for some 10 ms. Further changes wait for the next second. */
export const CHANGES_MAX = 2_000;
/** Rows pruned per row committed at most, so that pruning keeps up with any rate of changes. */
const PRUNE_PACE = 2;
/** After a longer pause between commits a new period begins, and the pause is reported as a gap. */
export const PERIOD_BREAK_MS = 30_000;
export const REOPEN_MS = 10_000;
/** How far ahead of steering's clock the instant of a query may be, for clients whose clocks differ. */
export const AHEAD_MAX_MS = 60_000;
/** Time per second for comparing inventories with the disk. */
const COMPARE_MS_MAX = 300;

export interface HistoryRecorderDeps extends Pick<CurrentState, 'fleet' | 'catalog'> {
  readonly open: () => Promise<HistoryStore>;
  readonly settings: HistorySettings;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
  /** For tests, which cannot write millions of rows. */
  readonly limits?: { readonly rowsMax?: number; readonly changesMax?: number };
}

interface OpenHistory {
  readonly store: HistoryStore;
  readonly recorded: RecordedFacts;
  /** The period that continues with each commit; null before the first complete one. */
  period: RecordedPeriod | null;
}

export class HistoryRecorder {
  readonly #deps: HistoryRecorderDeps;
  /** Of the map whose text was `#mapText`. */
  #facts: SettingsFacts;
  #mapText: string | null;
  #history: OpenHistory | null = null;
  /** On the monotonic clock. */
  #reopenAt = -Infinity;
  #lastError: unknown = null;
  /** Whether this run of steering has begun a period. */
  #recordedBefore = false;
  #writing: Promise<void> | null = null;

  constructor(deps: HistoryRecorderDeps) {
    this.#deps = deps;
    this.#facts = settingsFactsOf(deps.settings);
    this.#mapText = deps.settings.mapText;
  }

  /** Starts to write the changes. If the previous write is still in progress, the next tick writes them. */
  tick(): void {
    this.#writing ??= this.#record().finally(() => (this.#writing = null));
  }

  /** Resolves when the write in progress has succeeded or failed. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  /**
   * The decision inputs of a past instant. Throws `request_malformed` for an instant in the future, `history_missing` outside
   * recorded history, `not_found` for a title that was not in the catalog, and `disk_failed`.
   */
  async inputsAt(query: PastQuery): Promise<PastInputs> {
    const now = this.#deps.clock.now();
    if (query.at > now + AHEAD_MAX_MS)
      throw new Fault(
        'request_malformed',
        `query.at is ${iso(query.at)}, which lies ahead (here it is ${iso(now)}); ask for an instant of the past`,
        { detail: { field: 'query.at' } },
      );
    const unreadable = (cause: unknown): Fault =>
      new Fault('disk_failed', `the history cannot be read: ${reasonOf(cause)}`, { cause });
    const { footprint, geoip } = this.#deps.settings;
    const current = { footprint, geoip, facts: this.#settingsFacts() };
    const history = this.#history;
    if (history === null) throw unreadable(this.#lastError ?? 'it is being opened');
    try {
      return await history.store.read(async (snapshot) => {
        await assertRecorded(snapshot, query.at, history.period);
        return readPastInputs(snapshot, query, current);
      });
    } catch (error) {
      throw isFault(error) ? error : unreadable(error);
    }
  }

  /** Records the final state and closes the store. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#history !== null) await this.#record();
    await this.#closeStore();
  }

  /** The map is digested once: it may have a million prefixes. */
  #settingsFacts(): SettingsFacts {
    const { settings } = this.#deps;
    if (settings.mapText !== this.#mapText) {
      this.#facts = settingsFactsOf(settings);
      this.#mapText = settings.mapText;
    }
    return this.#facts;
  }

  async #record(): Promise<void> {
    try {
      if (this.#history === null) {
        if (this.#deps.clock.monotonic() < this.#reopenAt) return;
        this.#history = await this.#open();
      }
      await this.#write(this.#history);
      if (this.#lastError !== null) this.#deps.log.info('history is written again');
      this.#lastError = null;
    } catch (error) {
      await this.#fail(error);
    }
  }

  async #open(): Promise<OpenHistory> {
    const store = await this.#deps.open();
    try {
      return { store, recorded: await store.read((snapshot) => RecordedFacts.load(snapshot)), period: null };
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  async #write(history: OpenHistory): Promise<void> {
    const { clock, metrics, fleet, catalog, settings, limits = {} } = this.#deps;
    const { rowsMax = HISTORY_ROWS_MAX, changesMax = CHANGES_MAX } = limits;
    const { store, recorded } = history;
    const current: CurrentState = { fleet, catalog, settings: this.#settingsFacts(), mapText: settings.mapText };
    await this.#compareInventories(history, current);
    const at = clock.now();
    // The clock was set back. What was recorded of an instant is never rewritten, so recording pauses.
    if (at <= store.lastAt) return assertClockNear(store.lastAt - at);
    const changeSet = recorded.difference(current, changesMax);
    const { changes, checkpoints } = changeSet;
    const period = this.#periodAt(at, history.period, changeSet.complete);
    // A commit without changes still extends the period, which later shows that steering ran.
    await store.commit({ at, changes, checkpoints, period });
    changeSet.committed();
    history.period = period;
    this.#recordedBefore ||= period !== null;
    await store.prune({ before: at - HISTORY_AGE_MS, rowsMax, stepMax: changesMax * PRUNE_PACE });
    metrics.set('larder_steering_history_rows', store.rows);
  }

  async #compareInventories({ store, recorded }: OpenHistory, current: CurrentState): Promise<void> {
    const { clock } = this.#deps;
    const uncompared = recorded.uncompared(current);
    const deadline = clock.monotonic() + COMPARE_MS_MAX;
    if (uncompared.length > 0)
      await store.read((snapshot) => recorded.compare(uncompared, snapshot, () => clock.monotonic() > deadline));
  }

  /** A period begins once the whole current state is on disk, and ends when commits pause for too long. */
  #periodAt(at: number, before: RecordedPeriod | null, complete: boolean): RecordedPeriod | null {
    if (before !== null && at - before.to <= PERIOD_BREAK_MS) return { ...before, to: at };
    return complete ? { from: at, to: at, start: !this.#recordedBefore } : null;
  }

  async #fail(error: unknown): Promise<void> {
    const { metrics, log, clock } = this.#deps;
    metrics.add('larder_fallback_total', 1, { name: 'history_down_unrecorded' });
    if (this.#lastError === null)
      log.error(
        { reason: reasonOf(error), err: isFault(error) ? undefined : error },
        'history is not written; this time cannot be explained later',
      );
    this.#lastError = error;
    this.#reopenAt = clock.monotonic() + REOPEN_MS;
    await this.#closeStore();
  }

  /** After a failed write, level refuses further ones until it is reopened. */
  async #closeStore(): Promise<void> {
    const history = this.#history;
    this.#history = null;
    try {
      await history?.store.close();
    } catch (error) {
      this.#deps.log.warn({ reason: reasonOf(error) }, 'the history cannot be closed');
    }
  }
}

function assertClockNear(behindMs: number): void {
  if (behindMs <= PERIOD_BREAK_MS) return;
  throw new Fault(
    'state_conflict',
    `the clock is ${Math.round(behindMs / 1000)} s behind what was recorded last; recording resumes when the clock has caught up, or at once if STATE/history is removed while steering is stopped`,
  );
}

/** Throws `history_missing`, naming the period without history. `running` is the period that still continues. */
async function assertRecorded(snapshot: HistorySnapshot, at: number, running: RecordedPeriod | null): Promise<void> {
  const { last, next } = await snapshot.periods(at);
  const missing = (why: string): Fault =>
    new Fault('history_missing', `there is no history for ${iso(at)}: ${why}`, { detail: { field: 'query.at' } });
  if (at < snapshot.horizon || last === null) {
    const begin = await historyBegin(snapshot);
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

/** The first instant of recorded history; null if there is none. */
async function historyBegin(snapshot: HistorySnapshot): Promise<number | null> {
  const { last, next } = await snapshot.periods(snapshot.horizon);
  return last !== null && snapshot.horizon <= last.to ? snapshot.horizon : (next?.from ?? null);
}

const iso = (ms: number): string => new Date(ms).toISOString();
