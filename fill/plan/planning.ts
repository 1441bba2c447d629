// From what is known (fleet, catalog, demand, pins, plans in force) to the plans of a run. The decisions are the planner's;
// here they get their inputs, site by site, and the form in which an appliance pulls them.

import type { Fleet, FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Catalog } from '../catalog.ts';
import type { Demand } from './demand.ts';
import type { Pins } from './pins.ts';
import { planAsked, planSite, type AppliancePlan, type PlanAppliance, type SiteInput } from './planner.ts';
import { scoreFor } from './popularity.ts';

export const APPLIANCES_MAX = 5_000;

/** Null means every site, every title. */
export interface Scope {
  readonly site: string | null;
  readonly title: string | null;
}

export interface PlanningDeps {
  readonly catalog: Catalog;
  readonly demand: Demand;
  readonly pins: Pins;
  readonly concurrency: number;
  readonly clock: Clock;
}

export interface PlanningInput {
  readonly fleet: Fleet;
  readonly run: string;
  readonly title: string | null;
  /** Appliances to plan for, with the instant their window closes; null is no limit. */
  readonly targets: ReadonlyMap<string, number | null>;
  readonly inForce: (appliance: string) => FillPlan | null;
}

/** Throws `not_found` where the site or the title is unknown, naming what exists. */
export function assertScope(scope: Scope, fleet: Fleet, catalog: Catalog): void {
  if (scope.title !== null) catalog.get(scope.title);
  if (scope.site === null) return;
  const sites = [...new Set([...fleet.sites.map((s) => s.id), ...fleet.appliances.map((a) => a.site)])].sort();
  if (!sites.includes(scope.site))
    throw new Fault('not_found', `no site "${scope.site}" is known; there are ${sites.join(', ') || 'none'}`, {
      help: 'A site is known by its zone in the prefix map or by an appliance; `larder appliance ls` shows those.',
    });
}

/** Appliances that can be filled: with a lease and not about to stop. A draining one is filled, and so are unhealthy ones. */
export function fillable(fleet: Fleet, site: string | null): FleetAppliance[] {
  if (fleet.appliances.length > APPLIANCES_MAX)
    throw new Fault(
      'overloaded',
      `the fleet has ${fleet.appliances.length} appliances; fill plans for ${APPLIANCES_MAX}`,
    );
  return fleet.appliances.filter(
    (a) => a.liveness === 'alive' && a.state !== 'stopped' && (site === null || a.site === site),
  );
}

/** One plan per target, in the order of their ids. Yields between sites: planning must not hold up answers. */
export async function makePlans(input: PlanningInput, deps: PlanningDeps): Promise<FillPlan[]> {
  const { fleet, targets } = input;
  const titles = deps.catalog.titles;
  const popularity = deps.demand.rows(titles);
  const sites = [...new Set(fleet.appliances.map((a) => a.site))].sort();
  const plans: FillPlan[] = [];
  for (const site of sites) {
    const appliances = fillable(fleet, site);
    if (!appliances.some((a) => targets.has(a.id))) continue;
    const siteInput: SiteInput = {
      appliances: appliances.map((a) => planAppliance(a, targets.get(a.id) ?? null, deps.clock.now())),
      titles,
      score: scoreFor(popularity, site, sites.length),
      pinned: deps.pins.titles(),
    };
    for (const made of planOne(siteInput, input))
      if (targets.has(made.appliance)) plans.push(planOf(made, { site, at: plans.length, appliances, input, deps }));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return plans.sort((a, b) => (a.appliance < b.appliance ? -1 : 1));
}

function planOne(siteInput: SiteInput, { title, inForce }: PlanningInput): AppliancePlan[] {
  if (title === null) return planSite(siteInput);
  const kept = siteInput.appliances.flatMap(({ id }) => {
    const plan = inForce(id);
    return plan === null ? [] : [[id, [...plan.keep, ...plan.add]] as const];
  });
  return planAsked({ ...siteInput, asked: title, inForce: new Map(kept) });
}

function planAppliance(appliance: FleetAppliance, closesAt: number | null, now: number): PlanAppliance {
  return {
    id: appliance.id,
    planBytes: appliance.planBytes,
    held: new Set(appliance.inventory ?? []),
    rateBitsPerSecond: appliance.fillRateBitsPerSecond,
    windowMs: closesAt === null ? null : Math.max(0, closesAt - now),
  };
}

function planOf(
  made: AppliancePlan,
  with_: {
    readonly site: string;
    readonly at: number;
    readonly appliances: readonly FleetAppliance[];
    readonly input: PlanningInput;
    readonly deps: PlanningDeps;
  },
): FillPlan {
  const { site, at, appliances, input, deps } = with_;
  const closesAt = input.targets.get(made.appliance) ?? null;
  const { appliance, add, keep, remove, addBytes, expectedMs } = made;
  return {
    protocol: PROTOCOL_VERSION,
    // Unique: an appliance joins a run once, and never twice at one instant.
    id: `${input.run}.${deps.clock.now().toString(36)}.${at}`,
    run: input.run,
    appliance,
    site,
    createdAt: new Date(deps.clock.now()).toISOString(),
    closesAt: closesAt === null ? null : new Date(closesAt).toISOString(),
    rateBitsPerSecond: appliances.find((a) => a.id === appliance)!.fillRateBitsPerSecond,
    concurrency: deps.concurrency,
    add: [...add],
    keep: [...keep],
    remove: [...remove],
    addBytes,
    expectedMs,
  };
}
