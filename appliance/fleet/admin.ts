// The admin listener: liveness, readiness and metrics for monitoring; state, assets, inventory and purge for the operator.

import { timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { verifyToken, type Caller } from '../../runtime/auth.ts';
import type { Log } from '../../runtime/log.ts';
import { createService, route, type Route, type Service } from '../../runtime/service.ts';
import type { Cache } from '../store/cache.ts';

const ASSETS_PAGE_MAX = 1_000;

export interface AdminDeps {
  readonly appliance: string;
  readonly fleetKey: Buffer | null;
  readonly token: string | null;
  readonly cache: Cache;
  readonly ready: () => boolean;
  readonly status: () => Readonly<Record<string, unknown>>;
  readonly inventory: () => { readonly held: readonly string[]; readonly pinned: readonly string[] };
  readonly expose: () => Promise<{ readonly contentType: string; readonly body: string }>;
  readonly log: Log;
}

export function createAdmin(deps: AdminDeps): Service {
  const service = createService({
    name: 'appliance',
    log: deps.log,
    routes: routesOf(deps),
    fleetKey: deps.fleetKey,
    verify: (authorization) => verify(deps, authorization),
    expose: deps.expose,
  });
  service.app.get('/readyz', (_request, reply) => {
    const ready = deps.ready();
    return reply.code(ready ? 200 : 503).send({ ready });
  });
  return service;
}

/** Accepts the tokens of the fleet key, or the appliance's own token, which is all that an appliance without that key can verify. */
function verify(deps: AdminDeps, authorization: string | undefined): Caller {
  const bearer = /^Bearer +(\S{1,300})$/i.exec(authorization ?? '')?.[1] ?? null;
  if (bearer !== null && deps.token !== null && sameText(bearer, deps.token))
    return { role: 'appliance', id: deps.appliance };
  if (deps.fleetKey === null) {
    if (bearer === null) throw new Fault('token_missing', 'no bearer token was sent');
    throw new Fault('token_forged', "the token is not this appliance's own, and it has no fleet key to check another");
  }
  const caller = verifyToken(deps.fleetKey, authorization);
  if (caller.role === 'appliance' && caller.id !== deps.appliance)
    throw new Fault('token_forged', `a token of appliance ${caller.id} may not ask ${deps.appliance}`);
  return caller;
}

function sameText(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

const roles = ['operator', 'service', 'appliance'] as const;

function routesOf(deps: AdminDeps): Route[] {
  const { cache } = deps;
  return [
    route({
      method: 'GET',
      path: '/v1/state',
      summary: 'Identity, state and health of this appliance, and the use of its volumes in bytes.',
      roles,
      run: () => ({ ...deps.status(), volumes: cache.usage() }),
    }),
    route({
      method: 'GET',
      path: '/v1/assets',
      summary: 'Assets in the index: key, version, bytes, blocks present.',
      roles,
      query: z.object({
        prefix: z.string().max(1024).optional(),
        limit: z.coerce.number().int().min(1).max(ASSETS_PAGE_MAX).optional(),
      }),
      run: ({ query }) => {
        const assets = [];
        for (const entry of cache.entries()) {
          if (assets.length >= (query.limit ?? ASSETS_PAGE_MAX)) break;
          if (query.prefix !== undefined && !entry.key.startsWith(query.prefix)) continue;
          assets.push({
            key: entry.key,
            version: entry.version,
            bytes: entry.bytes,
            blocks: entry.blocks.count,
            pinned: cache.isPinned(entry),
            holding: entry.holding,
            volume: entry.volume.number,
          });
        }
        return { total: cache.assets, assets };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/inventory',
      summary: 'Renditions held completely, and pinned ones.',
      roles,
      run: () => deps.inventory(),
    }),
    route({
      method: 'POST',
      path: '/v1/purge',
      summary: 'Removes one asset by key. The answer is sent when no worker serves it any more.',
      roles: ['operator'],
      body: z.object({ key: z.string().min(1).max(4096) }),
      faults: ['not_found'],
      run: async ({ body }) => {
        const entry = cache.find(body.key);
        if (entry === null) throw new Fault('not_found', `${body.key} is not in the index`);
        await cache.removeEntry(entry);
        return { purged: entry.key, version: entry.version };
      },
    }),
  ];
}
