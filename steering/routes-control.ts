// The control routes, which need a token: appliances send heartbeats, operators order drains and read explanations, fill
// queues orders, and both of the latter read the fleet.

import { z } from 'zod';
import {
  explanation,
  fleet as fleetMessage,
  fleetAppliance,
  stateOrder,
  type Explanation,
  type Fleet as FleetMessage,
} from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { heartbeat, heartbeatAnswer, order } from '../protocol/heartbeat.ts';
import { id, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { route, type Route } from '../runtime/service.ts';
import { decide } from './decide.ts';
import type { HistoryRecorder } from './history/recorder.ts';
import { decidePlay, playRequestFrom, type PlayDeps } from './play.ts';
import { parseAddress } from './prefix-table.ts';
import type { Prober } from './probe.ts';
import { pathwaysQuery } from './routes-public.ts';
import { sitePositions } from './sites.ts';

export interface ControlDeps extends PlayDeps {
  readonly prober: Pick<Prober, 'probe'>;
  readonly history: Pick<HistoryRecorder, 'inputsAt'>;
}

const applianceParams = z.object({ id });
const fillOrder = z.object({ kind: z.literal('fill'), run: z.string().min(1).max(64) });

export const controlRoutes = (deps: ControlDeps): Route[] => [
  heartbeatRoute(deps),
  ordersRoute(deps),
  stateRoute(deps),
  fleetRoute(deps),
  explainRoute(deps),
];

function heartbeatRoute(deps: ControlDeps): Route {
  return route({
    method: 'POST',
    path: '/v1/appliances/:id/heartbeat',
    summary: 'A heartbeat renews the lease; the answer carries orders.',
    roles: ['appliance'],
    params: applianceParams,
    body: heartbeat,
    answer: heartbeatAnswer,
    faults: ['token_forged', 'body_invalid', 'overloaded'],
    run: ({ params, body, caller }) => {
      if (caller!.id !== params.id || body.appliance !== params.id)
        throw new Fault(
          'token_forged',
          `the token speaks for ${caller!.id}, the path names ${params.id} and the body ${body.appliance}; all three must be one`,
        );
      const { answer, probeNow } = deps.fleet.renewLease(body);
      const target = probeNow ? deps.fleet.probeTargets().find((candidate) => candidate.id === params.id) : undefined;
      if (target !== undefined) void deps.prober.probe(target);
      return answer;
    },
  });
}

function ordersRoute(deps: ControlDeps): Route {
  return route({
    method: 'POST',
    path: '/v1/appliances/:id/orders',
    summary: 'Queues a fill order; it rides the answer to the next heartbeat.',
    roles: ['service', 'operator'],
    params: applianceParams,
    body: fillOrder,
    answer: z.object({ order }),
    faults: ['not_found', 'overloaded', 'disk_failed'],
    run: async ({ params, body }) => ({ order: await deps.fleet.orderFill(params.id, body.run) }),
  });
}

function stateRoute(deps: ControlDeps): Route {
  return route({
    method: 'PUT',
    path: '/v1/appliances/:id/state',
    summary: 'Drains an appliance or sends it plays again, now or at an instant.',
    roles: ['operator'],
    params: applianceParams,
    body: stateOrder,
    answer: fleetAppliance,
    faults: ['not_found', 'body_invalid', 'disk_failed'],
    run: ({ params, body }) => deps.fleet.orderState(params.id, body),
  });
}

function fleetRoute(deps: ControlDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/fleet',
    summary: 'Sites and appliances as steering sees them.',
    roles: ['operator', 'service'],
    query: z.object({ inventory: z.enum(['0', '1']).optional() }),
    answer: fleetMessage,
    run: ({ query }): FleetMessage => describeFleet(deps, { inventory: query.inventory === '1' }),
  });
}

function explainRoute(deps: ControlDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/explain',
    summary:
      'The decision that a client would get now, or would have got at an instant, with every appliance considered.',
    roles: ['operator'],
    query: explainQuery,
    answer: explanation,
    faults: ['not_found', 'history_missing', 'request_malformed', 'disk_failed'],
    run: ({ query }) => explain(deps, query),
  });
}

const explainQuery = z.object({
  client: z.string().refine((text) => parseAddress(text) !== null, 'must be an IPv4 or IPv6 address'),
  title: id,
  at: z.iso
    .datetime({ offset: true, error: 'must be an instant such as 2026-03-01T02:00:00Z; write + as %2B' })
    .optional(),
  pathways: pathwaysQuery,
});

async function explain(deps: ControlDeps, query: z.infer<typeof explainQuery>): Promise<Explanation> {
  const { title, client: address, pathways } = query;
  const playRequest = playRequestFrom({ title, address, pathways });
  if (query.at === undefined) {
    const { decision, considered } = decidePlay(deps, playRequest, null);
    return { ...decision, considered: [...considered], catalogRevision: deps.catalog.revision };
  }
  const { inputs, catalogRevision } = await deps.history.inputsAt({ at: Date.parse(query.at), title, address });
  const { decision, considered } = decide(inputs, playRequest);
  return { ...decision, considered: [...considered], catalogRevision };
}

function describeFleet(deps: ControlDeps, options: { readonly inventory: boolean }): FleetMessage {
  const reported = deps.fleet.sites();
  return {
    protocol: PROTOCOL_VERSION,
    at: new Date(deps.clock.now()).toISOString(),
    catalogRevision: deps.catalog.revision,
    sites: [...sitePositions(reported, deps.settings.footprint)]
      .map(([site, position]) => ({
        id: site,
        position,
        prefixes: deps.settings.footprint.zones.get(site)?.prefixes ?? 0,
        appliances: reported.get(site)?.appliances ?? 0,
      }))
      .sort((a, b) => (a.id < b.id ? -1 : 1)),
    appliances: deps.fleet.describe(options),
  };
}
