// The fleet as steering knows it: leases, drains, orders, inventories and probe results of every appliance, in memory,
// with the registry behind it. Decisions read it; only heartbeats, operators, probes and the clock change it.

import type { Title } from '../protocol/catalog.ts';
import type { FleetAppliance, StateOrder } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import {
  BEAT_MS,
  LEASE_MS,
  type Heartbeat,
  type HeartbeatAnswer,
  type Order,
  type Position,
} from '../protocol/heartbeat.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { reasonOf } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import { ORIGIN_ID, type Contender } from './decide.ts';
import { advance, afterBeat, isDrained, orderState, withOrder, type NewId } from './drain.ts';
import {
  afterProbe,
  EXPECTED_MS,
  isFrozen,
  judge,
  UNTRIED,
  type Condition,
  type Judgement,
  type ProbeResult,
  type Probing,
} from './health.ts';
import { HOLDINGS_MAX, Inventory } from './inventory.ts';
import type { METRICS } from './metrics.ts';
import { baseOf } from './pathway.ts';
import { beatFacts, type ApplianceRecord, type Registry } from './registry.ts';
import { WriteBehind } from './write-behind.ts';

export const APPLIANCES_MAX = 20_000;
/** An appliance that was not heard of for so long is forgotten, drain and all. */
export const FORGET_MS = 30 * 86_400_000;
/** Names that mean something else in answers and reports. */
const RESERVED_IDS: readonly string[] = [ORIGIN_ID, 'steering'];

export interface FleetDeps {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
  readonly newId: NewId;
}

interface Live {
  record: ApplianceRecord;
  inventory: Inventory;
  probing: Probing;
  base: string;
  /** On the monotonic clock: setting the machine's time ends no lease. */
  leaseUntil: number;
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
    return this.#show(live, { frozen: this.frozen, inventory: false });
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
    return isFrozen([...this.#lives.values()].map((live) => this.#condition(live)));
  }

  /** Everybody, with the share that they hold and the reason why not, for one title. */
  contenders(title: Title): Contender[] {
    const { frozen } = this;
    return [...this.#lives.values()].map((live) => ({
      id: live.record.beat.appliance,
      site: live.record.beat.site,
      weight: live.record.beat.connectionsMax,
      held: live.inventory.share(title),
      base: live.base,
      refusal: this.#judge(live, frozen).refusal,
    }));
  }

  /** Whether running plays should move away from the pathway; true for an appliance that nobody knows. */
  mustLeave(pathway: string): boolean {
    if (pathway === ORIGIN_ID) return false;
    const live = this.#lives.get(pathway);
    return live === undefined || this.#judge(live, this.frozen).leave;
  }

  /** Sites that appliances report, with a position where one of them knows it, and how many they are. */
  sites(): Map<string, { readonly position: Position | null; readonly appliances: number }> {
    const sites = new Map<string, { position: Position | null; appliances: number }>();
    for (const [, { record }] of [...this.#lives].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const before = sites.get(record.beat.site);
      sites.set(record.beat.site, {
        position: before?.position ?? record.beat.position,
        appliances: (before?.appliances ?? 0) + 1,
      });
    }
    return sites;
  }

  show(options: { readonly inventory: boolean }): FleetAppliance[] {
    const { frozen } = this;
    return [...this.#lives.values()]
      .map((live) => this.#show(live, { frozen, ...options }))
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

  #condition(live: Live): Condition {
    const { beat } = live.record;
    return {
      leaseLeftMs: live.leaseUntil - this.#deps.clock.monotonic(),
      url: live.base,
      probing: live.probing,
      state: beat.state,
      health: beat.health,
      drained: isDrained(live.record, this.#deps.clock.now()),
      connections: beat.connections,
      connectionsMax: beat.connectionsMax,
    };
  }

  #judge(live: Live, frozen: boolean): Judgement {
    return judge(this.#condition(live), frozen);
  }

  #show(live: Live, options: { readonly frozen: boolean; readonly inventory: boolean }): FleetAppliance {
    const { beat, drain } = live.record;
    const leaseLeftMs = live.leaseUntil - this.#deps.clock.monotonic();
    return {
      id: beat.appliance,
      site: beat.site,
      advertise: beat.advertise,
      position: beat.position,
      timeZone: beat.timeZone,
      fillWindows: beat.fillWindows,
      fillRateBitsPerSecond: beat.fillRateBitsPerSecond,
      state: beat.state,
      health: beat.health,
      liveness: this.#judge(live, options.frozen).liveness,
      leaseEndsAt: new Date(Math.round(this.#deps.clock.now() + leaseLeftMs)).toISOString(),
      draining: drain === null ? null : { since: drain.from, until: drain.until },
      storeBytes: beat.storeBytes,
      usedBytes: beat.usedBytes,
      pinnedBytes: beat.pinnedBytes,
      planBytes: beat.planBytes,
      connections: beat.connections,
      connectionsMax: beat.connectionsMax,
      servedBytes: beat.servedBytes,
      servedRequests: beat.servedRequests,
      inventoryRevision: live.inventory.revisionFor(beat.incarnation) ?? 0,
      holdings: live.inventory.size,
      ...(options.inventory ? { inventory: live.inventory.holdings() } : {}),
      version: beat.version,
    };
  }

  #gauge(): void {
    const { frozen } = this;
    const counts = { alive: 0, expired: 0, refused: 0 };
    for (const live of this.#lives.values()) counts[this.#judge(live, frozen).liveness] += 1;
    for (const [liveness, count] of Object.entries(counts))
      this.#deps.metrics.set('larder_steering_appliances', count, { liveness });
    this.#deps.metrics.set('larder_steering_frozen', frozen ? 1 : 0);
  }
}

/** The base URL of the first advertised; throws `body_invalid` naming the one that is wrong. */
function checkBeat({ appliance, advertise }: Heartbeat): string {
  if (RESERVED_IDS.includes(appliance))
    throw new Fault(
      'body_invalid',
      `body.appliance is "${appliance}", which names something else; choose another --id`,
      {
        detail: { field: 'body.appliance' },
      },
    );
  const bad = advertise.findIndex((url) => baseOf(url) === null);
  if (bad >= 0)
    throw new Fault(
      'body_invalid',
      `body.advertise.${bad} is "${advertise[bad]!.slice(0, 100)}": must be an http:// or https:// URL without query, fragment or user`,
      { detail: { field: `body.advertise.${bad}` } },
    );
  return baseOf(advertise[0]!)!;
}

const isStale = (beat: Heartbeat, { beat: known, retired }: ApplianceRecord): boolean =>
  beat.incarnation === retired || (beat.incarnation === known.incarnation && beat.seq <= known.seq);

const answerTo = (heartbeat: Heartbeat, live: Live): HeartbeatAnswer => ({
  protocol: PROTOCOL_VERSION,
  leaseMs: LEASE_MS,
  beatMs: BEAT_MS,
  inventoryRevision: live.inventory.revisionFor(heartbeat.incarnation),
  orders: [...live.record.orders],
});
