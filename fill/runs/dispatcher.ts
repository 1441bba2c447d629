// Starts runs: reads the fleet, has it planned, records the run, and has steering order each appliance to pull its plan.

import type { PlanList } from '../../protocol/answers.ts';
import type { Fleet, FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { holdingOf, PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan, Run, RunRequest } from '../../protocol/plan.ts';
import type { Log } from '../../runtime/log.ts';
import { mutex } from '../../runtime/semaphore.ts';
import type { FillMetrics } from '../metrics.ts';
import {
  assertScopeExists,
  fillableAppliances,
  planFleet,
  type FleetPlansDeps,
  type FleetPlansRequest,
  type RunScope,
} from '../plan/fleet-plans.ts';
import { currentWindow, isTimeZone, nextWindow, type WindowInterval } from '../plan/window.ts';
import type { SteeringClient } from '../steering-client.ts';
import { hasEnded, hasNoPlan, type Participant, type RunRecord } from './run-record.ts';
import type { Runs } from './runs.ts';

const ORDER_ATTEMPTS = 3;
const ORDER_BACKOFF_MS = 1_000;

interface DispatcherDeps extends FleetPlansDeps {
  readonly runs: Runs;
  readonly steering: SteeringClient;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

/** An appliance whose window is open and that has no plan for it yet. */
export interface DueAppliance {
  readonly appliance: FleetAppliance;
  readonly window: WindowInterval;
}

type PlanRequest = Omit<FleetPlansRequest, 'currentPlan'>;

export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #exclusively = mutex();
  /** Orders being sent. */
  readonly #pendingOrders = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /** Throws `not_found` for an unknown site or title, `plan_impossible` if no appliance can be filled. */
  start(request: RunRequest): Promise<Run> {
    return this.#exclusively(async () => {
      const fleet = await this.#deps.steering.fleet();
      const scope: RunScope = { site: request.site, title: request.title };
      assertScopeExists(scope, fleet, this.#deps.catalog);
      const appliances = fillableAppliances(fleet, scope.site);
      if (appliances.length === 0) throw noFillableAppliance(fleet, scope);
      return request.now ? this.#startNow(fleet, scope, appliances) : this.#startInWindow(fleet, scope, appliances);
    });
  }

  /** The plans that a run now would have; nothing is recorded. */
  async dryRun(scope: RunScope): Promise<PlanList> {
    const fleet = await this.#deps.steering.fleet();
    assertScopeExists(scope, fleet, this.#deps.catalog);
    const targets = new Map(fillableAppliances(fleet, scope.site).map((a) => [a.id, null]));
    const plans = await this.#plan({ fleet, runId: 'dry', title: scope.title, targets });
    return { protocol: PROTOCOL_VERSION, fleetAt: fleet.at, plans };
  }

  /** Plans for appliances whose window is open: those that a run waits for in that run, the others in one run per site. */
  dispatchDue(fleet: Fleet, due: readonly DueAppliance[]): Promise<void> {
    return this.#exclusively(async () => {
      const dispatched = new Set<string>();
      for (const record of this.#deps.runs.running()) {
        const waiting = due.filter(({ appliance: { id } }) => waitsFor(record, id) && !dispatched.has(id));
        for (const { appliance } of waiting) dispatched.add(appliance.id);
        if (waiting.length > 0) await this.#addToRun(record, fleet, waiting);
      }
      const rest = due.filter(({ appliance }) => !dispatched.has(appliance.id));
      for (const site of new Set(rest.map(({ appliance }) => appliance.site))) {
        const atSite = rest.filter(({ appliance }) => appliance.site === site);
        await this.#dispatchSite(fleet, site, atSite);
      }
    });
  }

  /** Gives up the orders being sent; `resendOrders` sends them after the restart. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#pendingOrders);
  }

  /** After a restart: orders the appliances of running runs that have not reported yet. One that fills already ignores it. */
  resendOrders(): void {
    for (const { run } of this.#deps.runs.running())
      for (const progress of run.appliances)
        if (!hasNoPlan(progress) && progress.state === 'waiting') this.#order(progress.appliance, run.id);
  }

  async #startNow(fleet: Fleet, scope: RunScope, appliances: readonly FleetAppliance[]): Promise<Run> {
    const { runs } = this.#deps;
    const targets = new Map(appliances.map((a) => [a.id, null]));
    const plans = await this.#plan({ fleet, runId: runs.nextId(), title: scope.title, targets });
    if (scope.title !== null) this.#assertTitleFits(scope.title, plans, appliances);
    const participants = appliances.map((a) => toParticipant(a, null));
    const run = await runs.create({ scope, trigger: 'now', participants, plans });
    this.#orderAll(plans);
    return run;
  }

  /** Appliances whose window is open are planned for at once; the others wait for their next window. */
  async #startInWindow(fleet: Fleet, scope: RunScope, appliances: readonly FleetAppliance[]): Promise<Run> {
    const { runs, clock } = this.#deps;
    const nowMs = clock.now();
    const withWindow = appliances.filter((a) => a.fillWindows.length > 0 && isTimeZone(a.timeZone));
    if (withWindow.length === 0)
      throw new Fault('plan_impossible', `no appliance ${inScope(scope)} has a fill window (--fill-window); use --now`);
    const due = withWindow.flatMap((appliance): DueAppliance[] => {
      const window = currentWindow(nowMs, appliance.timeZone, appliance.fillWindows);
      return window === null ? [] : [{ appliance, window }];
    });
    const windows = new Map(due.map(({ appliance, window }) => [appliance.id, window]));
    const plans = await this.#planForWindow({ fleet, runId: runs.nextId(), title: scope.title }, due);
    const participants = withWindow.map((a) =>
      toParticipant(a, windows.get(a.id) ?? nextWindow(nowMs, a.timeZone, a.fillWindows)),
    );
    const run = await runs.create({ scope, trigger: 'window', participants, plans });
    this.#orderAll(plans);
    return run;
  }

  /** Appliances of a site whose windows opened together join the run of that opening, or start one. */
  async #dispatchSite(fleet: Fleet, site: string, due: readonly DueAppliance[]): Promise<void> {
    const { runs, log } = this.#deps;
    const current = runs.running().find((record) => isRunOfOpening(record, site, due));
    if (current !== undefined) return this.#addToRun(current, fleet, due);
    const scope: RunScope = { site, title: null };
    const plans = await this.#plan({ fleet, runId: runs.nextId(), title: null, targets: targetsOf(due) });
    const participants = due.map(({ appliance, window }) => toParticipant(appliance, window));
    const run = await runs.create({ scope, trigger: 'window', participants, plans });
    log.info({ run: run.id, site, appliances: participants.length }, 'fill window opened');
    this.#orderAll(plans);
  }

  async #addToRun({ run }: RunRecord, fleet: Fleet, due: readonly DueAppliance[]): Promise<void> {
    const plans = await this.#planForWindow({ fleet, runId: run.id, title: run.title }, due);
    const participants = due.map(({ appliance, window }) => toParticipant(appliance, window));
    await this.#deps.runs.addParticipants(run.id, participants, plans);
    this.#orderAll(plans);
  }

  /**
   * A run for one title that uses an opening before the nightly run does the nightly work too: it adds the title to the
   * nightly plan. Otherwise each of the two runs would undo the other.
   */
  async #planForWindow(request: Omit<PlanRequest, 'targets'>, due: readonly DueAppliance[]): Promise<FillPlan[]> {
    const targets = targetsOf(due);
    if (request.title === null) return this.#plan({ ...request, targets });
    const { runs } = this.#deps;
    const unplanned = due.filter(({ appliance, window }) => (runs.plannedOpening(appliance.id) ?? 0) < window.opensAt);
    const nightly =
      unplanned.length === 0 ? [] : await this.#plan({ ...request, title: null, targets: targetsOf(unplanned) });
    const nightlyPlans = new Map(nightly.map((plan) => [plan.appliance, plan]));
    const currentPlan = (id: string): FillPlan | null => nightlyPlans.get(id) ?? runs.currentPlan(id);
    return planFleet({ ...request, targets, currentPlan }, this.#deps);
  }

  #plan(request: PlanRequest): Promise<FillPlan[]> {
    const { runs } = this.#deps;
    return planFleet({ ...request, currentPlan: (id) => runs.currentPlan(id) }, this.#deps);
  }

  #assertTitleFits(title: string, plans: readonly FillPlan[], appliances: readonly FleetAppliance[]): void {
    const { bytes } = this.#deps.catalog.get(title);
    const prefix = holdingOf(title, '');
    if (plans.some((plan) => [...plan.add, ...plan.keep].some((item) => item.holding.startsWith(prefix)))) return;
    const capacities = appliances.map(
      (a) => `${a.id} may hold ${a.planBytes} bytes and is planned for ${plannedBytes(plans, a.id)}`,
    );
    throw new Fault(
      'plan_impossible',
      `title ${title} has ${bytes} bytes, and nothing of it fits beside what is kept: ${capacities.slice(0, 5).join('; ')}`,
    );
  }

  #orderAll(plans: readonly FillPlan[]): void {
    for (const plan of plans) this.#order(plan.appliance, plan.run);
  }

  /** In the background. An order that is not delivered costs a minute: appliances also pull their plan that often. */
  #order(applianceId: string, runId: string): void {
    const sending = this.#sendOrder(applianceId, runId).finally(() => this.#pendingOrders.delete(sending));
    this.#pendingOrders.add(sending);
  }

  async #sendOrder(applianceId: string, runId: string): Promise<void> {
    const { steering, metrics, log, clock } = this.#deps;
    const { signal } = this.#stop;
    for (let attempt = 1; attempt <= ORDER_ATTEMPTS; attempt += 1) {
      try {
        await steering.orderFill(applianceId, runId, signal);
        metrics.add('larder_fill_orders_total', 1, { outcome: 'given' });
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (attempt === ORDER_ATTEMPTS) {
          metrics.add('larder_fill_orders_total', 1, { outcome: 'failed' });
          const fields = { appliance: applianceId, run: runId, err: error };
          log.warn(fields, 'fill order not delivered; the appliance finds its plan within a minute');
        } else await clock.sleep(ORDER_BACKOFF_MS, signal).catch(() => undefined);
      }
    }
  }
}

