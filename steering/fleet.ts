// The fleet as steering tracks it: leases, drains, orders, inventories and probe results of every appliance, in memory and
// written behind to the registry. Decisions read it; heartbeats, operators, probes and the clock change it.

import type { Title } from '../protocol/catalog.ts';
import type { FleetAppliance, StateOrder } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { LEASE_MS, type Heartbeat, type HeartbeatAnswer, type Order } from '../protocol/heartbeat.ts';
import { reasonOf } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { ORIGIN_ID } from './decide.ts';
import type { ApplianceCandidate, ApplianceFacts } from './decision-inputs.ts';
import { acknowledgeOrders, advanceDrain, queueOrder, scheduleDrain, type NewId } from './drain.ts';
import {
  afterProbe,
  eligibilityOf,
  EXPECTED_MS,
  isFrozen,
  UNPROBED,
  type Eligibility,
  type ProbeResult,
} from './health.ts';
import { HOLDINGS_MAX, Inventory } from './inventory.ts';
import type { METRICS } from './metrics.ts';
import { storedHeartbeat, type ApplianceRecord, type Registry } from './registry.ts';
import { reportedSites, type ReportedSite } from './sites.ts';
import {
  conditionOf,
  factsOf,
  fleetRowOf,
  heartbeatAnswerFor,
  isStale,
  normaliseBaseUrl,
  validateHeartbeat,
  type Clocks,
  type TrackedAppliance,
} from './tracked-appliance.ts';
import { WriteBehind } from './write-behind.ts';

export const APPLIANCES_MAX = 20_000;
/** An appliance whose lease expired this long ago is removed, with its drain. */
export const REMOVE_AFTER_MS = 30 * 86_400_000;

export interface FleetDeps {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
  readonly newId: NewId;
}

export class Fleet {
  readonly #deps: FleetDeps;
  /** By appliance id. */
  readonly #appliances = new Map<string, TrackedAppliance>();
  readonly #writer: WriteBehind;

