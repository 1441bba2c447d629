// The demo's control port: it kills processes, so it must answer its own page and nobody else.

import { request } from 'undici';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createDemoControl, type Action, type DemoControl } from '../control.ts';

const PAGE = 'http://127.0.0.1:8400';
const acts: [string, Action][] = [];
let control: DemoControl;

beforeAll(async () => {
  control = await createDemoControl(
    {
      ids: ['north-1', 'south-1'],
      site: () => 'north',
      state: () => 'running',
      act: (id, action) => {
        acts.push([id, action]);
        return Promise.resolve();
      },
    },
    PAGE,
  );
});

afterAll(() => control.close());
beforeEach(() => void acts.splice(0));

const STOP = '/v1/appliances/north-1/stop';

async function ask(
  path: string,
  headers: Record<string, string>,
  method: 'GET' | 'POST' | 'OPTIONS' = 'POST',
): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  const response = await request(control.url + path, { method, headers });
  return { status: response.statusCode, headers: response.headers, body: await response.body.text() };
}

const bearer = (): string => `Bearer ${control.token}`;

test('the page with its token stops an appliance and sees the fleet', async () => {
  const stopped = await ask(STOP, { authorization: bearer(), origin: PAGE });
  expect(stopped.status).toBe(200);
  expect(stopped.headers['access-control-allow-origin']).toBe(PAGE);
  expect(acts).toEqual([['north-1', 'stop']]);
  const list = await ask('/v1/appliances', { authorization: bearer(), origin: PAGE }, 'GET');
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
  expect((await ask(STOP, { origin: PAGE, ...headers })).status).toBe(status);
  expect((await ask(STOP, headers)).status).toBe(status);
  expect(acts).toEqual([]);
});

test.each(['http://127.0.0.1:8401', 'http://localhost:8400', 'https://127.0.0.1:8400', 'http://evil.example', 'null'])(
  'a page of %s is refused even with the token, and no preflight of it is allowed',
  async (origin) => {
    const asked = await ask(STOP, { authorization: bearer(), origin });
    expect(asked.status).toBe(403);
    const preflight = await ask(STOP, { origin, 'access-control-request-method': 'POST' }, 'OPTIONS');
    expect(preflight.status).toBe(403);
    expect(preflight.headers['access-control-allow-origin']).toBeUndefined();
    expect(acts).toEqual([]);
  },
);

test('a name that somebody else points at loopback is refused', async () => {
  const asked = await ask(STOP, { authorization: bearer(), host: 'evil.example' });
  expect(asked.status).toBe(403);
  expect(acts).toEqual([]);
});

test("the page's own preflight may send the token", async () => {
  const { status, headers } = await ask(STOP, { origin: PAGE, 'access-control-request-method': 'POST' }, 'OPTIONS');
  expect([status, headers['access-control-allow-origin']]).toEqual([204, PAGE]);
  expect(headers['access-control-allow-headers']).toContain('Authorization');
});

test.each([
  ['/v1/appliances/steering/stop', 'POST'],
  ['/v1/appliances/north-1/format', 'POST'],
  ['/v1/appliances/north-1/stop/now', 'POST'],
  [STOP, 'GET'],
  ['/', 'GET'],
] as const)('%s by %s is nothing here', async (path, method) => {
  expect((await ask(path, { authorization: bearer() }, method)).status).toBe(404);
  expect(acts).toEqual([]);
});
