// A complete fill service in the process of the test, with doubles of the origin and the fleet, and a clock that the test sets.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { z } from 'zod';
import { importAccepted, importProgress } from '../../protocol/answers.ts';
import { run, type Run } from '../../protocol/plan.ts';
import { ensureFleetKey, issueToken, type Role } from '../../runtime/auth.ts';
import { call, type Call } from '../../runtime/client.ts';
import { systemClock, type Clock } from '../../runtime/clock.ts';
import { resolveConfig } from '../../runtime/config.ts';
import { silentLog } from '../../runtime/log.ts';
import { FILL_TABLE } from '../config.ts';
import { startFill, type RunningFill } from '../main.ts';
import { FleetDouble } from './fleet-double.ts';
import { OriginDouble } from './origin-double.ts';

interface ShiftedClock extends Clock {
  /** Moves both readings at once; timers run in real time. */
  advance(ms: number): void;
  advanceTo(iso: string): void;
}

/** The system clock, set to `startMs`. */
function shiftedClock(startMs: number): ShiftedClock {
  const startedMs = systemClock.monotonic();
  let shiftMs = 0;
  const monotonic = (): number => systemClock.monotonic() + shiftMs;
  const now = (): number => startMs + monotonic() - startedMs;
  const advance = (ms: number): void => void (shiftMs += ms);
  return { ...systemClock, now, monotonic, advance, advanceTo: (iso) => advance(Date.parse(iso) - now()) };
}

export class FillHarness {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-fill-'));
  readonly key = ensureFleetKey(join(this.directory, 'fleet.key'));
  readonly origin = new OriginDouble();
  readonly fleet = new FleetDouble(this.key);
  readonly clock: ShiftedClock;
  fill: RunningFill | null = null;
  steeringUrl = '';
  originUrl = '';

  private constructor(startMs: number) {
    this.clock = shiftedClock(startMs);
  }

  static async start(startMs = Date.parse('2026-05-05T12:00:00Z')): Promise<FillHarness> {
    const harness = new FillHarness(startMs);
    harness.originUrl = await harness.origin.start();
    harness.steeringUrl = await harness.fleet.start();
    await harness.open();
    return harness;
  }

  async open(overrides: Record<string, string> = {}): Promise<void> {
    const flags = {
      listen: '127.0.0.1:0',
      state: join(this.directory, 'state'),
      origin: this.originUrl,
      steering: this.steeringUrl,
      fleetKey: join(this.directory, 'fleet.key'),
      windowJitter: '0s',
      ...overrides,
    };
    const config = resolveConfig(FILL_TABLE, { file: null, env: {}, flags });
    this.fill = await startFill(config, silentLog, this.clock);
  }

  async reopen(overrides: Record<string, string> = {}): Promise<void> {
    await this.fill?.close();
    await this.open(overrides);
  }

  async stop(): Promise<void> {
    await this.fill?.close();
    await this.fleet.stop();
    await this.origin.stop();
    rmSync(this.directory, { recursive: true });
  }

  get url(): string {
    return `http://127.0.0.1:${this.fill!.address.port}`;
  }

  call<S extends z.ZodType>(
    path: string,
    answer: S,
    options: Partial<Pick<Call<S>, 'method' | 'body'>> & { readonly as?: Role; readonly id?: string } = {},
  ): Promise<z.infer<S>> {
    const role = options.as ?? 'operator';
    const token = issueToken(this.key, { role, id: options.id ?? role });
    const { method, body } = options;
    return call({
      url: this.url + path,
      token,
      answer,
      ...(method === undefined ? {} : { method }),
      ...(body === undefined ? {} : { body }),
    });
  }

  startRun(request: { readonly site?: string; readonly title?: string; readonly now?: boolean } = {}): Promise<Run> {
    const body = { site: request.site ?? null, title: request.title ?? null, now: request.now ?? true };
    return this.call('/v1/runs', run, { method: 'POST', body });
  }

  getRun(id: string): Promise<Run> {
    return this.call(`/v1/runs/${id}`, run);
  }

  /** Resolves once the import is done. */
  async importTitle(path: string): Promise<void> {
    const body = { url: this.originUrl + path, title: null };
    const { id } = await this.call('/v1/imports', importAccepted, { method: 'POST', body });
    for (;;) {
      const progress = await this.call(`/v1/imports/${id}`, importProgress);
      if (progress.state === 'done') return;
      if (progress.state === 'failed') throw new Error(progress.fault!.message);
    }
  }
}
