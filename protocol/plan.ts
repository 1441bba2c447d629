// Fill plans, which say what an appliance should hold, and runs, which show how far the plans are carried out. Fill computes plans,
// appliances pull them and report their progress.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

const fillItem = z.object({
  holding: holdingId,
  /** Revision of the title that the assets are of. */
  revision: z.number().int().positive(),
  bytes: byteCount,
  /** Why the item is in the plan, as `pinned` or `popularity 3.21`. */
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
  /** The appliance starts no fetch after this instant; null for a run with `--now`. */
  closesAt: isoInstant.nullable(),
  /** Cap for the appliance's fill traffic in bits per second; null is uncapped. */
  rateBitsPerSecond: z.number().positive().nullable(),
  concurrency: z.number().int().min(1).max(64),
  /** In fetch order. */
  add: z.array(fillItem),
  /** Holdings that it has already, which stay pinned. */
  keep: z.array(fillItem),
  /** Holdings to be unpinned, so that they may be evicted. */
  remove: z.array(fillItem),
  addBytes: byteCount,
  /** Expected duration at the rate; null if the rate is unknown. */
  expectedMs: z.number().nonnegative().nullable(),
});
export type FillPlan = z.infer<typeof fillPlan>;

const fillFault = z.object({
  asset: z.string().max(1100),
  code: z.string().max(64),
  message: z.string().max(500),
});

/** `POST /v1/runs/{run}/progress`, sent by the appliance each second while it fills and once at the end. */
export const fillProgress = z.object({
  protocol: protocolVersion,
  run: z.string().max(64),
  plan: z.string().max(64),
  appliance: id,
  state: z.enum(['waiting', 'filling', 'done', 'failed', 'closed']),
  bytesTotal: byteCount,
  /** Bytes that are verified and stored. */
  bytesDone: byteCount,
  /** The part of `bytesDone` that an earlier attempt had stored. */
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
  /** Null for a run at every site, or of every title. */
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
