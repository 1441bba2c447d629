// The fast path and node:http must behave as one server: whatever a client sends, in whatever chunks, both send the same
// responses. The requests are random.

import fc from 'fast-check';
import { once } from 'node:events';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FastPathRig } from './fast-path-rig.ts';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds } from '../../test/waiting.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 400_077);
const SMALL = noise(500, 3);
/** Hundreds of random exchanges; the deadline only catches a hang. */
const FUZZ = { timeout: 240_000 };
const LAST = 'GET /small HTTP/1.1\r\nHost: x\r\nRange: bytes=7-9\r\nConnection: close\r\n\r\n';

let standalone: FastPathRig;
let fleet: FastPathRig;

beforeAll(async () => {
  standalone = new FastPathRig('alone');
  fleet = new FastPathRig('fleet');
  for (const rig of [standalone, fleet]) {
    const headers = { date: 'Sun, 01 Nov 2026 00:00:00 GMT', 'cache-control': 'max-age=9999999999' };
    await rig.put('/film', FILM, { headers, generatedAtMs: Date.parse(headers.date) });
    await rig.put('/small', SMALL, { headers: { 'last-modified': 'Sun, 01 Nov 2026 00:00:00 GMT' } });
    await rig.put('/dir/a.b_c-d~e.m4s', SMALL);
    await rig.put('/%20', SMALL);
    await rig.put('/small?v=1', SMALL);
  }
  // The other one reads the same from files.
  standalone.makeResident('/film', FILM);
});

afterAll(() => {
  standalone?.close();
  fleet?.close();
});

/** The responses in order, fields sorted, without what differs from second to second. */
function responsesIn(bytes: Buffer): unknown[] {
  const responses: unknown[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\r\n\r\n', at);
    if (end === -1) return [...responses, { torn: bytes.subarray(at, at + 500).toString('latin1') }];
    const [status, ...lines] = bytes.subarray(at, end).toString('latin1').split('\r\n');
    const fields = lines
      .map((line) => line.replace(/^([^:]+)/, (name) => name.toLowerCase()))
      .map((line) => line.replace(/^(age|date): .*|(?<=; ttl=)\d+/, '$1'))
      // Each response has a boundary of its own.
      .map((line) => line.replace(/boundary=.*/, 'boundary'))
      .toSorted();
    const length = Number(/^content-length: (\d+)$/m.exec(fields.join('\n'))?.[1] ?? 0);
    const bare = bytes.toString('latin1', end + 4, end + 13) === 'HTTP/1.1 ';
    const body = bare ? Buffer.alloc(0) : bytes.subarray(end + 4, end + 4 + length);
    const same = body.toString('latin1').replaceAll(/larder-[0-9a-f]{24}/g, 'boundary');
    responses.push({ status, fields, body: `${same.length} bytes, ${crc32(same)}` });
    at = end + 4 + body.length;
  }
  return responses;
}

