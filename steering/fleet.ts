// The fleet as steering knows it: leases, drains, orders, inventories and probe results of every appliance, in memory,
// with the registry behind it. Decisions read it; only heartbeats, operators, probes and the clock change it.

import type { Title } from '../protocol/catalog.ts';
import type { FleetAppliance, StateOrder } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { LEASE_MS, type Heartbeat, type HeartbeatAnswer, type Order } from '../protocol/heartbeat.ts';
import { reasonOf } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { ORIGIN_ID, type Contender } from './decide.ts';
import { advance, afterBeat, orderState, withOrder, type NewId } from './drain.ts';
import { afterProbe, EXPECTED_MS, isFrozen, judge, UNTRIED, type Judgement, type ProbeResult } from './health.ts';
import { HOLDINGS_MAX, Inventory } from './inventory.ts';
import {
  answerTo,
  checkBeat,
  conditionOf,
  factOf,
  isStale,
  rowOf,
  type Live,
  type Moment,
} from './tracked-appliance.ts';
import type { METRICS } from './metrics.ts';
import type { ApplianceFact } from './history/replay.ts';
import { baseOf } from './players/pathway.ts';
import { beatFacts, type ApplianceRecord, type Registry } from './registry.ts';
import { sitesOf, type SiteFacts } from './sites.ts';
import { WriteBehind } from './write-behind.ts';

export const APPLIANCES_MAX = 20_000;
/** An appliance that was not heard of for so long is forgotten, drain and all. */
export const FORGET_MS = 30 * 86_400_000;

export interface FleetDeps {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
  readonly newId: NewId;
}

export class Fleet {
  readonly #deps: FleetDeps;
  readonly #lives = new Map<string, Live>();
  readonly #writer: WriteBehind;

