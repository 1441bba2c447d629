// The appliance as a member of a fleet: it fills by plan, reports to steering and fill, and is operated.
//
// This file fills: it pulls the plan of this appliance from fill, pins what the plan keeps and adds, fetches what is missing and
// reports progress. Stored blocks are never fetched again, so a filler that was killed resumes where it was.
//
// Read in this order:
//   filler.ts, plan-fetch.ts            pull a plan and report on it; fetch its renditions, asset by asset and block by block
//   fill-progress.ts, rate-limit.ts     the progress of a plan; the cap on its bytes per second
//   catalog.ts                          the local copy of the catalog: which assets exist, with which versions and digests
//   inventory.ts, heartbeat.ts          which renditions are held completely; heartbeats to steering and orders from it
//   play-reports.ts                     bytes served per rendition, reported to fill
//   appliance-status.ts, admin.ts       state, health and gauges; the admin listener
//   state.ts                            the LevelDB database in --state that all of this persists in
//
// Other rooms use `Catalog` and `assetMetaOf` to look assets up; the storekeeper composes the rest.

import { z } from 'zod';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import { fillPlan, type FillPlan, type FillProgress } from '../../protocol/plan.ts';
import { call } from '../../runtime/client.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Inflight } from '../fetch/inflight.ts';
import type { Counters } from '../metrics.ts';
import type { Cache } from '../store/cache.ts';
import type { Catalog } from './catalog.ts';
import { FillProgressTracker } from './fill-progress.ts';
import { PlanFetch } from './plan-fetch.ts';
import { PersistedValue, stateFault, type StateDb } from './state.ts';

const PULL_MS = 60_000;
const REPORT_MS = 1_000;

export interface FillerDeps {
  readonly appliance: string;
  readonly fill: string;
  readonly token: string;
  /** Bytes that plans may pin. */
  readonly planBytes: number;
  /** This appliance's own cap; the lower of it and the plan's applies. */
  readonly rateBitsPerSecond: number | null;
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly catalog: Catalog;
  readonly db: StateDb;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

/** What a filler must remember through a restart. */
interface PersistedState {
  readonly pinned: PersistedValue<HoldingId[]>;
  /** The final progress of the last plan, until fill has accepted it. */
  readonly unreported: PersistedValue<FillProgress | null>;
  /** The id of the last plan that ended. */
  readonly finished: PersistedValue<string | null>;
}

export class Filler {
  readonly #deps: FillerDeps;
  readonly #state: PersistedState;
  #running: Promise<void> | null = null;
  /** Set by a pull that came while a plan was running. */
  #pullAgain = false;
  #stopped = false;
  #timer: Timer | null = null;
  #progress: FillProgress | null = null;
  #planned: ReadonlySet<HoldingId> = new Set();

  private constructor(deps: FillerDeps, state: PersistedState) {
    this.#deps = deps;
    this.#state = state;
  }

  static async open(deps: FillerDeps): Promise<Filler> {
    return new Filler(deps, {
      pinned: await PersistedValue.load<HoldingId[]>(deps.db, 'pinned', []),
      unreported: await PersistedValue.load<FillProgress | null>(deps.db, 'progress-unreported', null),
      finished: await PersistedValue.load<string | null>(deps.db, 'plan-finished', null),
    });
  }

  /** The persisted pins, which the cache needs before it evicts anything. */
  static async pinnedIn(db: StateDb): Promise<ReadonlySet<HoldingId>> {
    return new Set((await PersistedValue.load<HoldingId[]>(db, 'pinned', [])).value);
  }

  /** Whether the current plan keeps or adds the holding. */
  isPlanned(holding: HoldingId): boolean {
    return this.#planned.has(holding);
  }

  get filling(): boolean {
    return this.#progress?.state === 'filling';
  }

  get pinned(): readonly HoldingId[] {
    return this.#state.pinned.value;
  }

  get progress(): FillProgress | null {
    return this.#progress;
  }

  start(): void {
    this.pull();
    this.#timer = this.#deps.clock.setInterval(() => this.pull(), PULL_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#deps.clock.clear(this.#timer);
  }

