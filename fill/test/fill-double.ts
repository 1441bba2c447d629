// A whole fill service in the test's process, with an origin, a fleet and a clock that the test sets.

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

export interface ShiftedClock extends Clock {
  /** Moves both readings at once; timers run in real time. */
  advance(ms: number): void;
  advanceTo(iso: string): void;
}

/** The system clock, set to another time. */
export function shiftedClock(startMs: number): ShiftedClock {
  const startedMs = systemClock.monotonic();
  let shiftMs = 0;
  const monotonic = (): number => systemClock.monotonic() + shiftMs;
  const now = (): number => startMs + monotonic() - startedMs;
  const advance = (ms: number): void => void (shiftMs += ms);
  return { ...systemClock, now, monotonic, advance, advanceTo: (iso) => advance(Date.parse(iso) - now()) };
}

export class Rig {
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

  static async start(startMs = Date.parse('2026-05-05T12:00:00Z')): Promise<Rig> {
    const rig = new Rig(startMs);
    rig.originUrl = await rig.origin.start();
    rig.steeringUrl = await rig.fleet.start();
    await rig.open();
    return rig;
  }

  async open(more: Record<string, string> = {}): Promise<void> {
    const flags = {
      listen: '127.0.0.1:0',
      state: join(this.directory, 'state'),
      origin: this.originUrl,
      steering: this.steeringUrl,
      fleetKey: join(this.directory, 'fleet.key'),
      windowJitter: '0s',
      ...more,
    };
    const config = resolveConfig(FILL_TABLE, { file: null, env: {}, flags });
    this.fill = await startFill(config, silentLog, this.clock);
  }

  async reopen(more: Record<string, string> = {}): Promise<void> {
    await this.fill?.close();
    await this.open(more);
  }

  async stop(): Promise<void> {
    await this.fill?.close();
    await this.fleet.stop();
    await this.origin.stop();
    rmSync(this.directory, { recursive: true });
  }

  get url(): string {
    return `http://127.0.0.1:${this.fill!.at.port}`;
  }

  ask<S extends z.ZodType>(
    path: string,
    answer: S,
    more: Partial<Pick<Call<S>, 'method' | 'body'>> & { readonly as?: Role; readonly id?: string } = {},
  ): Promise<z.infer<S>> {
    const role = more.as ?? 'operator';
    const token = issueToken(this.key, { role, id: more.id ?? role });
    const { method, body } = more;
    return call({
      url: this.url + path,
      token,
      answer,
      ...(method === undefined ? {} : { method }),
      ...(body === undefined ? {} : { body }),
    });
  }

  run(request: { readonly site?: string; readonly title?: string; readonly now?: boolean } = {}): Promise<Run> {
    const body = { site: request.site ?? null, title: request.title ?? null, now: request.now ?? true };
    return this.ask('/v1/runs', run, { method: 'POST', body });
  }

  runOf(id: string): Promise<Run> {
    return this.ask(`/v1/runs/${id}`, run);
  }

  async import(path: string): Promise<void> {
    const body = { url: this.originUrl + path, title: null };
    const { id } = await this.ask('/v1/imports', importAccepted, { method: 'POST', body });
    for (;;) {
      const progress = await this.ask(`/v1/imports/${id}`, importProgress);
      if (progress.state === 'done') return;
      if (progress.state === 'failed') throw new Error(progress.fault!.message);
    }
  }
}
