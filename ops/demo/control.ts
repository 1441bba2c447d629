// The demo's control port, for its page alone: stop, freeze, thaw and start the demo's own appliances. It listens on
// loopback, wants the random token that stands in the page's URL fragment (which browsers never send to a server), and
// answers no page but steering's.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ProcessState } from './service-process.ts';

const HOST = '127.0.0.1';
const ACTIONS = ['stop', 'freeze', 'thaw', 'start'] as const;
const CONNECTIONS_MAX = 64;

export type Action = (typeof ACTIONS)[number];

export interface Controlled {
  readonly ids: readonly string[];
  site(id: string): string;
  state(id: string): ProcessState;
  act(id: string, action: Action): Promise<void>;
}

export interface DemoControl {
  /** For the page's fragment: `demo=PORT.TOKEN`, short enough for one line of a terminal. */
  readonly fragment: string;
  readonly url: string;
  readonly token: string;
  close(): Promise<void>;
}

/** `page` is the only origin (scheme, host, port) whose scripts are answered. */
export async function createDemoControl(controlled: Controlled, page: string): Promise<DemoControl> {
  const token = randomBytes(24).toString('base64url');
  const server = createServer((request, response) => {
    answer({ controlled, page, token, port: portOf(server) }, request, response).catch((error: unknown) =>
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

interface Door {
  readonly controlled: Controlled;
  readonly page: string;
  readonly token: string;
  readonly port: number;
}

async function answer(door: Door, request: IncomingMessage, response: ServerResponse): Promise<void> {
  request.resume();
  const { origin, host, authorization } = request.headers;
  // A name that a hostile DNS server points at loopback shows in Host, and a foreign page in Origin.
  if (host !== `${HOST}:${door.port}`) return send(response, 403, { error: 'this port answers to its address alone' });
  if (origin !== undefined && origin !== door.page)
    return send(response, 403, { error: `pages of ${origin.slice(0, 200)} may not use this port` });
  response.setHeader('access-control-allow-origin', door.page);
  response.setHeader('vary', 'Origin');
  if (request.method === 'OPTIONS') {
    response.setHeader('access-control-allow-methods', 'GET, POST');
    response.setHeader('access-control-allow-headers', 'Authorization');
    response.setHeader('access-control-allow-private-network', 'true');
    return send(response, 204, null);
  }
  if (!sameToken(authorization, door.token)) {
    response.setHeader('www-authenticate', 'Bearer realm="larder demo"');
    return send(response, 401, { error: 'the token of this demo is missing or wrong' });
  }
  const [, version, noun, id = '', action = '', ...rest] = (request.url ?? '').split('/');
  if (version === 'v1' && noun === 'appliances' && rest.length === 0) {
    if (id === '' && request.method === 'GET') return send(response, 200, status(door.controlled));
    if (door.controlled.ids.includes(id) && isAction(action) && request.method === 'POST') {
      await door.controlled.act(id, action);
      return send(response, 200, status(door.controlled));
    }
  }
  send(response, 404, { error: 'GET /v1/appliances, or POST /v1/appliances/{id}/{stop|freeze|thaw|start}' });
}

function status(controlled: Controlled): unknown {
  return {
    appliances: controlled.ids.map((id) => ({ id, site: controlled.site(id), state: controlled.state(id) })),
  };
}

const isAction = (text: string): text is Action => (ACTIONS as readonly string[]).includes(text);

function sameToken(authorization: string | undefined, token: string): boolean {
  const given = Buffer.from(authorization ?? '');
  const wanted = Buffer.from(`Bearer ${token}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
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