const position = fc.oneof(
  fc.nat(600),
  fc.nat(FILM.length + 10),
  fc.constantFrom(0, 499, 500, FILM.length - 1, FILM.length),
);
const rangeValue = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(position, position).map(([a, b]) => `bytes=${Math.min(a, b)}-${Math.max(a, b)}`) },
  { weight: 2, arbitrary: position.map((first) => `bytes=${first}-`) },
  { weight: 2, arbitrary: position.map((suffix) => `bytes=-${suffix}`) },
  fc.constantFrom('bytes=5-4', 'bytes=0-0,2-3', 'Bytes=0-1', 'bytes= 0-1', 'bytes=-', 'bytes=1', 'lines=0-1', ''),
  fc.constantFrom(
    'bytes=0-1 ',
    'bytes=00000000000000001-2',
    'bytes=0-99999999999999999999',
    'bytes=+1-2',
    'bytes=1-2-3',
  ),
);
const plainField = fc.oneof(
  fc.constantFrom(
    'User-Agent: wrk',
    'user-agent: Mozilla/5.0 (X11; Linux x86_64)',
    'Accept: */*',
    'Accept-Encoding: identity;q=1, *;q=0',
    'ORIGIN: http://x',
    'Referer: http://x/y?z',
    'Cookie: a=b',
    'Sec-Fetch-Mode: cors',
    'sec-ch-ua: "Chromium"',
    'Connection: keep-alive',
    'CMCD-Session: sid="a"',
    'Accept-Language:',
  ),
  rangeValue.map((value) => `Range: ${value}`),
);
const unusualField = fc.constantFrom(
  'Cache-Control: no-cache',
  'Pragma: no-cache',
  'If-None-Match: "v1"',
  'If-None-Match: *',
  'If-Match: "v2"',
  'If-Range: "v1"',
  'If-Modified-Since: Sun, 01 Nov 2026 00:00:00 GMT',
  'Expect: 100-continue',
  'Upgrade: websocket',
  'TE: trailers',
  'Content-Length: 0',
  'Content-Length: 3',
  'Transfer-Encoding: chunked',
  'Connection: close',
  'Connection: Keep-Alive, Upgrade',
  'connection: upgrade',
  'Host: y',
  'Host : y',
  'X-Odd: \t1',
  'X-Latin: \xe9',
  'X-Control: \x01',
  ' folded',
  'NoColon',
  ': nameless',
  'Bad Name: 1',
  'Range\t: bytes=0-1',
);
const target = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom('/film', '/small', '/dir/a.b_c-d~e.m4s') },
  fc.constantFrom('/~abc/film', '/~a.b-c_d/small', '/~/film', '/~a~b/film', '/~abc', '/%20', '/%66ilm', '/small?v=1'),
  fc.constantFrom(
    '/film?CMCD=x',
    '/small?v=1&CMCD=br%3D1',
    '/small?',
    '/nothing',
    '/../film',
    '/./film',
    '/.film',
    '//film',
  ),
  fc.constantFrom(
    'http://x/film',
    '*',
    'film',
    '/film#x',
    '/fi lm',
    '/film\\',
    '/film%',
    '/film?a#b',
    '/%2e%2e/film',
    '/',
  ),
);
const request = fc
  .record({
    method: fc.oneof(
      { weight: 8, arbitrary: fc.constant('GET') },
      fc.constantFrom('HEAD', 'OPTIONS', 'POST', 'get', 'GETT'),
    ),
    target,
    version: fc.oneof(
      { weight: 12, arbitrary: fc.constant('HTTP/1.1') },
      fc.constantFrom('HTTP/1.0', 'HTTP/2.0', 'http/1.1', ''),
    ),
    host: fc.oneof({ weight: 12, arbitrary: fc.constantFrom('Host: x', 'host: y:80', 'HOST:') }, fc.constant(null)),
    fields: fc.array(fc.oneof({ weight: 8, arbitrary: plainField }, unusualField), { maxLength: 5 }),
    end: fc.oneof(
      { weight: 15, arbitrary: fc.constant('\r\n\r\n') },
      fc.constantFrom('\n\n', '\r\n', '\r\n\r\nabc', '\r\n\r\n\r\n'),
    ),
  })
  .map(
    ({ method, target: path, version, host, fields, end }) =>
      [`${method} ${path} ${version}`, ...(host === null ? [] : [host]), ...fields].join('\r\n') + end,
  );
const plain = fc
  .record({
    method: fc.constantFrom('GET', 'GET', 'GET', 'HEAD'),
    path: fc.constantFrom('/film', '/small', '/dir/a.b_c-d~e.m4s'),
    fields: fc.uniqueArray(plainField, { maxLength: 5, selector: (line) => line.split(':')[0]!.toLowerCase() }),
  })
  .map(({ method, path, fields }) => [`${method} ${path} HTTP/1.1`, 'Host: x', ...fields, '', ''].join('\r\n'));
const mutation = fc.record({
  at: fc.nat(400),
  cut: fc.nat(4),
  put: fc.constantFrom('', '\r\n', '\n', '\0', ' ', ':', '-', ',', '%', '9', 'x', '\xff', '..', '\t'),
});
const mutated = fc
  .tuple(fc.oneof(plain, request), fc.array(mutation, { minLength: 1, maxLength: 3 }))
  .map(([text, mutations]) =>
    mutations.reduce((before, { at, cut, put }) => {
      const from = at % before.length;
      return before.slice(0, from) + put + before.slice(from + cut);
    }, text),
  );
