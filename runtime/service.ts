// The server of a control API: a table of routes with zod schemas becomes a fastify server with validation, authorization, faults as
// JSON, /healthz, /metrics and /openapi.json. Video is not served by it.

import type * as Fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { Fault, FAULTS, faultBody, isFault, type FaultCode } from '../protocol/faults.ts';
import { verifyToken, type Caller, type Role } from './auth.ts';
import { loadCommonJs } from './commonjs.ts';
import { formatHostPort, type HostPort } from './config.ts';
import type { Log } from './log.ts';
import { packageVersion } from './paths.ts';

const { fastify } = loadCommonJs('fastify') as typeof Fastify;

export const BODY_BYTES_MAX = 4 * 2 ** 20;
const REQUEST_TIMEOUT_MS = 30_000;
const CONNECTIONS_CHECK_MS = 1_000;

export interface Exchange<P, Q, B> {
  readonly params: P;
  readonly query: Q;
  readonly body: B;
  /** Null on public routes. */
  readonly caller: Caller | null;
  /** Address of the peer, or of the client that a trusted proxy names. */
  readonly address: string;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** Fastify path: `/v1/titles/:id`, `/v1/route/*`. */
  readonly path: string;
  readonly summary: string;
  /** Roles that may call the route; null if it is public. */
  readonly roles: readonly Role[] | null;
  readonly params: z.ZodType;
  readonly query: z.ZodType;
  readonly body: z.ZodType;
  readonly answer: z.ZodType | null;
  readonly faults: readonly FaultCode[];
  /** Returns the body of the response, or undefined if it has written to `reply` itself. */
  readonly run: (exchange: Exchange<never, never, never>) => unknown;
}

const emptyObject = z.object({});
/** Routes are validated by zod. Fastify's own schema compilers would take a third of its loading time. */
const noCompiler = () => (): never => {
  throw new Fault('internal', 'a route has a schema of fastify');
};

/** Infers the types of a route from its schemas. A schema that is left out accepts anything. */
export function route<
  P extends z.ZodType = typeof emptyObject,
  Q extends z.ZodType = typeof emptyObject,
  B extends z.ZodType = z.ZodUndefined,
>(spec: {
  method: Route['method'];
  path: string;
  summary: string;
  roles: readonly Role[] | null;
  params?: P;
  query?: Q;
  body?: B;
  answer?: z.ZodType;
  faults?: readonly FaultCode[];
  run: (exchange: Exchange<z.infer<P>, z.infer<Q>, z.infer<B>>) => unknown;
}): Route {
  return {
    method: spec.method,
    path: spec.path,
    summary: spec.summary,
    roles: spec.roles,
    params: spec.params ?? z.looseObject({}),
    query: spec.query ?? z.looseObject({}),
    body: spec.body ?? z.unknown(),
    answer: spec.answer ?? null,
    faults: spec.faults ?? [],
    run: spec.run,
  };
}

interface ServiceDeps {
  readonly name: string;
  readonly log: Log;
  readonly routes: readonly Route[];
  /** Required if a route names roles. */
  readonly fleetKey: Buffer | null;
  /** Replaces the fleet key if a service verifies its callers otherwise. Throws `token_missing` or `token_forged`. */
  readonly verify?: (authorization: string | undefined) => Caller;
  readonly expose: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** Proxies whose X-Forwarded-For is trusted, as addresses or CIDR prefixes. */
  readonly trustProxy?: readonly string[];
}

export interface Service {
  readonly app: FastifyInstance;
  /** Resolves with the bound address, with the actual port if 0 was given. Throws `config_invalid`. */
  listen(at: HostPort): Promise<HostPort>;
  close(): Promise<void>;
}

export function createService(deps: ServiceDeps): Service {
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 1200 },
    schemaController: { compilersFactory: { buildValidator: noCompiler, buildSerializer: noCompiler } },
    trustProxy: deps.trustProxy === undefined || deps.trustProxy.length === 0 ? false : [...deps.trustProxy],
    http: { connectionsCheckingInterval: CONNECTIONS_CHECK_MS, headersTimeout: 10_000 },
  });
  app.setErrorHandler((error, request, reply) => answerFault(toFault(error), request, reply, deps.log));
  app.setNotFoundHandler((request, reply) =>
    answerFault(
      new Fault('not_found', `${request.method} ${request.url.slice(0, 200)} is not a route of ${deps.name}`, {
        help: 'GET /openapi.json lists the routes.',
      }),
      request,
      reply,
      deps.log,
    ),
  );
  app.get('/healthz', () => ({ ok: true, service: deps.name, version: packageVersion }));
  app.get('/openapi.json', () => openapi(deps));
  const metricsRoute = route({
    method: 'GET',
    path: '/metrics',
    summary: 'Metrics in the Prometheus text format.',
    roles: deps.fleetKey === null ? null : ['operator', 'service'],
    run: async ({ reply }) => {
      const { contentType, body } = await deps.expose();
      return reply.type(contentType).send(body);
    },
  });
  for (const spec of [...deps.routes, metricsRoute]) mount(app, spec, deps);
  return {
    app,
    listen: async (at) => {
      try {
        await app.listen({ host: at.host, port: at.port });
      } catch (error) {
        // A port in use or an address of another machine is a configuration error, not a defect.
        throw new Fault('config_invalid', `cannot listen at ${formatHostPort(at)}: ${(error as Error).message}`, {
          cause: error,
        });
      }
      const bound = app.server.address();
      const port = bound !== null && typeof bound === 'object' ? bound.port : at.port;
      deps.log.info({ listen: formatHostPort({ host: at.host, port }) }, 'listening');
      return { host: at.host, port };
    },
    close: () => app.close(),
  };
}

