// Heartbeat and inventory: what an appliance tells steering every few seconds, and the orders that ride the answer.
// The appliance opens every exchange; nobody dials in.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const BEAT_MS = 3_000;
export const LEASE_MS = 10_000;
export const INVENTORY_DELTA_MAX = 10_000;

export const position = z.object({ lat: z.number().min(-90).max(90), lon: z.number().min(-180).max(180) });
export type Position = z.infer<typeof position>;

/** Local wall-clock times of the site; an end at or before the start lies on the next day. `start = end` is all day. */
export const fillWindow = z.object({
  start: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/),
  end: z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/),
});
export type FillWindow = z.infer<typeof fillWindow>;

export const applianceState = z.enum(['starting', 'filling', 'serving', 'draining', 'stopped']);
export type ApplianceState = z.infer<typeof applianceState>;

export const health = z.object({
  level: z.enum(['green', 'yellow', 'red']),
  causes: z.array(z.string().max(200)).max(20),
});
export type Health = z.infer<typeof health>;

/** `since: 0` replaces everything known of this appliance. */
export const inventoryDelta = z.object({
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
  /** New at each start of the appliance; revisions and counters belong to it. */
  incarnation: z.string().regex(/^[0-9a-f]{16}$/),
  /** Rises with each beat of an incarnation; steering ignores an older one. */
  seq: z.number().int().nonnegative(),
  /** Base URLs as players reach them, best first. */
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
  /** Bytes a plan may pin: the store less the demand share. */
  planBytes: byteCount,
  connections: z.number().int().nonnegative(),
  connectionsMax: z.number().int().positive(),
  servedBytes: byteCount,
  servedRequests: z.number().int().nonnegative(),
  inventoryRevision: z.number().int().nonnegative(),
  inventory: inventoryDelta.nullable(),
  /** Orders carried out since the last answered beat. */
  ordersDone: z.array(z.string().max(64)).max(100),
  version: z.string().max(64),
});
export type Heartbeat = z.infer<typeof heartbeat>;

export const order = z.discriminatedUnion('kind', [
  /** Keep running answers, advertise `draining`; until `resume` or the instant. */
  z.object({ id: z.string().max(64), kind: z.literal('drain'), until: isoInstant.nullable() }),
  z.object({ id: z.string().max(64), kind: z.literal('resume') }),
  /** Pull the plan now. */
  z.object({ id: z.string().max(64), kind: z.literal('fill'), run: z.string().max(64) }),
]);
export type Order = z.infer<typeof order>;

export const heartbeatAnswer = z.object({
  protocol: protocolVersion,
  leaseMs: z.number().int().positive(),
  beatMs: z.number().int().positive(),
  /** The revision of this incarnation that steering holds; null asks for everything. */
  inventoryRevision: z.number().int().nonnegative().nullable(),
  orders: z.array(order).max(100),
});
export type HeartbeatAnswer = z.infer<typeof heartbeatAnswer>;
