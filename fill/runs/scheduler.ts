// Nights. Cron only ticks each minute; which windows are open is a pure function of instant and zone, and what was begun for
// an opening is on disk. So a late, lost or doubled tick, a clock step or a night of 23 or 25 hours starts nothing twice.

import { schedule, type ScheduledTask } from 'node-cron';
import type { FleetAppliance } from '../../protocol/decision.ts';
import { isFault } from '../../protocol/faults.ts';
import { hash32 } from '../../protocol/hash.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { Dispatcher, Due } from './dispatcher.ts';
import { fillable } from '../plan/planning.ts';
import type { Runs } from './runs.ts';
import type { SteeringClient } from '../steering-client.ts';
import type { Watcher } from './watcher.ts';
import { isTimeZone, openWindow, type Opening } from '../plan/window.ts';

export const WATCH_EVERY_MS = 1_000;
/** The jitter takes at most this share of a window. */
const JITTER_SHARE = 0.1;

export interface SchedulerDeps {
  readonly dispatcher: Dispatcher;
  readonly watcher: Watcher;
  readonly runs: Runs;
  readonly steering: SteeringClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly jitterMs: number;
}

/** Appliances with an open window that was not begun yet. Pure. */
export function dueNow(input: {
  readonly nowMs: number;
  readonly appliances: readonly FleetAppliance[];
  readonly openedAt: (appliance: string) => number | null;
  readonly jitterMs: number;
}): Due[] {
  const { nowMs, appliances, openedAt, jitterMs } = input;
  const openings = openingsAt(nowMs);
  return appliances.flatMap((appliance) => {
    const opening = openings(appliance);
    if (opening === null || (openedAt(appliance.id) ?? 0) >= opening.opensAt) return [];
    const most = Math.min(jitterMs, (opening.closesAt - opening.opensAt) * JITTER_SHARE);
    // The same for all appliances of a site, which share a run, and another one for each opening.
    const share = hash32(`${appliance.site}\0${opening.opensAt}`) / 2 ** 32;
    return nowMs < opening.opensAt + most * share ? [] : [{ appliance, opening }];
  });
}

/** Asks once for all appliances of the same zone and windows: a date formatter takes most of a millisecond to make. */
function openingsAt(nowMs: number): (appliance: FleetAppliance) => Opening | null {
  const asked = new Map<string, Opening | null>();
  return ({ timeZone, fillWindows }) => {
    const key = JSON.stringify([timeZone, fillWindows]);
    if (!asked.has(key)) asked.set(key, isTimeZone(timeZone) ? openWindow(nowMs, timeZone, fillWindows) : null);
    return asked.get(key)!;
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
    this.#cron = schedule('* * * * *', () => this.round());
    this.#watch = clock.setInterval(() => {
      // A round may wait for steering: the next watch is skipped rather than queued behind it.
      if (this.#rounds.held === 0) void this.#run(() => watcher.look());
    }, WATCH_EVERY_MS);
    void this.round();
  }

  /** Starts no further round and waits for those under way. */
  async stop(): Promise<void> {
    await this.#cron?.destroy();
    this.#deps.clock.clear(this.#watch);
    await this.#rounds.run(async () => undefined);
  }

  /** What cron does each minute. Resolves when it is through, also where it failed. */
  round(): Promise<void> {
    return this.#run(() => this.#startDue());
  }

  async #startDue(): Promise<void> {
    const { steering, clock, runs, dispatcher, jitterMs } = this.#deps;
    const fleet = await steering.fleet();
    const appliances = fillable(fleet, null);
    const due = dueNow({ nowMs: clock.now(), appliances, openedAt: (id) => runs.openedAt(id), jitterMs });
    if (due.length > 0) await dispatcher.openWindows(fleet, due);
  }

  /** Logs a failure itself: node-cron would swallow it. */
  #run(task: () => Promise<void>): Promise<void> {
    return this.#rounds.run(task).catch((error: unknown) => {
      // A Fault names its cause; only a defect needs its stack.
      const what = isFault(error) ? { code: error.code, reason: error.message } : { err: error };
      this.#deps.log.warn(what, 'the scheduler failed a round; the next one tries again');
    });
  }
}
