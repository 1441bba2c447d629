// Answers of steering: a ranked list of pathways with a reason for each, and the state of the fleet.

import { z } from 'zod';
import { applianceState, fillWindow, health, position } from './heartbeat.ts';
import { assetPath, byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const PATHWAYS_DEFAULT = 3;
export const PATHWAYS_MAX = 8;

const pathway = z.object({
  /** Appliance id or `origin`. Used as PATHWAY-ID in HLS and serviceLocation in DASH. */
  id,
  site: id.nullable(),
  /** Absolute base URL with the session prefix, without a trailing slash. An asset path is appended to it. */
  base: z.url(),
  /** Share of the title's bytes that is held, 0 to 1; always 1 for the origin. */
  held: z.number().min(0).max(1),
  reason: z.string(),
});
export type Pathway = z.infer<typeof pathway>;

/** An appliance that was considered for a play, and why it is or is not among the pathways. */
const consideration = z.object({
  appliance: id,
  site: id,
  outcome: z.enum(['chosen', 'spare', 'refused']),
  reason: z.string(),
  distanceKm: z.number().nonnegative().nullable(),
  held: z.number().min(0).max(1),
});
export type Consideration = z.infer<typeof consideration>;

/** How the client's address led to a site. */
export const clientLocation = z.object({
  address: z.string(),
  by: z.enum(['prefix', 'position', 'default', 'none']),
  prefix: z.string().nullable(),
  site: id.nullable(),
});
export type ClientLocation = z.infer<typeof clientLocation>;

const decision = z.object({
  protocol: protocolVersion,
  /** Session: the prefix `/~<id>` of every URL of the play. */
  id: z.string(),
  at: isoInstant,
  title: id,
  client: clientLocation,
  ttlS: z.number().int().positive(),
  /** Best first, the origin last. At least two if any appliance qualifies. */
  pathways: z
    .array(pathway)
    .min(1)
    .max(PATHWAYS_MAX + 1),
});
export type Decision = z.infer<typeof decision>;

/** `GET /v1/play/{title}`. */
export const playAnswer = decision.extend({
  manifests: z.array(z.object({ dialect: z.enum(['hls', 'dash']), url: z.url(), path: assetPath })),
});
export type PlayAnswer = z.infer<typeof playAnswer>;

/** `GET /v1/explain?client=IP&title=T[&at=INSTANT]`, as of that instant. `considered` is in rank order. */
export const explanation = decision.extend({ considered: z.array(consideration), catalogRevision: z.number().int() });
export type Explanation = z.infer<typeof explanation>;

export const fleetAppliance = z.object({
  id,
  site: id,
  advertise: z.array(z.string()),
  position: position.nullable(),
  timeZone: z.string(),
  fillWindows: z.array(fillWindow),
  fillRateBitsPerSecond: z.number().nullable(),
  state: applianceState,
  health,
  /** `alive`: holds a lease. `expired`: its lease has expired. `refused`: it refused the connection of steering's probe. */
  liveness: z.enum(['alive', 'expired', 'refused']),
  leaseEndsAt: isoInstant,
  /** A drain that an operator ordered; `since` is in the future while it is scheduled. */
  draining: z.object({ since: isoInstant, until: isoInstant.nullable() }).nullable(),
  storeBytes: byteCount,
  usedBytes: byteCount,
  pinnedBytes: byteCount,
  planBytes: byteCount,
  connections: z.number().int(),
  connectionsMax: z.number().int(),
  servedBytes: byteCount,
  servedRequests: z.number().int(),
  inventoryRevision: z.number().int(),
  holdings: z.number().int(),
  /** Only with `?inventory=1`. */
  inventory: z.array(holdingId).optional(),
  version: z.string(),
});
export type FleetAppliance = z.infer<typeof fleetAppliance>;

/** `GET /v1/fleet[?inventory=1]`. */
export const fleet = z.object({
  protocol: protocolVersion,
  at: isoInstant,
  catalogRevision: z.number().int(),
  sites: z.array(
    z.object({ id, position: position.nullable(), prefixes: z.number().int(), appliances: z.number().int() }),
  ),
  appliances: z.array(fleetAppliance),
});
export type Fleet = z.infer<typeof fleet>;

/** `PUT /v1/appliances/{id}/state`: drains or resumes an appliance. With `at` in the future it is scheduled. */
export const stateOrder = z.object({
  state: z.enum(['draining', 'serving']),
  at: isoInstant.nullable(),
  forMs: z.number().int().positive().nullable(),
});
export type StateOrder = z.infer<typeof stateOrder>;
