// Play reports: demand as it was seen. Appliances count bytes served per rendition, steering counts plays asked;
// fill joins both, because a title served only by the origin must still enter a plan.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const PLAY_REPORT_ROWS_MAX = 5_000;

/** `POST /v1/plays`. Sent again until answered; fill counts each (source, incarnation, seq) once. */
export const playReport = z.object({
  protocol: protocolVersion,
  /** Appliance id, or `steering`. */
  source: id,
  site: id.nullable(),
  incarnation: z.string().regex(/^[0-9a-f]{16}$/),
  seq: z.number().int().nonnegative(),
  from: isoInstant,
  to: isoInstant,
  served: z
    .array(z.object({ holding: holdingId, bytes: byteCount, requests: z.number().int().nonnegative() }))
    .max(PLAY_REPORT_ROWS_MAX),
  /** Plays asked at steering, by the site that was ranked first; null where only the origin was. */
  asked: z
    .array(z.object({ title: id, site: id.nullable(), plays: z.number().int().positive() }))
    .max(PLAY_REPORT_ROWS_MAX),
});
export type PlayReport = z.infer<typeof playReport>;

/** `GET /v1/popularity`. */
export const popularity = z.object({
  protocol: protocolVersion,
  at: isoInstant,
  rows: z.array(
    z.object({
      holding: holdingId,
      /** Null sums all sites. */
      site: id.nullable(),
      /** Decayed bytes streamed ÷ bytes of the rendition. */
      popularity: z.number().nonnegative(),
      bytes: byteCount,
    }),
  ),
});
export type Popularity = z.infer<typeof popularity>;
