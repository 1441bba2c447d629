// What a hostile or broken client may send. Whatever it is, the appliance answers by RFC 9110 and 9112 or hangs up; it
// never crashes, never lends its origin to a wrong path, never reads a body as a request, and serves the next client.

import fc from 'fast-check';
import { createConnection } from 'node:net';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import { sendRequest, field, requestText, HttpConnection, type HttpResponse } from './http-client.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 77);
const SMALL = noise(500, 3);

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
let pids: Awaited<ReturnType<RunningAppliance['pids']>>;
/** Clients that say half a request at the start and then nothing, beside all the other cases. */
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

/** After every case: the same processes, and both a hit and a miss are right. */
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

/** Follows whatever is sent: it is answered and ends the connection if the appliance is still in step, and only then. */
const LAST = requestText({ path: '/last', lines: ['Connection: close'] });

/** All answers to what is sent on one connection, less that to LAST. `quietMs`: hang up when so long nothing comes. */
async function exchange(
  text: string | Buffer,
  options: { readonly methods?: readonly string[]; readonly quietMs?: number; readonly alone?: boolean } = {},
): Promise<HttpResponse[]> {
  const connection = await HttpConnection.open(appliance.port);
  try {
    return await converse(connection, text, options);
  } finally {
    connection.destroy();
  }
}

async function converse(
  connection: HttpConnection,
  text: string | Buffer,
  options: { readonly methods?: readonly string[]; readonly quietMs?: number; readonly alone?: boolean },
): Promise<HttpResponse[]> {
  if (options.quietMs !== undefined) connection.socket.setTimeout(options.quietMs, () => connection.socket.end());
  connection.send(text);
  // What comes after a request that ends its connection is not looked at, but may cost it the answer.
  if (options.alone !== true && !endsConnection(text)) connection.send(LAST);
  const answers: HttpResponse[] = [];
  for (;;) {
    const answer = await connection.readResponse(options.methods?.[answers.length] ?? 'GET');
    if (answer === null) break;
    answers.push(answer);
  }
  expect(connection.unread.length).toBe(0);
  return answers.filter((answer) => field(answer, 'etag') !== '"last"');
}

const endsConnection = (text: string | Buffer): boolean =>
  /HTTP\/(?:1\.0|0\.9)\r\n(?!.*keep-alive)|\r\nconnection: close\r\n/is.test(text.toString('latin1'));

async function only(text: string | Buffer, method = 'GET'): Promise<HttpResponse> {
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
  test.each(refused)('%s is refused and the origin hears nothing of it', async (path) => {
    const asked = origin.requests.length;
    for (const method of ['GET', 'HEAD']) {
      const answer = await only(requestText({ method, path }), method);
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
    }
    expect(origin.requests.length).toBe(asked);
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
  ])('%s is the film', async (path) => {
    const asked = origin.requests.length;
    const answer = await only(requestText({ path }));
    expect(answer.status).toBe(200);
    expect(answer.body.equals(FILM)).toBe(true);
    expect(origin.requests.length).toBe(asked);
  });

  test('the absolute form without a path is /', async () => {
    expect((await only(requestText({ path: 'http://larder.test' }))).body.equals(SMALL)).toBe(true);
  });

  test.each(['//film', '/film/', '/%ff', '/%C3%A4', '/%2f', '/~', '/~abcdefgh01234567', '/...', '/..film', '/film..'])(
    '%s is another path than the film, asked of the origin as it is',
    async (path) => {
      expect((await only(requestText({ path }))).status).toBe(404);
      expect(origin.requests.at(-1)!.path.toLowerCase()).toBe(path.toLowerCase());
    },
  );

  test.each([
    `/${'"'.repeat(8_190)}`,
    `/${'%22'.repeat(2_600)}`,
    `/film?${'&'.repeat(8_000)}`,
    `/${'a/'.repeat(4_000)}`,
  ])('a path that swells when it is written down is no fault of ours (%#)', async (path) => {
    const answer = await only(requestText({ path }));
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
  });
});

