// Plays, counted by title and by the site ranked first, and reported to fill. A report is repeated unchanged until fill has
// acknowledged it, while the next one accumulates in memory up to a bound.

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { isFault } from '../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { PLAY_REPORT_ROWS_MAX, type PlayReport } from '../protocol/plays.ts';
import { call, reasonOf } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import type { METRICS } from './metrics.ts';

export const PLAY_REPORT_MS = 10_000;
export const PLAY_REPORT_TIMEOUT_MS = 5_000;

/** Faults of the report itself. Any other concerns fill's state or configuration, so that a retry may succeed. */
const REPORT_FAULTS: ReadonlySet<string> = new Set(['body_invalid', 'body_too_large', 'request_malformed']);

export interface PlayCounterDeps {
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
}

export class PlayCounter {
  readonly #deps: PlayCounterDeps;
  readonly #incarnation = randomBytes(8).toString('hex');
  #counts = new Map<string, { readonly title: string; readonly site: string | null; plays: number }>();
  #from: number;
  #seq = 0;
  #unacknowledged: PlayReport | null = null;

  constructor(deps: PlayCounterDeps) {
    this.#deps = deps;
    this.#from = deps.clock.now();
  }

  count(title: string, site: string | null): void {
    const key = `${title}\0${site ?? ''}`;
    const row = this.#counts.get(key);
    if (row !== undefined) row.plays += 1;
    else if (this.#counts.size < PLAY_REPORT_ROWS_MAX) this.#counts.set(key, { title, site, plays: 1 });
    else this.#deps.metrics.add('larder_steering_play_rows_dropped_total');
  }

  /** The unacknowledged report, or else a new one of the plays counted since; null if there were none. */
  nextReport(): PlayReport | null {
    if (this.#unacknowledged !== null) return this.#unacknowledged;
    if (this.#counts.size === 0) return null;
    const to = this.#deps.clock.now();
    this.#unacknowledged = {
      protocol: PROTOCOL_VERSION,
      source: 'steering',
      site: null,
      incarnation: this.#incarnation,
      seq: (this.#seq += 1),
      from: new Date(Math.min(this.#from, to)).toISOString(),
      to: new Date(to).toISOString(),
      served: [],
      asked: [...this.#counts.values()],
    };
    this.#counts = new Map();
    this.#from = to;
    return this.#unacknowledged;
  }

  acknowledge(report: PlayReport): void {
    if (this.#unacknowledged?.seq === report.seq) this.#unacknowledged = null;
  }
}

export interface PlayReportDeps {
  readonly plays: PlayCounter;
  readonly fillUrl: string;
  readonly token: string;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
}

/** Reports at intervals until aborted, and then once more, so that the last plays before a shutdown count too. */
export async function runPlayReports(deps: PlayReportDeps, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await deps.clock.sleep(PLAY_REPORT_MS, signal).catch(() => undefined);
    await sendPlayReport(deps);
  }
}

/** Sends the report that is due. Returns false if it stays unacknowledged. */
export async function sendPlayReport(deps: PlayReportDeps): Promise<boolean> {
  const report = deps.plays.nextReport();
  if (report === null) return true;
  try {
    await call({
      url: `${deps.fillUrl}/v1/plays`,
      method: 'POST',
      body: report,
      token: deps.token,
      answer: z.unknown(),
      timeoutMs: PLAY_REPORT_TIMEOUT_MS,
    });
  } catch (error) {
    if (!isFault(error) || !REPORT_FAULTS.has(error.code)) {
      deps.metrics.add('larder_fallback_total', 1, { name: 'fill_down_reports_kept' });
      return false;
    }
    // Fill would refuse the same bytes again and again.
    const plays = report.asked.reduce((sum, row) => sum + row.plays, 0);
    deps.metrics.add('larder_steering_play_rows_dropped_total', report.asked.length);
    deps.log.error({ reason: reasonOf(error), plays }, 'fill refused a play report; it is dropped');
  }
  deps.plays.acknowledge(report);
  return true;
}
