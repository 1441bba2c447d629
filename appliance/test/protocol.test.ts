// RFC 9110 at the socket of a stand-alone appliance: ranges, preconditions, methods, CORS and what Cache-Status claims.
// Every rule is asked of a cold asset and of a stored one: a client must not be able to tell the two apart.

import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { issueToken } from '../../runtime/auth.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import {
  sendRequest,
  parseContentRange,
  field,
  multipartParts,
  requestText,
  HttpConnection,
  type HttpResponse,
} from './http-client.ts';

const MB = 2 ** 20;
const FILM = noise(2 * MB + 123);
const N = FILM.length;
const SMALL = noise(1_000, 7);
const S = SMALL.length;
const ETAG = '"film,v1"';
const MODIFIED = 'Sun, 01 Nov 2026 00:00:00 GMT';
const EARLIER = 'Sat, 31 Oct 2026 23:59:59 GMT';
const LATER = 'Sun, 01 Nov 2026 00:00:01 GMT';

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
let fresh = 0;

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
  origin.put('/film.mp4', FILM, { etag: ETAG, headers: { 'content-type': 'video/mp4' } });
  origin.put('/small', SMALL, { etag: '"small"' });
  await sendRequest(appliance.port, { path: '/film.mp4' });
  await sendRequest(appliance.port, { path: '/small' });
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

/** A path that the appliance has never heard of, with the film behind it. */
function cold(body: Buffer = FILM, headers: Record<string, string> = {}, etag: string | null = ETAG): string {
  fresh += 1;
  const path = `/cold/${fresh}.mp4`;
  origin.put(path, body, { etag, headers: { 'content-type': 'video/mp4', ...headers } });
  return path;
}

/** The answers to one request: of a cold asset, of the same asset again, and of one that is stored whole. */
async function everywhere(
  lines: readonly string[],
  options: { readonly method?: string; readonly body?: Buffer } = {},
): Promise<HttpResponse[]> {
  const path = cold(options.body ?? SMALL);
  const what = { path, lines, ...(options.method === undefined ? {} : { method: options.method }) };
  const first = await sendRequest(appliance.port, what);
  const second = await sendRequest(appliance.port, what);
  await sendRequest(appliance.port, { path });
  const third = await sendRequest(appliance.port, what);
  return [first, second, third];
}

const bytesOf = (value: Buffer, first: number, last: number): Buffer => value.subarray(first, last + 1);

/** Buffers are compared by `equals`: a diff of three megabytes helps nobody. */
function expectBytes(answer: HttpResponse, want: Buffer): void {
  expect(answer.complete).toBe(true);
  expect(answer.body.length).toBe(want.length);
  expect(answer.body.equals(want)).toBe(true);
}

