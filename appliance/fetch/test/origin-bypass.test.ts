// Requests that a worker forwards to the origin itself are bounded where all of them pass: in the bypass pool.

import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { LIMITS } from '../../limits.ts';
import { discardBody, Origin } from '../origin.ts';

let server: Server;
let origin: Origin;
const pending: ServerResponse[] = [];

beforeEach(async () => {
  pending.length = 0;
  server = createServer((_request, response) => pending.push(response)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const counters = { add: () => undefined };
  origin = new Origin({ url, reverseProxy: false, via: 'larder-test', clock: systemClock, counters });
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const fetchByte = (): ReturnType<Origin['fetch']> =>
  origin.fetch('bypass', { key: '/film', first: 0, last: 0, ifMatch: '"v1"', headers: {}, signal: null });

test('range requests of the bypass pool take turns beyond its permits, and are refused beyond its queue', async () => {
  const running = Array.from({ length: LIMITS.bypassesMax + LIMITS.bypassesWaitingMax }, fetchByte);
  for (const each of running) each.catch(() => undefined);
  await vi.waitUntil(() => pending.length === LIMITS.bypassesMax, { timeout: 10_000 });
  await expect(fetchByte()).rejects.toMatchObject({ code: 'overloaded' });
  expect(pending).toHaveLength(LIMITS.bypassesMax);
});

test('a permit is held until the body has ended, however it ends', async () => {
  const running = Array.from({ length: LIMITS.bypassesMax }, fetchByte);
  await vi.waitUntil(() => pending.length === LIMITS.bypassesMax, { timeout: 10_000 });
  const next = fetchByte();
  for (const response of pending.splice(0)) response.writeHead(200, { etag: '"v1"', 'content-length': 2 }).write('a');
  const answers = await Promise.all(running);
  expect(pending).toHaveLength(0);
  const first = answers[0]!;
  discardBody(first.body);
  await vi.waitUntil(() => pending.length === 1, { timeout: 10_000 });
  pending[0]!.writeHead(200, { etag: '"v1"', 'content-length': 1 }).end('a');
  expect((await next).kind).toBe('bytes');
});