describe('versions and framing', () => {
  test.each([
    ['HTTP/1.0 without Host', 'GET /film HTTP/1.0\r\n\r\n'],
    ['HTTP/1.0 with Host', 'GET /film HTTP/1.0\r\nHost: x\r\n\r\n'],
    ['HTTP/1.0 that asks to be kept', 'GET /film HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'],
    ['empty lines before the request line', '\r\n\r\nGET /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['an empty Host', 'GET /film HTTP/1.1\r\nHost:\r\n\r\n'],
    ['a Host that is another', 'GET /film HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n'],
  ])('%s is served', async (_, text) => {
    const answer = await only(text);
    expect(answer.status).toBe(200);
    expect(field(answer, 'transfer-encoding')).toBeNull();
    expect(answer.body.equals(FILM)).toBe(true);
  });

  test('HTTP/1.0 gets ranges, parts and no chunks, even of an asset without a length', async () => {
    const single = await only('GET /film HTTP/1.0\r\nRange: bytes=5-9\r\n\r\n');
    expect([single.status, single.body.equals(FILM.subarray(5, 10))]).toEqual([206, true]);
    expect((await only('GET /film HTTP/1.0\r\nRange: bytes=0-1,5-9\r\n\r\n')).status).toBe(206);
    origin.intercept = (request, response) => {
      if (request.url !== '/endless') return false;
      response.writeHead(200, { 'content-type': 'x/y' });
      response.write(SMALL.subarray(0, 100));
      response.end(SMALL.subarray(100));
      return true;
    };
    const unknown = await only('GET /endless HTTP/1.0\r\n\r\n');
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
    ['a length beyond counting', 'GET /film HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n'],
    ['a chunk size that is none', 'GET /film HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
    [
      'a coding that is not chunked at last',
      'GET /film HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n',
    ],
    ['garbage', 'garbage\r\n\r\n'],
    ['binary', Buffer.from([0, 1, 2, 255, 254, 13, 10, 13, 10])],
    ['a TLS hello', Buffer.from('16030100c8010000c40303', 'hex')],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['HTTP/3.7', 'GET /film HTTP/3.7\r\nHost: x\r\n\r\n'],
    ['no version at all', 'GET /film\r\n\r\n'],
    ['HTTP/0.9', 'GET /film HTTP/0.9\r\n\r\n'],
    ['a request line of HTTP/2', 'GET /film HTTP/2.0\r\nHost: x\r\n\r\n'],
    ['a lower-case method', 'get /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a method that nobody has', 'FETCH /film HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['two Range fields', 'GET /film HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\nRange: bytes=5-5\r\n\r\n'],
    [
      'two If-Range fields',
      'GET /film HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\nIf-Range: "a"\r\nIf-Range: "b"\r\n\r\n',
    ],
    ['an expectation that nobody has', 'GET /film HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n'],
  ] as const)('%s is refused, or nothing is said at all', async (_, text) => {
    const answers = await exchange(text);
    expect(answers.length).toBeLessThanOrEqual(1);
    for (const answer of answers) {
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).not.toBe(500);
    }
  });

  test.each(['no Host', 'two Host'])('RFC 9112 3.2: %s must be 400', async (which) => {
    const answer = await only(`GET /film HTTP/1.1\r\n${which === 'no Host' ? '' : 'Host: a\r\nHost: b\r\n'}\r\n`);
    expect(answer.status).toBe(400);
  });

  test('CONNECT opens no tunnel and does not stay open', async () => {
    const answers = await exchange('CONNECT larder.test:80 HTTP/1.1\r\nHost: larder.test:80\r\n\r\nGET / HTTP/1.1\r\n');
    for (const answer of answers) expect(answer.status).toBeGreaterThanOrEqual(400);
  });

  test('an upgrade that nobody offered is not taken, and the connection goes on', async () => {
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
  ])('%s: 431', async (_, header) => {
    const answers = await exchange(`GET /film HTTP/1.1\r\nHost: x\r\n${header}\r\n\r\n`, { alone: true });
    expect(answers.map(({ status }) => status)).toEqual([431]);
  });

  test.each([
    ['a target of 1 MB', `GET /${'x'.repeat(MB)} HTTP/1.1\r\nHost: x\r\n\r\n`],
    ['a header section that never ends', `GET /film HTTP/1.1\r\n${'X: y\r\n'.repeat(10_000)}`],
    ['a method of 1 MB', 'G'.repeat(MB)],
  ])('%s is refused', async (_, text) => {
    const answers = await exchange(text, { alone: true });
    for (const answer of answers) expect([400, 414, 431]).toContain(answer.status);
  });

  test('as many ranges as the header has room for are answered at once, and small', async () => {
    const apart = Array.from({ length: 1_500 }, (_, at) => `${at * 3}-${at * 3}`).join(',');
    const same = Array.from({ length: 3_500 }, () => '0-0').join(',');
    const open = Array.from({ length: 3_500 }, (_, at) => `${at}-`).join(',');
    const suffixes = Array.from({ length: 2_500 }, (_, at) => `-${at + 1}`).join(',');
    const descending = Array.from({ length: 1_500 }, (_, at) => `${5_000 - at * 3}-${5_000 - at * 3}`).join(',');
    expect((await only(requestText({ path: '/film', lines: [`Range: bytes=${apart}`] }))).status).toBe(416);
    expect((await only(requestText({ path: '/film', lines: [`Range: bytes=${descending}`] }))).status).toBe(416);
    for (const ranges of [same, open, suffixes]) {
      const answer = await only(requestText({ path: '/film', lines: [`Range: bytes=${ranges}`] }));
      expect(answer.status).toBeLessThan(500);
      expect(answer.body.length).toBeLessThanOrEqual(FILM.length);
    }
  });

  test('3,000 tags are compared', async () => {
    const tags = Array.from({ length: 3_000 }, (_, at) => `"${at.toString(36)}"`).join(',');
    const answer = await only(requestText({ path: '/film', lines: [`If-None-Match: ${tags.slice(0, 15_000)}`] }));
    expect(answer.status).toBe(200);
    expect(answer.body.equals(FILM)).toBe(true);
  });

  test('2,500 fields: those beyond what is counted do no harm', async () => {
    const many = lines(2_500, (at) => `X${at.toString(36)}:`);
    const answer = await only(`GET /film HTTP/1.1\r\nHost: x\r\n${many}\r\nRange: bytes=0-0\r\n\r\n`);
    expect([200, 206, 400, 431]).toContain(answer.status);
    if (answer.status === 200) expect(answer.body.equals(FILM)).toBe(true);
    if (answer.status === 206) expect(answer.body.equals(FILM.subarray(0, 1))).toBe(true);
  });
});

describe('bodies that GET does not have', () => {
  const second = requestText({ path: '/film' });
  const smuggled = requestText({ method: 'DELETE', path: '/film' });
  const head = (...more: string[]): string => ['GET /small HTTP/1.1', 'Host: x', ...more, '', ''].join('\r\n');
  const chunks = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;

  test.each([
    ['a body by length', head(`Content-Length: ${smuggled.length}`) + smuggled],
    ['a body in chunks', head('Transfer-Encoding: chunked') + chunks],
    [
      'a body in chunks with trailers',
      head('Transfer-Encoding: chunked', 'Trailer: Range') + chunks.slice(0, -2) + 'Range: bytes=0-0\r\n\r\n',
    ],
    ['a body by length, of nothing', head('Content-Length: 0')],
    ['a body announced and awaited', head('Expect: 100-continue', `Content-Length: ${smuggled.length}`) + smuggled],
  ])('%s is not a request: what follows it is answered, or the connection ends', async (_, text) => {
    const answers = await exchange(text + second);
    expect(answers.length).toBeGreaterThanOrEqual(1);
    expect(answers.length).toBeLessThanOrEqual(2);
    expect(answers.map(({ status }) => status)).not.toContain(405);
    expect(answers[0]!.body.equals(SMALL)).toBe(true);
    if (answers[1] !== undefined) expect(answers[1].body.equals(FILM)).toBe(true);
    else if (_ !== 'a body by length, of nothing') expect(field(answers[0]!, 'connection')).toBe('close');
  });

  test.each([
    ['length and chunks', head('Content-Length: 5', 'Transfer-Encoding: chunked') + `0\r\n\r\n${smuggled}`],
    [
      'chunks and length',
      head('Transfer-Encoding: chunked', `Content-Length: ${smuggled.length + 5}`) + `0\r\n\r\n${smuggled}`,
    ],
    ['chunks spelt oddly', head('Transfer-Encoding: xchunked', 'Content-Length: 4') + smuggled],
    ['chunks after a tab', head('Transfer-Encoding:\tchunked', 'Content-Length: 4') + `0\r\n\r\n${smuggled}`],
    ['two codings', head('Transfer-Encoding: chunked', 'Transfer-Encoding: identity') + `0\r\n\r\n${smuggled}`],
    ['a chunk size with a sign', head('Transfer-Encoding: chunked') + `+0\r\n\r\n${smuggled}`],
    ['a chunk that ends wrong', head('Transfer-Encoding: chunked') + `1\r\nXXX0\r\n\r\n${smuggled}`],
    ['lines that end in LF alone', `GET /small HTTP/1.1\nHost: x\nContent-Length: ${smuggled.length}\n\n${smuggled}`],
  ])('%s: the hidden request is never answered', async (_, text) => {
    for (const answer of await exchange(text)) {
      expect(answer.status).not.toBe(405);
      if (answer.status === 200) expect(answer.body.equals(SMALL)).toBe(true);
    }
  });

  test('a body of 60 KB, all of it sent, does not cost the answer', async () => {
    expect((await only(head(`Content-Length: 60000`) + 'GET / '.repeat(10_000))).body.equals(SMALL)).toBe(true);
  });
});

describe('connections', () => {
  test('100 pipelined requests of every kind are answered in order', async () => {
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

  test('a request sent byte by byte is a request', async () => {
    const connection = await HttpConnection.open(appliance.port);
    connection.socket.setNoDelay(true);
    for (const byte of requestText({ path: '/small', lines: ['Range: bytes=3-8'] })) {
      connection.send(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await connection.readResponse())?.body.equals(SMALL.subarray(3, 9))).toBe(true);
    connection.destroy();
  });

  test('clients that leave at any moment leave nothing behind', async () => {
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
    await appliance.until(() => connectionsOf(appliance.port) === idle.filter(({ ended }) => !ended).length, 15_000);
  });
});

test('requests bent at random are answered or refused, never a 5xx and never a wrong byte', async () => {
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
  const bend = fc.record({ at: fc.nat(400), cut: fc.nat(6), put: junk });
  const bent = fc.tuple(fc.constantFrom(...good), fc.array(bend, { minLength: 1, maxLength: 4 })).map(([text, bends]) =>
    bends.reduce((now, { at, cut, put }) => {
      const from = at % now.length;
      return now.slice(0, from) + put + now.slice(from + cut);
    }, text),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(bent, { minLength: 8, maxLength: 8 }), async (texts) => {
      const all = await Promise.all(texts.map((text) => exchange(Buffer.from(text, 'latin1'), { quietMs: 1_000 })));
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

test('half a request and silence are ended by the appliance, and cost others nothing', async () => {
  await Promise.all(
    idle.map(async (connection) => {
      const answer = await connection.readResponse();
      if (answer !== null) expect(answer.status).toBe(408);
      await connection.closed();
    }),
  );
});

/** Connections at the appliance's port that its side has not closed, by the kernel's table and not by its own word. */
function connectionsOf(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = readFileSync('/proc/net/tcp', 'utf8').trim().split('\n').slice(1);
  return rows.filter((row) => {
    const [, from, , state] = row.trim().split(/\s+/);
    return from!.endsWith(local) && (state === '01' || state === '08');
  }).length;
}
