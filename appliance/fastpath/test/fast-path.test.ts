// The short way and node:http must be one server: whatever a client sends, and however it is cut into chunks, both give the
// same answers. That is checked with requests made at random; the rest is what the short way does by itself.

import fc from 'fast-check';
import { once } from 'node:events';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LaneRig } from './fast-path-rig.ts';
import { noise } from '../../test/rig.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 400_077);
const SMALL = noise(500, 3);
const LAST = 'GET /small HTTP/1.1\r\nHost: x\r\nRange: bytes=7-9\r\nConnection: close\r\n\r\n';

let alone: LaneRig;
let fleet: LaneRig;

beforeAll(async () => {
  alone = new LaneRig('alone');
  fleet = new LaneRig('fleet');
  for (const rig of [alone, fleet]) {
    const headers = { date: 'Sun, 01 Nov 2026 00:00:00 GMT', 'cache-control': 'max-age=9999999999' };
    await rig.put('/film', FILM, { headers, generatedAtMs: Date.parse(headers.date) });
    await rig.put('/small', SMALL, { headers: { 'last-modified': 'Sun, 01 Nov 2026 00:00:00 GMT' } });
    await rig.put('/dir/a.b_c-d~e.m4s', SMALL);
    await rig.put('/%20', SMALL);
    await rig.put('/small?v=1', SMALL);
  }
});

afterAll(() => {
  alone?.close();
  fleet?.close();
});

/** Answers in order, their fields sorted, without what the passing of a second changes. */
function answersIn(bytes: Buffer): unknown[] {
  const answers: unknown[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\r\n\r\n', at);
    if (end === -1) return [...answers, { torn: bytes.subarray(at, at + 500).toString('latin1') }];
    const [status, ...lines] = bytes.subarray(at, end).toString('latin1').split('\r\n');
    const fields = lines
      .map((line) => line.replace(/^([^:]+)/, (name) => name.toLowerCase()))
      .map((line) => line.replace(/^(age|date): .*|(?<=; ttl=)\d+/, '$1'))
      // Boundaries are drawn anew for each answer.
      .map((line) => line.replace(/boundary=.*/, 'boundary'))
      .toSorted();
    const length = Number(/^content-length: (\d+)$/m.exec(fields.join('\n'))?.[1] ?? 0);
    const bare = bytes.toString('latin1', end + 4, end + 13) === 'HTTP/1.1 ';
    const body = bare ? Buffer.alloc(0) : bytes.subarray(end + 4, end + 4 + length);
    const same = body.toString('latin1').replaceAll(/larder-[0-9a-f]{24}/g, 'boundary');
    answers.push({ status, fields, body: `${same.length} bytes, ${crc32(same)}` });
    at = end + 4 + body.length;
  }
  return answers;
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
const oddField = fc.constantFrom(
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
    fields: fc.array(fc.oneof({ weight: 8, arbitrary: plainField }, oddField), { maxLength: 5 }),
    end: fc.oneof(
      { weight: 15, arbitrary: fc.constant('\r\n\r\n') },
      fc.constantFrom('\n\n', '\r\n', '\r\n\r\nabc', '\r\n\r\n\r\n'),
    ),
  })
  .map(
    ({ method, target: asked, version, host, fields, end }) =>
      [`${method} ${asked} ${version}`, ...(host === null ? [] : [host]), ...fields].join('\r\n') + end,
  );
const plain = fc
  .record({
    method: fc.constantFrom('GET', 'GET', 'GET', 'HEAD'),
    asked: fc.constantFrom('/film', '/small', '/dir/a.b_c-d~e.m4s'),
    fields: fc.uniqueArray(plainField, { maxLength: 5, selector: (line) => line.split(':')[0]!.toLowerCase() }),
  })
  .map(({ method, asked, fields }) => [`${method} ${asked} HTTP/1.1`, 'Host: x', ...fields, '', ''].join('\r\n'));