  /** Pulls the plan now; if one is running, once more when it ends. */
  pull(): void {
    if (this.#running !== null) {
      this.#pullAgain = true;
      return;
    }
    this.#running = this.#pullAndRun()
      .catch((error: unknown) => {
        const { code, message } = stateFault(error);
        if (code !== 'not_found') this.#deps.log.warn({ code, reason: message }, 'the fill plan failed');
      })
      .finally(() => {
        this.#running = null;
        const again = this.#pullAgain && !this.#stopped;
        this.#pullAgain = false;
        if (again) this.pull();
      });
  }

  async #pullAndRun(): Promise<void> {
    const { fill, appliance, token, catalog } = this.#deps;
    const { unreported, finished } = this.#state;
    if (unreported.value !== null) await this.#report(unreported.value);
    const plan = await call({ url: `${fill}/v1/plans/${appliance}`, token, answer: fillPlan });
    if (plan.appliance !== appliance) throw new Fault('peer_invalid', `fill sent the plan of ${plan.appliance}`);
    if (plan.id === finished.value) return;
    await catalog.sync();
    await this.#run(plan);
  }

  async #run(plan: FillPlan): Promise<void> {
    const { cache, clock, log, appliance } = this.#deps;
    const heldBytes = (holding: HoldingId): number => cache.heldBytes(holding);
    const tracker = new FillProgressTracker(plan, { appliance, heldBytes, clock });
    const planFetch = new PlanFetch({
      ...this.#deps,
      plan,
      tracker,
      isPinned: (holding) => this.pinned.includes(holding),
      pin: (holding) => this.#setPinned(new Set([...this.pinned, holding])),
      stopped: () => this.#stopped,
    });
    log.info({ plan: plan.id, run: plan.run, add: plan.add.length, bytes: plan.addBytes }, 'filling');
    const reportProgress = (): void => void this.#report(this.#measure(tracker, 'filling')).catch(() => undefined);
    reportProgress();
    const timer = clock.setInterval(reportProgress, REPORT_MS);
    try {
      await this.#pinKept(plan);
      await planFetch.run();
    } finally {
      clock.clear(timer);
    }
    // A plan that was stopped midway is not finished: the next start resumes it.
    if (this.#stopped) return;
    await this.#finish(
      plan,
      this.#measure(tracker, tracker.complete ? 'done' : planFetch.closed ? 'closed' : 'failed'),
    );
  }

  /** Unpins what the plan removes, which makes space for what it adds. Additions are pinned one by one as they begin. */
  async #pinKept(plan: FillPlan): Promise<void> {
    const planned = new Set([...plan.keep, ...plan.add].map((item) => item.holding));
    this.#planned = planned;
    const stillPlanned = this.pinned.filter((holding) => planned.has(holding));
    await this.#setPinned(new Set([...stillPlanned, ...plan.keep.map((item) => item.holding)]));
  }

  /** Persists that the plan ended before it reports it, so that the report survives a crash and the plan is not run again. */
  async #finish(plan: FillPlan, last: FillProgress): Promise<void> {
    this.#deps.log.info({ plan: plan.id, state: last.state, bytes: last.bytesDone, faults: last.faults }, 'fill ended');
    await this.#state.unreported.set(last);
    await this.#state.finished.set(plan.id);
    await this.#report(last);
  }

  /** Persists pins before the cache applies them, so that a crash never makes pinned blocks evictable. */
  async #setPinned(pinned: ReadonlySet<HoldingId>): Promise<void> {
    await this.#state.pinned.set([...pinned]);
    this.#deps.cache.setPinned(pinned);
  }

  #measure(tracker: FillProgressTracker, state: FillProgress['state']): FillProgress {
    this.#progress = tracker.snapshot(state);
    return this.#progress;
  }

  async #report(progress: FillProgress): Promise<void> {
    const { fill, token } = this.#deps;
    const { unreported } = this.#state;
    try {
      const url = `${fill}/v1/runs/${progress.run}/progress`;
      await call({ url, method: 'POST', token, body: progress, answer: z.unknown() });
    } catch (error) {
      // Any other fault means that fill does not know the run or rejects the report: sending it again would not help.
      if (!isFault(error) || error.code === 'unreachable' || error.spec.status >= 500) throw error;
    }
    if (unreported.value?.plan === progress.plan && progress.state !== 'filling') await unreported.set(null);
  }
}
