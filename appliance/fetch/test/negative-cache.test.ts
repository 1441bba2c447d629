// Errors and redirects with a lifetime, at the socket: stored by a shared cache as RFC 9111 allows, and no others.

import { expect, test } from 'vitest';
import {
  cacheStatus,
  Resource,
  reverseProxy,
  settled,
  standalone,
  startAppliances,
  V1,
} from '../../test/caching-rig.ts';
import { field } from '../../test/http-client.ts';
import { deferred, until } from '../../test/waiting.ts';

startAppliances();

const MINUTE = { 'cache-control': 'max-age=60' };

test.each([404, 410, 405, 414, 501, 300])('a %i with a lifetime is fetched once', async (code) => {
  const resource = new Resource({ status: code, headers: { ...MINUTE, age: '7' }, body: 'gone, and why' });
  const first = await resource.get();
  expect([first.status, cacheStatus(first)]).toEqual([code, `larder; fwd=uri-miss; fwd-status=${code}; stored`]);
  const again = await resource.get();
  expect([again.status, again.body.toString()]).toEqual([code, 'gone, and why']);
  expect(cacheStatus(again)).toMatch(/^larder; hit; ttl=5\d$/);
  expect(Number(field(again, 'age'))).toBeGreaterThanOrEqual(7);
  const head = await resource.get([], 'HEAD');
  expect([head.status, head.body.length]).toEqual([code, 0]);
  // Range has no meaning for an error: the stored one is served.
  expect((await resource.get(['Range: bytes=5-9'])).status).toBe(code);
  expect((await resource.get(['Cache-Control: only-if-cached'])).status).toBe(code);
  expect(resource.requests).toHaveLength(1);
});

test('a redirect with a lifetime is fetched once', async () => {
  const resource = new Resource({ status: 301, headers: { ...MINUTE, location: '/elsewhere' }, body: '' });
  await resource.get();
  const again = await resource.get();
  expect([again.status, field(again, 'location'), resource.requests.length]).toEqual([301, '/elsewhere', 1]);
});

test.each<readonly [string, number, Record<string, string>]>([
  ['without a lifetime', 404, {}],
  ['with Last-Modified but no lifetime', 404, { 'last-modified': 'Sun, 01 Nov 2020 00:00:00 GMT' }],
  ['whose lifetime is over', 404, { ...MINUTE, age: '60' }],
  ['with no-store', 404, { 'cache-control': 'max-age=60, no-store' }],
  ['with no-cache', 404, { 'cache-control': 'max-age=60, no-cache' }],
  ['with private', 404, { 'cache-control': 'max-age=60, private' }],
  ['with Set-Cookie', 404, { ...MINUTE, 'set-cookie': 'a=1' }],
  ['with Vary', 404, { ...MINUTE, vary: 'accept-language' }],
  ['that reports a temporary failure', 503, MINUTE],
  ['that asks for credentials', 401, MINUTE],
])('an error %s (%i) is fetched each time', async (_, code, headers) => {
  const resource = new Resource({ status: code, headers, body: 'no' });
  for (let count = 0; count < 2; count += 1) {
    const answer = await resource.get();
    expect([answer.status, answer.body.toString()]).toEqual([code, 'no']);
    expect(cacheStatus(answer)).toMatch(/fwd=/);
    expect(cacheStatus(answer)).not.toMatch(/stored/);
  }
  expect(resource.requests).toHaveLength(2);
});

test.each(['Cache-Control: no-cache', 'Cache-Control: max-age=0', 'Cache-Control: min-fresh=5', 'Pragma: no-cache'])(
  'a request with %s reaches the origin, and the new response replaces the stored error',
  async (line) => {
    const resource = new Resource({ status: 404, headers: MINUTE, body: 'not yet' });
    await resource.get();
    resource.respondWith({ headers: { ...MINUTE, ...V1 }, body: 'here it is' });
    expect((await resource.get()).status).toBe(404);
    expect((await resource.get([line])).body.toString()).toBe('here it is');
    expect((await resource.get()).body.toString()).toBe('here it is');
  },
);

test('an error in response to Authorization is stored only if it is public', async () => {
  const own = new Resource({ status: 404, headers: MINUTE, body: 'not for you' });
  await own.get(['Authorization: Basic eDp5']);
  await own.get();
  expect(own.requests).toHaveLength(2);
  const open = new Resource({
    status: 404,
    headers: { 'cache-control': 'public, max-age=60' },
    body: 'not for anybody',
  });
  await open.get(['Authorization: Basic eDp5']);
  await open.get();
  expect(open.requests).toHaveLength(1);
});

test('a successful PUT invalidates a stored error', async () => {
  const resource = new Resource({ status: 404, headers: MINUTE, body: 'not yet' }, () => reverseProxy);
  await resource.get();
  expect(cacheStatus(await resource.get())).toMatch(/hit/);
  resource.respondWith((request, response) => {
    if (request.method === 'PUT') response.writeHead(201).end();
    else response.writeHead(200, { ...MINUTE, ...V1, 'content-length': '4' }).end('made');
  });
  expect((await resource.get(['Content-Length: 0'], 'PUT')).status).toBe(201);
  expect((await resource.get()).body.toString()).toBe('made');
});

test.each([410, 301, 405])('a %i with a lifetime replaces a stored asset', async (code) => {
  const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=1', age: '2' } }).fetchAndStore();
  resource.respondWith({ status: code, headers: { ...MINUTE, location: '/elsewhere' }, body: 'no more' });
  expect((await resource.get()).status).toBe(code);
  expect((await resource.get()).status).toBe(code);
  expect(resource.requests).toHaveLength(2);
  // With the origin down the stored error stays in force.
  resource.respondWith((request) => request.socket.destroy());
  expect((await resource.get()).status).toBe(code);
});

test('an older error that arrives later does not replace a younger one', async () => {
  const released = deferred();
  const resource = new Resource((request, response) => {
    const slow = request.headers.authorization !== undefined;
    const send = (): void => {
      const headers = { 'cache-control': 'public, max-age=60', age: slow ? '30' : '0' };
      response.writeHead(slow ? 404 : 410, headers).end(slow ? 'old' : 'new');
    };
    if (slow) void released.promise.then(send);
    else send();
  });
  const slow = resource.get(['Authorization: Basic eDp5']);
  await until(() => resource.requests.length === 1);
  expect((await resource.get()).status).toBe(410);
  released.resolve();
  expect((await slow).status).toBe(404);
  expect((await resource.get()).status).toBe(410);
});

test('a redirect whose body breaks off still redirects, and is not stored', async () => {
  const resource = new Resource((_, response) => {
    response.writeHead(302, { ...MINUTE, location: '/elsewhere', 'content-length': '100' });
    response.write('half', () => response.destroy());
  });
  for (let count = 0; count < 2; count += 1) {
    const answer = await resource.get();
    expect([answer.status, field(answer, 'location')]).toEqual([302, '/elsewhere']);
  }
  expect(resource.requests).toHaveLength(2);
});

test('clients that wait for a redirect with a lifetime share one fetch', async () => {
  const released = deferred();
  const resource = new Resource((_, response) => {
    void released.promise.then(() => response.writeHead(301, { ...MINUTE, location: '/elsewhere' }).end());
  });
  const answers = Array.from({ length: 5 }, () => resource.get());
  await until(() => resource.requests.length > 0);
  await settled(standalone);
  released.resolve();
  for (const answer of await Promise.all(answers)) expect(field(answer, 'location')).toBe('/elsewhere');
  expect(resource.requests).toHaveLength(1);
});
