// The plans of a run, for every appliance it is to fill. The decisions are made by the planner, site by site; this file gathers
// its inputs from fleet, catalog, demand, pins and current plans, and puts its results into the form that appliances pull.

import type { Fleet, FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan } from '../../protocol/plan.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Catalog } from '../catalog.ts';
import type { Demand } from './demand.ts';
import type { Pins } from './pins.ts';
import { planSite, planTitle, type AppliancePlan, type PlanAppliance, type SiteInput } from './planner.ts';
import { siteScores } from './popularity.ts';

const APPLIANCES_MAX = 5_000;

/** What a run covers. Null means every site, every title. */
export interface RunScope {
  readonly site: string | null;
  readonly title: string | null;
}

export interface FleetPlansDeps {
  readonly catalog: Catalog;
  readonly demand: Demand;
  readonly pins: Pins;
  readonly clock: Clock;
  /** Assets that one appliance fetches at once. */
  readonly concurrency: number;
}

export interface FleetPlansRequest {
  readonly fleet: Fleet;
  readonly runId: string;
  /** The one title to add to current plans; null plans every title afresh. */
  readonly title: string | null;
  /** Appliances to plan for, by id, with the instant at which their window closes; null is no limit. */
  readonly targets: ReadonlyMap<string, number | null>;
  readonly currentPlan: (applianceId: string) => FillPlan | null;
}

/** Throws `not_found` for an unknown site or title, naming what exists. */
export function assertScopeExists(scope: RunScope, fleet: Fleet, catalog: Catalog): void {
  if (scope.title !== null) catalog.get(scope.title);
  if (scope.site === null) return;
  const sites = [...new Set([...fleet.sites.map((s) => s.id), ...fleet.appliances.map((a) => a.site)])].sort();
  if (!sites.includes(scope.site))
    throw new Fault('not_found', `no site "${scope.site}" is known; there are ${sites.join(', ') || 'none'}`, {
      help: 'A site is known by its zone in the prefix map or by an appliance; `larder appliance ls` shows those.',
    });
}

/** Appliances that hold a lease and are not stopping. Draining and unhealthy ones are filled too. */
export function fillableAppliances(fleet: Fleet, site: string | null): FleetAppliance[] {
  if (fleet.appliances.length > APPLIANCES_MAX)
    throw new Fault(
      'overloaded',
      `the fleet has ${fleet.appliances.length} appliances; fill plans for ${APPLIANCES_MAX}`,
    );
  return fleet.appliances.filter(
    (a) => a.liveness === 'alive' && a.state !== 'stopped' && (site === null || a.site === site),
  );
}

/** One plan per target, in the order of appliance ids. Yields between sites, so that requests are served meanwhile. */
export async function planFleet(request: FleetPlansRequest, deps: FleetPlansDeps): Promise<FillPlan[]> {
  const { fleet, targets } = request;
  const titles = deps.catalog.titles;
  const popularity = deps.demand.rows(titles);
  const sites = [...new Set(fleet.appliances.map((a) => a.site))].sort();
  const plans: FillPlan[] = [];
  for (const site of sites) {
    const appliances = fillableAppliances(fleet, site);
    if (!appliances.some((a) => targets.has(a.id))) continue;
    const input: SiteInput = {
      appliances: appliances.map((a) => planAppliance(a, targets.get(a.id) ?? null, deps.clock.now())),
      titles,
      scores: siteScores(popularity, site, sites.length),
      pinnedTitles: deps.pins.titles(),
    };
    const byId = new Map(appliances.map((a) => [a.id, a]));
    for (const plan of planOneSite(input, request))
      if (targets.has(plan.appliance))
        plans.push(fillPlan(plan, { appliance: byId.get(plan.appliance)!, number: plans.length, request, deps }));
    await new Promise((resolve) => setImmediate(resolve));
  }
  return plans.sort((a, b) => (a.appliance < b.appliance ? -1 : 1));
}

function planOneSite(input: SiteInput, { title, currentPlan }: FleetPlansRequest): AppliancePlan[] {
  if (title === null) return planSite(input);
  const currentItems = input.appliances.flatMap(({ id }) => {
    const plan = currentPlan(id);
    return plan === null ? [] : [[id, [...plan.keep, ...plan.add]] as const];
  });
  return planTitle({ ...input, title, currentItems: new Map(currentItems) });
}

function planAppliance(appliance: FleetAppliance, closesAt: number | null, nowMs: number): PlanAppliance {
  return {
    id: appliance.id,
    planBytes: appliance.planBytes,
    held: new Set(appliance.inventory ?? []),
    rateBitsPerSecond: appliance.fillRateBitsPerSecond,
    timeLeftMs: closesAt === null ? null : Math.max(0, closesAt - nowMs),
  };
}

interface FillPlanContext {
  readonly appliance: FleetAppliance;
  /** Number of the plan within its run. */
  readonly number: number;
  readonly request: FleetPlansRequest;
  readonly deps: FleetPlansDeps;
}

function fillPlan(plan: AppliancePlan, { appliance, number, request, deps }: FillPlanContext): FillPlan {
  const { add, keep, remove, addBytes, expectedMs } = plan;
  const nowMs = deps.clock.now();
  const closesAt = request.targets.get(appliance.id) ?? null;
  return {
    protocol: PROTOCOL_VERSION,
    // Unique, because a run plans for an appliance at most once at one instant.
    id: `${request.runId}.${nowMs.toString(36)}.${number}`,
    run: request.runId,
    appliance: appliance.id,
    site: appliance.site,
    createdAt: new Date(nowMs).toISOString(),
    closesAt: closesAt === null ? null : new Date(closesAt).toISOString(),
    rateBitsPerSecond: appliance.fillRateBitsPerSecond,
    concurrency: deps.concurrency,
    add: [...add],
    keep: [...keep],
    remove: [...remove],
    addBytes,
    expectedMs,
  };
}
