// The content steering answer, one document for HLS and DASH. It is stateless: the request names the pathways that the
// manifest declared, and the answer orders exactly those, because a player whose pathway is missing ends playback. Appliances
// to steer away from move behind the origin; the others keep their order, so that no player moves without need.

import { z } from 'zod';
import { PATHWAYS_MAX } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { id } from '../../protocol/ids.ts';

export const STEERING_LIST_TYPE = 'application/vnd.apple.steering-list';

const playerReport = (pattern: RegExp, problem: string): z.ZodOptional<z.ZodString> =>
  z.string().max(600).regex(pattern, problem).optional();

/** HLS players name one pathway, dash.js sends a quoted list. Throughput is in bits per second, in DASH per location. */
const pathwayReport = playerReport(/^[A-Za-z0-9._,"-]*$/, 'must be pathway ids, joined by commas');
const throughputReport = playerReport(/^[0-9.,"]*$/, 'must be bits per second, joined by commas');

export const steeringQuery = z.object({
  session: z
    .string()
    .regex(/^[a-z0-9]{16}$/, 'must be the 16 characters that steering gave')
    .optional(),
  pathways: z.string().max(1024, 'must be the ids that the manifest declared'),
  _HLS_pathway: pathwayReport,
  _HLS_throughput: throughputReport,
  _DASH_pathway: pathwayReport,
  _DASH_throughput: throughputReport,
});

export interface SteeringList {
  readonly VERSION: 1;
  readonly TTL: number;
  readonly 'PATHWAY-PRIORITY': readonly string[];
}

/** Throws `request_malformed`, naming the bad id. */
export function parseDeclaredPathways(text: string): string[] {
  const ids = text.split(',');
  for (const each of ids)
    if (!id.safeParse(each).success)
      throw new Fault('request_malformed', `query.pathways holds "${each.slice(0, 70)}", which is not a pathway id`, {
        detail: { field: 'query.pathways' },
      });
  if (new Set(ids).size !== ids.length)
    throw new Fault('request_malformed', 'query.pathways names a pathway twice', {
      detail: { field: 'query.pathways' },
    });
  if (ids.length > PATHWAYS_MAX + 1)
    throw new Fault('request_malformed', `query.pathways names more than ${PATHWAYS_MAX + 1} pathways`, {
      detail: { field: 'query.pathways' },
    });
  return ids;
}

/** `avoided` are the pathways that running plays should leave. */
export const steeringList = (
  declared: readonly string[],
  avoided: ReadonlySet<string>,
  ttlS: number,
): SteeringList => ({
  VERSION: 1,
  TTL: ttlS,
  'PATHWAY-PRIORITY': [...declared.filter((id) => !avoided.has(id)), ...declared.filter((id) => avoided.has(id))],
});
