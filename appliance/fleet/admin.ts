// The admin listener: liveness, readiness and metrics for monitoring; state, assets, inventory and purge for the operator.

import { timingSafeEqual } from 'node:crypto';
import { z } from 'zod';
import { Fault } from '../../protocol/faults.ts';
import { id } from '../../protocol/ids.ts';
import { verifyToken, type Caller } from '../../runtime/auth.ts';
import type { Log } from '../../runtime/log.ts';
import { createService, route, type Route, type Service } from '../../runtime/service.ts';
import type { Lookup, PurgeSelection } from '../fetch/lookup.ts';
import type { Cache } from '../store/cache.ts';

const ASSETS_PAGE_MAX = 1_000;
/** Keys that the answer to a purge names. */
const PURGED_SHOWN_MAX = 100;

const target = z.string().min(1).max(8_192);
const dryRun = z.boolean().default(false);

export interface AdminDeps {
  readonly appliance: string;
  readonly fleetKey: Buffer | null;
  readonly token: string | null;
  readonly cache: Cache;
  readonly lookup: Lookup;
  /** Throws `overloaded` when a worker stays away. */
  readonly allWorkersLinked: () => Promise<void>;
  /** The key of a path or URL, as of a player's request. Throws `request_malformed`. */
  readonly keyOf: (target: string) => string;
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

/** Spellings of a path that name the same asset for a player name it here, too. Throws `request_malformed`. */
function selectionOf(
  body: { readonly key: string } | { readonly prefix: string } | { readonly title: string },
  keyOf: AdminDeps['keyOf'],
): PurgeSelection {
  if ('title' in body) return { kind: 'title', title: body.title };
  if ('key' in body) return { kind: 'asset', key: keyOf(body.key) };
  return { kind: 'prefix', prefix: keyOf(body.prefix) };
}

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
      summary:
        'Removes what is stored of one asset (`key`, a path or URL), of all below a `prefix`, or of a `title`: every variant, and errors that are remembered. The answer is sent when no worker serves any of it; with `dryRun` nothing is removed.',
      roles: ['operator'],
      body: z.union(
        [
          z.strictObject({ key: target, dryRun }),
          z.strictObject({ prefix: target, dryRun }),
          z.strictObject({ title: id, dryRun }),
        ],
        { error: 'give one of key, prefix and title, each a text, and dryRun where nothing is to be removed' },
      ),
      faults: ['request_malformed', 'overloaded'],
      run: async ({ body }) => {
        const selection = selectionOf(body, deps.keyOf);
        // One that has not linked yet could go on serving what it knew.
        if (!body.dryRun) await deps.allWorkersLinked();
        const { entries, keys, errors } = body.dryRun
          ? deps.lookup.purgeable(selection)
          : await deps.lookup.purge(selection);
        return {
          purged: entries.length,
          bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0),
          errors: errors.length,
          dryRun: body.dryRun,
          keys: keys.slice(0, PURGED_SHOWN_MAX),
        };
      },
    }),
  ];
}
