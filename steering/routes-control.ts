// What appliances, operators and fill ask, with a token: heartbeats, orders, drains, the fleet, and why.

import { z } from 'zod';
import {
  explanation,
  fleet as fleetMessage,
  fleetAppliance,
  PATHWAYS_DEFAULT,
  stateOrder,
  type Explanation,
  type Fleet as FleetMessage,
} from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { heartbeat, heartbeatAnswer, order } from '../protocol/heartbeat.ts';
import { id, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { route, type Route } from '../runtime/service.ts';
import type { Catalog } from './catalog.ts';
import { decidePlay, sitePositions, type PlayDeps } from './play.ts';
import { parseAddress } from './prefix-table.ts';
import type { Prober } from './probe.ts';
import { findTitle, pathwaysQuery } from './routes-public.ts';

export interface ControlDeps extends PlayDeps {
  readonly catalog: Catalog;
  readonly prober: Pick<Prober, 'probe'>;
}

const applianceParams = z.object({ id });
const fillOrder = z.object({ kind: z.literal('fill'), run: z.string().min(1).max(64) });

export function controlRoutes(deps: ControlDeps): Route[] {
  return [
    route({
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
        const { answer, probeNow } = deps.fleet.beat(body);
        const target = probeNow ? deps.fleet.probeTargets().find((candidate) => candidate.id === params.id) : undefined;
        if (target !== undefined) void deps.prober.probe(target);
        return answer;
      },
    }),
    route({
      method: 'POST',
      path: '/v1/appliances/:id/orders',
      summary: 'Queues a fill order; it rides the answer to the next heartbeat.',
      roles: ['service', 'operator'],
      params: applianceParams,
      body: fillOrder,
      answer: z.object({ order }),
      faults: ['not_found', 'overloaded', 'disk_failed'],
      run: async ({ params, body }) => ({ order: await deps.fleet.orderFill(params.id, body.run) }),
    }),
    route({
      method: 'PUT',
      path: '/v1/appliances/:id/state',
      summary: 'Drains an appliance or sends it plays again, now or at an instant.',
      roles: ['operator'],
      params: applianceParams,
      body: stateOrder,
      answer: fleetAppliance,
      faults: ['not_found', 'body_invalid', 'disk_failed'],
      run: ({ params, body }) => deps.fleet.orderState(params.id, body),
    }),
    route({
      method: 'GET',
      path: '/v1/fleet',
      summary: 'Sites and appliances as steering sees them.',
      roles: ['operator', 'service'],
      query: z.object({ inventory: z.enum(['0', '1']).optional() }),
      answer: fleetMessage,
      run: ({ query }): FleetMessage => showFleet(deps, query.inventory === '1'),
    }),
    route({
      method: 'GET',
      path: '/v1/explain',
      summary: 'The decision that a client would get now, with everybody who was looked at.',
      roles: ['operator'],
      query: z.object({
        client: z.string().refine((text) => parseAddress(text) !== null, 'must be an IPv4 or IPv6 address'),
        title: id,
        pathways: pathwaysQuery,
      }),
      answer: explanation,
      faults: ['not_found', 'request_malformed'],
      run: ({ query }): Explanation => {
        const { decision, considered } = decidePlay(deps, {
          title: findTitle(deps, query.title),
          address: query.client,
          session: null,
          pathways: query.pathways ?? PATHWAYS_DEFAULT,
          countAs: null,
        });
        return { ...decision, considered: [...considered], catalogRevision: deps.catalog.revision };
      },
    }),
  ];
}

function showFleet(deps: ControlDeps, inventory: boolean): FleetMessage {
  const counts = deps.fleet.sites();
  return {
    protocol: PROTOCOL_VERSION,
    at: new Date(deps.clock.now()).toISOString(),
    catalogRevision: deps.catalog.revision,
    sites: [...sitePositions(deps)]
      .map(([site, position]) => ({
        id: site,
        position,
        prefixes: deps.footprint.zones.get(site)?.prefixes ?? 0,
        appliances: counts.get(site)?.appliances ?? 0,
      }))
      .sort((a, b) => (a.id < b.id ? -1 : 1)),
    appliances: deps.fleet.show({ inventory }),
  };
}
