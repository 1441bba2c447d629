// Errors and redirects with a lifetime, at the socket: kept by a shared cache as RFC 9111 has it, and no others.

import { expect, test, vi } from 'vitest';
import { Resource, proxy, standUp, status } from '../../test/caching-rig.ts';
import { field } from '../../test/wire.ts';

standUp();

const MINUTE = { 'cache-control': 'max-age=60' };

test.each([404, 410, 405, 414, 501, 300])('a %i with a lifetime is asked for once', async (code) => {
  const resource = new Resource({ status: code, headers: { ...MINUTE, age: '7' }, body: 'gone, and why' });
  const first = await resource.get();
  expect([first.status, status(first)]).toEqual([code, `larder; fwd=uri-miss; fwd-status=${code}; stored`]);
  const again = await resource.get();
  expect([again.status, again.body.toString()]).toEqual([code, 'gone, and why']);
  expect(status(again)).toMatch(/^larder; hit; ttl=5\d$/);
  expect(Number(field(again, 'age'))).toBeGreaterThanOrEqual(7);
  const head = await resource.get([], 'HEAD');
  expect([head.status, head.body.length]).toEqual([code, 0]);
  // A range of what is not there is no other request.
  expect((await resource.get(['Range: bytes=5-9'])).status).toBe(code);
  expect((await resource.get(['Cache-Control: only-if-cached'])).status).toBe(code);
  expect(resource.asked).toHaveLength(1);
});

test('a redirect with a lifetime is asked for once', async () => {
  const resource = new Resource({ status: 301, headers: { ...MINUTE, location: '/elsewhere' }, body: '' });
  await resource.get();
  const again = await resource.get();
  expect([again.status, field(again, 'location'), resource.asked.length]).toEqual([301, '/elsewhere', 1]);
});

test.each<readonly [string, number, Record<string, string>]>([
  ['no lifetime', 404, {}],
  ['no lifetime but a date of change', 404, { 'last-modified': 'Sun, 01 Nov 2020 00:00:00 GMT' }],
  ['a lifetime that is over', 404, { ...MINUTE, age: '60' }],
  ['no-store', 404, { 'cache-control': 'max-age=60, no-store' }],
  ['no-cache', 404, { 'cache-control': 'max-age=60, no-cache' }],
  ['private', 404, { 'cache-control': 'max-age=60, private' }],
  ['a cookie', 404, { ...MINUTE, 'set-cookie': 'a=1' }],
  ['Vary', 404, { ...MINUTE, vary: 'accept-language' }],
  ['an error of this moment', 503, MINUTE],
  ['a question of credentials', 401, MINUTE],
])('with %s it is asked for each time', async (_, code, headers) => {
  const resource = new Resource({ status: code, headers, body: 'no' });
  for (let at = 0; at < 2; at += 1) {
    const answer = await resource.get();
    expect([answer.status, answer.body.toString()]).toEqual([code, 'no']);
    expect(status(answer)).toMatch(/fwd=/);
    expect(status(answer)).not.toMatch(/stored/);
  }
  expect(resource.asked).toHaveLength(2);
});

test.each(['Cache-Control: no-cache', 'Cache-Control: max-age=0', 'Cache-Control: min-fresh=5', 'Pragma: no-cache'])(
  '%s asks the origin, and its answer takes the place',
  async (line) => {
    const resource = new Resource({ status: 404, headers: MINUTE, body: 'not yet' });
    await resource.get();
    resource.now({ headers: { ...MINUTE, etag: '"v1"' }, body: 'here it is' });
    expect((await resource.get()).status).toBe(404);
    expect((await resource.get([line])).body.toString()).toBe('here it is');
    expect((await resource.get()).body.toString()).toBe('here it is');
  },
);

test('what was made for somebody who named himself is kept only where the origin says that it is public', async () => {
  const own = new Resource({ status: 404, headers: MINUTE, body: 'not for you' });
  await own.get(['Authorization: Basic eDp5']);
  await own.get();
  expect(own.asked).toHaveLength(2);
  const open = new Resource({
    status: 404,
    headers: { 'cache-control': 'public, max-age=60' },
    body: 'not for anybody',
  });
  await open.get(['Authorization: Basic eDp5']);
  await open.get();
  expect(open.asked).toHaveLength(1);
});

test('an unsafe method that succeeds ends it', async () => {
  const resource = new Resource({ status: 404, headers: MINUTE, body: 'not yet' }, () => proxy);
  await resource.get();
  expect(status(await resource.get())).toMatch(/hit/);
  resource.now((request, response) => {
    if (request.method === 'PUT') response.writeHead(201).end();
    else response.writeHead(200, { ...MINUTE, etag: '"v1"', 'content-length': '4' }).end('made');
  });
  expect((await resource.get(['Content-Length: 0'], 'PUT')).status).toBe(201);
  expect((await resource.get()).body.toString()).toBe('made');
});

test.each([410, 301, 405])('a stored asset gives way to a %i with a lifetime', async (code) => {
  const resource = await new Resource({ headers: { etag: '"v1"', 'cache-control': 'max-age=1', age: '2' } }).stored();
  resource.now({ status: code, headers: { ...MINUTE, location: '/elsewhere' }, body: 'no more' });
  expect((await resource.get()).status).toBe(code);
  expect((await resource.get()).status).toBe(code);
  expect(resource.asked).toHaveLength(2);
  // The origin goes: the last word stands.
  resource.now((request) => request.socket.destroy());
  expect((await resource.get()).status).toBe(code);
});

test('an older answer that comes later does not take the place of a younger one', async () => {
  const held: (() => void)[] = [];
  const resource = new Resource((request, response) => {
    const slow = request.headers.authorization !== undefined;
    const answer = (): void => {
      const headers = { 'cache-control': 'public, max-age=60', age: slow ? '30' : '0' };
      response.writeHead(slow ? 404 : 410, headers).end(slow ? 'old' : 'new');
    };
    if (slow) held.push(answer);
    else answer();
  });
  const slow = resource.get(['Authorization: Basic eDp5']);
  await vi.waitUntil(() => held.length === 1, { timeout: 10_000, interval: 5 });
  expect((await resource.get()).status).toBe(410);
  held[0]!();
  expect((await slow).status).toBe(404);
  expect((await resource.get()).status).toBe(410);
});

test('a redirect whose body breaks off still redirects, and is not kept', async () => {
  const resource = new Resource((_, response) => {
    response.writeHead(302, { ...MINUTE, location: '/elsewhere', 'content-length': '100' });
    response.write('half');
    setTimeout(() => response.destroy(), 50);
  });
  for (let at = 0; at < 2; at += 1) {
    const answer = await resource.get();
    expect([answer.status, field(answer, 'location')]).toEqual([302, '/elsewhere']);
  }
  expect(resource.asked).toHaveLength(2);
});

test('those who wait for a redirect that is kept are told of it together', async () => {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const resource = new Resource((_, response) => {
    void released.then(() => response.writeHead(301, { ...MINUTE, location: '/elsewhere' }).end());
  });
  const answers = Array.from({ length: 5 }, () => resource.get());
  await vi.waitUntil(() => resource.asked.length > 0, { timeout: 10_000, interval: 5 });
  setTimeout(release, 100);
  for (const answer of await Promise.all(answers)) expect(field(answer, 'location')).toBe('/elsewhere');
  expect(resource.asked).toHaveLength(1);
});
