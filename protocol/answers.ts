// Answers of steering and fill to operators and to the player page: lists, imports, pins. Bodies that services exchange among
// themselves are in the file of their subject (catalog, decision, plan, plays).

import { z } from 'zod';
import { assetPath, byteCount, id, isoInstant, protocolVersion } from './ids.ts';
import { fillPlan, run } from './plan.ts';

const TITLES_LISTED_MAX = 10_000;
export const RUNS_LISTED_MAX = 100;

const dialect = z.enum(['hls', 'dash']);

/** A title without its manifests and renditions. */
const titleSummary = z.object({
  id,
  revision: z.number().int().positive(),
  name: z.string().max(200),
  base: assetPath,
  durationS: z.number().nonnegative(),
  bytes: byteCount,
  renditions: z.number().int().nonnegative(),
  assets: z.number().int().nonnegative(),
  dialects: z.array(dialect),
  importedAt: isoInstant,
});
export type TitleSummary = z.infer<typeof titleSummary>;

/** Fill: `GET /v1/titles`. */
export const titleList = z.object({
  protocol: protocolVersion,
  revision: z.number().int().nonnegative(),
  titles: z.array(titleSummary).max(TITLES_LISTED_MAX),
});

/** Steering, public: `GET /v1/titles`, for the player page. */
export const publicTitles = z.object({
  protocol: protocolVersion,
  titles: z
    .array(z.object({ id, name: z.string(), durationS: z.number().nonnegative(), dialects: z.array(dialect) }))
    .max(TITLES_LISTED_MAX),
});
export type PublicTitles = z.infer<typeof publicTitles>;

/** `POST /v1/imports`. Without a title id, one is derived from the URL. A second manifest of a title is added to the first. */
export const importRequest = z.object({ url: z.url({ protocol: /^https?$/ }).max(2048), title: id.nullable() });
export type ImportRequest = z.infer<typeof importRequest>;

export const importAccepted = z.object({ id: z.string().max(64) });

/** `GET /v1/imports/{id}`. Totals are 0 until the manifest has been parsed. */
export const importProgress = z.object({
  protocol: protocolVersion,
  id: z.string().max(64),
  url: z.string(),
  title: id.nullable(),
  state: z.enum(['running', 'done', 'failed']),
  assetsDone: z.number().int().nonnegative(),
  assetsTotal: z.number().int().nonnegative(),
  bytesDone: byteCount,
  bytesTotal: byteCount,
  /** Revision of the title once the import is done: the previous one if nothing had changed. */
  revision: z.number().int().positive().nullable().optional(),
  fault: z.object({ code: z.string(), message: z.string(), help: z.string() }).nullable(),
});
export type ImportProgress = z.infer<typeof importProgress>;

/** `GET /v1/plans`: the plans that a run would have now, one per appliance. */
export const planList = z.object({
  protocol: protocolVersion,
  /** Time of the view of the fleet that the plans are for; an old one if steering cannot be reached. */
  fleetAt: isoInstant.optional(),
  plans: z.array(fillPlan),
});
export type PlanList = z.infer<typeof planList>;

/** `GET /v1/runs`, newest first. */
export const runList = z.object({ protocol: protocolVersion, runs: z.array(run).max(RUNS_LISTED_MAX) });

/** `PUT /v1/pins/{title}`. With `until: null` the pin does not expire. */
export const pinRequest = z.object({ until: isoInstant.nullable() });
export const pin = z.object({ title: id, until: isoInstant.nullable(), since: isoInstant });
export type Pin = z.infer<typeof pin>;

/** `GET /v1/pins`. */
export const pinList = z.object({ protocol: protocolVersion, pins: z.array(pin) });
