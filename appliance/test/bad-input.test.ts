// Malformed and hostile requests. Whatever a client sends, the appliance responds as RFC 9110 and 9112 say or hangs up. It
// never crashes, never asks the origin for another path, never parses a body as a request, and serves the next client.

import fc from 'fast-check';
import { createConnection } from 'node:net';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import { field, HttpConnection, requestText, sendRequest, type HttpResponse } from './http-client.ts';
import { deferred, eventLoopRounds } from './waiting.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 77);
const SMALL = noise(500, 3);

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
let pids: Awaited<ReturnType<RunningAppliance['pids']>>;
/** Clients that send half a request at the start and then nothing, while all the other cases run. */
let idle: HttpConnection[] = [];

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
  origin.put('/film', FILM);
  origin.put('/small', SMALL);
  origin.put('/', SMALL);
  origin.put('/last', SMALL, { etag: '"last"' });
  for (const path of ['/film', '/last']) expect((await sendRequest(appliance.port, { path })).status).toBe(200);
  pids = await appliance.pids();
  expect(pids.workers.length).toBe(2);
  idle = await Promise.all(Array.from({ length: 20 }, () => HttpConnection.open(appliance.port)));
  for (const connection of idle) connection.send('GET /film HTTP/1.1\r\nHost: x\r\nX-Slow:');
});

