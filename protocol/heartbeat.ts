// Heartbeats, which appliances send to steering every few seconds with their inventory, and the orders in the answers. The
// appliance initiates every exchange.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const BEAT_MS = 3_000;
export const LEASE_MS = 10_000;
export const INVENTORY_DELTA_MAX = 10_000;

export const position = z.object({ lat: z.number().min(-90).max(90), lon: z.number().min(-180).max(180) });
export type Position = z.infer<typeof position>;

/** Wall-clock times at the site. An end at or before the start is on the next day; equal times mean all day. */
export const fillWindow = z.object({
  start: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/),
  end: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/),
});
export type FillWindow = z.infer<typeof fillWindow>;

export const applianceState = z.enum(['starting', 'filling', 'serving', 'draining', 'stopped']);
export type ApplianceState = z.infer<typeof applianceState>;

export const CAUSE_CHARS_MAX = 200;

export const health = z.object({
  level: z.enum(['green', 'yellow', 'red']),
  causes: z.array(z.string().max(CAUSE_CHARS_MAX)).max(20),
});
export type Health = z.infer<typeof health>;

/** Changes since a revision of the inventory. With `since: 0` it is the whole inventory. */
const inventoryDelta = z.object({
  since: z.number().int().nonnegative(),
  revision: z.number().int().nonnegative(),
  added: z.array(holdingId).max(INVENTORY_DELTA_MAX),
  removed: z.array(holdingId).max(INVENTORY_DELTA_MAX),
});
export type InventoryDelta = z.infer<typeof inventoryDelta>;

export const heartbeat = z.object({
  protocol: protocolVersion,
  appliance: id,
  site: id,
  /** New at each start of the appliance. Revisions and counters start again with it. */
  incarnation: z.string().regex(/^[0-9a-f]{16}$/),
  /** Increases with each heartbeat of an incarnation; steering ignores an older one. */
  seq: z.number().int().nonnegative(),
  /** Base URLs for players, best first. */
  advertise: z
    .array(z.url({ protocol: /^https?$/ }))
    .min(1)
    .max(8),
  position: position.nullable(),
  timeZone: z.string().max(64),
  fillWindows: z.array(fillWindow).max(8),
  fillRateBitsPerSecond: z.number().positive().nullable(),
  state: applianceState,
  health,
  storeBytes: byteCount,
  usedBytes: byteCount,
  pinnedBytes: byteCount,
  /** Bytes that plans may pin: the store without the share reserved for demand. */
  planBytes: byteCount,
  connections: z.number().int().nonnegative(),
  connectionsMax: z.number().int().positive(),
  servedBytes: byteCount,
  servedRequests: z.number().int().nonnegative(),
  inventoryRevision: z.number().int().nonnegative(),
  inventory: inventoryDelta.nullable(),
  /** Orders carried out since the last answered heartbeat. */
  ordersDone: z.array(z.string().max(64)).max(100),
  version: z.string().max(64),
});
export type Heartbeat = z.infer<typeof heartbeat>;

export const order = z.discriminatedUnion('kind', [
  /** Finish running responses and report `draining`, until `resume` or `until`. */
  z.object({ id: z.string().max(64), kind: z.literal('drain'), until: isoInstant.nullable() }),
  z.object({ id: z.string().max(64), kind: z.literal('resume') }),
  /** Pull the plan of a run now. */
  z.object({ id: z.string().max(64), kind: z.literal('fill'), run: z.string().max(64) }),
]);
export type Order = z.infer<typeof order>;

export const heartbeatAnswer = z.object({
  protocol: protocolVersion,
  leaseMs: z.number().int().positive(),
  beatMs: z.number().int().positive(),
  /** The revision of the inventory that steering has of this incarnation; null requests the whole inventory. */
  inventoryRevision: z.number().int().nonnegative().nullable(),
  orders: z.array(order).max(100),
});
export type HeartbeatAnswer = z.infer<typeof heartbeatAnswer>;
