// One appliance as steering tracks it in memory, and what is derived from it at an instant: its condition, the facts that
// decisions read, its row in the fleet list, and the checks and the answer of a heartbeat. Pure.

import type { FleetAppliance } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { BEAT_MS, LEASE_MS, type Heartbeat, type HeartbeatAnswer } from '../protocol/heartbeat.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { ORIGIN_ID } from './decide.ts';
import type { ApplianceFacts } from './decision-inputs.ts';
import { isDrained } from './drain.ts';
import type { Condition, Eligibility, ProbeState } from './health.ts';
import type { Inventory } from './inventory.ts';
import type { ApplianceRecord } from './registry.ts';

export interface TrackedAppliance {
  record: ApplianceRecord;
  inventory: Inventory;
  probeState: ProbeState;
  /** The first advertised base URL, normalised. */
  base: string;
  /** On the monotonic clock, so that setting the machine's time ends no lease. */
  leaseUntil: number;
}

/** Both clock readings, taken together. */
export interface Clocks {
  readonly now: number;
  readonly monotonic: number;
}

export function conditionOf(appliance: TrackedAppliance, { now, monotonic }: Clocks): Condition {
  const { beat } = appliance.record;
  return {
    leaseLeftMs: appliance.leaseUntil - monotonic,
    url: appliance.base,
    probeState: appliance.probeState,
    state: beat.state,
    health: beat.health,
    drained: isDrained(appliance.record, now),
    connections: beat.connections,
    connectionsMax: beat.connectionsMax,
  };
}

export function factsOf(appliance: TrackedAppliance, eligibility: Eligibility, clocks: Clocks): ApplianceFacts {
  const { beat } = appliance.record;
  const expired = eligibility.liveness === 'expired';
  return {
    site: beat.site,
    position: beat.position,
    weight: beat.connectionsMax,
    base: appliance.base,
    refusal: expired ? null : eligibility.refusal,
    leaseEndedAt: expired ? leaseEndsAt(appliance, clocks) : null,
  };
}

export function fleetRowOf(appliance: TrackedAppliance, { liveness }: Eligibility, clocks: Clocks): FleetAppliance {
  const { beat, drain } = appliance.record;
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
    leaseEndsAt: new Date(leaseEndsAt(appliance, clocks)).toISOString(),
    draining: drain === null ? null : { since: drain.from, until: drain.until },
    storeBytes: beat.storeBytes,
    usedBytes: beat.usedBytes,
    pinnedBytes: beat.pinnedBytes,
    planBytes: beat.planBytes,
    connections: beat.connections,
    connectionsMax: beat.connectionsMax,
    servedBytes: beat.servedBytes,
    servedRequests: beat.servedRequests,
    inventoryRevision: appliance.inventory.revisionFor(beat.incarnation) ?? 0,
    holdings: appliance.inventory.size,
    version: beat.version,
  };
}

/** The end of the lease in epoch milliseconds. */
const leaseEndsAt = (appliance: TrackedAppliance, { now, monotonic }: Clocks): number =>
  Math.round(now + appliance.leaseUntil - monotonic);

/** Ids with a meaning of their own in pathways and play reports. */
const RESERVED_IDS: readonly string[] = [ORIGIN_ID, 'steering'];

/** Returns the first advertised base URL. Throws `body_invalid` and names the field that is wrong. */
export function validateHeartbeat({ appliance, advertise }: Heartbeat): string {
  if (RESERVED_IDS.includes(appliance))
    throw new Fault(
      'body_invalid',
      `body.appliance is "${appliance}", which names something else; choose another --id`,
      { detail: { field: 'body.appliance' } },
    );
  const bad = advertise.findIndex((url) => normaliseBaseUrl(url) === null);
  if (bad >= 0)
    throw new Fault(
      'body_invalid',
      `body.advertise.${bad} is "${advertise[bad]!.slice(0, 100)}": must be an http:// or https:// URL without query, fragment or user`,
      { detail: { field: `body.advertise.${bad}` } },
    );
  return normaliseBaseUrl(advertise[0]!)!;
}

/**
 * An advertised base URL as steering hands it out: without a trailing slash, and with every character escaped that could end a
 * quoted string in a playlist. Null if it is not an http or https URL, or has a user, a query or a fragment.
 */
export function normaliseBaseUrl(advertised: string): string | null {
  if (!URL.canParse(advertised)) return null;
  const url = new URL(advertised);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return null;
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') return null;
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

/** True for a heartbeat that a later one overtook, or that a replaced incarnation sent. */
export const isStale = (heartbeat: Heartbeat, { beat: last, retired }: ApplianceRecord): boolean =>
  heartbeat.incarnation === retired || (heartbeat.incarnation === last.incarnation && heartbeat.seq <= last.seq);

export const heartbeatAnswerFor = (heartbeat: Heartbeat, appliance: TrackedAppliance): HeartbeatAnswer => ({
  protocol: PROTOCOL_VERSION,
  leaseMs: LEASE_MS,
  beatMs: BEAT_MS,
  inventoryRevision: appliance.inventory.revisionFor(heartbeat.incarnation),
  orders: [...appliance.record.orders],
});
