// Play reports. Appliances report bytes served per rendition, steering reports plays requested per title. Fill combines both,
// because a title that only the origin served must enter a plan too.

import { z } from 'zod';
import { byteCount, holdingId, id, isoInstant, protocolVersion } from './ids.ts';

export const PLAY_REPORT_ROWS_MAX = 5_000;

/** `POST /v1/plays`. A report is sent again until it is answered; fill counts each (source, incarnation, seq) once. */
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
  /** Plays requested from steering, by the site ranked first; null if only the origin could be named. */
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
      /** Null for the sum of all sites. */
      site: id.nullable(),
      /** Decayed bytes streamed ÷ bytes of the rendition. */
      popularity: z.number().nonnegative(),
      bytes: byteCount,
    }),
  ),
});
export type Popularity = z.infer<typeof popularity>;
