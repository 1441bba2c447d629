// Fill plans and runs: what an appliance should hold tonight, and how far it is. Fill computes plans, appliances pull them.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const fillItem = z.object({
  holding: holdingId,
  /** Revision of the title whose assets are meant. */
  revision: z.number().int().positive(),
  bytes: byteCount,
  /** Why it is in the plan: `pinned`, `popularity 3.21`, `trigger`. */
  reason: z.string().max(200),
});
export type FillItem = z.infer<typeof fillItem>;

export const fillPlan = z.object({
  protocol: protocolVersion,
  id: z.string().max(64),
  run: z.string().max(64),
  appliance: id,
  site: id,
  createdAt: isoInstant,
  /** The appliance starts no fetch after this; null for a run with `--now`. */
  closesAt: isoInstant.nullable(),
  /** Cap for the appliance's fill traffic in bits per second; null is uncapped. */
  rateBitsPerSecond: z.number().positive().nullable(),
  concurrency: z.number().int().min(1).max(64),
  /** In fetch order. */
  add: z.array(fillItem),
  /** Already held; stay pinned. */
  keep: z.array(fillItem),
  /** To be unpinned; eviction may then take them. */
  remove: z.array(fillItem),
  addBytes: byteCount,
  /** Expected time at the rate, or at the last measured one; null when neither is known. */
  expectedMs: z.number().nonnegative().nullable(),
});
export type FillPlan = z.infer<typeof fillPlan>;

export const fillFault = z.object({
  asset: z.string().max(1100),
  code: z.string().max(64),
  message: z.string().max(500),
});

/** `POST /v1/runs/{run}/progress`, from the appliance, each second while it fills and once at the end. */
export const fillProgress = z.object({
  protocol: protocolVersion,
  run: z.string().max(64),
  plan: z.string().max(64),
  appliance: id,
  state: z.enum(['waiting', 'filling', 'done', 'failed', 'closed']),
  bytesTotal: byteCount,
  /** Verified against the digests and stored. */
  bytesDone: byteCount,
  /** Of bytesDone, those that an earlier attempt had already stored. */
  bytesResumed: byteCount,
  renditionsTotal: z.number().int().nonnegative(),
  renditionsDone: z.number().int().nonnegative(),
  bytesPerSecond: z.number().nonnegative(),
  faults: z.array(fillFault).max(20),
  at: isoInstant,
});
export type FillProgress = z.infer<typeof fillProgress>;

export const run = z.object({
  protocol: protocolVersion,
  id: z.string(),
  trigger: z.enum(['now', 'window']),
  /** Null means every site, every title. */
  site: id.nullable(),
  title: id.nullable(),
  state: z.enum(['running', 'done', 'failed', 'closed']),
  createdAt: isoInstant,
  endedAt: isoInstant.nullable(),
  closesAt: isoInstant.nullable(),
  bytesTotal: byteCount,
  bytesDone: byteCount,
  appliances: z.array(fillProgress),
});
export type Run = z.infer<typeof run>;

/** `POST /v1/runs`. */
export const runRequest = z.object({ site: id.nullable(), title: id.nullable(), now: z.boolean() });
export type RunRequest = z.infer<typeof runRequest>;
