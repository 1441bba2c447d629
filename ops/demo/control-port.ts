// The control port of the demo, through which its page stops, freezes, thaws and starts the demo's appliances. It listens on
// loopback, requires a random token from the fragment of the page's URL (browsers never send a fragment to a server), and accepts
// no page but that of steering.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ProcessState } from './service-process.ts';

const HOST = '127.0.0.1';
const ACTIONS = ['stop', 'freeze', 'thaw', 'start'] as const;
const CONNECTIONS_MAX = 64;

export type ControlAction = (typeof ACTIONS)[number];

export interface ControlledAppliances {
  readonly ids: readonly string[];
  site(id: string): string;
  state(id: string): ProcessState;
  apply(id: string, action: ControlAction): Promise<void>;
}

export interface ControlPort {
  /** Fragment of the page's URL, `demo=PORT.TOKEN`: short enough for one line of a terminal. */
  readonly fragment: string;
  readonly url: string;
  readonly token: string;
  close(): Promise<void>;
}

/** `pageOrigin` is the only web origin whose scripts are accepted. */
export async function startControlPort(appliances: ControlledAppliances, pageOrigin: string): Promise<ControlPort> {
  const token = randomBytes(24).toString('base64url');
  const server = createServer((request, response) => {
    respond({ appliances, pageOrigin, token, port: portOf(server) }, request, response).catch((error: unknown) =>
      send(response, 500, { error: (error as Error).message }),
    );
  });
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, HOST, resolve);
  });
  const url = `http://${HOST}:${portOf(server)}`;
  return {
    url,
    token,
    fragment: `demo=${portOf(server)}.${token}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface ControlPortDeps {
  readonly appliances: ControlledAppliances;
  readonly pageOrigin: string;
  readonly token: string;
  readonly port: number;
}

async function respond(deps: ControlPortDeps, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume();
  const { origin, host, authorization } = request.headers;
  // DNS rebinding shows in Host, and a page of another web origin in Origin.
  if (host !== `${HOST}:${deps.port}`) return send(response, 403, { error: 'this port answers to its address alone' });
  if (origin !== undefined && origin !== deps.pageOrigin)
    return send(response, 403, { error: `pages of ${origin.slice(0, 200)} may not use this port` });
  response.setHeader('access-control-allow-origin', deps.pageOrigin);
  response.setHeader('vary', 'Origin');
  if (request.method === 'OPTIONS') {
    response.setHeader('access-control-allow-methods', 'GET, POST');
    response.setHeader('access-control-allow-headers', 'Authorization');
    response.setHeader('access-control-allow-private-network', 'true');
    return send(response, 204, null);
  }
  if (!tokenMatches(authorization, deps.token)) {
    response.setHeader('www-authenticate', 'Bearer realm="larder demo"');
    return send(response, 401, { error: 'the token of this demo is missing or wrong' });
  }
  const [, version, noun, id = '', action = '', ...rest] = (request.url ?? '').split('/');
  if (version === 'v1' && noun === 'appliances' && rest.length === 0) {
    if (id === '' && request.method === 'GET') return send(response, 200, describeAppliances(deps.appliances));
    if (deps.appliances.ids.includes(id) && isAction(action) && request.method === 'POST') {
      await deps.appliances.apply(id, action);
      return send(response, 200, describeAppliances(deps.appliances));
    }
  }
  send(response, 404, { error: 'GET /v1/appliances, or POST /v1/appliances/{id}/{stop|freeze|thaw|start}' });
}

function describeAppliances(appliances: ControlledAppliances): unknown {
  return {
    appliances: appliances.ids.map((id) => ({ id, site: appliances.site(id), state: appliances.state(id) })),
  };
}

const isAction = (text: string): text is ControlAction => (ACTIONS as readonly string[]).includes(text);

function tokenMatches(authorization: string | undefined, token: string): boolean {
  const actual = Buffer.from(authorization ?? '');
  const expected = Buffer.from(`Bearer ${token}`);
  return actual.length === expected.length && timingSafeEqual(actual, expected);
}

function send(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) return;
  if (body === null) {
    response.writeHead(status).end();
    return;
  }
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(body));
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;