  constructor(deps: FleetDeps) {
    this.#deps = deps;
    this.#writer = new WriteBehind({
      registry: deps.registry,
      current: (id) => {
        const appliance = this.#appliances.get(id);
        if (appliance === undefined) return null;
        return { record: appliance.record, inventory: () => appliance.inventory.record(id) };
      },
      onError: (id, error) => {
        deps.metrics.add('larder_fallback_total', 1, { name: 'registry_down_memory' });
        deps.log.error({ appliance: id, reason: reasonOf(error) }, 'the registry could not be written');
      },
    });
  }

  /**
   * Loads the registry. Appliances that held a lease when steering stopped get a new one; otherwise every restart of steering
   * would send all plays to the origin until the next heartbeats. Drains stay in force.
   */
  async load(): Promise<void> {
    const { clock, registry } = this.#deps;
    const { appliances, inventories } = await registry.load();
    const inventoryOf = new Map(inventories.map((record) => [record.appliance, Inventory.from(record)]));
    const lastHeartbeatAt = Math.max(...appliances.map((record) => Date.parse(record.beatAt)));
    for (const record of appliances) {
      const base = normaliseBaseUrl(record.beat.advertise[0]!);
      if (base === null) continue;
      const leaseEndsAt = Date.parse(record.leaseEndsAt);
      const leaseLeftMs = leaseEndsAt > lastHeartbeatAt ? LEASE_MS : Math.min(0, leaseEndsAt - clock.now());
      this.#appliances.set(record.beat.appliance, {
        record,
        inventory: inventoryOf.get(record.beat.appliance) ?? new Inventory(),
        probeState: UNPROBED,
        base,
        leaseUntil: clock.monotonic() + leaseLeftMs,
      });
    }
  }

  /**
   * Renews the lease and applies what the heartbeat reports. `probeNow` is true for an appliance that may just have come back,
   * which only a probe can confirm. Throws `body_invalid`, `overloaded`.
   */
  renewLease(heartbeat: Heartbeat): { readonly answer: HeartbeatAnswer; readonly probeNow: boolean } {
    const base = validateHeartbeat(heartbeat);
    const existing = this.#appliances.get(heartbeat.appliance);
    if (existing !== undefined && isStale(heartbeat, existing.record)) {
      this.#deps.metrics.add('larder_steering_heartbeats_total', 1, { outcome: 'stale' });
      return { answer: heartbeatAnswerFor(heartbeat, existing), probeNow: false };
    }
    const appliance = existing ?? this.#admit(heartbeat, base);
    const restarted = existing === undefined || existing.record.beat.incarnation !== heartbeat.incarnation;
    const mismatch = !this.#applyInventory(appliance, heartbeat);
    this.#applyHeartbeat(appliance, heartbeat, { base, restarted });
    this.#deps.metrics.add('larder_steering_heartbeats_total', 1, { outcome: 'taken' });
    const answer = heartbeatAnswerFor(heartbeat, appliance);
    return {
      // A null revision requests the whole inventory.
      answer: mismatch ? { ...answer, inventoryRevision: null } : answer,
      probeNow: restarted || appliance.probeState.reachability === 'refused',
    };
  }

  /** Resolves once the drain or resume is on disk. Throws `not_found`, `body_invalid`, `disk_failed`. */
  async orderState(id: string, order: StateOrder): Promise<FleetAppliance> {
    const appliance = this.#get(id);
    const now = this.#deps.clock.now();
    appliance.record = advanceDrain(scheduleDrain(appliance.record, order, now), now, this.#deps.newId);
    await this.#persist(appliance, `${id} is ${order.state}`);
    return this.#describe(appliance, this.frozen);
  }

  /** Resolves once the order is on disk. Throws `not_found`, `overloaded`, `disk_failed`. */
  async orderFill(id: string, run: string): Promise<Order> {
    const appliance = this.#get(id);
    const order: Order = { id: this.#deps.newId(), kind: 'fill', run };
    appliance.record = queueOrder(appliance.record, order);
    await this.#persist(appliance, `the fill order for ${id} is queued`);
    return order;
  }

  /** Every appliance that is still expected. */
  probeTargets(): { readonly id: string; readonly url: string }[] {
    const now = this.#deps.clock.monotonic();
    return [...this.#appliances]
      .filter(([, appliance]) => appliance.leaseUntil - now > -EXPECTED_MS)
      .map(([id, appliance]) => ({ id, url: `${appliance.base}/` }));
  }

  recordProbe(id: string, result: ProbeResult): void {
    const appliance = this.#appliances.get(id);
    if (appliance === undefined) return;
    const before = appliance.probeState.reachability;
    appliance.probeState = afterProbe(appliance.probeState, result);
    const { reachability } = appliance.probeState;
    this.#deps.metrics.add('larder_steering_probes_total', 1, { result });
    if (before !== reachability)
      this.#deps.log.info({ appliance: id, from: before, to: reachability, url: appliance.base }, 'probe');
  }

  /** Starts and ends drains that are due, removes appliances that have been gone for long, and sets the gauges. */
  tick(): void {
    const now = this.#deps.clock.now();
    const monotonic = this.#deps.clock.monotonic();
    for (const [id, appliance] of this.#appliances) {
      const record = advanceDrain(appliance.record, now, this.#deps.newId);
      if (record !== appliance.record) {
        appliance.record = record;
        this.#deps.log.info({ appliance: id, drain: record.drain }, 'drain');
        void this.#writer.save(id, 'record');
      }
      if (appliance.leaseUntil - monotonic < -REMOVE_AFTER_MS) this.#remove(id);
    }
    this.#setGauges();
  }

  get frozen(): boolean {
    const clocks = this.#clocks();
    return isFrozen([...this.#appliances.values()].map((appliance) => conditionOf(appliance, clocks)));
  }

  /** Every appliance as a decision for one title sees it. */
  candidates(title: Title): ApplianceCandidate[] {
    const { frozen } = this;
    const clocks = this.#clocks();
    return [...this.#appliances].map(([id, appliance]) => ({
      id,
      site: appliance.record.beat.site,
      weight: appliance.record.beat.connectionsMax,
      held: appliance.inventory.heldShare(title),
      base: appliance.base,
      refusal: this.#eligibility(appliance, frozen, clocks).refusal,
    }));
  }

  /** What history records of every appliance, by id. */
  facts(): Map<string, ApplianceFacts> {
    const { frozen } = this;
    const clocks = this.#clocks();
    const facts = new Map<string, ApplianceFacts>();
    for (const [id, appliance] of this.#appliances)
      facts.set(id, factsOf(appliance, this.#eligibility(appliance, frozen, clocks), clocks));
    return facts;
  }

  inventories(): Map<string, Inventory> {
    return new Map([...this.#appliances].map(([id, { inventory }]) => [id, inventory]));
  }

  /** Whether running plays should leave the pathway. True for an appliance that is not in the fleet. */
  shouldSteerAway(pathway: string): boolean {
    if (pathway === ORIGIN_ID) return false;
    const appliance = this.#appliances.get(pathway);
    return appliance === undefined || this.#eligibility(appliance, this.frozen).steerAway;
  }

  sites(): Map<string, ReportedSite> {
    return reportedSites(
      [...this.#appliances].map(([id, { record }]) => ({ id, site: record.beat.site, position: record.beat.position })),
    );
  }

  /** Every appliance as operators and fill see it, sorted by id. */
  describe(options: { readonly inventory: boolean }): FleetAppliance[] {
    const { frozen } = this;
    return [...this.#appliances.values()]
      .map((appliance) => ({
        ...this.#describe(appliance, frozen),
        ...(options.inventory ? { inventory: appliance.inventory.holdings() } : {}),
      }))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Waits for writes in progress. */
  close(): Promise<void> {
    return this.#writer.close();
  }

  #admit(heartbeat: Heartbeat, base: string): TrackedAppliance {
    if (this.#appliances.size >= APPLIANCES_MAX)
      throw new Fault('overloaded', `the fleet has ${APPLIANCES_MAX} appliances, which is the maximum`);
    const never = new Date(0).toISOString();
    const appliance: TrackedAppliance = {
      record: {
        beat: storedHeartbeat.parse(heartbeat),
        beatAt: never,
        leaseEndsAt: never,
        retired: null,
        drain: null,
        orders: [],
      },
      inventory: new Inventory(),
      probeState: UNPROBED,
      base,
      leaseUntil: 0,
    };
    this.#appliances.set(heartbeat.appliance, appliance);
    this.#deps.log.info({ appliance: heartbeat.appliance, site: heartbeat.site, base }, 'appliance joined');
    return appliance;
  }

  /** Returns false if the delta does not follow from the current inventory, so that the whole one must be requested. */
  #applyInventory(appliance: TrackedAppliance, heartbeat: Heartbeat): boolean {
    const { incarnation, inventory: delta, appliance: id } = heartbeat;
    if (delta === null) return true;
    const revision = appliance.inventory.revisionFor(incarnation);
    // The appliance repeats a delta if the answer that acknowledged it was lost.
    if (delta.since !== 0 && delta.since !== revision && delta.revision === revision) return true;
    if ((delta.since === 0 ? 0 : appliance.inventory.size) + delta.added.length > HOLDINGS_MAX)
      throw new Fault('body_invalid', `body.inventory would make ${id} hold more than ${HOLDINGS_MAX} renditions`, {
        detail: { field: 'body.inventory' },
      });
    if (!appliance.inventory.apply(incarnation, delta)) return false;
    void this.#writer.save(id, 'inventory');
    return true;
  }

  #applyHeartbeat(
    appliance: TrackedAppliance,
    heartbeat: Heartbeat,
    { base, restarted }: { readonly base: string; readonly restarted: boolean },
  ): void {
    const { clock, newId } = this.#deps;
    const { incarnation } = appliance.record.beat;
    const record: ApplianceRecord = {
      ...appliance.record,
      beat: storedHeartbeat.parse(heartbeat),
      beatAt: new Date(clock.now()).toISOString(),
      leaseEndsAt: new Date(clock.now() + LEASE_MS).toISOString(),
      retired: incarnation === heartbeat.incarnation ? appliance.record.retired : incarnation,
    };
    appliance.record = acknowledgeOrders(record, { ordersDone: heartbeat.ordersDone, restarted }, newId);
    // Earlier probe results do not apply to a new process or a new address.
    if (restarted || base !== appliance.base) appliance.probeState = UNPROBED;
    appliance.base = base;
    appliance.leaseUntil = clock.monotonic() + LEASE_MS;
    void this.#writer.save(heartbeat.appliance, 'record');
  }

  #remove(id: string): void {
    this.#appliances.delete(id);
    this.#deps.log.info({ appliance: id }, 'appliance removed');
    void this.#writer.save(id, 'record');
  }

  #get(id: string): TrackedAppliance {
    const appliance = this.#appliances.get(id);
    if (appliance === undefined)
      throw new Fault('not_found', `no appliance "${id}" has sent a heartbeat; \`larder appliance ls\` lists them`);
    return appliance;
  }

  /** Throws `disk_failed` saying that what was `done` is lost when steering restarts. */
  async #persist(appliance: TrackedAppliance, done: string): Promise<void> {
    const error = await this.#writer.save(appliance.record.beat.appliance, 'record');
    if (error !== null)
      throw new Fault('disk_failed', `${done}, but only until steering restarts: ${reasonOf(error)}`, { cause: error });
  }

  #clocks(): Clocks {
    return { now: this.#deps.clock.now(), monotonic: this.#deps.clock.monotonic() };
  }

  #eligibility(appliance: TrackedAppliance, frozen: boolean, clocks = this.#clocks()): Eligibility {
    return eligibilityOf(conditionOf(appliance, clocks), frozen);
  }

  #describe(appliance: TrackedAppliance, frozen: boolean): FleetAppliance {
    const clocks = this.#clocks();
    return fleetRowOf(appliance, this.#eligibility(appliance, frozen, clocks), clocks);
  }

  #setGauges(): void {
    const { frozen } = this;
    const clocks = this.#clocks();
    const counts = { alive: 0, expired: 0, refused: 0 };
    for (const appliance of this.#appliances.values())
      counts[this.#eligibility(appliance, frozen, clocks).liveness] += 1;
    for (const [liveness, count] of Object.entries(counts))
      this.#deps.metrics.set('larder_steering_appliances', count, { liveness });
    this.#deps.metrics.set('larder_steering_frozen', frozen ? 1 : 0);
  }
}
