// Watches running runs: an appliance that vanishes, stays silent, or whose window has closed ends its part from outside, so
// that no run hangs.

import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { hasEnded, type Part, type RunRecord } from './run-record.ts';
import type { Ending, Runs } from './runs.ts';
import type { SteeringClient } from '../steering-client.ts';

/** Lease questions to steering while somebody is silent. */
export const ALIVE_EVERY_MS = 5_000;
/** An appliance that has no lease when its window opens may still come up to this long after. */
export const MISSED_AFTER_MS = 15 * 60_000;
/** After its window has closed, an appliance has this long to say so itself. */
export const CLOSE_GRACE_MS = 60_000;

export interface WatcherDeps {
  readonly runs: Runs;
  readonly steering: Pick<SteeringClient, 'alive'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly vanishAfterMs: number;
  readonly silenceAfterMs: number;
}

export class Watcher {
  readonly #deps: WatcherDeps;
  #askedAliveAt = Number.NEGATIVE_INFINITY;
  #alive: ReadonlySet<string> | null = null;

  constructor(deps: WatcherDeps) {
    this.#deps = deps;
  }

  /** Once a second while anything runs. */
  async look(): Promise<void> {
    const { runs } = this.#deps;
    for (const record of runs.running()) {
      for (const progress of record.run.appliances.filter((p) => !hasEnded(p))) {
        const part = record.parts[progress.appliance]!;
        const ending = progress.plan === '' ? this.#missedWindow(part) : await this.#lost(record, part);
        if (ending === null) continue;
        this.#deps.log.warn(
          { run: record.run.id, appliance: part.appliance, ...ending },
          'part of a run ended from outside',
        );
        await runs.end(record.run.id, part.appliance, ending);
      }
    }
  }

  #missedWindow(part: Part): Ending | null {
    const late = part.opensAt === null ? 0 : this.#deps.clock.now() - part.opensAt;
    if (late < MISSED_AFTER_MS) return null;
    return { state: 'failed', code: 'vanished', message: 'it had no lease when its fill window opened' };
  }

  async #lost(record: RunRecord, part: Part): Promise<Ending | null> {
    const { runs, clock, vanishAfterMs, silenceAfterMs } = this.#deps;
    if (part.closesAt !== null && clock.now() > part.closesAt + CLOSE_GRACE_MS)
      return { state: 'closed', code: 'closed', message: 'its fill window has closed' };
    const silentMs = runs.silentMs(record.run.id, part.appliance);
    if (silentMs < Math.min(vanishAfterMs, silenceAfterMs)) return null;
    const seconds = Math.round(silentMs / 1000);
    if (silentMs >= silenceAfterMs)
      return { state: 'failed', code: 'silent', message: `it has reported no progress for ${seconds} s; see its log` };
    const alive = await this.#whoIsAlive();
    if (alive === null || alive.has(part.appliance)) return null;
    return {
      state: 'failed',
      code: 'vanished',
      message: `its lease is gone, and it reported nothing for ${seconds} s`,
    };
  }

  async #whoIsAlive(): Promise<ReadonlySet<string> | null> {
    const now = this.#deps.clock.monotonic();
    if (now - this.#askedAliveAt < ALIVE_EVERY_MS) return this.#alive;
    this.#askedAliveAt = now;
    this.#alive = await this.#deps.steering.alive();
    return this.#alive;
  }
}
