// Stale responses (RFC 5861, RFC 9111 4.2.4): when they may be served, how they are revalidated behind the reader's back, and
// that an origin that fails or hangs does not delay a client that may have one.

import { describe, expect, test } from 'vitest';
import { aged, cacheStatus, Resource, respond, standalone, startAppliances, type Handler } from './caching-rig.ts';
import { expectFault } from './faults.ts';
import { field, HttpConnection, sendRequest } from './http-client.ts';
import { deferred, until } from './waiting.ts';

startAppliances();

const fails: Handler = (_, response) => response.writeHead(503).end('no');
const breaksOff: Handler = (request) => request.socket.destroy();
const hangs: Handler = () => undefined;

describe('stale-while-revalidate', () => {
  test('serves the stale response at once and revalidates it in the background', async () => {
    const resource = await new Resource({ headers: aged('max-age=10, stale-while-revalidate=60', 20) }).fetchAndStore();
    resource.respondWith({ headers: aged('max-age=600', 0) });
    expect(cacheStatus(await resource.get())).toMatch(/^larder; hit; ttl=-1/);
    await until(async () => /hit; ttl=5/.test(cacheStatus(await resource.get())));
    expect(resource.requests).toHaveLength(2);
  });

  test('ends with its period: after that the reader waits for the validation', async () => {
    const headers = aged('max-age=10, stale-while-revalidate=60', 200);
    const resource = await new Resource({ headers }).fetchAndStore();
    expect(cacheStatus(await resource.get())).toMatch(/fwd=stale; fwd-status=304/);
  });

  test('serves a response without a validator at once as well', async () => {
    const headers = { 'cache-control': 'max-age=10, stale-while-revalidate=600', age: '20' };
    const resource = await new Resource({ headers, body: 'old but good' }).fetchAndStore();
    const released = deferred();
    resource.respondWith((request, response) => {
      void released.promise.then(() => respond(request, response, { headers, body: 'new' }));
    });
    expect((await resource.get()).body.toString()).toBe('old but good');
    await until(() => resource.requests.length === 2);
    // The origin is still busy with the revalidation.
    expect((await resource.get()).body.toString()).toBe('old but good');
    released.resolve();
  });

  test('ends when the origin sends a new version that forbids storing', async () => {
    const headers = aged('max-age=10, stale-while-revalidate=86400', 20);
    const resource = await new Resource({ headers, body: 'withdrawn' }).fetchAndStore();
    resource.respondWith({ headers: { etag: '"v2"', 'cache-control': 'no-store' }, body: 'the new one' });
    await resource.get();
    await until(async () => (await resource.get()).body.toString() === 'the new one');
  });

  test('does not ask a failing origin once per hit', async () => {
    const resource = await new Resource({
      headers: aged('max-age=10, stale-while-revalidate=600', 20),
    }).fetchAndStore();
    resource.respondWith((_, response) => response.writeHead(503).end());
    for (let count = 0; count < 100; count += 1) await resource.get();
    expect(resource.requests.length).toBeLessThan(10);
  });

  test('revalidates for a request with 12 KB of header fields, and the worker survives it', async () => {
    // The header section of the revalidation was once too long for the link, and the rejection ended the worker.
    const resource = await new Resource({
      headers: aged('max-age=10, stale-while-revalidate=600', 20),
    }).fetchAndStore();
    const { workers } = await standalone.pids();
    const connection = await HttpConnection.open(standalone.port);
    connection.send(`GET ${resource.path} HTTP/1.1\r\nHost: a\r\nX-Long: ${'\xe9'.repeat(12_000)}\r\n\r\n`);
    expect((await connection.readResponse())!.status).toBe(200);
    await until(() => resource.requests.length === 2);
    await until(async () => (await resource.get()).status === 200);
    expect((await standalone.pids()).workers).toEqual(workers);
    connection.destroy();
  });
});

describe('a failure of the origin', () => {
  const LIMITED = 'max-age=10, stale-if-error=60';
  test.each<readonly [string, string, number, string, number, Handler, string[]]>([
    ['stale-if-error', 'responds with 503', 200, LIMITED, 20, fails, []],
    ['an expired stale-if-error', 'responds with 503', 503, LIMITED, 200, fails, []],
    [
      'stale-if-error in the request',
      'responds with 503',
      200,
      'max-age=10',
      20,
      fails,
      ['Cache-Control: stale-if-error=60'],
    ],
    ['max-age alone', 'responds with 503', 503, 'max-age=10', 20, fails, []],
    ['must-revalidate', 'responds with 503', 503, `must-revalidate, ${LIMITED}`, 20, fails, []],
    ['max-age alone', 'cannot be reached', 200, 'max-age=10', 20, breaksOff, []],
    ['must-revalidate', 'cannot be reached', 504, 'max-age=10, must-revalidate', 20, breaksOff, []],
    ['no-cache', 'cannot be reached', 504, 'no-cache', 20, breaksOff, []],
    ['s-maxage', 'cannot be reached', 504, 's-maxage=10', 20, breaksOff, []],
    ['no-cache in the request', 'cannot be reached', 504, 'max-age=600', 20, breaksOff, ['Cache-Control: no-cache']],
  ])('with %s, when the origin %s, causes a %i', async (_, __, expected, directives, age, handler, lines) => {
    const resource = await new Resource({ headers: aged(directives, age) }).fetchAndStore();
    resource.respondWith(handler);
    const answer = await resource.get(lines);
    expect(answer.status).toBe(expected);
    if (expected === 200) expect(answer.body.toString()).toBe('the one and only body');
    if (expected !== 504) return;
    expectFault(answer, 'validation_failed');
    expect(field(answer, 'proxy-status')).toMatch(/^larder; error=destination_unavailable/);
  });

  test('does not keep stale-if-error from a response without a validator', async () => {
    const headers = { 'cache-control': 'max-age=10, stale-if-error=600', age: '20' };
    const resource = await new Resource({ headers, body: 'old but good' }).fetchAndStore();
    resource.respondWith((_, response) => response.writeHead(503).end());
    const answer = await resource.get();
    expect([answer.status, answer.body.toString()]).toEqual([200, 'old but good']);
  });

  test('gives HEAD of a stale resource the same status as GET', async () => {
    const resource = await new Resource({ headers: aged('max-age=10, stale-if-error=600', 20) }).fetchAndStore();
    resource.respondWith(breaksOff);
    expect([(await resource.get()).status, (await resource.get([], 'HEAD')).status]).toEqual([200, 200]);
  });

  test('does not include a 404: that removes the stored response', async () => {
    const resource = await new Resource({ headers: aged('max-age=10, stale-if-error=60', 20) }).fetchAndStore();
    resource.respondWith((_, response) => response.writeHead(404).end('gone'));
    for (let count = 0; count < 2; count += 1) expect((await resource.get()).status).toBe(404);
  });

  test('to respond in time delays the first reader of a stale response by seconds, and the next one not at all', async () => {
    const resource = await new Resource({ headers: aged('max-age=10, stale-if-error=600', 20) }).fetchAndStore();
    resource.respondWith(hangs);
    // The origin timeout is 15 s: a response within 10 s did not wait for it.
    expect((await sendRequest(standalone.port, { path: resource.path }, 10_000)).status).toBe(200);
    expect(resource.requests).toHaveLength(2);
    expect((await sendRequest(standalone.port, { path: resource.path }, 10_000)).status).toBe(200);
    expect(resource.requests).toHaveLength(2);
  });
});
