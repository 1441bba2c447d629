// The content steering answer, one document for HLS and DASH. Stateless: the request names the pathways that the manifest
// declared and the answer orders exactly those, for a client that loses an id from the list ends playback. An
// appliance that must be left goes behind the origin; the others keep their order, so that nobody moves without need.

import { z } from 'zod';
import { PATHWAYS_MAX } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { id } from '../../protocol/ids.ts';

export const STEERING_LIST_TYPE = 'application/vnd.apple.steering-list';

const reported = (what: RegExp, must: string): z.ZodOptional<z.ZodString> =>
  z.string().max(600).regex(what, must).optional();

/** HLS names one pathway; dash.js sends a quoted list. Throughput is bits per second, per location in DASH. */
const pathwayReport = reported(/^[A-Za-z0-9._,"-]*$/, 'must be pathway ids, joined by commas');
const throughputReport = reported(/^[0-9.,"]*$/, 'must be bits per second, joined by commas');

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

/** Throws `request_malformed` naming the id. */
export function declaredPathways(text: string): string[] {
  const ids = text.split(',');
  for (const name of ids)
    if (!id.safeParse(name).success)
      throw new Fault('request_malformed', `query.pathways holds "${name.slice(0, 70)}", which is no pathway id`, {
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

/** `leave` says whether a running play should move away from the pathway. */
export function steeringList(
  declared: readonly string[],
  leave: (pathway: string) => boolean,
  ttlS: number,
): SteeringList {
  return {
    VERSION: 1,
    TTL: ttlS,
    'PATHWAY-PRIORITY': [...declared.filter((name) => !leave(name)), ...declared.filter((name) => leave(name))],
  };
}

/** Spread over ± 20 %, so that players which started together do not come back together. `at` lies in [0, 1). */
export const jitteredTtlS = (ttlMs: number, at: number): number =>
  Math.max(1, Math.round((ttlMs / 1000) * (0.8 + 0.4 * at)));
