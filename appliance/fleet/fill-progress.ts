// Progress of one plan. Bytes are measured from the cache rather than counted during the fill, so the figures are right after a
// restart, and include bytes that viewers' misses fetched.

import { PROTOCOL_VERSION, type HoldingId } from '../../protocol/ids.ts';
import type { FillPlan, FillProgress } from '../../protocol/plan.ts';
import type { Clock } from '../../runtime/clock.ts';

const FAULTS_REPORTED_MAX = 20;
const ASSET_CHARS_MAX = 1_100;
const MESSAGE_CHARS_MAX = 500;

export interface FillProgressTrackerDeps {
  readonly appliance: string;
  readonly heldBytes: (holding: HoldingId) => number;
  readonly clock: Clock;
}

export class FillProgressTracker {
  readonly #plan: FillPlan;
  readonly #deps: FillProgressTrackerDeps;
  readonly #startedAtMs: number;
  /** Bytes that were on disk before this attempt. */
  readonly #bytesResumed: number;
  readonly #faults: FillProgress['faults'] = [];
  renditionsDone = 0;

  constructor(plan: FillPlan, deps: FillProgressTrackerDeps) {
    this.#plan = plan;
    this.#deps = deps;
    this.#startedAtMs = deps.clock.monotonic();
    this.#bytesResumed = this.#bytesDone();
  }

  get complete(): boolean {
    return this.renditionsDone === this.#plan.add.length;
  }

  addFault(asset: string, code: string, message: string): void {
    if (this.#faults.length >= FAULTS_REPORTED_MAX) return;
    this.#faults.push({ asset: asset.slice(0, ASSET_CHARS_MAX), code, message: message.slice(0, MESSAGE_CHARS_MAX) });
  }

  snapshot(state: FillProgress['state']): FillProgress {
    const bytesDone = this.#bytesDone();
    const seconds = Math.max(0.001, (this.#deps.clock.monotonic() - this.#startedAtMs) / 1000);
    return {
      protocol: PROTOCOL_VERSION,
      run: this.#plan.run,
      plan: this.#plan.id,
      appliance: this.#deps.appliance,
      state,
      bytesTotal: this.#plan.add.reduce((sum, item) => sum + item.bytes, 0),
      bytesDone,
      bytesResumed: Math.min(this.#bytesResumed, bytesDone),
      renditionsTotal: this.#plan.add.length,
      renditionsDone: this.renditionsDone,
      bytesPerSecond: Math.max(0, bytesDone - this.#bytesResumed) / seconds,
      faults: [...this.#faults],
      at: new Date(this.#deps.clock.now()).toISOString(),
    };
  }

  #bytesDone(): number {
    return this.#plan.add.reduce((sum, item) => sum + Math.min(item.bytes, this.#deps.heldBytes(item.holding)), 0);
  }
}