/** The requests of one connection: most are a chunk of their own, some share a chunk, some are split. */
const requestSequence = fc.array(
  fc.record({
    text: fc.oneof({ weight: 3, arbitrary: plain }, { weight: 2, arbitrary: request }, mutated),
    cut: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.nat(80)),
    joined: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, fc.constant(true)),
  }),
  { minLength: 1, maxLength: 4 },
);

function chunksOf(
  requests: readonly { readonly text: string; readonly cut: number; readonly joined: boolean }[],
): string[] {
  const chunks: string[] = [];
  for (const { text, cut, joined } of requests) {
    const [head, tail] = [text.slice(0, cut), text.slice(cut)];
    if (joined && chunks.length > 0) chunks.push(chunks.pop()! + head);
    else chunks.push(head);
    chunks.push(tail);
  }
  return [...chunks, LAST].filter((chunk) => chunk !== '');
}

describe.each(['alone', 'fleet'] as const)('in mode %s, on the fast path and through node:http', (mode) => {
  const rig = (): FastPathRig => (mode === 'alone' ? standalone : fleet);

  test('plain requests get equal responses, most of them from the fast path', FUZZ, async () => {
    rig().drainCount('larder_fast_path_total');
    let sent = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(plain, { minLength: 1, maxLength: 4 }), fc.boolean(), async (texts, deferWrites) => {
        sent += texts.length;
        const chunks = [...texts, LAST];
        const fast = responsesIn(await rig().exchange('fast', chunks, { deferWrites }));
        expect(fast).toEqual(responsesIn(await rig().exchange('slow', chunks, { deferWrites })));
        expect(fast).toHaveLength(chunks.length);
      }),
      { numRuns: 300 },
    );
    expect(rig().drainCount('larder_fast_path_total')).toBeGreaterThan(sent * 0.6);
  });

  test('requests over TCP, in whatever chunks the kernel makes of them, get equal responses', FUZZ, async () => {
    rig().drainCount('larder_fast_path_total');
    let sent = 0;
    const requests = fc.array(fc.record({ text: plain, cut: fc.nat(400), waitAfter: fc.boolean() }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(requests, async (some) => {
        sent += some.length;
        const client = await rig().connect();
        const received: Buffer[] = [];
        client.on('data', (chunk: Buffer) => received.push(chunk));
        const ended = once(client, 'close');
        for (const { text, cut, waitAfter } of some) {
          client.write(text.slice(0, cut), 'latin1');
          if (cut < text.length) await eventLoopRounds(1);
          client.write(text.slice(cut), 'latin1');
          if (waitAfter) await once(client, 'data');
        }
        client.write(LAST);
        await ended;
        const texts = some.map(({ text }) => text);
        const responses = responsesIn(Buffer.concat(received));
        expect(responses).toEqual(responsesIn(await rig().exchange('slow', [...texts, LAST])));
        expect(responses).toHaveLength(some.length + 1);
      }),
      { numRuns: 100 },
    );
    expect(rig().drainCount('larder_fast_path_total')).toBeGreaterThan(sent * 0.1);
  });

  test('a malformed request behind one that is being answered is refused alike', async () => {
    const chunks = ['GET /film HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\nabc', LAST];
    for (const deferWrites of [false, true]) {
      const fast = await rig().exchange('fast', chunks, { deferWrites });
      expect(responsesIn(fast)).toEqual(responsesIn(await rig().exchange('slow', chunks, { deferWrites })));
    }
  });

  test('for a refused request whose body never comes both wait alike', async () => {
    const chunks = ['GET /film HTTP/2.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 999\r\n\r\n', LAST];
    const fast = responsesIn(await rig().exchange('fast', chunks));
    expect(fast).toEqual(responsesIn(await rig().exchange('slow', chunks)));
    expect(fast).toHaveLength(1);
  });

  test('any requests, unusual or malformed, in any chunks, get equal responses', FUZZ, async () => {
    rig().drainCount('larder_fast_path_total');
    await fc.assert(
      fc.asyncProperty(requestSequence, fc.boolean(), async (requests, deferWrites) => {
        const chunks = chunksOf(requests);
        const fast = await rig().exchange('fast', chunks, { deferWrites });
        const slow = await rig().exchange('slow', chunks, { deferWrites });
        expect(responsesIn(fast)).toEqual(responsesIn(slow));
      }),
      { numRuns: 1_000 },
    );
    expect(rig().drainCount('larder_fast_path_total')).toBeGreaterThan(300);
  });
});
