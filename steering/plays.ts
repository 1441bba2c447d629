// Plays asked, counted by title and by the site ranked first, and reported to fill. A report is sent again, unchanged,
// until fill has answered; meanwhile the next one grows in memory, bounded.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
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

/** Answers about the report itself; anything else is fill's state or configuration, and may be mended. */
const REFUSALS: ReadonlySet<string> = new Set(['body_invalid', 'body_too_large', 'request_malformed']);

export interface PlaysDeps {
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
}

export class Plays {
  readonly #deps: PlaysDeps;
  readonly #incarnation = randomBytes(8).toString('hex');
  #counts = new Map<string, { readonly title: string; readonly site: string | null; plays: number }>();
  #from: number;
  #seq = 0;
  #unanswered: PlayReport | null = null;

  constructor(deps: PlaysDeps) {
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

  /** The report that fill has not answered yet, or a new one of what was counted since; null where nothing was. */
  next(): PlayReport | null {
    if (this.#unanswered !== null) return this.#unanswered;
    if (this.#counts.size === 0) return null;
    const to = this.#deps.clock.now();
    this.#unanswered = {
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
    return this.#unanswered;
  }

  answered(report: PlayReport): void {
    if (this.#unanswered?.seq === report.seq) this.#unanswered = null;
  }
}

export interface PlayReportDeps extends PlaysDeps {
  readonly plays: Plays;
  readonly fillUrl: string;
  readonly token: string;
}

/** Reports until aborted, and once more then: the last plays of a steering that goes away count too. */
export async function keepReporting(deps: PlayReportDeps, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(PLAY_REPORT_MS, undefined, { signal }).catch(() => undefined);
    await reportPlays(deps);
  }
}

/** Sends what is due, once; true when nothing is left unanswered. */
export async function reportPlays(deps: PlayReportDeps): Promise<boolean> {
  const report = deps.plays.next();
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
    if (!isFault(error) || !REFUSALS.has(error.code)) {
      deps.metrics.add('larder_fallback_total', 1, { name: 'fill_down_reports_kept' });
      return false;
    }
    // Fill understood and refused: the same bytes would be refused for ever.
    const plays = report.asked.reduce((sum, row) => sum + row.plays, 0);
    deps.metrics.add('larder_steering_play_rows_dropped_total', report.asked.length);
    deps.log.error({ reason: reasonOf(error), plays }, 'fill refused a play report; it is dropped');
  }
  deps.plays.answered(report);
  return true;
}
