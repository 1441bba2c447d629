// Begins runs: looks at the fleet, plans, records, and has steering hand each appliance the order to pull its plan.

import type { Fleet, FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { holdingOf, PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { PlanList } from '../../protocol/answers.ts';
import type { FillPlan, Run, RunRequest } from '../../protocol/plan.ts';
import type { Log } from '../../runtime/log.ts';
import type { FillMetrics } from '../metrics.ts';
import {
  assertScope,
  fillable,
  makePlans,
  type PlanningDeps,
  type PlanningInput,
  type Scope,
} from '../plan/planning.ts';
import { hasEnded, type Part, type RunRecord } from './run-record.ts';
import type { Runs } from './runs.ts';
import { mutex } from '../../runtime/semaphore.ts';
import type { SteeringClient } from '../steering-client.ts';
import { isTimeZone, nextOpening, openWindow, type Opening } from '../plan/window.ts';

export const ORDER_ATTEMPTS = 3;
export const ORDER_BACKOFF_MS = 1_000;
export interface DispatcherDeps extends PlanningDeps {
  readonly runs: Runs;
  readonly steering: SteeringClient;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

/** An appliance whose window has opened and that was not planned for yet. */
export interface Due {
  readonly appliance: FleetAppliance;
  readonly opening: Opening;
}

type Planning = Omit<PlanningInput, 'inForce'>;

export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #exclusively = mutex();
  readonly #ordering = new Set<Promise<void>>();
  readonly #stop = new AbortController();

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /** Throws `not_found` for an unknown site or title, `plan_impossible` where nobody could be filled. */
  start(request: RunRequest): Promise<Run> {
    return this.#exclusively(async () => {
      const fleet = await this.#deps.steering.fleet();
      const scope = { site: request.site, title: request.title };
      assertScope(scope, fleet, this.#deps.catalog);
      const appliances = fillable(fleet, scope.site);
      if (appliances.length === 0) throw nobody(fleet, scope);
      return request.now ? this.#startNow(fleet, scope, appliances) : this.#startInWindow(fleet, scope, appliances);
    });
  }

  /** What a run now would do; nothing is recorded. */
  async dryRun(scope: Scope): Promise<PlanList> {
    const fleet = await this.#deps.steering.fleet();
    assertScope(scope, fleet, this.#deps.catalog);
    const targets = new Map(fillable(fleet, scope.site).map((a) => [a.id, null]));
    const plans = await this.#plan({ fleet, run: 'dry', title: scope.title, targets });
    return { protocol: PROTOCOL_VERSION, fleetAt: fleet.at, plans };
  }

  /** Appliances whose window opened: waiting ones get their plan; the others of a site share a run. */
  openWindows(fleet: Fleet, due: readonly Due[]): Promise<void> {
    return this.#exclusively(async () => {
      const waiting = new Set<string>();
      for (const record of this.#deps.runs.running()) {
        const called = due.filter(({ appliance }) => isWaiting(record, appliance.id) && !waiting.has(appliance.id));
        for (const { appliance } of called) waiting.add(appliance.id);
        if (called.length > 0) await this.#dispatch(record, fleet, called);
      }
      const rest = due.filter(({ appliance }) => !waiting.has(appliance.id));
      for (const site of new Set(rest.map(({ appliance }) => appliance.site)))
        await this.#openSite(
          fleet,
          site,
          rest.filter(({ appliance }) => appliance.site === site),
        );
    });
  }

  /** Gives up the orders on their way: `recall` gives them after the restart. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#ordering);
  }

  /** After a restart: appliances of running runs are called again; one that fills already ignores it. */
  recall(): void {
    for (const { run } of this.#deps.runs.running())
      for (const progress of run.appliances)
        if (progress.plan !== '' && progress.state === 'waiting') this.#order(progress.appliance, run.id);
  }

  async #startNow(fleet: Fleet, scope: Scope, appliances: readonly FleetAppliance[]): Promise<Run> {
    const targets = new Map(appliances.map((a) => [a.id, null]));
    const plans = await this.#plan({ fleet, run: this.#deps.runs.nextId(), title: scope.title, targets });
    if (scope.title !== null) this.#assertTitleFits(scope.title, plans, appliances);
    const parts = appliances.map((a): Part => ({
      appliance: a.id,
      site: a.site,
      opensAt: null,
      closesAt: null,
      superseded: false,
    }));
    const run = await this.#deps.runs.create({ scope, trigger: 'now', parts, plans });
    this.#orderAll(plans);
    return run;
  }

  async #startInWindow(fleet: Fleet, scope: Scope, appliances: readonly FleetAppliance[]): Promise<Run> {
    const now = this.#deps.clock.now();
    const timed = appliances.filter((a) => a.fillWindows.length > 0 && isTimeZone(a.timeZone));
    if (timed.length === 0)
      throw new Fault('plan_impossible', `no appliance ${inScope(scope)} has a fill window (--fill-window); use --now`);
    const openings = new Map(timed.map((a) => [a.id, openWindow(now, a.timeZone, a.fillWindows)]));
    const due = timed.flatMap((appliance) => {
      const opening = openings.get(appliance.id) ?? null;
      return opening === null ? [] : [{ appliance, opening }];
    });
    const targets = new Map(due.map(({ appliance, opening }) => [appliance.id, opening.closesAt]));
    const planning = { fleet, run: this.#deps.runs.nextId(), title: scope.title, targets };
    const plans = await this.#planWindow(planning, due);
    const parts = timed.map((a) => partOf(a, openings.get(a.id) ?? nextOpening(now, a.timeZone, a.fillWindows)));
    const run = await this.#deps.runs.create({ scope, trigger: 'window', parts, plans });
    this.#orderAll(plans);
    return run;
  }

  /** Appliances of a site that opened together join the run that is under way for that opening, or begin one. */
  async #openSite(fleet: Fleet, site: string, due: readonly Due[]): Promise<void> {
    const { runs } = this.#deps;
    const same = runs
      .running()
      .find(
        ({ run, parts }) =>
          run.trigger === 'window' &&
          run.site === site &&
          run.title === null &&
          Object.values(parts).some((part) => due.some(({ opening }) => opening.opensAt === part.opensAt)),
      );
    if (same !== undefined) return this.#dispatch(same, fleet, due);
    const scope = { site, title: null };
    const targets = new Map(due.map(({ appliance, opening }) => [appliance.id, opening.closesAt]));
    const plans = await this.#plan({ fleet, run: runs.nextId(), title: null, targets });
    const parts = due.map(({ appliance, opening }) => partOf(appliance, opening));
    const run = await runs.create({ scope, trigger: 'window', parts, plans });
    this.#deps.log.info({ run: run.id, site, appliances: parts.length }, 'window opened');
    this.#orderAll(plans);
  }

  async #dispatch(record: RunRecord, fleet: Fleet, due: readonly Due[]): Promise<void> {
    const { run } = record;
    const targets = new Map(due.map(({ appliance, opening }) => [appliance.id, opening.closesAt]));
    const plans = await this.#planWindow({ fleet, run: run.id, title: run.title, targets }, due);
    await this.#deps.runs.join(
      run.id,
      due.map(({ appliance, opening }) => partOf(appliance, opening)),
      plans,
    );
    this.#orderAll(plans);
  }

  /**
   * A run for one title that takes an opening which no night's run has taken does the night's work too: it adds the title
   * to the night's plan. Otherwise either would undo the other.
   */
  async #planWindow(input: Planning, due: readonly Due[]): Promise<FillPlan[]> {
    if (input.title === null) return this.#plan(input);
    const { runs } = this.#deps;
    const fresh = due.filter(({ appliance, opening }) => (runs.openedAt(appliance.id) ?? 0) < opening.opensAt);
    const targets = new Map(fresh.map(({ appliance, opening }) => [appliance.id, opening.closesAt]));
    const nightly = fresh.length === 0 ? [] : await this.#plan({ ...input, title: null, targets });
    const byAppliance = new Map(nightly.map((plan) => [plan.appliance, plan]));
    return makePlans({ ...input, inForce: (id) => byAppliance.get(id) ?? runs.planOf(id) }, this.#deps);
  }

  #plan(input: Planning): Promise<FillPlan[]> {
    return makePlans({ ...input, inForce: (appliance) => this.#deps.runs.planOf(appliance) }, this.#deps);
  }

  #assertTitleFits(title: string, plans: readonly FillPlan[], appliances: readonly FleetAppliance[]): void {
    const { bytes } = this.#deps.catalog.get(title);
    const prefix = holdingOf(title, '');
    if (plans.some((plan) => [...plan.add, ...plan.keep].some((item) => item.holding.startsWith(prefix)))) return;
    const rooms = appliances.map(
      (a) => `${a.id} may hold ${a.planBytes} bytes and is planned for ${plannedBytes(plans, a.id)}`,
    );
    throw new Fault(
      'plan_impossible',
      `title ${title} has ${bytes} bytes, and nothing of it fits beside what is kept: ${rooms.slice(0, 5).join('; ')}`,
    );
  }

  #orderAll(plans: readonly FillPlan[]): void {
    for (const plan of plans) this.#order(plan.appliance, plan.run);
  }

  /** An order that does not arrive costs a minute: appliances look for their plan that often anyway. */
  #order(appliance: string, run: string): void {
    const sending = this.#sendOrder(appliance, run).finally(() => this.#ordering.delete(sending));
    this.#ordering.add(sending);
  }

  async #sendOrder(appliance: string, run: string): Promise<void> {
    const { steering, metrics, log, clock } = this.#deps;
    const { signal } = this.#stop;
    for (let attempt = 1; attempt <= ORDER_ATTEMPTS; attempt += 1) {
      try {
        await steering.orderFill(appliance, run, signal);
        metrics.add('larder_fill_orders_total', 1, { outcome: 'given' });
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (attempt === ORDER_ATTEMPTS) {
          metrics.add('larder_fill_orders_total', 1, { outcome: 'failed' });
          log.warn({ appliance, run, err: error }, 'order not given; the appliance will find its plan by itself');
        } else await clock.sleep(ORDER_BACKOFF_MS, signal).catch(() => undefined);
      }
    }
  }
}