  constructor(deps: FleetDeps) {
    this.#deps = deps;
    this.#writer = new WriteBehind({
      registry: deps.registry,
      newest: (appliance) => {
        const live = this.#lives.get(appliance);
        return live === undefined ? null : { record: live.record, inventory: () => live.inventory.record(appliance) };
      },
      failed: (appliance, error) => {
        deps.metrics.add('larder_fallback_total', 1, { name: 'registry_down_memory' });
        deps.log.error({ appliance, reason: reasonOf(error) }, 'the registry could not be written');
      },
    });
  }

  /**
   * Appliances that held a lease when steering went away are expected back: they get a fresh one, or every restart of
   * steering would send everybody to the origin for a beat. Drains go on.
   */
  async load(): Promise<void> {
    const { appliances, inventories } = await this.#deps.registry.load();
    const inventoryOf = new Map(inventories.map((record) => [record.appliance, Inventory.from(record)]));
    const lastHeardAt = Math.max(...appliances.map((record) => Date.parse(record.beatAt)));
    for (const record of appliances) {
      const base = baseOf(record.beat.advertise[0]!);
      if (base === null) continue;
      const leaseEndsAt = Date.parse(record.leaseEndsAt);
      const leftMs = leaseEndsAt > lastHeardAt ? LEASE_MS : Math.min(0, leaseEndsAt - this.#deps.clock.now());
      this.#lives.set(record.beat.appliance, {
        record,
        inventory: inventoryOf.get(record.beat.appliance) ?? new Inventory(),
        probing: UNTRIED,
        base,
        leaseUntil: this.#deps.clock.monotonic() + leftMs,
      });
    }
  }

  /** `probeNow`: it may have come back, and a probe is what tells. Throws `body_invalid`, `overloaded`. */
  beat(heartbeat: Heartbeat): { readonly answer: HeartbeatAnswer; readonly probeNow: boolean } {
    const base = checkBeat(heartbeat);
    const known = this.#lives.get(heartbeat.appliance);
    if (known !== undefined && isStale(heartbeat, known.record)) {
      this.#deps.metrics.add('larder_steering_heartbeats_total', 1, { outcome: 'stale' });
      return { answer: answerTo(heartbeat, known), probeNow: false };
    }
    const live = known ?? this.#admit(heartbeat, base);
    const restarted = known === undefined || known.record.beat.incarnation !== heartbeat.incarnation;
    const mismatch = this.#takeInventory(live, heartbeat);
    this.#takeBeat(live, heartbeat, { base, restarted });
    this.#deps.metrics.add('larder_steering_heartbeats_total', 1, { outcome: 'taken' });
    const answer = answerTo(heartbeat, live);
    return {
      answer: mismatch ? { ...answer, inventoryRevision: null } : answer,
      probeNow: restarted || live.probing.standing === 'refused',
    };
  }

  /** Resolves once it is on disk. Throws `not_found`, `body_invalid`, `disk_failed`. */
  async orderState(appliance: string, order: StateOrder): Promise<FleetAppliance> {
    const live = this.#find(appliance);
    const now = this.#deps.clock.now();
    live.record = advance(orderState(live.record, order, now), now, this.#deps.newId);
    await this.#saved(live, `${appliance} is ${order.state}`);
    return this.#show(live, this.frozen);
  }

  async orderFill(appliance: string, run: string): Promise<Order> {
    const live = this.#find(appliance);
    const order: Order = { id: this.#deps.newId(), kind: 'fill', run };
    live.record = withOrder(live.record, order);
    await this.#saved(live, `the fill order for ${appliance} stands`);
    return order;
  }

  /** Whom to probe: everybody who is expected. */
  probeTargets(): { readonly id: string; readonly url: string }[] {
    const now = this.#deps.clock.monotonic();
    return [...this.#lives.values()]
      .filter((live) => live.leaseUntil - now > -EXPECTED_MS)
      .map((live) => ({ id: live.record.beat.appliance, url: `${live.base}/` }));
  }

  probed(appliance: string, result: ProbeResult): void {
    const live = this.#lives.get(appliance);
    if (live === undefined) return;
    const before = live.probing.standing;
    live.probing = afterProbe(live.probing, result);
    this.#deps.metrics.add('larder_steering_probes_total', 1, { result });
    if (before !== live.probing.standing)
      this.#deps.log.info({ appliance, from: before, to: live.probing.standing, url: live.base }, 'probe');
  }

  /** What the clock brings: drains begin and end, the long gone are forgotten, gauges are set. */
  tick(): void {
    const now = this.#deps.clock.now();
    const monotonic = this.#deps.clock.monotonic();
    for (const [appliance, live] of this.#lives) {
      const record = advance(live.record, now, this.#deps.newId);
      if (record !== live.record) {
        live.record = record;
        this.#deps.log.info({ appliance, drain: record.drain }, 'drain');
        void this.#writer.save(live.record.beat.appliance, 'record');
      }
      if (live.leaseUntil - monotonic < -FORGET_MS) this.#forget(appliance);
    }
    this.#gauge();
  }

  get frozen(): boolean {
    const moment = this.#moment();
    return isFrozen([...this.#lives.values()].map((live) => conditionOf(live, moment)));
  }

  /** Everybody, with the share that they hold and the reason why not, for one title. */
  contenders(title: Title): Contender[] {
    const { frozen } = this;
    const moment = this.#moment();
    return [...this.#lives].map(([id, live]) => ({
      id,
      site: live.record.beat.site,
      weight: live.record.beat.connectionsMax,
      held: live.inventory.share(title),
      base: live.base,
      refusal: this.#judge(live, frozen, moment).refusal,
    }));
  }

  /** Everybody, for history. */
  facts(): Map<string, ApplianceFact> {
    const { frozen } = this;
    const moment = this.#moment();
    const facts = new Map<string, ApplianceFact>();
    for (const [id, live] of this.#lives) facts.set(id, factOf(live, this.#judge(live, frozen, moment), moment));
    return facts;
  }

  inventories(): Map<string, Inventory> {
    return new Map([...this.#lives].map(([id, { inventory }]) => [id, inventory]));
  }

  /** Whether running plays should move away from the pathway; true for an appliance that nobody knows. */
  mustLeave(pathway: string): boolean {
    if (pathway === ORIGIN_ID) return false;
    const live = this.#lives.get(pathway);
    return live === undefined || this.#judge(live, this.frozen).leave;
  }

  sites(): Map<string, SiteFacts> {
    return sitesOf(
      [...this.#lives].map(([id, { record }]) => ({ id, site: record.beat.site, position: record.beat.position })),
    );
  }

  show(options: { readonly inventory: boolean }): FleetAppliance[] {
    const { frozen } = this;
    return [...this.#lives.values()]
      .map((live) => ({
        ...this.#show(live, frozen),
        ...(options.inventory ? { inventory: live.inventory.holdings() } : {}),
      }))
      .sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Waits for what is being written. */
  close(): Promise<void> {
    return this.#writer.close();
  }

  #admit(heartbeat: Heartbeat, base: string): Live {
    if (this.#lives.size >= APPLIANCES_MAX)
      throw new Fault('overloaded', `the fleet has ${APPLIANCES_MAX} appliances, and steering knows no more at once`);
    const at = new Date(0).toISOString();
    const live: Live = {
      record: { beat: beatFacts.parse(heartbeat), beatAt: at, leaseEndsAt: at, retired: null, drain: null, orders: [] },
      inventory: new Inventory(),
      probing: UNTRIED,
      base,
      leaseUntil: 0,
    };
    this.#lives.set(heartbeat.appliance, live);
    this.#deps.log.info({ appliance: heartbeat.appliance, site: heartbeat.site, base }, 'appliance joined');
    return live;
  }

  /** True when the delta does not follow from what is known, and everything must be asked for. */
  #takeInventory(live: Live, { incarnation, inventory: delta, appliance }: Heartbeat): boolean {
    if (delta === null) return false;
    const known = live.inventory.revisionFor(incarnation);
    // Sent again because our answer was lost.
    if (delta.since !== 0 && delta.since !== known && delta.revision === known) return false;
    if ((delta.since === 0 ? 0 : live.inventory.size) + delta.added.length > HOLDINGS_MAX)
      throw new Fault(
        'body_invalid',
        `body.inventory would make ${appliance} hold more than ${HOLDINGS_MAX} renditions`,
        {
          detail: { field: 'body.inventory' },
        },
      );
    if (!live.inventory.apply(incarnation, delta)) return true;
    void this.#writer.save(live.record.beat.appliance, 'inventory');
    return false;
  }

  #takeBeat(
    live: Live,
    heartbeat: Heartbeat,
    { base, restarted }: { readonly base: string; readonly restarted: boolean },
  ): void {
    const { clock, newId } = this.#deps;
    const before = live.record.beat;
    const record: ApplianceRecord = {
      ...live.record,
      beat: beatFacts.parse(heartbeat),
      beatAt: new Date(clock.now()).toISOString(),
      leaseEndsAt: new Date(clock.now() + LEASE_MS).toISOString(),
      retired: before.incarnation === heartbeat.incarnation ? live.record.retired : before.incarnation,
    };
    live.record = afterBeat(record, { ordersDone: heartbeat.ordersDone, restarted }, newId);
    // A new start or a new address: what probes saw before says nothing about it.
    if (restarted || base !== live.base) live.probing = UNTRIED;
    live.base = base;
    live.leaseUntil = clock.monotonic() + LEASE_MS;
    void this.#writer.save(live.record.beat.appliance, 'record');
  }

  #forget(appliance: string): void {
    this.#lives.delete(appliance);
    this.#deps.log.info({ appliance }, 'appliance forgotten');
    void this.#writer.save(appliance, 'record');
  }

  #find(appliance: string): Live {
    const live = this.#lives.get(appliance);
    if (live === undefined)
      throw new Fault(
        'not_found',
        `no appliance "${appliance}" has sent a heartbeat; \`larder appliance ls\` lists them`,
      );
    return live;
  }

  async #saved(live: Live, done: string): Promise<void> {
    const error = await this.#writer.save(live.record.beat.appliance, 'record');
    if (error !== null)
      throw new Fault('disk_failed', `${done}, but only until steering restarts: ${reasonOf(error)}`, { cause: error });
  }

  #moment(): Moment {
    return { now: this.#deps.clock.now(), monotonic: this.#deps.clock.monotonic() };
  }

  #judge(live: Live, frozen: boolean, moment = this.#moment()): Judgement {
    return judge(conditionOf(live, moment), frozen);
  }

  #show(live: Live, frozen: boolean): FleetAppliance {
    const moment = this.#moment();
    return rowOf(live, this.#judge(live, frozen, moment), moment);
  }

  #gauge(): void {
    const { frozen } = this;
    const moment = this.#moment();
    const counts = { alive: 0, expired: 0, refused: 0 };
    for (const live of this.#lives.values()) counts[this.#judge(live, frozen, moment).liveness] += 1;
    for (const [liveness, count] of Object.entries(counts))
      this.#deps.metrics.set('larder_steering_appliances', count, { liveness });
    this.#deps.metrics.set('larder_steering_frozen', frozen ? 1 : 0);
  }
}
