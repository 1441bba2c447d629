// The HTTP service of steering: all routes on one listener, with CORS headers on those that players call from pages of other
// origins.

import type { FastifyInstance } from 'fastify';
import type { Log } from '../runtime/log.ts';
import { createService, type Service } from '../runtime/service.ts';
import { uiRoutes, type UiFile } from './players/ui.ts';
import { controlRoutes, type ControlDeps } from './routes-control.ts';
import { publicRoutes, type PublicDeps } from './routes-public.ts';

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
  allowCrossOrigin(service.app);
  return service;
}

const CROSS_ORIGIN_PATH = /^\/v1\/(?:play\/|route\/|steering\/|titles(?:[/?]|$))/;
const PREFLIGHT_S = 86_400;

/**
 * Sets the headers before anything else runs, because a page must be able to read a failed answer too. Retry-After is exposed
 * for hls.js, Link and Location for players that choose a pathway themselves.
 */
function allowCrossOrigin(app: FastifyInstance): void {
  app.addHook('onRequest', async (request, reply) => {
    if (!CROSS_ORIGIN_PATH.test(request.url)) return;
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
