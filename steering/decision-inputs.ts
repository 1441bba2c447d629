// What a decision is made from: the request, the settings, the sites, and every appliance with its share of the title. The
// fleet supplies the inputs of the present, `history/` those of a past instant, and `decide.ts` treats both alike. Pure.

import { z } from 'zod';
import { position, type Position } from '../protocol/heartbeat.ts';
import { id } from '../protocol/ids.ts';
import type { Footprint } from './footprint.ts';
import type { GeoIp } from './geoip.ts';

/** One play, as a client requests it. */
export interface PlayRequest {
  /** Title id. */
  readonly title: string;
  /** The client's address as text. An invalid address has no location. */
  readonly address: string;
  /** Names the decision and prefixes every URL of the play. */
  readonly session: string;
  /** Appliances named at most; the origin comes on top. */
  readonly pathwaysMax: number;
}

/** Settings of `larder steering run` that decisions depend on. */
export interface DecisionSettings {
  readonly footprint: Footprint;
  readonly geoip: GeoIp;
  /** Site of clients that neither map nor position locate; null for none. */
  readonly defaultSite: string | null;
  /** Base URL of the origin as players reach it, without a trailing slash. */
  readonly originBase: string;
  /** How long players keep a ranking, before jitter. */
  readonly ttlMs: number;
}

export interface DecisionInputs extends DecisionSettings {
  /** Instant of the decision, in epoch milliseconds. */
  readonly at: number;
  /** Positions of all sites, from the map or else from heartbeats. */
  readonly sites: ReadonlyMap<string, Position | null>;
  readonly candidates: readonly ApplianceCandidate[];
}

/** An appliance as the decision for one title sees it. */
export interface ApplianceCandidate {
  readonly id: string;
  readonly site: string;
  /** Relative capacity, > 0. */
  readonly weight: number;
  /** Share of the title's bytes that it holds, 0 to 1. */
  readonly held: number;
  /** Base URL as players reach it, without a trailing slash. */
  readonly base: string;
  /** Why it may not be given plays; null if it may. */
  readonly refusal: string | null;
}

/** What decisions read of an appliance, whatever the title. History stores it in this shape. */
export const applianceFacts = z.object({
  site: id,
  position: position.nullable(),
  weight: z.number(),
  base: z.string(),
  refusal: z.string().nullable(),
  /** Set instead of `refusal` after a lease expired: the age in that sentence would change every second. */
  leaseEndedAt: z.number().nullable(),
});
export type ApplianceFacts = z.infer<typeof applianceFacts>;