function isWaiting(record: RunRecord, appliance: string): boolean {
  return record.run.appliances.some((p) => p.appliance === appliance && p.plan === '' && !hasEnded(p));
}

const partOf = (appliance: FleetAppliance, opening: Opening | null): Part => ({
  appliance: appliance.id,
  site: appliance.site,
  opensAt: opening?.opensAt ?? null,
  closesAt: opening?.closesAt ?? null,
  superseded: false,
});

function plannedBytes(plans: readonly FillPlan[], appliance: string): number {
  const plan = plans.find((p) => p.appliance === appliance);
  return [...(plan?.add ?? []), ...(plan?.keep ?? [])].reduce((total, item) => total + item.bytes, 0);
}

const inScope = (scope: Scope): string => (scope.site === null ? 'of the fleet' : `at site ${scope.site}`);

function nobody(fleet: Fleet, scope: Scope): Fault {
  const known = fleet.appliances.filter((a) => scope.site === null || a.site === scope.site);
  const shown = known.slice(0, 10).map((a) => `${a.id} is ${a.state === 'stopped' ? 'stopped' : a.liveness}`);
  return new Fault(
    'plan_impossible',
    `no appliance ${inScope(scope)} can be filled: ${shown.join(', ') || 'steering knows none'}`,
  );
}
