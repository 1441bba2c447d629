// Play reports: bytes served per holding, collected and kept on disk until fill has accepted them, in order and each once.

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { HoldingId } from '../../protocol/ids.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import { PLAY_REPORT_ROWS_MAX, type PlayReport } from '../../protocol/plays.ts';
import { call } from '../../runtime/client.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { WorkerReport } from '../link/messages.ts';
import type { Counters } from '../metrics.ts';
import { stateFault, type StateDb } from './state.ts';

const REPORT_MS = 10_000;
/** Three hours of reports. Beyond that the oldest are discarded. */
const OUTBOX_MAX = 1_080;
/** Bounds of the keys of reports, which sort by time. */
const REPORT_KEYS = { gte: 'report!', lt: 'report"' } as const;

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
  /** Served since the last report. */
  readonly #served = new Map<HoldingId, { bytes: number; requests: number }>();
  #fromMs: number;
  #seq = 0;
  #timer: Timer | null = null;
  #flushing: Promise<void> | null = null;

  constructor(deps: PlayReportsDeps) {
    this.#deps = deps;
    this.#fromMs = deps.clock.now();
  }

  start(): void {
    this.#timer = this.#deps.clock.setInterval(() => void this.flush(), REPORT_MS);
  }

  add(rows: WorkerReport['served']): void {
    for (const { holding, bytes, requests } of rows) {
      const row = this.#served.get(holding) ?? { bytes: 0, requests: 0 };
      this.#served.set(holding, { bytes: row.bytes + bytes, requests: row.requests + requests });
    }
  }

  /** Persists what was served since the last report, then sends all persisted reports. One flush runs at a time. */
  flush(): Promise<void> {
    this.#flushing ??= this.#persistAndSend().finally(() => {
      this.#flushing = null;
    });
    return this.#flushing;
  }

  async stop(): Promise<void> {
    this.#deps.clock.clear(this.#timer);
    await this.#flushing;
    await this.flush();
  }

  async #persistAndSend(): Promise<void> {
    try {
      await this.#persist();
      await this.#sendAll();
    } catch (error) {
      const { code, message } = stateFault(error);
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'fill_down_reports_kept' });
      if (code !== 'unreachable') this.#deps.log.warn({ code, reason: message }, 'a play report was not accepted');
      await this.#trimOutbox().catch(stateFault);
    }
  }

  async #persist(): Promise<void> {
    const { db, appliance, site, clock } = this.#deps;
    const nowMs = clock.now();
    const rows = [...this.#served].map(([holding, row]) => ({ holding, ...row }));
    this.#served.clear();
    for (let at = 0; at < rows.length; at += PLAY_REPORT_ROWS_MAX) {
      const report: PlayReport = {
        protocol: PROTOCOL_VERSION,
        source: appliance,
        site,
        incarnation: this.#incarnation,
        seq: this.#seq,
        from: new Date(this.#fromMs).toISOString(),
        to: new Date(nowMs).toISOString(),
        served: rows.slice(at, at + PLAY_REPORT_ROWS_MAX),
        asked: [],
      };
      const sequence = `${this.#incarnation}-${String(this.#seq).padStart(9, '0')}`;
      await db.put(`report!${String(nowMs).padStart(15, '0')}-${sequence}`, report);
      this.#seq += 1;
    }
    this.#fromMs = nowMs;
  }

  async #sendAll(): Promise<void> {
    const { db, fill, token } = this.#deps;
    for await (const [key, report] of db.iterator(REPORT_KEYS)) {
      await call({ url: `${fill}/v1/plays`, method: 'POST', token, body: report, answer: z.unknown() });
      await db.del(key);
    }
  }

  async #trimOutbox(): Promise<void> {
    const { db, log } = this.#deps;
    const keys = await db.keys(REPORT_KEYS).all();
    const surplus = keys.slice(0, Math.max(0, keys.length - OUTBOX_MAX));
    if (surplus.length === 0) return;
    log.warn({ reports: surplus.length }, 'the oldest play reports are discarded');
    await db.batch(surplus.map((key) => ({ type: 'del', key })));
  }
}