function mount(app: FastifyInstance, spec: Route, deps: ServiceDeps): void {
  const { roles } = spec;
  const callers = new WeakMap<FastifyRequest, Caller>();
  app.route({
    method: spec.method,
    url: spec.path,
    // Authorized before the body is read, so that unauthorized callers cannot make the service parse megabytes.
    onRequest: async (request) => {
      if (roles !== null) callers.set(request, authorize(roles, deps, request));
    },
    handler: async (request, reply) => {
      return spec.run({
        params: validate(spec.params, request.params, 'path') as never,
        query: validate(spec.query, request.query, 'query') as never,
        body: validate(spec.body, request.body, 'body') as never,
        caller: callers.get(request) ?? null,
        address: plainAddress(request.ip),
        request,
        reply,
      });
    },
  });
}

function authorize(roles: readonly Role[], deps: ServiceDeps, request: FastifyRequest): Caller {
  const { fleetKey, verify } = deps;
  if (verify === undefined && fleetKey === null)
    throw new Fault('token_missing', 'this service has no fleet key and admits nobody');
  const { authorization } = request.headers;
  const caller = verify === undefined ? verifyToken(fleetKey!, authorization) : verify(authorization);
  if (!roles.includes(caller.role))
    throw new Fault(
      'token_forged',
      `a token for ${caller.role} may not ${request.method} ${request.url.slice(0, 200)}`,
    );
  return caller;
}

/** Throws `body_invalid`, or `request_malformed` for path and query, with field, value and what is expected. */
function validate(schema: z.ZodType, value: unknown, where: 'path' | 'query' | 'body'): unknown {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = [where, ...issue.path.map(String)].join('.');
  const found = JSON.stringify(valueAt(value, issue.path))?.slice(0, 100) ?? 'nothing';
  throw new Fault(where === 'body' ? 'body_invalid' : 'request_malformed', `${field} is ${found}: ${issue.message}`, {
    detail: { field },
  });
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) =>
      typeof inner === 'object' && inner !== null ? (inner as Record<PropertyKey, unknown>)[key] : undefined,
    value,
  );
}

/** Converts an IPv4-mapped address such as `::ffff:192.0.2.1`, which a dual-stack listener reports for IPv4 peers. */
const plainAddress = (address: string): string =>
  address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;

function toFault(error: unknown): Fault {
  if (isFault(error)) return error;
  const status = (error as { statusCode?: number }).statusCode ?? 500;
  const message = error instanceof Error ? error.message : String(error);
  if (status === 413) return new Fault('body_too_large', `the body exceeds ${BODY_BYTES_MAX} bytes`);
  if (status >= 400 && status < 500) return new Fault('request_malformed', message);
  return new Fault('internal', 'the request failed inside Larder', { cause: error });
}

function answerFault(fault: Fault, request: FastifyRequest, reply: FastifyReply, log: Log): FastifyReply {
  if (fault.spec.status >= 500)
    log.error({ err: fault, method: request.method, url: request.url.slice(0, 200) }, fault.message);
  if (fault.spec.status === 401) void reply.header('www-authenticate', 'Bearer realm="larder"');
  return reply.code(fault.spec.status).send(faultBody(fault));
}

/** The OpenAPI 3.1 description, from the table of routes. */
function openapi(deps: ServiceDeps): unknown {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const spec of deps.routes) {
    const path = spec.path.replaceAll(/:([A-Za-z]+)/g, '{$1}').replace('*', '{path}');
    const names = [...path.matchAll(/\{([A-Za-z]+)\}/g)].map((match) => match[1]!);
    const query = spec.query instanceof z.ZodObject ? Object.entries(spec.query.shape) : [];
    const operation: Record<string, unknown> = {
      summary: spec.summary,
      parameters: [
        ...names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
        ...query.map(([name, schema]) => ({
          name,
          in: 'query',
          required: !(schema as z.ZodType).safeParse(undefined).success,
          schema: jsonSchema(schema as z.ZodType),
        })),
      ],
      responses: {
        200: {
          description: 'Done',
          ...(spec.answer === null ? {} : { content: { 'application/json': { schema: jsonSchema(spec.answer) } } }),
        },
        ...Object.fromEntries(
          spec.faults.map((code) => [FAULTS[code].status, { description: `${code}: ${FAULTS[code].help}` }]),
        ),
      },
    };
    if (spec.roles !== null) {
      operation['security'] = [{ bearer: [] }];
      operation['x-larder-roles'] = spec.roles;
    }
    if (spec.body instanceof z.ZodObject)
      operation['requestBody'] = { required: true, content: { 'application/json': { schema: jsonSchema(spec.body) } } };
    (paths[path] ??= {})[spec.method.toLowerCase()] = operation;
  }
  return {
    openapi: '3.1.0',
    info: { title: `Larder ${deps.name}`, version: packageVersion },
    paths,
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
  };
}

function jsonSchema(schema: z.ZodType): unknown {
  return z.toJSONSchema(schema, { unrepresentable: 'any', io: 'input' });
}
