// The HTTP edge of steering: all routes on one listener, with CORS on those that players on other origins ask.

import type { FastifyInstance } from 'fastify';
import type { Log } from '../runtime/log.ts';
import { createService, type Service } from '../runtime/service.ts';
import { controlRoutes, type ControlDeps } from './routes-control.ts';
import { publicRoutes, type PublicDeps } from './routes-public.ts';
import { uiRoutes, type UiFile } from './players/ui.ts';

export interface SteeringServiceDeps extends PublicDeps, ControlDeps {
  readonly log: Log;
  readonly fleetKey: Buffer;
  readonly trustProxy: readonly string[];
  readonly ui: ReadonlyMap<string, UiFile>;
}

export function createSteeringService(deps: SteeringServiceDeps): Service {
  const service = createService({
    name: 'steering',
    log: deps.log,
    routes: [...publicRoutes(deps), ...controlRoutes(deps), ...uiRoutes(deps.ui)],
    fleetKey: deps.fleetKey,
    expose: () => deps.metrics.expose(),
    trustProxy: deps.trustProxy,
  });
  allowPlayers(service.app);
  return service;
}

const PUBLIC_PATH = /^\/v1\/(?:play\/|route\/|steering\/|titles(?:[/?]|$))/;
const PREFLIGHT_S = 86_400;

/**
 * Players run on pages of other origins. A failed answer must be readable too, so the fields are set before anything
 * else happens; Retry-After is exposed because hls.js reads it, Link and Location for those that choose themselves.
 */
function allowPlayers(app: FastifyInstance): void {
  app.addHook('onRequest', async (request, reply) => {
    if (!PUBLIC_PATH.test(request.url)) return;
    void reply
      .header('access-control-allow-origin', '*')
      .header('access-control-expose-headers', 'Retry-After, Link, Location, Date')
      .header('timing-allow-origin', '*');
    if (request.method !== 'OPTIONS') return;
    await reply
      .code(204)
      .header('access-control-allow-methods', 'GET, HEAD, OPTIONS')
      .header('access-control-allow-headers', '*')
      .header('access-control-max-age', String(PREFLIGHT_S))
      .header('allow', 'GET, HEAD, OPTIONS')
      .send();
  });
}
