// The demo's control port kills processes, so it must accept its own page and nothing else.

import { request } from 'undici';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { startControlPort, type ControlAction, type ControlPort } from '../control-port.ts';

const PAGE = 'http://127.0.0.1:8400';
const applied: [string, ControlAction][] = [];
let control: ControlPort;

beforeAll(async () => {
  control = await startControlPort(
    {
      ids: ['north-1', 'south-1'],
      site: () => 'north',
      state: () => 'running',
      apply: (id, action) => {
        applied.push([id, action]);
        return Promise.resolve();
      },
    },
    PAGE,
  );
});

afterAll(() => control.close());
beforeEach(() => void applied.splice(0));

const STOP = '/v1/appliances/north-1/stop';

async function send(
  path: string,
  headers: Record<string, string>,
  method: 'GET' | 'POST' | 'OPTIONS' = 'POST',
): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  const response = await request(control.url + path, { method, headers });
  return { status: response.statusCode, headers: response.headers, body: await response.body.text() };
}

const bearer = (): string => `Bearer ${control.token}`;

test('the page stops an appliance with its token and lists the appliances', async () => {
  const stopped = await send(STOP, { authorization: bearer(), origin: PAGE });
  expect(stopped.status).toBe(200);
  expect(stopped.headers['access-control-allow-origin']).toBe(PAGE);
  expect(applied).toEqual([['north-1', 'stop']]);
  const list = await send('/v1/appliances', { authorization: bearer(), origin: PAGE }, 'GET');
  expect(JSON.parse(list.body)).toEqual({
    appliances: [
      { id: 'north-1', site: 'north', state: 'running' },
      { id: 'south-1', site: 'north', state: 'running' },
    ],
  });
});

test.each([
  ['no token', {}, 401],
  ['another token', { authorization: 'Bearer x' }, 401],
  ['a token of the right length', { authorization: `Bearer ${'A'.repeat(32)}` }, 401],
])('%s is refused', async (_what, headers, status) => {
  expect((await send(STOP, { origin: PAGE, ...headers })).status).toBe(status);
  expect((await send(STOP, headers)).status).toBe(status);
  expect(applied).toEqual([]);
});

test.each(['http://127.0.0.1:8401', 'http://localhost:8400', 'https://127.0.0.1:8400', 'http://evil.example', 'null'])(
  'a page of %s is refused even with the token, and so is its preflight',
  async (origin) => {
    const response = await send(STOP, { authorization: bearer(), origin });
    expect(response.status).toBe(403);
    const preflight = await send(STOP, { origin, 'access-control-request-method': 'POST' }, 'OPTIONS');
    expect(preflight.status).toBe(403);
    expect(preflight.headers['access-control-allow-origin']).toBeUndefined();
    expect(applied).toEqual([]);
  },
);

test('a request with a foreign host name is refused, as after DNS rebinding', async () => {
  const response = await send(STOP, { authorization: bearer(), host: 'evil.example' });
  expect(response.status).toBe(403);
  expect(applied).toEqual([]);
});

test("the preflight of the demo's page allows it to send the token", async () => {
  const { status, headers } = await send(STOP, { origin: PAGE, 'access-control-request-method': 'POST' }, 'OPTIONS');
  expect([status, headers['access-control-allow-origin']]).toEqual([204, PAGE]);
  expect(headers['access-control-allow-headers']).toContain('Authorization');
});

test.each([
  ['/v1/appliances/steering/stop', 'POST'],
  ['/v1/appliances/north-1/format', 'POST'],
  ['/v1/appliances/north-1/stop/now', 'POST'],
  [STOP, 'GET'],
  ['/', 'GET'],
] as const)('%s by %s is not found', async (path, method) => {
  expect((await send(path, { authorization: bearer() }, method)).status).toBe(404);
  expect(applied).toEqual([]);
});