/** After every case the processes are the same, and both a hit and a miss get the right bytes. */
afterEach(async () => {
  expect(await appliance.pids()).toEqual(pids);
  const fresh = `/fresh-${origin.requests.length}`;
  origin.put(fresh, SMALL);
  for (const path of ['/small', fresh]) {
    const answer = await sendRequest(appliance.port, { path });
    expect(answer.body.equals(SMALL)).toBe(true);
  }
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

/** Sent after every case: it is answered, and ends the connection, if and only if the appliance is still in step. */
const LAST = requestText({ path: '/last', lines: ['Connection: close'] });

interface ExchangeOptions {
  /** Methods of the requests, in order; GET where there are none. */
  readonly methods?: readonly string[];
  /** The client closes its half after the last byte, so that nobody waits for the rest of an incomplete request. */
  readonly halfClose?: boolean;
  /** LAST is not sent. */
  readonly withoutLast?: boolean;
}

/** All responses to what is sent on one connection, except the one to LAST. */
async function exchange(text: string | Buffer, options: ExchangeOptions = {}): Promise<HttpResponse[]> {
  const connection = await HttpConnection.open(appliance.port);
  try {
    connection.send(text);
    // Bytes after a request that ends its connection are ignored, but may cost that request its response.
    if (options.withoutLast !== true && !endsConnection(text)) connection.send(LAST);
    if (options.halfClose === true) connection.socket.end();
    const answers: HttpResponse[] = [];
    for (;;) {
      const answer = await connection.readResponse(options.methods?.[answers.length] ?? 'GET');
      if (answer === null) break;
      answers.push(answer);
    }
    expect(connection.unread.length).toBe(0);
    return answers.filter((answer) => field(answer, 'etag') !== '"last"');
  } finally {
    connection.destroy();
  }
}

const endsConnection = (text: string | Buffer): boolean =>
  /HTTP\/(?:1\.0|0\.9)\r\n(?!.*keep-alive)|\r\nconnection: close\r\n/is.test(text.toString('latin1'));

async function exchangeOne(text: string | Buffer, method = 'GET'): Promise<HttpResponse> {
  const answers = await exchange(text, { methods: [method] });
  expect(answers.length).toBe(1);
  return answers[0]!;
}

describe('paths', () => {
  const refused = [
    '/..',
    '/../film',
    '/a/../film',
    '/a/..',
    '/./film',
    '/a/.',
    '/%2e%2e/film',
    '/%2E%2e/film',
    '/.%2e/film',
    '/a/%2e%2e%2ffilm',
    '/a%2f..%2ffilm',
    '/..%2f..%2fetc/passwd',
    '/..%5c..%5cfilm',
    '/%00',
    '/film%00',
    '/film%00.mp4',
    '/film%0d%0aX:%20y',
    '/film%0a',
    '/film%7f',
    '/a\\film',
    '/..\\film',
    '/a%5cfilm',
    '/%',
    '/film%',
    '/film%2',
    '/film%zz',
    '/film%%',
    '/film%u0041',
    '/film#fragment',
    'film',
    '..',
    '*',
    'larder.test:80',
    'http://larder.test/../film',
    'http://larder.test/%2e%2e/film',
    'http://larder.test\\film',
    'ftp://larder.test/film',
    'file:///etc/passwd',
    'javascript:film',
    'http:/film',
    `/${'a'.repeat(9_000)}`,
  ];
  test.each(refused)('the path %s is refused, and the origin is not asked', async (path) => {
    const requestsBefore = origin.requests.length;
    for (const method of ['GET', 'HEAD']) {
      const answer = await exchangeOne(requestText({ method, path }), method);
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
    }
    expect(origin.requests.length).toBe(requestsBefore);
  });

  test.each([
    '/film',
    'http://larder.test/film',
    'HTTP://larder.test/film',
    'http://elsewhere.example:8080/film',
    'https://larder.test/film',
    '/%66ilm',
    '/fil%6D',
    '/film?',
  ])('the target %s names the stored film', async (path) => {
    const requestsBefore = origin.requests.length;
    const answer = await exchangeOne(requestText({ path }));
    expect(answer.status).toBe(200);
    expect(answer.body.equals(FILM)).toBe(true);
    expect(origin.requests.length).toBe(requestsBefore);
  });

  test('an absolute target without a path names /', async () => {
    expect((await exchangeOne(requestText({ path: 'http://larder.test' }))).body.equals(SMALL)).toBe(true);
  });

  test.each(['//film', '/film/', '/%ff', '/%C3%A4', '/%2f', '/~', '/~abcdefgh01234567', '/...', '/..film', '/film..'])(
    '%s is a path of its own, and the origin is asked for it as it stands',
    async (path) => {
      expect((await exchangeOne(requestText({ path }))).status).toBe(404);
      expect(origin.requests.at(-1)!.path.toLowerCase()).toBe(path.toLowerCase());
    },
  );

  test.each([
    `/${'"'.repeat(8_190)}`,
    `/${'%22'.repeat(2_600)}`,
    `/film?${'&'.repeat(8_000)}`,
    `/${'a/'.repeat(4_000)}`,
  ])('a path that grows when it is escaped is refused with a 4xx (%#)', async (path) => {
    const answer = await exchangeOne(requestText({ path }));
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
  });
});

describe('versions and framing', () => {
  test.each([
    ['version HTTP/1.0 and no Host', 'GET /film HTTP/1.0\r\n\r\n'],
    ['version HTTP/1.0 and Host', 'GET /film HTTP/1.0\r\nHost: x\r\n\r\n'],
    ['version HTTP/1.0 and keep-alive', 'GET /film HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'],
    ['empty lines before the request line', '\r\n\r\nGET /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['an empty Host', 'GET /film HTTP/1.1\r\nHost:\r\n\r\n'],
    ['a foreign Host', 'GET /film HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n'],
  ])('a request with %s is served', async (_, text) => {
    const answer = await exchangeOne(text);
    expect(answer.status).toBe(200);
    expect(field(answer, 'transfer-encoding')).toBeNull();
    expect(answer.body.equals(FILM)).toBe(true);
  });

  test('HTTP/1.0 clients get ranges, multipart responses, and no chunks even for an asset of unknown length', async () => {
    const single = await exchangeOne('GET /film HTTP/1.0\r\nRange: bytes=5-9\r\n\r\n');
    expect([single.status, single.body.equals(FILM.subarray(5, 10))]).toEqual([206, true]);
    expect((await exchangeOne('GET /film HTTP/1.0\r\nRange: bytes=0-1,5-9\r\n\r\n')).status).toBe(206);
    origin.intercept = (request, response) => {
      if (request.url !== '/endless') return false;
      response.writeHead(200, { 'content-type': 'x/y' });
      response.write(SMALL.subarray(0, 100));
      response.end(SMALL.subarray(100));
      return true;
    };
    const unknown = await exchangeOne('GET /endless HTTP/1.0\r\n\r\n');
    expect(field(unknown, 'transfer-encoding')).toBeNull();
    expect(unknown.body.equals(SMALL)).toBe(true);
  });

  test.each([
    ['no Host', 'GET /film HTTP/1.1\r\n\r\n'],
    ['two Host fields', 'GET /film HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
    ['two equal Host fields', 'GET /film HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n'],
    ['a space before the colon', 'GET /film HTTP/1.1\r\nHost: x\r\nRange : bytes=0-0\r\n\r\n'],
    ['a space before the first field', 'GET /film HTTP/1.1\r\n Host: x\r\n\r\n'],
    ['a field without a colon', 'GET /film HTTP/1.1\r\nHost: x\r\nRange\r\n\r\n'],
    ['a field without a name', 'GET /film HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n'],
    ['a NUL in a field', 'GET /film HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n'],
    ['a bare CR in a field', 'GET /film HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n'],
    ['a space in the target', 'GET /fi lm HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a NUL in the target', 'GET /film\0 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a byte above ASCII in the target', 'GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['two lengths', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd'],
    ['two lengths in one', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabcd'],
    ['a negative length', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n'],
    ['a signed length', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc'],
    ['a length in hex', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc'],
    ['a length beyond 2^64', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n'],
    ['a chunk size that is no number', 'GET /film HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
    ['a last coding other than chunked', 'GET /film HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n'],
    ['no request line', 'garbage\r\n\r\n'],
    ['binary bytes', Buffer.from([0, 1, 2, 255, 254, 13, 10, 13, 10])],
    ['a TLS hello', Buffer.from('16030100c8010000c40303', 'hex')],
    ['the HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['version HTTP/3.7', 'GET /film HTTP/3.7\r\nHost: x\r\n\r\n'],
    ['no version', 'GET /film\r\n\r\n'],
    ['version HTTP/0.9', 'GET /film HTTP/0.9\r\n\r\n'],
    ['version HTTP/2.0', 'GET /film HTTP/2.0\r\nHost: x\r\n\r\n'],
    ['a lower-case method', 'get /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['an unknown method', 'FETCH /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['two Range fields', 'GET /film HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\nRange: bytes=5-5\r\n\r\n'],
    [
      'two If-Range fields',
      'GET /film HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\nIf-Range: "a"\r\nIf-Range: "b"\r\n\r\n',
    ],
    ['an unknown expectation', 'GET /film HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n'],
  ] as const)('a request with %s is refused, or the connection is closed', async (_, text) => {
    const answers = await exchange(text);
    expect(answers.length).toBeLessThanOrEqual(1);
    for (const answer of answers) {
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).not.toBe(500);
    }
  });

  test.each(['no Host', 'two Host'])('a request with %s is a 400 (RFC 9112 3.2)', async (which) => {
    const answer = await exchangeOne(
      `GET /film HTTP/1.1\r\n${which === 'no Host' ? '' : 'Host: a\r\nHost: b\r\n'}\r\n`,
    );
    expect(answer.status).toBe(400);
  });

  test('CONNECT opens no tunnel, and the bytes after it get no response', async () => {
    const answers = await exchange('CONNECT larder.test:80 HTTP/1.1\r\nHost: larder.test:80\r\n\r\nGET / HTTP/1.1\r\n');
    for (const answer of answers) expect(answer.status).toBeGreaterThanOrEqual(400);
  });

  test('a CONNECT behind other requests is not answered in their place', async () => {
    const tunnel = 'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n';
    const released = deferred();
    origin.intercept = (request, response) => {
      if (request.url !== '/slow') return false;
      void released.promise.then(() => response.writeHead(200, { 'content-length': 2 }).end('ok'));
      return true;
    };
    const statuses = async (text: string): Promise<number[]> =>
      (await exchange(text, { withoutLast: true })).map(({ status }) => status);
    // The connection ends: the response to /slow is lost, and no other stands in for it.
    expect(await statuses(`GET /slow HTTP/1.1\r\nHost: x\r\n\r\n${tunnel}`)).toEqual([]);
    released.resolve();
    expect(await statuses(`GET /no-host HTTP/1.1\r\n\r\n${tunnel}`)).toEqual([400]);
    expect(await statuses(tunnel)).toEqual([405]);
    origin.intercept = () => false;
  });

  test('clients that reset the connection right after CONNECT do not end a worker', async () => {
    for (let count = 0; count < 60; count += 1) {
      const socket = createConnection(appliance.port, '127.0.0.1');
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.write('CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n', () => socket.resetAndDestroy());
      await once(socket, 'close');
    }
    const answers = await exchange('CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n', { withoutLast: true });
    expect(answers.map(({ status }) => status)).toEqual([405]);
  });

  test('an Upgrade is ignored, and the connection goes on', async () => {
    const connection = await HttpConnection.open(appliance.port);
    try {
      const lines = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x'];
      expect((await connection.send(requestText({ path: '/small', lines })).readResponse())?.body.equals(SMALL)).toBe(
        true,
      );
      expect((await connection.send(LAST).readResponse())?.body.equals(SMALL)).toBe(true);
    } finally {
      connection.destroy();
    }
  });
});

describe('size', () => {
  const lines = (count: number, line: (at: number) => string): string =>
    Array.from({ length: count }, (_, at) => line(at)).join('\r\n');

  test.each([
    ['one field of 1 MB', `X: ${'x'.repeat(MB)}`],
    ['1 MB of small fields', lines(MB / 16, (at) => `X-${String(at).padStart(8, '0')}: y`)],
    ['10,000 ranges', `Range: bytes=${Array.from({ length: 10_000 }, (_, at) => `${at * 3}-${at * 3}`).join(',')}`],
  ])('a header section with %s is a 431', async (_, header) => {
    const answers = await exchange(`GET /film HTTP/1.1\r\nHost: x\r\n${header}\r\n\r\n`, { withoutLast: true });
    // The connection closes with bytes of the client unread, which may cost it the answer.
    expect([[431], []]).toContainEqual(answers.map(({ status }) => status));
  });

  test.each([
    ['a target of 1 MB', `GET /${'x'.repeat(MB)} HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['a header section that never ends', `GET /film HTTP/1.1\r\n${'X: y\r\n'.repeat(10_000)}`],
    ['a method of 1 MB', 'G'.repeat(MB)],
  ])('%s is refused', async (_, text) => {
    const answers = await exchange(text, { withoutLast: true });
    for (const answer of answers) expect([400, 414, 431]).toContain(answer.status);
  });

  test('the most ranges that fit the header section are answered with at most the whole asset', async () => {
    const apart = Array.from({ length: 1_500 }, (_, at) => `${at * 3}-${at * 3}`).join(',');
    const same = Array.from({ length: 3_500 }, () => '0-0').join(',');
    const open = Array.from({ length: 3_500 }, (_, at) => `${at}-`).join(',');
    const suffixes = Array.from({ length: 2_500 }, (_, at) => `-${at + 1}`).join(',');
    const descending = Array.from({ length: 1_500 }, (_, at) => `${5_000 - at * 3}-${5_000 - at * 3}`).join(',');
    expect((await exchangeOne(requestText({ path: '/film', lines: [`Range: bytes=${apart}`] }))).status).toBe(416);
    expect((await exchangeOne(requestText({ path: '/film', lines: [`Range: bytes=${descending}`] }))).status).toBe(416);
    for (const ranges of [same, open, suffixes]) {
      const answer = await exchangeOne(requestText({ path: '/film', lines: [`Range: bytes=${ranges}`] }));
      expect(answer.status).toBeLessThan(500);
      expect(answer.body.length).toBeLessThanOrEqual(FILM.length);
    }
  });

  test('an If-None-Match with 3,000 tags is evaluated', async () => {
    const tags = Array.from({ length: 3_000 }, (_, at) => `"${at.toString(36)}"`).join(',');
    const answer = await exchangeOne(
      requestText({ path: '/film', lines: [`If-None-Match: ${tags.slice(0, 15_000)}`] }),
    );
    expect(answer.status).toBe(200);
    expect(answer.body.equals(FILM)).toBe(true);
  });

  test('a request with 2,500 fields is refused, or answered by the fields that were counted', async () => {
    const many = lines(2_500, (at) => `X${at.toString(36)}:`);
    const answer = await exchangeOne(`GET /film HTTP/1.1\r\nHost: x\r\n${many}\r\nRange: bytes=0-0\r\n\r\n`);
    expect([200, 206, 400, 431]).toContain(answer.status);
    if (answer.status === 200) expect(answer.body.equals(FILM)).toBe(true);
    if (answer.status === 206) expect(answer.body.equals(FILM.subarray(0, 1))).toBe(true);
  });
});

describe('the body of a GET', () => {
  const second = requestText({ path: '/film' });
  const smuggled = requestText({ method: 'DELETE', path: '/film' });
  const head = (...more: string[]): string => ['GET /small HTTP/1.1', 'Host: x', ...more, '', ''].join('\r\n');
  const chunks = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;

  test.each([
    ['by length', head(`Content-Length: ${smuggled.length}`) + smuggled],
    ['in chunks', head('Transfer-Encoding: chunked') + chunks],
    [
      'in chunks with trailers',
      head('Transfer-Encoding: chunked', 'Trailer: Range') + chunks.slice(0, -2) + 'Range: bytes=0-0\r\n\r\n',
    ],
    ['of length 0', head('Content-Length: 0')],
    ['after Expect: 100-continue', head('Expect: 100-continue', `Content-Length: ${smuggled.length}`) + smuggled],
  ])('%s is not parsed as a request: the next request is answered, or the connection ends', async (framing, text) => {
    const answers = await exchange(text + second);
    expect(answers.length).toBeGreaterThanOrEqual(1);
    expect(answers.length).toBeLessThanOrEqual(2);
    expect(answers.map(({ status }) => status)).not.toContain(405);
    expect(answers[0]!.body.equals(SMALL)).toBe(true);
    if (answers[1] !== undefined) expect(answers[1].body.equals(FILM)).toBe(true);
    else if (framing !== 'of length 0') expect(field(answers[0]!, 'connection')).toBe('close');
  });

  test.each([
    [
      'Content-Length before Transfer-Encoding',
      head('Content-Length: 5', 'Transfer-Encoding: chunked') + `0\r\n\r\n${smuggled}`,
    ],
    [
      'Transfer-Encoding before Content-Length',
      head('Transfer-Encoding: chunked', `Content-Length: ${smuggled.length + 5}`) + `0\r\n\r\n${smuggled}`,
    ],
    ['an unknown transfer coding', head('Transfer-Encoding: xchunked', 'Content-Length: 4') + smuggled],
    ['a tab before chunked', head('Transfer-Encoding:\tchunked', 'Content-Length: 4') + `0\r\n\r\n${smuggled}`],
    [
      'two transfer codings',
      head('Transfer-Encoding: chunked', 'Transfer-Encoding: identity') + `0\r\n\r\n${smuggled}`,
    ],
    ['a chunk size with a sign', head('Transfer-Encoding: chunked') + `+0\r\n\r\n${smuggled}`],
    ['a chunk without its CRLF', head('Transfer-Encoding: chunked') + `1\r\nXXX0\r\n\r\n${smuggled}`],
    ['lines that end in LF alone', `GET /small HTTP/1.1\nHost: x\nContent-Length: ${smuggled.length}\n\n${smuggled}`],
  ])('with %s hides no request that is answered', async (_, text) => {
    for (const answer of await exchange(text)) {
      expect(answer.status).not.toBe(405);
      if (answer.status === 200) expect(answer.body.equals(SMALL)).toBe(true);
    }
  });

  test('of 60 KB, all of it sent, does not cost the response', async () => {
    expect((await exchangeOne(head(`Content-Length: 60000`) + 'GET / '.repeat(10_000))).body.equals(SMALL)).toBe(true);
  });
});

describe('connections', () => {
  test('100 pipelined requests of eight kinds are answered in order', async () => {
    const kinds = [
      { text: requestText({ path: '/small' }), method: 'GET', status: 200, body: SMALL },
      {
        text: requestText({ path: '/film', lines: ['Range: bytes=9-99'] }),
        method: 'GET',
        status: 206,
        body: FILM.subarray(9, 100),
      },
      { text: requestText({ path: '/film', method: 'HEAD' }), method: 'HEAD', status: 200, body: null },
      { text: requestText({ path: '/film', lines: ['If-None-Match: *'] }), method: 'GET', status: 304, body: null },
      { text: requestText({ path: '/nothing' }), method: 'GET', status: 404, body: null },
      { text: requestText({ path: '/film', lines: ['Range: bytes=x'] }), method: 'GET', status: 416, body: null },
      { text: requestText({ path: '/film', method: 'OPTIONS' }), method: 'OPTIONS', status: 204, body: null },
      {
        text: requestText({ path: '/film', lines: ['Range: bytes=0-1048600'] }),
        method: 'GET',
        status: 206,
        body: FILM.subarray(0, 1_048_601),
      },
    ];
    const line = Array.from({ length: 100 }, (_, at) => kinds[(at * 5) % kinds.length]!);
    const answers = await exchange(line.map(({ text }) => text).join(''), {
      methods: line.map(({ method }) => method),
    });
    expect(answers.map(({ status }) => status)).toEqual(line.map(({ status }) => status));
    for (const [at, { body }] of line.entries())
      if (body !== null) expect([at, answers[at]!.body.equals(body)]).toEqual([at, true]);
  });

  test('a request that comes byte by byte is answered', async () => {
    const connection = await HttpConnection.open(appliance.port);
    connection.socket.setNoDelay(true);
    for (const byte of requestText({ path: '/small', lines: ['Range: bytes=3-8'] })) {
      connection.send(byte);
      await eventLoopRounds(1);
    }
    expect((await connection.readResponse())?.body.equals(SMALL.subarray(3, 9))).toBe(true);
    connection.destroy();
  });

  test('clients that hang up at any moment leave no connection behind', async () => {
    const cut = async (at: number): Promise<void> => {
      const socket = createConnection(appliance.port, '127.0.0.1');
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      const text = requestText({ path: at % 2 === 0 ? '/film' : `/cold-${at % 7}` });
      if (at % 3 === 0) socket.write(text.slice(0, (at * 7) % text.length));
      else socket.write(text + text);
      if (at % 3 === 2) await once(socket, 'readable');
      if (at % 4 === 0) socket.resetAndDestroy();
      else socket.destroy();
    };
    for (let at = 0; at < 7; at += 1) origin.put(`/cold-${at}`, FILM);
    for (let round = 0; round < 5; round += 1)
      await Promise.all(Array.from({ length: 60 }, (_, at) => cut(round * 60 + at)));
    await appliance.until(() => openConnections(appliance.port) === idle.filter(({ ended }) => !ended).length, 15_000);
  });
});

test('randomly mutated requests are answered or refused, never with a 5xx and never with a wrong byte', async () => {
  const good = [
    requestText({ path: '/film', lines: ['Range: bytes=1-5,9-20', 'If-Range: "x"', 'Connection: close'] }),
    requestText({ path: '/small', lines: ['If-None-Match: "a", W/"b"', 'Content-Length: 4'] }) + 'abcd',
    requestText({ path: '/small', lines: ['Transfer-Encoding: chunked'] }) + '4\r\nabcd\r\n0\r\n\r\n',
    requestText({
      path: 'http://x/film',
      lines: ['Range: bytes=-5', `If-Modified-Since: ${new Date(0).toUTCString()}`],
    }),
  ];
  const junk = fc.oneof(
    fc.constantFrom(
      '\r\n',
      '\n',
      '\r',
      '\0',
      ' ',
      ':',
      ',',
      '-',
      '/',
      '..',
      '%',
      '%2e',
      '"',
      '=',
      '\t',
      '\xff',
      '0',
      '99999999999999999999',
    ),
    fc.string({ maxLength: 4 }),
  );
  const mutation = fc.record({ at: fc.nat(400), cut: fc.nat(6), put: junk });
  const mutated = fc
    .tuple(fc.constantFrom(...good), fc.array(mutation, { minLength: 1, maxLength: 4 }))
    .map(([text, mutations]) =>
      mutations.reduce((before, { at, cut, put }) => {
        const from = at % before.length;
        return before.slice(0, from) + put + before.slice(from + cut);
      }, text),
    );
  await fc.assert(
    fc.asyncProperty(fc.array(mutated, { minLength: 8, maxLength: 8 }), async (texts) => {
      const all = await Promise.all(texts.map((text) => exchange(Buffer.from(text, 'latin1'), { halfClose: true })));
      for (const answer of all.flat()) {
        expect([answer.status < 500 || answer.status === 505, answer.status]).toEqual([true, answer.status]);
        const { body } = answer;
        if (answer.status === 200 && field(answer, 'allow') === null)
          expect(
            [SMALL, FILM].some((truth) => (answer.complete ? truth : truth.subarray(0, body.length)).equals(body)),
          ).toBe(true);
        const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(field(answer, 'content-range') ?? '');
        if (answer.status === 206 && range !== null && answer.complete) {
          const whole = Number(range[3]) === FILM.length ? FILM : SMALL;
          expect(whole.subarray(Number(range[1]), Number(range[2]) + 1).equals(answer.body)).toBe(true);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test('clients that never complete their request get a 408 or a close', async () => {
  await Promise.all(
    idle.map(async (connection) => {
      const answer = await connection.readResponse();
      if (answer !== null) expect(answer.status).toBe(408);
      await connection.closed();
    }),
  );
});

/** Connections at this port that the appliance has not closed, according to the kernel's table. */
function openConnections(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = readFileSync('/proc/net/tcp', 'utf8').trim().split('\n').slice(1);
  return rows.filter((row) => {
    const [, from, , state] = row.trim().split(/\s+/);
    return from!.endsWith(local) && (state === '01' || state === '08');
  }).length;
}
