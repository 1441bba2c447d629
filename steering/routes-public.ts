// What players ask, without a token: a ranked play, a redirect, steered manifests, the steering list, the titles.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { publicTitles, type PublicTitles } from '../protocol/answers.ts';
import type { Title } from '../protocol/catalog.ts';
import { PATHWAYS_DEFAULT, PATHWAYS_MAX, playAnswer, type Decision, type PlayAnswer } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { id, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { hash32 } from '../protocol/hash.ts';
import { route, type Route } from '../runtime/service.ts';
import type { Catalog } from './catalog.ts';
import { steerDash } from './players/dash.ts';
import { steerHls } from './players/hls.ts';
import { assetPathOf } from './players/pathway.ts';
import { decidePlay, type PlayDeps } from './play.ts';
import {
  declaredPathways,
  jitteredTtlS,
  STEERING_LIST_TYPE,
  steeringList,
  steeringQuery,
} from './players/steering-list.ts';

export interface PublicDeps extends PlayDeps {
  readonly catalog: Catalog;
  /** Null: from the Host header. */
  readonly publicUrl: string | null;
}

type Dialect = 'hls' | 'dash';

const MANIFESTS = {
  hls: { file: 'master.m3u8', type: 'application/vnd.apple.mpegurl' },
  dash: { file: 'manifest.mpd', type: 'application/dash+xml' },
} as const satisfies Record<Dialect, { readonly file: string; readonly type: string }>;

export const pathwaysQuery = z
  .string()
  .regex(/^[1-9]\d{0,2}$/, `must be a whole number from 1 to ${PATHWAYS_MAX}`)
  .transform(Number)
  .refine((count) => count <= PATHWAYS_MAX, `must be a whole number from 1 to ${PATHWAYS_MAX}`)
  .optional();

/** Unknown parameters pass: players and campaigns add their own (CMCD, utm_…). */
const playQuery = z.object({ pathways: pathwaysQuery });
const sessionQuery = playQuery.extend({ session: steeringQuery.shape.session });
const titleParams = z.object({ title: id });

export function publicRoutes(deps: PublicDeps): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/titles',
      summary: 'Titles that can be played.',
      roles: null,
      answer: publicTitles,
      run: (): PublicTitles => ({ protocol: PROTOCOL_VERSION, titles: deps.catalog.titles.map(publicTitle) }),
    }),
    route({
      method: 'GET',
      path: '/v1/play/:title',
      summary: 'Ranked pathways for this client, with a reason for each, and the manifests.',
      roles: null,
      params: titleParams,
      query: sessionQuery,
      answer: playAnswer,
      faults: ['not_found', 'request_malformed'],
      run: ({ params, query, address, request, reply }): PlayAnswer => {
        const title = findTitle(deps, params.title);
        const pathways = query.pathways ?? PATHWAYS_DEFAULT;
        const { decision } = decidePlay(deps, {
          title,
          address,
          // Asked again within a play, as the page does: the same session, and not another play.
          session: query.session ?? null,
          pathways,
          countAs: counted(request, 'play'),
        });
        uncached(reply);
        return { ...decision, manifests: manifestsOf(title, { decision, pathways, base: publicBase(deps, request) }) };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/route/*',
      summary: 'Redirects to the asset on the first pathway; Link names the others (RFC 6249).',
      roles: null,
      query: playQuery,
      faults: ['asset_uncatalogued', 'request_malformed'],
      run: ({ query, address, request, reply }) => {
        const path = routedPath(request);
        const title = deps.catalog.owning(path);
        if (title === null)
          throw new Fault('asset_uncatalogued', `${path.slice(0, 200)} lies below no title of the catalog`);
        const isManifest = title.manifests.some((manifest) => manifest.path === path);
        const { decision } = decidePlay(deps, {
          title,
          address,
          session: null,
          pathways: query.pathways ?? PATHWAYS_DEFAULT,
          // Segments come one by one; only the manifest of a title is a play.
          countAs: isManifest ? counted(request, 'route') : null,
        });
        const [first, ...others] = decision.pathways;
        uncached(reply);
        if (others.length > 0)
          void reply.header(
            'link',
            others.map(({ base }, at) => `<${base}${path}>; rel=duplicate; pri=${at + 2}`).join(', '),
          );
        return reply.redirect(`${first!.base}${path}`, 302);
      },
    }),
    route({
      method: 'GET',
      path: '/v1/steering/:title',
      summary: 'Content steering for HLS and DASH: orders the pathways that the manifest declared.',
      roles: null,
      params: titleParams,
      query: steeringQuery,
      faults: ['request_malformed'],
      run: ({ query, reply }) => {
        const declared = declaredPathways(query.pathways);
        const gone = new Set(declared.filter((name) => deps.fleet.mustLeave(name)));
        deps.metrics.add('larder_steering_lists_total', 1, { moved: String(gone.size > 0) });
        uncached(reply);
        const list = steeringList(
          declared,
          (name) => gone.has(name),
          jitteredTtlS(deps.ttlMs, jitterOf(query.session, deps)),
        );
        return reply.type(STEERING_LIST_TYPE).send(JSON.stringify(list));
      },
    }),
    manifestRoute('hls', deps),
    manifestRoute('dash', deps),
  ];
}

function manifestRoute(dialect: Dialect, deps: PublicDeps): Route {
  const { file, type } = MANIFESTS[dialect];
  return route({
    method: 'GET',
    path: `/v1/titles/:title/${file}`,
    summary: `The title's ${dialect.toUpperCase()} manifest with a pathway per appliance and the origin last.`,
    roles: null,
    params: titleParams,
    query: sessionQuery,
    faults: ['not_found', 'request_malformed'],
    run: ({ params, query, address, request, reply }) => {
      const title = findTitle(deps, params.title);
      const manifest = title.manifests.find((candidate) => candidate.dialect === dialect);
      if (manifest === undefined)
        throw new Fault(
          'not_found',
          `${title.id} has no ${dialect.toUpperCase()} manifest; it was imported without one`,
        );
      const { decision } = decidePlay(deps, {
        title,
        address,
        session: query.session ?? null,
        pathways: query.pathways ?? PATHWAYS_DEFAULT,
        countAs: counted(request, dialect),
      });
      const ids = decision.pathways.map((pathway) => pathway.id).join(',');
      const steering = {
        place: { originBase: deps.originBase, path: manifest.path },
        pathways: decision.pathways,
        serverUri: `${publicBase(deps, request)}/v1/steering/${title.id}?session=${decision.id}&pathways=${ids}`,
        bandwidth: title.durationS > 0 ? (title.bytes * 8) / title.durationS : 1,
      };
      uncached(reply);
      return reply
        .type(type)
        .send(dialect === 'hls' ? steerHls(manifest.text, steering) : steerDash(manifest.text, steering));
    },
  });
}

export function findTitle({ catalog }: { readonly catalog: Catalog }, title: string): Title {
  const found = catalog.find(title);
  if (found === null)
    throw new Fault(
      'not_found',
      `no title "${title}" in the catalog (revision ${catalog.revision}); \`larder catalog ls\` lists them`,
    );
  return found;
}

const publicTitle = (title: Title): PublicTitles['titles'][number] => ({
  id: title.id,
  name: title.name,
  durationS: title.durationS,
  dialects: dialectsOf(title),
});

const dialectsOf = (title: Title): Dialect[] => [...new Set(title.manifests.map(({ dialect }) => dialect))];

/** The session rides along, so that the manifest belongs to this decision and the play is counted once. */
function manifestsOf(
  title: Title,
  { decision, pathways, base }: { readonly decision: Decision; readonly pathways: number; readonly base: string },
): PlayAnswer['manifests'] {
  return dialectsOf(title).map((dialect) => ({
    dialect,
    url: `${base}/v1/titles/${title.id}/${MANIFESTS[dialect].file}?session=${decision.id}&pathways=${pathways}`,
    path: title.manifests.find((manifest) => manifest.dialect === dialect)!.path,
  }));
}

/** The asset path as it was sent, percent-encoding kept. Throws `request_malformed`. */
function routedPath(request: FastifyRequest): string {
  const raw = request.url.replace(/[?#].*$/s, '').slice('/v1/route'.length);
  const result = assetPathOf(raw);
  if ('problem' in result)
    throw new Fault('request_malformed', `the asset path ${JSON.stringify(raw.slice(0, 100))} ${result.problem}`, {
      detail: { field: 'path' },
    });
  return result.path;
}

const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

/** Base URL of this service as the client reaches it. A Host header goes into playlists: it is checked, not believed. */
function publicBase({ publicUrl }: PublicDeps, request: FastifyRequest): string {
  if (publicUrl !== null) return publicUrl;
  const { host } = request;
  if (host === undefined || host === '') {
    const { localAddress, localPort } = request.socket;
    return `http://${localAddress?.includes(':') === true ? `[${localAddress}]` : localAddress}:${localPort}`;
  }
  if (!HOST.test(host))
    throw new Fault('request_malformed', `Host is ${JSON.stringify(host.slice(0, 100))}, which is no host name`, {
      detail: { field: 'header.host' },
    });
  return `${request.protocol}://${host}`;
}

const counted = <R extends 'play' | Dialect | 'route'>(request: FastifyRequest, as: R): R | null =>
  request.method === 'HEAD' ? null : as;

/** By session where there is one, so that a player's reloads keep their rhythm and players differ. */
const jitterOf = (session: string | undefined, { clock }: PublicDeps): number =>
  session === undefined
    ? (clock.monotonic() % 1000) / 1000
    : hash32(`${session}\0${Math.floor(clock.now() / 1000)}`) / 2 ** 32;

const uncached = (reply: FastifyReply): void => void reply.header('cache-control', 'no-store');
