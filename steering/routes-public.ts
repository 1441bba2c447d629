// The public routes, which players call without a token: a ranked play, a redirect, steered manifests, the content steering
// list and the list of titles.

import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { publicTitles, type PublicTitles } from '../protocol/answers.ts';
import type { Title } from '../protocol/catalog.ts';
import { PATHWAYS_MAX, playAnswer, type PlayAnswer } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { hash32 } from '../protocol/hash.ts';
import { id, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { route, type Route } from '../runtime/service.ts';
import { jitteredTtlS } from './decide.ts';
import { decidePlay, playRequestFrom, type PlayDeps, type PlayRoute } from './play.ts';
import { steerDash } from './players/dash.ts';
import { steerHls } from './players/hls.ts';
import { parseAssetPath } from './players/pathway.ts';
import { parseDeclaredPathways, STEERING_LIST_TYPE, steeringList, steeringQuery } from './players/steering-list.ts';

export interface PublicDeps extends PlayDeps {
  /** Base URL of steering as players reach it; null takes it from the Host header. */
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

/** Unknown parameters are ignored: players and campaigns add their own (CMCD, utm_…). */
const routeQuery = z.object({ pathways: pathwaysQuery });
const playQuery = routeQuery.extend({ session: steeringQuery.shape.session });
const titleParams = z.object({ title: id });

export const publicRoutes = (deps: PublicDeps): Route[] => [
  titlesRoute(deps),
  playRoute(deps),
  redirectRoute(deps),
  steeringListRoute(deps),
  manifestRoute('hls', deps),
  manifestRoute('dash', deps),
];

function titlesRoute(deps: PublicDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/titles',
    summary: 'Titles that can be played.',
    roles: null,
    answer: publicTitles,
    run: (): PublicTitles => ({ protocol: PROTOCOL_VERSION, titles: deps.catalog.titles.map(publicTitle) }),
  });
}

function playRoute(deps: PublicDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/play/:title',
    summary: 'Ranked pathways for this client, with a reason for each, and the manifests.',
    roles: null,
    params: titleParams,
    query: playQuery,
    answer: playAnswer,
    faults: ['not_found', 'request_malformed'],
    run: ({ params, query, address, request, reply }): PlayAnswer => {
      const title = deps.catalog.get(params.title);
      const playRequest = playRequestFrom({ ...query, title: title.id, address });
      const { decision } = decidePlay(deps, playRequest, countable('play', request, query));
      disableCaching(reply);
      // The links carry the session, so that the manifests belong to this decision and the play is counted once.
      const search = `?session=${decision.id}&pathways=${playRequest.pathwaysMax}`;
      return { ...decision, manifests: manifestLinks(title, publicBase(deps, request), search) };
    },
  });
}