describe('a single range', () => {
  test.each<readonly [string, number, number]>([
    ['bytes=0-0', 0, 0],
    ['bytes=0-', 0, N - 1],
    [`bytes=${N - 1}-`, N - 1, N - 1],
    ['bytes=-1', N - 1, N - 1],
    [`bytes=-${N}`, 0, N - 1],
    [`bytes=-${N + 5}`, 0, N - 1],
    ['bytes=-99999999999999999999999', 0, N - 1],
    [`bytes=5-${N}`, 5, N - 1],
    ['bytes=5-99999999999999999999999', 5, N - 1],
    [`bytes=${MB - 1}-${MB}`, MB - 1, MB],
    [`bytes=${MB}-${2 * MB - 1}`, MB, 2 * MB - 1],
    [`bytes=${MB + 7}-${2 * MB + 5}`, MB + 7, 2 * MB + 5],
    ['bytes=0000000000000000000000-007', 0, 7],
    ['Bytes=1-2', 1, 2],
    ['bytes=,, 1-2 ,', 1, 2],
    [`bytes=1-2,${N}-`, 1, 2],
    ['bytes=-0,1-2', 1, 2],
  ])('%s is a 206 of exactly these bytes', async (range, first, last) => {
    for (const answer of await everywhere([`Range: ${range}`], { body: FILM })) {
      expect(answer.status).toBe(206);
      expect(parseContentRange(field(answer, 'content-range'))).toEqual({ first, last, total: N });
      expect(field(answer, 'content-length')).toBe(String(last - first + 1));
      expectBytes(answer, bytesOf(FILM, first, last));
      expect(field(answer, 'content-type')).toBe('video/mp4');
      expect(field(answer, 'etag')).toBe(ETAG);
    }
  });

  test.each([
    `bytes=${S}-`,
    `bytes=${S}-${S + 10}`,
    'bytes=99999999999999999999999-',
    'bytes=-0',
    `bytes=-0,${S}-,${S + 5}-${S + 6}`,
  ])('%s is unsatisfiable: 416 that names the length', async (range) => {
    for (const answer of await everywhere([`Range: ${range}`])) {
      expect(answer.status).toBe(416);
      expect(field(answer, 'content-range')).toBe(`bytes */${S}`);
      expect(answer.body.length).toBeLessThan(1_000);
    }
  });

  test.each([
    'bytes=',
    'bytes=-',
    'bytes=,',
    'bytes=1',
    'bytes=abc',
    'bytes=5-2',
    'bytes=--1',
    'bytes=1-2-3',
    'bytes=+1-2',
    'bytes=0x1-2',
    'bytes=1.5-2',
    'bytes=1-2;3-4',
    'bytes=1-2 3-4',
    'bytes=1 -2',
    'bytes=1-2,x',
    'bytes=5-2,1-2',
    'bytes==1-2',
    'bytes=1-2\u00b2',
    'bytes=1-2, bytes=3-4',
  ])('%s is malformed: 416, never the whole of a large asset by mistake', async (range) => {
    for (const answer of await everywhere([`Range: ${range}`])) {
      expect(answer.status).toBe(416);
      expect(field(answer, 'content-range')).toBe(`bytes */${S}`);
    }
  });

  test.each(['seconds=1-2', 'bytess=1-2', 'none=', 'x-bytes=0-0'])('the unit of %s is unknown: 200', async (range) => {
    for (const answer of await everywhere([`Range: ${range}`])) {
      expect(answer.status).toBe(200);
      expect(field(answer, 'content-range')).toBeNull();
      expectBytes(answer, SMALL);
    }
  });

  test('HEAD ignores Range, even a hopeless one: 200, the whole length, no byte', async () => {
    for (const range of ['bytes=0-0', `bytes=${S}-`, 'bytes=x', 'bytes=0-1,5-6'])
      for (const answer of await everywhere([`Range: ${range}`], { method: 'HEAD' })) {
        expect(answer.status).toBe(200);
        expect(field(answer, 'content-length')).toBe(String(S));
        expect(field(answer, 'content-range')).toBeNull();
      }
  });

  test('HEAD says what GET says', async () => {
    const path = cold();
    const before = await sendRequest(appliance.port, { method: 'HEAD', path });
    const get = await sendRequest(appliance.port, { path });
    const after = await sendRequest(appliance.port, { method: 'HEAD', path });
    const told = (answer: HttpResponse): unknown =>
      Object.fromEntries(answer.fields.filter(([name]) => !['date', 'cache-status', 'age'].includes(name)));
    expect(told(before)).toEqual(told(get));
    expect(told(after)).toEqual(told(get));
    expect(field(get, 'content-length')).toBe(String(N));
  });

  test.each<readonly [string, number]>([
    ['bytes=0-', 416],
    ['bytes=0-0', 416],
    ['bytes=-5', 200],
  ])('of an empty asset, %s is %i', async (range, status) => {
    for (const answer of await everywhere([`Range: ${range}`], { body: Buffer.alloc(0) })) {
      expect(answer.status).toBe(status);
      expect(field(answer, 'content-range')).toBe(status === 416 ? 'bytes */0' : null);
      if (status === 200) expect(field(answer, 'content-length')).toBe('0');
    }
  });

  test('an empty asset is an empty 200', async () => {
    for (const answer of await everywhere([], { body: Buffer.alloc(0) })) {
      expect(answer.status).toBe(200);
      expectBytes(answer, Buffer.alloc(0));
    }
  });
});

