// What passes through unchanged, and what does not: bodies, cookies, interim responses, hop-by-hop fields, Via, transfer
// codings, and requests that must reach the origin exactly once.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createConnection, createServer as createTcp, type AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { needsTool } from '../../test/tools.ts';
import { FRESH, Resource, respond, reverseProxy, standalone, startAppliances, V1 } from './caching-rig.ts';
import { expectFault } from './faults.ts';
import { field, HttpConnection, sendRequest } from './http-client.ts';
import { RunningAppliance } from './rig.ts';
import { until } from './waiting.ts';

startAppliances();

const curl = needsTool('curl');
const CURL_RECEIVE_FAILED = 56;

const proxied = (): RunningAppliance => reverseProxy;

describe('requests', () => {
  test('an uncacheable GET reaches the origin once, and its response is the one that the client gets', async () => {
    // A link that works once.
    const resource = new Resource((request, response, ordinal) => {
      const headers = { 'cache-control': 'no-store', 'set-cookie': 'session=1' };
      if (ordinal === 1) respond(request, response, { headers, body: 'welcome' });
      else respond(request, response, { status: 410, body: 'used already' });
    }, proxied);
    expect((await resource.get()).body.toString()).toBe('welcome');
  });

  test('each GET with credentials costs the origin one request', async () => {
    const resource = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } }, proxied);
    for (let count = 0; count < 5; count += 1) await resource.get(['Authorization: ann']);
    expect(resource.requests.length).toBe(5);
  });

  test('a request body streams to the origin while the response streams back', async () => {
    const resource = new Resource((request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' });
      request.pipe(response);
    }, proxied);
    const connection = await HttpConnection.open(reverseProxy.port);
    connection.send(`POST ${resource.path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
    // The echo of the first chunk comes before the second one is sent.
    await until(() => connection.unread.includes('hello'));
    connection.send('6\r\n world\r\n0\r\n\r\n');
    expect((await connection.readResponse('POST'))!.body.toString()).toBe('hello world');
    connection.destroy();
  });

  test.skipIf(curl === null)(
    'a response without a length that ends short ends in a reset, not in a close that means its end (RFC 9112 8)',
    async () => {
      const resource = new Resource((request, response) => {
        response.writeHead(200, { 'cache-control': 'no-store' });
        response.write('half of it', () => request.socket.destroy());
      }, proxied);
      // Not Node, which takes a reset right behind the last bytes for an ordinary end.
      const failure = await promisify(execFile)(curl!, [
        '--silent',
        '--http1.0',
        reverseProxy.url + resource.path,
      ]).then(
        () => null,
        (error: { readonly code: number; readonly stdout: string }) => error,
      );
      expect(failure).toMatchObject({ code: CURL_RECEIVE_FAILED, stdout: 'half of it' });
    },
  );

  test.each(['TRACE', 'CONNECT'])('%s is refused with 405 and the methods that are allowed', async (method) => {
    const target = method === 'CONNECT' ? 'example.org:443' : '/';
    const connection = await HttpConnection.open(reverseProxy.port);
    connection.send(`${method} ${target} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const answer = await connection.readResponse();
    expect([answer?.status, answer === null ? null : field(answer, 'allow')]).toEqual([
      405,
      'GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE',
    ]);
    connection.destroy();
  });

  test('without --reverse-proxy a POST is refused and does not reach the origin', async () => {
    const resource = new Resource({ headers: V1 });
    expectFault(await resource.get([], 'POST'), 'method_not_allowed');
    expect(resource.requests).toEqual([]);
  });

  test('a transfer coding other than chunked is refused, not removed (RFC 9112 6.1)', async () => {
    const resource = new Resource((_, response) => response.writeHead(204).end(), proxied);
    const connection = await HttpConnection.open(reverseProxy.port);
    connection.send(
      `POST ${resource.path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
    );
    expect((await connection.readResponse('POST'))!.status).toBeGreaterThanOrEqual(400);
    connection.destroy();
  });

  test('the host of an absolute target overrides the Host field (RFC 9112 3.2.2)', async () => {
    const resource = new Resource((_, response) => response.writeHead(204).end(), proxied);
    const connection = await HttpConnection.open(reverseProxy.port);
    connection.send(
      `POST http://one.example${resource.path} HTTP/1.1\r\nHost: two.example\r\nContent-Length: 0\r\n\r\n`,
    );
    await connection.readResponse('POST');
    expect(resource.requests[0]!.headers['x-forwarded-host']).toBe('one.example');
    connection.destroy();
  });
});