function redirectRoute(deps: PublicDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/route/*',
    summary: 'Redirects to the asset on the first pathway; Link names the others (RFC 6249).',
    roles: null,
    query: routeQuery,
    faults: ['asset_uncatalogued', 'request_malformed'],
    run: ({ query, address, request, reply }) => {
      const path = requestedAssetPath(request);
      const title = deps.catalog.findByPath(path);
      if (title === null)
        throw new Fault('asset_uncatalogued', `${path.slice(0, 200)} lies below no title of the catalog`);
      const playRequest = playRequestFrom({ ...query, title: title.id, address });
      // Segments are requested one by one; only the manifest of a title counts as a play.
      const isManifest = title.manifests.some((manifest) => manifest.path === path);
      const { decision } = decidePlay(deps, playRequest, isManifest ? countable('route', request) : null);
      const [first, ...others] = decision.pathways;
      disableCaching(reply);
      if (others.length > 0)
        void reply.header(
          'link',
          others.map(({ base }, index) => `<${base}${path}>; rel=duplicate; pri=${index + 2}`).join(', '),
        );
      return reply.redirect(`${first!.base}${path}`, 302);
    },
  });
}

function steeringListRoute(deps: PublicDeps): Route {
  return route({
    method: 'GET',
    path: '/v1/steering/:title',
    summary: 'Content steering for HLS and DASH: orders the pathways that the manifest declared.',
    roles: null,
    params: titleParams,
    query: steeringQuery,
    faults: ['request_malformed'],
    run: ({ query, reply }) => {
      const declared = parseDeclaredPathways(query.pathways);
      const avoided = new Set(declared.filter((pathway) => deps.fleet.shouldSteerAway(pathway)));
      deps.metrics.add('larder_steering_lists_total', 1, { moved: String(avoided.size > 0) });
      const ttlS = jitteredTtlS(deps.settings.ttlMs, jitterFraction(query.session, deps));
      disableCaching(reply);
      return reply.type(STEERING_LIST_TYPE).send(JSON.stringify(steeringList(declared, avoided, ttlS)));
    },
  });
}

function manifestRoute(dialect: Dialect, deps: PublicDeps): Route {
  const { file, type } = MANIFESTS[dialect];
  return route({
    method: 'GET',
    path: `/v1/titles/:title/${file}`,
    summary: `The title's ${dialect.toUpperCase()} manifest with a pathway per appliance and the origin last.`,
    roles: null,
    params: titleParams,
    query: playQuery,
    faults: ['not_found', 'request_malformed'],
    run: ({ params, query, address, request, reply }) => {
      const title = deps.catalog.get(params.title);
      const manifest = title.manifests.find((candidate) => candidate.dialect === dialect);
      if (manifest === undefined)
        throw new Fault(
          'not_found',
          `${title.id} has no ${dialect.toUpperCase()} manifest; it was imported without one`,
        );
      const playRequest = playRequestFrom({ ...query, title: title.id, address });
      const { decision } = decidePlay(deps, playRequest, countable(dialect, request, query));
      const ids = decision.pathways.map((pathway) => pathway.id).join(',');
      const steering = {
        manifest: { originBase: deps.settings.originBase, path: manifest.path },
        pathways: decision.pathways,
        serverUri: `${publicBase(deps, request)}/v1/steering/${title.id}?session=${decision.id}&pathways=${ids}`,
        bandwidth: title.durationS > 0 ? (title.bytes * 8) / title.durationS : 1,
      };
      disableCaching(reply);
      return reply
        .type(type)
        .send(dialect === 'hls' ? steerHls(manifest.text, steering) : steerDash(manifest.text, steering));
    },
  });
}

const publicTitle = (title: Title): PublicTitles['titles'][number] => ({
  id: title.id,
  name: title.name,
  durationS: title.durationS,
  dialects: dialectsOf(title),
});

const dialectsOf = (title: Title): Dialect[] => [...new Set(title.manifests.map(({ dialect }) => dialect))];

const manifestLinks = (title: Title, base: string, search: string): PlayAnswer['manifests'] =>
  dialectsOf(title).map((dialect) => ({
    dialect,
    url: `${base}/v1/titles/${title.id}/${MANIFESTS[dialect].file}${search}`,
    path: title.manifests.find((manifest) => manifest.dialect === dialect)!.path,
  }));

/** The asset path as the client sent it, percent-encoding included. Throws `request_malformed`. */
function requestedAssetPath(request: FastifyRequest): string {
  const raw = request.url.replace(/[?#].*$/s, '').slice('/v1/route'.length);
  const result = parseAssetPath(raw);
  if ('problem' in result)
    throw new Fault('request_malformed', `the asset path ${JSON.stringify(raw.slice(0, 100))} ${result.problem}`, {
      detail: { field: 'path' },
    });
  return result.path;
}

const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

/** Base URL of this service as the client reaches it. The Host header is validated, because it is written into playlists. */
function publicBase({ publicUrl }: PublicDeps, request: FastifyRequest): string {
  if (publicUrl !== null) return publicUrl;
  const { host } = request;
  if (host === undefined || host === '') {
    const { localAddress, localPort } = request.socket;
    return `http://${localAddress?.includes(':') === true ? `[${localAddress}]` : localAddress}:${localPort}`;
  }
  if (!HOST.test(host))
    throw new Fault('request_malformed', `Host is ${JSON.stringify(host.slice(0, 100))}, which is not a host name`, {
      detail: { field: 'header.host' },
    });
  return `${request.protocol}://${host}`;
}

/** The route to count a play under; null for HEAD and for a session that began, and was counted, with an earlier request. */
const countable = (
  route: PlayRoute,
  request: FastifyRequest,
  query: { readonly session?: string | undefined } = {},
): PlayRoute | null => (request.method === 'HEAD' || query.session !== undefined ? null : route);

/** Hashing the session keeps players apart; the second varies the reloads of one player. */
const jitterFraction = (session: string | undefined, { clock }: PublicDeps): number =>
  session === undefined
    ? (clock.monotonic() % 1000) / 1000
    : hash32(`${session}\0${Math.floor(clock.now() / 1000)}`) / 2 ** 32;

const disableCaching = (reply: FastifyReply): void => void reply.header('cache-control', 'no-store');