describe('several ranges', () => {
  test('are parts in the order asked, each with its own Content-Range, none in the main header', async () => {
    const range = `bytes=${2 * MB}-${2 * MB + 9},0-4,-7`;
    for (const answer of await everywhere([`Range: ${range}`], { body: FILM })) {
      expect(answer.status).toBe(206);
      expect(field(answer, 'content-range')).toBeNull();
      expect(field(answer, 'etag')).toBe(ETAG);
      expect(field(answer, 'content-length')).toBe(String(answer.body.length));
      const found = multipartParts(answer);
      expect(found.map(({ first, last, total, contentType }) => ({ first, last, total, contentType }))).toEqual([
        { first: 2 * MB, last: 2 * MB + 9, total: N, contentType: 'video/mp4' },
        { first: 0, last: 4, total: N, contentType: 'video/mp4' },
        { first: N - 7, last: N - 1, total: N, contentType: 'video/mp4' },
      ]);
      for (const part of found) expect(part.body.equals(bytesOf(FILM, part.first, part.last))).toBe(true);
    }
  });

  test('whose sum exceeds the asset are the whole, once', async () => {
    for (const range of [`bytes=0-${S - 2},1-`, 'bytes=0-,0-,0-', `bytes=0-,-1`])
      for (const answer of await everywhere([`Range: ${range}`])) {
        expect(answer.status).toBe(200);
        expect(field(answer, 'content-range')).toBeNull();
        expectBytes(answer, SMALL);
      }
  });

  test('32 that lie apart are served, 33 are refused, 100 that overlap are coalesced', async () => {
    const apart = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, at) => `${at * 20_000}-${at * 20_000 + 9}`).join(',')}`;
    const served = await sendRequest(appliance.port, { path: '/film.mp4', lines: [`Range: ${apart(32)}`] });
    expect(served.status).toBe(206);
    expect(multipartParts(served).length).toBe(32);
    const refused = await sendRequest(appliance.port, { path: '/film.mp4', lines: [`Range: ${apart(33)}`] });
    expect(refused.status).toBe(416);
    expect(field(refused, 'content-range')).toBe(`bytes */${N}`);
    const overlapping = `bytes=${Array.from({ length: 100 }, (_, at) => `${at}-${at + 5}`).join(',')}`;
    const coalesced = await sendRequest(appliance.port, { path: '/film.mp4', lines: [`Range: ${overlapping}`] });
    expect(coalesced.status).toBe(206);
    expect(covered(coalesced, FILM)).toEqual([[0, 104]]);
  });

  test('any set of ranges is answered by its bytes, the whole asset, or 416 that is deserved', async () => {
    const size = SMALL.length;
    const position = fc.oneof(fc.nat(12), fc.nat(size + 20), fc.integer({ min: size - 3, max: size + 3 }));
    const spec = fc.oneof(
      fc.tuple(position, position).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const),
      position.map((first) => [first, null] as const),
      position.map((suffix) => [null, suffix] as const),
    );
    const connection = await HttpConnection.open(appliance.port);
    await fc.assert(
      fc.asyncProperty(fc.array(spec, { minLength: 1, maxLength: 6 }), async (specs) => {
        const range = specs.map(([first, last]) => `${first ?? ''}-${last ?? ''}`).join(', ');
        const wanted = specs
          .map(([first, last]) =>
            first === null
              ? ([Math.max(0, size - last), size - 1] as const)
              : ([first, Math.min(last ?? size - 1, size - 1)] as const),
          )
          .filter(([first, last]) => first <= last && first < size);
        const answer = await connection
          .send(requestText({ path: '/small', lines: [`Range: bytes=${range}`] }))
          .answer()
          .then((got) => got!);
        if (wanted.length === 0) return answer.status === 416 && field(answer, 'content-range') === `bytes */${size}`;
        const bytes = wanted.reduce((sum, [first, last]) => sum + last - first + 1, 0);
        if (answer.status === 200) return specs.length > 1 && bytes > size && answer.body.equals(SMALL);
        if (answer.status !== 206) return false;
        if (specs.length === 1) parseContentRange(field(answer, 'content-range'));
        const got = covered(answer, SMALL);
        return wanted.every(([first, last]) => got.some(([low, high]) => low <= first && last <= high));
      }),
      { numRuns: 400 },
    );
    connection.destroy();
  });

  /** The ranges that a 206 carries, merged, each compared with the truth; throws if a byte is wrong or sent twice. */
  function covered(answer: HttpResponse, truth: Buffer): [number, number][] {
    const single = field(answer, 'content-range');
    const found = single === null ? multipartParts(answer) : [{ ...parseContentRange(single), body: answer.body }];
    const merged: [number, number][] = [];
    for (const { first, last, total, body } of [...found].sort((a, b) => a.first - b.first)) {
      expect(total).toBe(truth.length);
      expect(body.equals(bytesOf(truth, first, last))).toBe(true);
      const before = merged.at(-1);
      if (before !== undefined && first <= before[1]) throw new Error('a byte sent twice');
      if (before !== undefined && first === before[1] + 1) before[1] = last;
      else merged.push([first, last]);
    }
    return merged;
  }
});

describe('If-Range', () => {
  const range = 'Range: bytes=5-9';
  test.each<readonly [string, string, 200 | 206]>([
    ['the entity tag', ETAG, 206],
    ['another entity tag', '"film,v2"', 200],
    ['a weak form of the tag: never a match', `W/${ETAG}`, 200],
    ['a tag without its quotes', 'film,v1', 200],
    ['two tags, which the field does not allow', `${ETAG}, "x"`, 200],
    ['the date of the last change', MODIFIED, 206],
    ['a later date: not an exact match', LATER, 200],
    ['an earlier date', EARLIER, 200],
    ['not a date', 'yesterday', 200],
    ['a star, which means nothing here', '*', 200],
  ])('with %s', async (_, value, status) => {
    for (const answer of await everywhere([range, `If-Range: ${value}`])) {
      expect(answer.status).toBe(status);
      expectBytes(answer, status === 206 ? bytesOf(SMALL, 5, 9) : SMALL);
    }
  });

  test('true but unsatisfiable is 416; false makes the range not exist', async () => {
    for (const answer of await everywhere([`Range: bytes=${S}-`, `If-Range: ${ETAG}`])) expect(answer.status).toBe(416);
    for (const answer of await everywhere([`Range: bytes=${S}-`, 'If-Range: "x"'])) {
      expect(answer.status).toBe(200);
      expectBytes(answer, SMALL);
    }
  });

  test('without Range is ignored', async () => {
    for (const answer of await everywhere(['If-Range: "x"'])) expectBytes(answer, SMALL);
  });

  test('with several ranges follows the same rule', async () => {
    const lines = ['Range: bytes=0-1,5-6'];
    for (const answer of await everywhere([...lines, `If-Range: ${ETAG}`]))
      expect(multipartParts(answer).length).toBe(2);
    for (const answer of await everywhere([...lines, 'If-Range: "x"'])) expectBytes(answer, SMALL);
  });

  test('an asset with a weak tag never matches by tag, and keeps its tag as it is', async () => {
    const path = cold(SMALL, {}, 'W/"soft"');
    for (const value of ['W/"soft"', '"soft"']) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1', `If-Range: ${value}`] });
      expect(answer.status).toBe(200);
      expect(field(answer, 'etag')).toBe('W/"soft"');
      expectBytes(answer, SMALL);
    }
  });

  test('a Last-Modified as old as the answer that carried it is weak: no match (8.8.2.2)', async () => {
    const now = new Date().toUTCString();
    const path = cold(SMALL, { 'last-modified': now, date: now }, null);
    for (let turn = 0; turn < 2; turn += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1', `If-Range: ${now}`] });
      expect(answer.status).toBe(200);
      expectBytes(answer, SMALL);
    }
  });
});

describe('preconditions', () => {
  test.each<readonly [string, readonly string[], number]>([
    ['the tag', [`If-None-Match: ${ETAG}`], 304],
    ['the weak form of the tag: this comparison is weak', [`If-None-Match: W/${ETAG}`], 304],
    ['a list that holds the tag', [`If-None-Match: "a", W/"b",${ETAG}`], 304],
    ['two lines, the tag on the second', ['If-None-Match: "a"', `If-None-Match: ${ETAG}`], 304],
    ['a star', ['If-None-Match: *'], 304],
    ['other tags', ['If-None-Match: "film", "v1", "film,v2"'], 200],
    ['the tag without quotes', ['If-None-Match: film,v1'], 200],
    ['a star in quotes', ['If-None-Match: "*"'], 200],
    ['the tag and a range: 304 wins', [`If-None-Match: ${ETAG}`, 'Range: bytes=0-1'], 304],
    ['the tag and a hopeless range', [`If-None-Match: ${ETAG}`, `Range: bytes=${S}-`], 304],
    ['another tag and a range', ['If-None-Match: "x"', 'Range: bytes=0-1'], 206],
    ['another tag, though the date would match', ['If-None-Match: "x"', `If-Modified-Since: ${MODIFIED}`], 200],
    ['not modified since', [`If-Modified-Since: ${MODIFIED}`], 304],
    ['not modified since, in RFC 850 form', ['If-Modified-Since: Sunday, 01-Nov-26 00:00:00 GMT'], 304],
    ['not modified since, in asctime form', ['If-Modified-Since: Sun Nov  1 00:00:00 2026'], 304],
    ['not modified since a later date', [`If-Modified-Since: ${LATER}`], 304],
    ['modified since', [`If-Modified-Since: ${EARLIER}`], 200],
    ['not a date', ['If-Modified-Since: 2026'], 200],
    ['not modified since, and a range', [`If-Modified-Since: ${MODIFIED}`, 'Range: bytes=0-1'], 304],
    ['If-Match of the tag', [`If-Match: ${ETAG}`], 200],
    ['If-Match of a list', [`If-Match: "a",${ETAG}`], 200],
    ['If-Match of a star', ['If-Match: *'], 200],
    ['If-Match of another tag', ['If-Match: "x"'], 412],
    ['If-Match of the weak form: this comparison is strong', [`If-Match: W/${ETAG}`], 412],
    ['If-Match of another tag, with a range', ['If-Match: "x"', 'Range: bytes=0-1'], 412],
    ['If-Match of the tag, with a range', [`If-Match: ${ETAG}`, 'Range: bytes=0-1'], 206],
    ['If-Match before If-None-Match', ['If-Match: "x"', `If-None-Match: ${ETAG}`], 412],
    ['If-Match true, then If-None-Match', [`If-Match: ${ETAG}`, `If-None-Match: ${ETAG}`], 304],
    ['unmodified since', [`If-Unmodified-Since: ${MODIFIED}`], 200],
    ['unmodified since an earlier date', [`If-Unmodified-Since: ${EARLIER}`], 412],
    ['unmodified since no date', ['If-Unmodified-Since: x'], 200],
    ['If-Match makes If-Unmodified-Since moot', [`If-Match: ${ETAG}`, `If-Unmodified-Since: ${EARLIER}`], 200],
    ['If-Unmodified-Since before If-None-Match', [`If-Unmodified-Since: ${EARLIER}`, `If-None-Match: ${ETAG}`], 412],
  ])('%s', async (_, lines, status) => {
    for (const method of ['GET', 'HEAD'])
      for (const answer of await everywhere(lines, { method })) {
        const want = method === 'HEAD' && status === 206 ? 200 : status;
        expect(answer.status, method).toBe(want);
        if (want === 304 || want < 300) {
          expect(field(answer, 'etag')).toBe(ETAG);
          expect(field(answer, 'date')).not.toBeNull();
        }
        if (want === 200 && method === 'GET') expectBytes(answer, SMALL);
        if (want === 206) expectBytes(answer, bytesOf(SMALL, 0, 1));
      }
  });

  test('a 304 repeats what a 200 would say of caching, and a false length never', async () => {
    const path = cold(SMALL, { 'cache-control': 'public, max-age=60', vary: 'Accept-Encoding' });
    for (let turn = 0; turn < 2; turn += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: [`If-None-Match: ${ETAG}`] });
      expect(answer.status).toBe(304);
      expect(field(answer, 'cache-control')).toBe('public, max-age=60');
      expect(field(answer, 'vary')).toContain('Accept-Encoding');
      expect([null, String(SMALL.length)]).toContain(field(answer, 'content-length'));
    }
  });

  test('a client’s preconditions never reach the origin’s answer into the store', async () => {
    const path = cold();
    await sendRequest(appliance.port, { path, lines: ['If-None-Match: "x"', `If-Modified-Since: ${EARLIER}`] });
    for (const request of origin.requests.filter((request) => request.path === path)) {
      expect(request.headers['if-none-match']).toBeUndefined();
      expect(request.headers['if-modified-since']).toBeUndefined();
    }
  });
});

describe('what an answer says', () => {
  test('of the asset is what the origin said, on 200, 206 and from the store', async () => {
    const said = {
      'content-type': 'application/vnd.apple.mpegurl; charset=utf-8',
      'content-language': 'fi',
      'cache-control': 'max-age=31536000, immutable',
      'content-disposition': 'inline; filename="a.m3u8"',
      vary: 'Accept-Encoding',
    };
    const path = cold(SMALL, said);
    for (const lines of [[], ['Range: bytes=1-2'], ['Range: bytes=3-'], []]) {
      const answer = await sendRequest(appliance.port, { path, lines });
      for (const [name, value] of Object.entries(said)) expect([name, field(answer, name)]).toEqual([name, value]);
      expect(field(answer, 'last-modified')).toBe(MODIFIED);
      expect(field(answer, 'accept-ranges')).toBe('bytes');
      expect(answer.fields.filter(([name]) => name === 'date').length).toBe(1);
    }
  });

  test('of an encoded asset keeps the coding, and its bytes are the coded ones', async () => {
    const path = cold(SMALL, { 'content-encoding': 'br' });
    for (let turn = 0; turn < 2; turn += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Accept-Encoding: br', 'Range: bytes=1-2'] });
      expect(field(answer, 'content-encoding')).toBe('br');
      expectBytes(answer, bytesOf(SMALL, 1, 2));
    }
  });

  test('survives fields of the origin that are not ASCII', async () => {
    const title = Buffer.from('Hämärä 日本').toString('latin1');
    const path = cold(SMALL, { 'x-title': title, 'content-type': 'video/mp4' });
    for (const lines of [['Range: bytes=1-2'], [], ['Range: bytes=0-0']]) {
      const answer = await sendRequest(appliance.port, { path, lines });
      expect(answer.status).toBeLessThan(300);
      expect(field(answer, 'etag')).toBe(ETAG);
      expect([title, null]).toContain(field(answer, 'x-title'));
    }
  });

  test('never repeats a field that was meant for the appliance’s own connection', async () => {
    const path = cold(SMALL, {
      connection: 'x-hop, close',
      'x-hop': 'secret',
      'keep-alive': 'timeout=77',
    });
    for (let turn = 0; turn < 2; turn += 1) {
      const answer = await sendRequest(appliance.port, { path });
      expect(field(answer, 'x-hop')).toBeNull();
      expect(field(answer, 'keep-alive') ?? '').not.toContain('77');
    }
  });

  test('a 404 is the origin’s, and is not an asset: once it is there it is served', async () => {
    fresh += 1;
    const path = `/later/${fresh}`;
    for (const method of ['GET', 'HEAD'])
      expect((await sendRequest(appliance.port, { method, path })).status).toBe(404);
    expect((await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1'] })).status).toBe(404);
    expect((await sendRequest(appliance.port, { path, lines: ['If-None-Match: *'] })).status).toBe(404);
    origin.put(path, SMALL);
    expectBytes(await sendRequest(appliance.port, { path }), SMALL);
  });

  test('stand-alone, the query is part of the key', async () => {
    origin.put('/by-query?v=1', SMALL);
    origin.put('/by-query?v=2', FILM);
    for (let turn = 0; turn < 2; turn += 1) {
      expectBytes(await sendRequest(appliance.port, { path: '/by-query?v=1' }), SMALL);
      expectBytes(await sendRequest(appliance.port, { path: '/by-query?v=2' }), FILM);
    }
  });
});

describe('CORS', () => {
  test('every answer may be read, timed and understood by a page of any origin', async () => {
    const answers = [
      await sendRequest(appliance.port, { path: '/film.mp4' }),
      await sendRequest(appliance.port, { path: cold(), lines: ['Range: bytes=0-1'] }),
      await sendRequest(appliance.port, { path: '/film.mp4', lines: ['Range: bytes=0-1,5-6'] }),
      await sendRequest(appliance.port, { path: '/film.mp4', lines: [`If-None-Match: ${ETAG}`] }),
      await sendRequest(appliance.port, { path: '/film.mp4', lines: ['If-Match: "x"'] }),
      await sendRequest(appliance.port, { path: '/film.mp4', lines: [`Range: bytes=${N}-`] }),
      await sendRequest(appliance.port, { path: '/nothing-here' }),
      await sendRequest(appliance.port, { method: 'DELETE', path: '/film.mp4' }),
      await sendRequest(appliance.port, { method: 'HEAD', path: '/film.mp4' }),
    ];
    expect(answers.map(({ status }) => status)).toEqual([200, 206, 206, 304, 412, 416, 404, 405, 200]);
    for (const answer of answers) {
      const at = `of the ${answer.status}`;
      expect(field(answer, 'access-control-allow-origin'), at).toBe('*');
      expect(field(answer, 'timing-allow-origin'), at).toBe('*');
      const exposed = (field(answer, 'access-control-expose-headers') ?? '').toLowerCase().split(/, */);
      for (const name of ['content-range', 'etag', 'retry-after']) expect(exposed, at).toContain(name);
    }
  });

  test('a preflight is answered here, for the fields that players send', async () => {
    const asked = origin.requests.length;
    for (const path of ['/film.mp4', '/never-seen', `/~abcdefgh01234567/film.mp4`]) {
      const answer = await sendRequest(appliance.port, {
        method: 'OPTIONS',
        path,
        lines: [
          'Origin: http://page.example',
          'Access-Control-Request-Method: GET',
          'Access-Control-Request-Headers: range,if-none-match',
        ],
      });
      expect([200, 204]).toContain(answer.status);
      expect(field(answer, 'access-control-allow-origin')).toBe('*');
      const methods = (field(answer, 'access-control-allow-methods') ?? '').split(/, */);
      expect(methods).toEqual(expect.arrayContaining(['GET', 'HEAD']));
      expect(methods).not.toContain('POST');
      const allowed = (field(answer, 'access-control-allow-headers') ?? '').toLowerCase().split(/, */);
      if (!allowed.includes('*')) for (const name of ['range', 'if-none-match']) expect(allowed).toContain(name);
      expect(Number(field(answer, 'access-control-max-age'))).toBeGreaterThan(0);
    }
    expect(origin.requests.length).toBe(asked);
  });
});

describe('methods', () => {
  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'PROPFIND', 'TRACE', 'PURGE'])(
    '%s is 405 with Allow, nothing of it is read back or passed on, and the connection stays in step',
    async (method) => {
      const asked = origin.requests.length;
      const connection = await HttpConnection.open(appliance.port);
      const body = method === 'TRACE' ? [] : ['Content-Length: 5'];
      connection.send(requestText({ method, path: '/film.mp4', lines: ['X-Secret: s3cret', ...body] }));
      if (body.length > 0) connection.send('GET /');
      const refused = (await connection.readResponse(method))!;
      expect(refused.status).toBe(405);
      expect((field(refused, 'allow') ?? '').split(/, */).sort()).toEqual(['GET', 'HEAD', 'OPTIONS']);
      expect(refused.body.toString()).not.toContain('s3cret');
      connection.send(requestText({ path: '/small' }));
      const next = await connection.readResponse();
      if (next !== null) expectBytes(next, SMALL);
      connection.destroy();
      expect(origin.requests.length).toBe(asked);
    },
  );

  test.each(['/film.mp4', '*'])('OPTIONS %s names the methods', async (path) => {
    const answer = await sendRequest(appliance.port, { method: 'OPTIONS', path });
    expect([200, 204]).toContain(answer.status);
    expect((field(answer, 'allow') ?? '').split(/, */).sort()).toEqual(['GET', 'HEAD', 'OPTIONS']);
  });
});

describe('Cache-Status', () => {
  /** RFC 9211: hit and fwd exclude each other; stored and collapsed speak of a forwarded request only. */
  const form =
    /^larder; (hit|fwd=(uri-miss|partial|stale|miss|bypass)(; (stored|collapsed|fwd-status=\d+))*)(; (ttl=-?\d+|key="[^"]*"|detail=("[^"]*"|[\w-]+)))*$/;

  const statusOf = async (path: string, lines: readonly string[], method = 'GET'): Promise<string> =>
    field(await sendRequest(appliance.port, { path, method, lines }), 'cache-status')!;

  /** What was fetched ahead may still be on its way to the disk when the first reader has all it asked for. */
  const settled = (path: string, lines: readonly string[]): Promise<void> =>
    appliance.until(async () => (await statusOf(path, lines)).startsWith('larder; hit'), 10_000);

  test('tells uri-miss, hit and partial as they are', async () => {
    const path = cold();
    expect(await statusOf(path, ['Range: bytes=0-9'])).toMatch(/^larder; fwd=uri-miss/);
    await settled(path, ['Range: bytes=10-19']);
    expect(await statusOf(path, [`Range: bytes=${MB - 5}-${2 * MB + 5}`])).toMatch(/^larder; fwd=partial/);
    await settled(path, [`Range: bytes=${MB - 5}-${2 * MB + 5}`]);
  });

  test.each<readonly [string, readonly string[]]>([
    ['GET', []],
    ['GET', ['Range: bytes=0-9']],
    ['GET', ['Range: bytes=-9']],
    ['GET', ['Range: bytes=5-6,-9']],
    ['GET', [`If-None-Match: ${ETAG}`]],
    ['GET', ['Range: bytes=-9', `If-Modified-Since: ${MODIFIED}`]],
    ['HEAD', []],
  ])('%s %j of a cold asset is no hit, of a stored one it is and asks the origin nothing', async (method, lines) => {
    const path = cold(SMALL);
    const first = await statusOf(path, lines, method);
    expect(first).toMatch(form);
    expect(first).toMatch(/^larder; fwd=/);
    await settled(path, []);
    const asked = origin.requests.length;
    expect(await statusOf(path, lines, method)).toMatch(/^larder; hit/);
    expect(origin.requests.length).toBe(asked);
  });

  test('never says hit when the origin was asked', async () => {
    const path = cold();
    const position = fc.integer({ min: 0, max: N - 1 });
    const look = async (a: number, b: number): Promise<void> => {
      const [first, last] = a < b ? [a, b] : [b, a];
      const asked = origin.requests.length;
      const answer = await sendRequest(appliance.port, { path, lines: [`Range: bytes=${first}-${last}`] });
      expectBytes(answer, bytesOf(FILM, first, last));
      const said = field(answer, 'cache-status')!;
      expect(said).toMatch(form);
      if (said.startsWith('larder; hit')) expect(origin.requests.length).toBe(asked);
    };
    await fc.assert(fc.asyncProperty(position, position, look), { numRuns: 15 });
    await settled(path, []);
    const asked = origin.requests.length;
    await fc.assert(fc.asyncProperty(position, position, look), { numRuns: 15 });
    expect(origin.requests.length).toBe(asked);
  });
});

test('in a fleet, what is not catalogued is 404 and the origin hears nothing of it, credentials or not', async () => {
  // A port that nobody listens on: steering and fill are away.
  const gone = 'http://127.0.0.1:1';
  const token = issueToken(randomBytes(32), { role: 'appliance', id: 'appliance' });
  const flags = ['--steering', gone, '--fill', gone, '--advertise', 'http://127.0.0.1:2', '--token', token];
  const member = await RunningAppliance.start({ origin: origin.url, flags });
  try {
    const asked = origin.requests.length;
    for (const lines of [[], ['Authorization: Bearer x'], ['Range: bytes=0-1'], ['Cookie: a=b']])
      for (const path of ['/small', '/small?x=1', '/~abcdefgh01234567/small'])
        expect((await sendRequest(member.port, { path, lines })).status).toBe(404);
    expect(origin.requests.length).toBe(asked);
  } finally {
    await member.stop();
  }
});
