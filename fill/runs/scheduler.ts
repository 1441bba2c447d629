// Starts the fill of each night. Cron only ticks each minute: which windows are open is a pure function of instant and zone, and
// which openings were planned for is on disk. So a tick that is late, lost or doubled, a clock step and a night of 23 or 25
// hours start nothing twice.

import { schedule, type ScheduledTask } from 'node-cron';
import type { FleetAppliance } from '../../protocol/decision.ts';
import { isFault } from '../../protocol/faults.ts';
import { hash32 } from '../../protocol/hash.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import { fillableAppliances } from '../plan/fleet-plans.ts';
import { currentWindow, isTimeZone, type WindowInterval } from '../plan/window.ts';
import type { SteeringClient } from '../steering-client.ts';
import type { Dispatcher, DueAppliance } from './dispatcher.ts';
import type { Runs } from './runs.ts';
import type { Watcher } from './watcher.ts';

export const WATCH_EVERY_MS = 1_000;
/** The jitter is at most this share of a window. */
const JITTER_SHARE_MAX = 0.1;

interface SchedulerDeps {
  readonly dispatcher: Pick<Dispatcher, 'dispatchDue'>;
  readonly watcher: Pick<Watcher, 'check'>;
  readonly runs: Pick<Runs, 'plannedOpening'>;
  readonly steering: Pick<SteeringClient, 'fleet'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly jitterMs: number;
}

/** Appliances with an open window that they were not planned for yet. Pure. */
export function dueAppliances(input: {
  readonly nowMs: number;
  readonly appliances: readonly FleetAppliance[];
  readonly plannedOpening: (applianceId: string) => number | null;
  readonly jitterMs: number;
}): DueAppliance[] {
  const { nowMs, appliances, plannedOpening, jitterMs } = input;
  const windowOf = currentWindows(nowMs);
  return appliances.flatMap((appliance) => {
    const window = windowOf(appliance);
    if (window === null || (plannedOpening(appliance.id) ?? 0) >= window.opensAt) return [];
    const jitterMaxMs = Math.min(jitterMs, (window.closesAt - window.opensAt) * JITTER_SHARE_MAX);
    // The same for all appliances of a site, which share a run, and different for each opening.
    const share = hash32(`${appliance.site}\0${window.opensAt}`) / 2 ** 32;
    return nowMs < window.opensAt + jitterMaxMs * share ? [] : [{ appliance, window }];
  });
}

/** The current window of an appliance, computed once per zone and set of windows: a date formatter costs most of a millisecond. */
function currentWindows(nowMs: number): (appliance: FleetAppliance) => WindowInterval | null {
  const computed = new Map<string, WindowInterval | null>();
  return ({ timeZone, fillWindows }) => {
    const key = JSON.stringify([timeZone, fillWindows]);
    if (!computed.has(key))
      computed.set(key, isTimeZone(timeZone) ? currentWindow(nowMs, timeZone, fillWindows) : null);
    return computed.get(key)!;
  };
}

export class Scheduler {
  readonly #deps: SchedulerDeps;
  /** One round at a time, of either kind. */
  readonly #rounds = new Semaphore({ permits: 1 });
  #cron: ScheduledTask | null = null;
  #watch: Timer | null = null;

  constructor(deps: SchedulerDeps) {
    this.#deps = deps;
  }

  start(): void {
    const { clock, watcher } = this.#deps;
    this.#cron = schedule('* * * * *', () => this.planRound());
    this.#watch = clock.setInterval(() => {
      // A round may wait for steering: a watch round is skipped rather than queued behind it.
      if (this.#rounds.held === 0) void this.#round(() => watcher.check());
    }, WATCH_EVERY_MS);
    void this.planRound();
  }

  /** Starts no further round and waits for those under way. */
  async stop(): Promise<void> {
    await this.#cron?.destroy();
    this.#deps.clock.clear(this.#watch);
    await this.#rounds.run(async () => undefined);
  }

  /** Plans for appliances whose window has opened, as cron does each minute. Resolves also after a failure. */
  planRound(): Promise<void> {
    return this.#round(() => this.#dispatchDue());
  }

  async #dispatchDue(): Promise<void> {
    const { steering, clock, runs, dispatcher, jitterMs } = this.#deps;
    const fleet = await steering.fleet();
    const due = dueAppliances({
      nowMs: clock.now(),
      appliances: fillableAppliances(fleet, null),
      plannedOpening: (applianceId) => runs.plannedOpening(applianceId),
      jitterMs,
    });
    if (due.length > 0) await dispatcher.dispatchDue(fleet, due);
  }

  /** Logs a failure itself, because node-cron would swallow it. */
  #round(task: () => Promise<void>): Promise<void> {
    return this.#rounds.run(task).catch((error: unknown) => {
      // A Fault names its cause; only a defect needs its stack.
      const what = isFault(error) ? { code: error.code, reason: error.message } : { err: error };
      this.#deps.log.warn(what, 'a round of the scheduler failed; the next one tries again');
    });
  }
}
