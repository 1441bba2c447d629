// Play reports: bytes served per holding, gathered, kept on disk until fill has taken them, in order and each once.

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { HoldingId } from '../../protocol/ids.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import { PLAY_REPORT_ROWS_MAX, type PlayReport } from '../../protocol/plays.ts';
import { call } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { WorkerReport } from '../link/messages.ts';
import type { Counters } from '../metrics.ts';
import { stateFault, type StateDb } from './state.ts';

export const REPORT_MS = 10_000;
/** Three hours of reports; beyond that the oldest are given up, and it is logged. */
export const OUTBOX_MAX = 1_080;

export interface PlayReportsDeps {
  readonly db: StateDb;
  readonly fill: string;
  readonly token: string;
  readonly appliance: string;
  readonly site: string;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

export class PlayReports {
  readonly #deps: PlayReportsDeps;
  readonly #incarnation = randomBytes(8).toString('hex');
  readonly #served = new Map<HoldingId, { bytes: number; requests: number }>();
  #from: number;
  #seq = 0;
  #timer: NodeJS.Timeout | null = null;
  #flushing: Promise<void> | null = null;

  constructor(deps: PlayReportsDeps) {
    this.#deps = deps;
    this.#from = deps.clock.now();
  }

  start(): void {
    this.#timer = setInterval(() => void this.flush(), REPORT_MS);
  }

  add(rows: WorkerReport['served']): void {
    for (const { holding, bytes, requests } of rows) {
      const row = this.#served.get(holding) ?? { bytes: 0, requests: 0 };
      this.#served.set(holding, { bytes: row.bytes + bytes, requests: row.requests + requests });
    }
  }

  /** Writes down what was served since the last time and sends all that is written down; one at a time. */
  flush(): Promise<void> {
    this.#flushing ??= this.#writeAndSend().finally(() => {
      this.#flushing = null;
    });
    return this.#flushing;
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#flushing;
    await this.flush();
  }

  async #writeAndSend(): Promise<void> {
    try {
      await this.#writeDown();
      for await (const [key, value] of this.#deps.db.iterator({ gte: 'report!', lt: 'report"' })) {
        await call({
          url: `${this.#deps.fill}/v1/plays`,
          method: 'POST',
          token: this.#deps.token,
          body: value,
          answer: z.unknown(),
        });
        await this.#deps.db.del(key);
      }
    } catch (error) {
      const { code, message } = stateFault(error);
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'fill_down_reports_kept' });
      if (code !== 'unreachable') this.#deps.log.warn({ code, reason: message }, 'play report not taken');
      await this.#bound().catch(stateFault);
    }
  }

  async #writeDown(): Promise<void> {
    const now = this.#deps.clock.now();
    const rows = [...this.#served].map(([holding, row]) => ({ holding, ...row }));
    this.#served.clear();
    for (let at = 0; at < rows.length; at += PLAY_REPORT_ROWS_MAX) {
      const report: PlayReport = {
        protocol: PROTOCOL_VERSION,
        source: this.#deps.appliance,
        site: this.#deps.site,
        incarnation: this.#incarnation,
        seq: this.#seq,
        from: new Date(this.#from).toISOString(),
        to: new Date(now).toISOString(),
        served: rows.slice(at, at + PLAY_REPORT_ROWS_MAX),
        asked: [],
      };
      await this.#deps.db.put(
        `report!${String(now).padStart(15, '0')}-${this.#incarnation}-${String(this.#seq).padStart(9, '0')}`,
        report,
      );
      this.#seq += 1;
    }
    this.#from = now;
  }

  async #bound(): Promise<void> {
    const keys = await this.#deps.db.keys({ gte: 'report!', lt: 'report"' }).all();
    const surplus = keys.slice(0, Math.max(0, keys.length - OUTBOX_MAX));
    if (surplus.length === 0) return;
    this.#deps.log.warn({ reports: surplus.length }, 'oldest play reports are given up');
    await this.#deps.db.batch(surplus.map((key) => ({ type: 'del', key })));
  }
}