/** Whether the appliance takes part in the run and waits for its window. */
function waitsFor(record: RunRecord, applianceId: string): boolean {
  return record.run.appliances.some((p) => p.appliance === applianceId && hasNoPlan(p) && !hasEnded(p));
}

/** Whether the run is the nightly one of the site, for an opening that one of the appliances shares. */
function isRunOfOpening({ run, participants }: RunRecord, site: string, due: readonly DueAppliance[]): boolean {
  if (run.trigger !== 'window' || run.site !== site || run.title !== null) return false;
  return Object.values(participants).some(({ opensAt }) => due.some(({ window }) => window.opensAt === opensAt));
}

const targetsOf = (due: readonly DueAppliance[]): FleetPlansRequest['targets'] =>
  new Map(due.map(({ appliance, window }) => [appliance.id, window.closesAt]));

const toParticipant = (appliance: FleetAppliance, window: WindowInterval | null): Participant => ({
  appliance: appliance.id,
  site: appliance.site,
  opensAt: window?.opensAt ?? null,
  closesAt: window?.closesAt ?? null,
  superseded: false,
});

function plannedBytes(plans: readonly FillPlan[], applianceId: string): number {
  const plan = plans.find((p) => p.appliance === applianceId);
  return [...(plan?.add ?? []), ...(plan?.keep ?? [])].reduce((total, item) => total + item.bytes, 0);
}

const inScope = (scope: RunScope): string => (scope.site === null ? 'of the fleet' : `at site ${scope.site}`);

function noFillableAppliance(fleet: Fleet, scope: RunScope): Fault {
  const appliances = fleet.appliances.filter((a) => scope.site === null || a.site === scope.site);
  const shown = appliances.slice(0, 10).map((a) => `${a.id} is ${a.state === 'stopped' ? 'stopped' : a.liveness}`);
  return new Fault(
    'plan_impossible',
    `no appliance ${inScope(scope)} can be filled: ${shown.join(', ') || 'steering knows none'}`,
  );
}
