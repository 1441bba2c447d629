// Watches runs so that none hangs: an appliance that vanishes, stays silent, or whose window has closed is given up in its run.

import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { SteeringClient } from '../steering-client.ts';
import { hasEnded, hasNoPlan, type Participant, type RunRecord } from './run-record.ts';
import type { Runs, TerminationReason } from './runs.ts';

/** Between reads of the leases from steering, while an appliance is silent. */
const LEASES_EVERY_MS = 5_000;
/** An appliance without a lease when its window opens may still come up within this time. */
const MISSED_WINDOW_MS = 15 * 60_000;
/** An appliance has this long after its window to report its end itself. */
const CLOSE_GRACE_MS = 60_000;

interface WatcherDeps {
  readonly runs: Runs;
  readonly steering: Pick<SteeringClient, 'leaseHolders'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly vanishAfterMs: number;
  readonly silenceAfterMs: number;
}

export class Watcher {
  readonly #deps: WatcherDeps;
  #leasesReadAt = Number.NEGATIVE_INFINITY;
  #leaseHolders: ReadonlySet<string> | null = null;

  constructor(deps: WatcherDeps) {
    this.#deps = deps;
  }

  /** Called each second. */
  async check(): Promise<void> {
    const { runs, log } = this.#deps;
    for (const record of runs.running()) {
      for (const progress of record.run.appliances.filter((p) => !hasEnded(p))) {
        const participant = record.participants[progress.appliance]!;
        const reason = hasNoPlan(progress)
          ? this.#missedWindow(participant)
          : await this.#terminationReason(record, participant);
        if (reason === null) continue;
        log.warn({ run: record.run.id, appliance: participant.appliance, ...reason }, 'appliance given up in a run');
        await runs.terminate(record.run.id, participant.appliance, reason);
      }
    }
  }

  #missedWindow({ opensAt }: Participant): TerminationReason | null {
    const lateMs = opensAt === null ? 0 : this.#deps.clock.now() - opensAt;
    if (lateMs < MISSED_WINDOW_MS) return null;
    return { state: 'failed', code: 'vanished', message: 'it had no lease when its fill window opened' };
  }

  async #terminationReason(record: RunRecord, { appliance, closesAt }: Participant): Promise<TerminationReason | null> {
    const { runs, clock, vanishAfterMs, silenceAfterMs } = this.#deps;
    if (closesAt !== null && clock.now() > closesAt + CLOSE_GRACE_MS)
      return { state: 'closed', code: 'closed', message: 'its fill window has closed' };
    const silentMs = runs.silentMs(record.run.id, appliance);
    if (silentMs < Math.min(vanishAfterMs, silenceAfterMs)) return null;
    const seconds = Math.round(silentMs / 1000);
    if (silentMs >= silenceAfterMs)
      return { state: 'failed', code: 'silent', message: `it has reported no progress for ${seconds} s; see its log` };
    const leaseHolders = await this.#readLeaseHolders();
    if (leaseHolders === null || leaseHolders.has(appliance)) return null;
    const message = `its lease is gone, and it reported nothing for ${seconds} s`;
    return { state: 'failed', code: 'vanished', message };
  }

  /** Null if steering did not answer. */
  async #readLeaseHolders(): Promise<ReadonlySet<string> | null> {
    const nowMs = this.#deps.clock.monotonic();
    if (nowMs - this.#leasesReadAt < LEASES_EVERY_MS) return this.#leaseHolders;
    this.#leasesReadAt = nowMs;
    this.#leaseHolders = await this.#deps.steering.leaseHolders();
    return this.#leaseHolders;
  }
}