describe('responses', () => {
  test('fields of more than 1,800 bytes in all reach the client, security policies included', async () => {
    const headers = {
      ...FRESH,
      'content-security-policy': `default-src ${'https://cdn.example.com '.repeat(80)}`.trim(),
      'x-frame-options': 'DENY',
      'access-control-allow-origin': 'https://a.example',
    };
    const answer = await new Resource({ headers }, proxied).get();
    for (const name of ['content-security-policy', 'x-frame-options', 'access-control-allow-origin'] as const)
      expect([name, field(answer, name)]).toEqual([name, headers[name]]);
  });

  test('two cookies of a redirect stay two fields', async () => {
    const resource = new Resource(
      (_, response) => response.writeHead(302, { location: '/', 'set-cookie': ['a=1', 'b=2'] }).end(),
      proxied,
    );
    const answer = await resource.get();
    expect(answer.fields.filter(([name]) => name === 'set-cookie').map(([, value]) => value)).toEqual(['a=1', 'b=2']);
  });

  test.each([404, 203])('a %i with a body of 100 KB reaches the client whole', async (code) => {
    const answer = await new Resource({ status: code, body: 'x'.repeat(100_000) }, proxied).get();
    expect([answer.status, answer.body.length]).toEqual([code, 100_000]);
  });

  test('a 103 with two links is followed by the final response', async () => {
    const resource = new Resource((request, response) => {
      response.writeEarlyHints({ link: ['</a.css>; rel=preload; as=style', '</b.js>; rel=preload; as=script'] });
      respond(request, response, { headers: { 'cache-control': 'no-store' } });
    });
    for (let count = 0; count < 2; count += 1) expect((await resource.get()).status).toBe(200);
  });

  test('interim responses of the origin reach the client', async () => {
    const resource = new Resource((request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      respond(request, response, { headers: { 'cache-control': 'no-store' } });
    });
    await resource.get();
    const connection = await HttpConnection.open(standalone.port);
    connection.send(`GET ${resource.path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await until(() => connection.unread.includes('the one and only body'));
    expect(connection.unread.toString('latin1')).toMatch(
      /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/style.css>; rel=preload/i,
    );
    connection.destroy();
  });
});

describe('fields of an intermediary', () => {
  test('hop-by-hop fields, and those that Connection names, are removed in both directions', async () => {
    const resource = new Resource((request, response) => {
      const headers = { ...V1, connection: 'x-hop', 'x-hop': '1', 'x-end': '1', 'proxy-authenticate': 'x' };
      respond(request, response, { headers: { ...headers, 'cache-control': 'max-age=60' } });
    });
    const first = await resource.get(['Connection: keep-alive, X-Mine', 'X-Mine: 1', 'X-Yours: 1', 'TE: trailers']);
    for (const answer of [first, await resource.get()])
      expect(['x-hop', 'proxy-authenticate', 'x-end'].map((name) => field(answer, name))).toEqual([null, null, '1']);
    const { headers } = resource.requests[0]!;
    expect([headers['x-mine'], headers['te'], headers['x-yours']]).toEqual([undefined, undefined, '1']);
  });

  test('Via names the appliance to both sides, and a request that has passed it before is refused', async () => {
    const resource = new Resource({ headers: { ...V1, via: '1.0 before', 'cache-control': 'max-age=60' } });
    const via = field(await resource.get(), 'via')!;
    expect(via).toMatch(/^1\.0 before, 1\.1 larder-[0-9a-f]{8}$/);
    expect(resource.requests[0]!.headers.via).toMatch(/^1\.1 larder-/);
    const name = via.split('1.1 ')[1]!;
    expectFault(await resource.get([`Via: 1.1 somebody, 1.1 ${name}`]), 'proxy_loop');
    expect((await resource.get(['Via: 1.1 somebody'])).status).toBe(200);
  });

  test('a loop of two appliances is detected at once', { timeout: 90_000 }, async () => {
    const relay = createTcp();
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    const address = `http://127.0.0.1:${(relay.address() as AddressInfo).port}`;
    let relayed = 0;
    const first = await RunningAppliance.start({ origin: address, flags: ['--workers', '1'] });
    const second = await RunningAppliance.start({ origin: first.url, flags: ['--workers', '1'] });
    relay.on('connection', (socket) => {
      relayed += 1;
      const onward = createConnection(second.port, '127.0.0.1');
      for (const end of [socket, onward]) end.on('error', () => undefined);
      socket.pipe(onward).pipe(socket);
    });
    try {
      expectFault(await sendRequest(first.port, { path: '/loop' }, 60_000), 'proxy_loop');
      expect(relayed).toBe(1);
    } finally {
      await Promise.all([first.stop(), second.stop()]);
      relay.close();
    }
  });

  test('a reverse proxy leaves CORS and Server to the origin, and tells it who the client is', async () => {
    const headers = { ...V1, 'access-control-allow-origin': 'https://a.example', server: 'theirs' };
    const resource = new Resource({ headers: { ...headers, 'cache-control': 'max-age=60' } }, proxied);
    for (const answer of [await resource.get(), await resource.get()])
      expect(
        ['access-control-allow-origin', 'server', 'timing-allow-origin'].map((name) => field(answer, name)),
      ).toEqual(['https://a.example', 'theirs', null]);
    await resource.get([], 'OPTIONS');
    const { headers: received, method } = resource.requests.at(-1)!;
    expect([method, received['x-forwarded-for'], received['x-forwarded-proto']]).toEqual([
      'OPTIONS',
      '127.0.0.1',
      'http',
    ]);
  });
});