const bend = fc.record({
  at: fc.nat(400),
  cut: fc.nat(4),
  put: fc.constantFrom('', '\r\n', '\n', '\0', ' ', ':', '-', ',', '%', '9', 'x', '\xff', '..', '\t'),
});
const bent = fc.tuple(fc.oneof(plain, request), fc.array(bend, { minLength: 1, maxLength: 3 })).map(([text, bends]) =>
  bends.reduce((now, { at, cut, put }) => {
    const from = at % now.length;
    return now.slice(0, from) + put + now.slice(from + cut);
  }, text),
);
/** What one client says in a connection's life: most requests in a chunk of their own, some joined, some torn. */
const conversation = fc.array(
  fc.record({
    text: fc.oneof({ weight: 3, arbitrary: plain }, { weight: 2, arbitrary: request }, bent),
    cut: fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.nat(80)),
    joined: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, fc.constant(true)),
  }),
  { minLength: 1, maxLength: 4 },
);

function chunksOf(
  said: readonly { readonly text: string; readonly cut: number; readonly joined: boolean }[],
): string[] {
  const chunks: string[] = [];
  for (const { text, cut, joined } of said) {
    const [head, tail] = [text.slice(0, cut), text.slice(cut)];
    if (joined && chunks.length > 0) chunks.push(chunks.pop()! + head);
    else chunks.push(head);
    chunks.push(tail);
  }
  return [...chunks, LAST].filter((chunk) => chunk !== '');
}

describe.each(['alone', 'fleet'] as const)('%s: the short way and node:http are one server', (mode) => {
  const rig = (): LaneRig => (mode === 'alone' ? alone : fleet);

  test('plain requests are answered alike, and nearly all of them by the short way', async () => {
    rig().count('larder_fast_path_total');
    let asked = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(plain, { minLength: 1, maxLength: 4 }), fc.boolean(), async (texts, late) => {
        asked += texts.length;
        const chunks = [...texts, LAST];
        const short = answersIn(await rig().converse('short', chunks, { late }));
        expect(short).toEqual(answersIn(await rig().converse('long', chunks, { late })));
        expect(short).toHaveLength(chunks.length);
      }),
      { numRuns: 300 },
    );
    expect(rig().count('larder_fast_path_total')).toBeGreaterThan(asked * 0.6);
  });

  test('over a real connection, whatever the system makes of the chunks, the answers are the same', async () => {
    rig().count('larder_fast_path_total');
    let asked = 0;
    const said = fc.array(fc.record({ text: plain, cut: fc.nat(400), waits: fc.boolean() }), {
      minLength: 1,
      maxLength: 6,
    });
    await fc.assert(
      fc.asyncProperty(said, async (some) => {
        asked += some.length;
        const player = await rig().connect();
        const received: Buffer[] = [];
        player.on('data', (chunk: Buffer) => received.push(chunk));
        const ended = once(player, 'close');
        for (const { text, cut, waits } of some) {
          player.write(text.slice(0, cut), 'latin1');
          if (cut < text.length) await new Promise((resolve) => setImmediate(resolve));
          player.write(text.slice(cut), 'latin1');
          if (waits) await once(player, 'data');
        }
        player.write(LAST);
        await ended;
        const texts = some.map(({ text }) => text);
        const answers = answersIn(Buffer.concat(received));
        expect(answers).toEqual(answersIn(await rig().converse('long', [...texts, LAST])));
        expect(answers).toHaveLength(some.length + 1);
      }),
      { numRuns: 100 },
    );
    expect(rig().count('larder_fast_path_total')).toBeGreaterThan(asked * 0.1);
  });

  test('a broken request behind one that is under way is refused alike', async () => {
    const said = ['GET /film HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\nabc', LAST];
    for (const late of [false, true]) {
      const short = await rig().converse('short', said, { late });
      expect(answersIn(short)).toEqual(answersIn(await rig().converse('long', said, { late })));
    }
  });

  test('a refused request whose body never comes is waited for alike', async () => {
    const said = ['GET /film HTTP/2.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 999\r\n\r\n', LAST];
    const short = answersIn(await rig().converse('short', said));
    expect(short).toEqual(answersIn(await rig().converse('long', said)));
    expect(short).toHaveLength(1);
  });

  test('any requests, odd or broken, in any chunks, are answered alike', { timeout: 120_000 }, async () => {
    rig().count('larder_fast_path_total');
    await fc.assert(
      fc.asyncProperty(conversation, fc.boolean(), async (said, late) => {
        const chunks = chunksOf(said);
        const short = await rig().converse('short', chunks, { late });
        const long = await rig().converse('long', chunks, { late });
        expect(answersIn(short)).toEqual(answersIn(long));
      }),
      { numRuns: 1_000 },
    );
    expect(rig().count('larder_fast_path_total')).toBeGreaterThan(300);
  });
});
