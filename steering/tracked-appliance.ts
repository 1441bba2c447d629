// One appliance as steering holds it in memory, and what can be read from that at a moment: its condition, its row in the
// fleet's list, what history keeps of it. Pure.

import type { FleetAppliance } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { BEAT_MS, LEASE_MS, type Heartbeat, type HeartbeatAnswer } from '../protocol/heartbeat.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { ORIGIN_ID } from './decide.ts';
import { isDrained } from './drain.ts';
import type { Condition, Judgement, Probing } from './health.ts';
import type { Inventory } from './inventory.ts';
import type { ApplianceFact } from './history/replay.ts';
import { baseOf } from './players/pathway.ts';
import type { ApplianceRecord } from './registry.ts';

export interface Live {
  record: ApplianceRecord;
  inventory: Inventory;
  probing: Probing;
  base: string;
  /** On the monotonic clock: setting the machine's time ends no lease. */
  leaseUntil: number;
}

/** Both readings of the clock, taken together. */
export interface Moment {
  readonly now: number;
  readonly monotonic: number;
}

export function conditionOf(live: Live, { now, monotonic }: Moment): Condition {
  const { beat } = live.record;
  return {
    leaseLeftMs: live.leaseUntil - monotonic,
    url: live.base,
    probing: live.probing,
    state: beat.state,
    health: beat.health,
    drained: isDrained(live.record, now),
    connections: beat.connections,
    connectionsMax: beat.connectionsMax,
  };
}

/** What decisions read of it. The end of a lease is an instant here, for the sentence about it grows older by itself. */
export function factOf(live: Live, { liveness, refusal }: Judgement, { now, monotonic }: Moment): ApplianceFact {
  const { beat } = live.record;
  const lapsed = liveness === 'expired';
  return {
    site: beat.site,
    position: beat.position,
    weight: beat.connectionsMax,
    base: live.base,
    refusal: lapsed ? null : refusal,
    leaseEndedAt: lapsed ? Math.round(now + live.leaseUntil - monotonic) : null,
  };
}

export function rowOf(live: Live, { liveness }: Judgement, { now, monotonic }: Moment): FleetAppliance {
  const { beat, drain } = live.record;
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
    liveness,
    leaseEndsAt: new Date(Math.round(now + live.leaseUntil - monotonic)).toISOString(),
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
    version: beat.version,
  };
}

/** Names that mean something else in answers and reports. */
const RESERVED_IDS: readonly string[] = [ORIGIN_ID, 'steering'];

/** The base URL of the first advertised; throws `body_invalid` naming the one that is wrong. */
export function checkBeat({ appliance, advertise }: Heartbeat): string {
  if (RESERVED_IDS.includes(appliance))
    throw new Fault(
      'body_invalid',
      `body.appliance is "${appliance}", which names something else; choose another --id`,
      { detail: { field: 'body.appliance' } },
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

export const isStale = (beat: Heartbeat, { beat: known, retired }: ApplianceRecord): boolean =>
  beat.incarnation === retired || (beat.incarnation === known.incarnation && beat.seq <= known.seq);

export const answerTo = (heartbeat: Heartbeat, live: Live): HeartbeatAnswer => ({
  protocol: PROTOCOL_VERSION,
  leaseMs: LEASE_MS,
  beatMs: BEAT_MS,
  inventoryRevision: live.inventory.revisionFor(heartbeat.incarnation),
  orders: [...live.record.orders],
});
