// RFC 9110 at the socket of a stand-alone appliance: ranges, preconditions, methods, CORS and Cache-Status. Every rule is
// tested with a cold asset and with a stored one: a client must not be able to tell the two apart.

import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { expectFault } from './faults.ts';
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
let coldPaths = 0;

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

/** A path that the appliance has not fetched yet; the origin has `body` there. */
function cold(body: Buffer = FILM, headers: Record<string, string> = {}, etag: string | null = ETAG): string {
  coldPaths += 1;
  const path = `/cold/${coldPaths}.mp4`;
  origin.put(path, body, { etag, headers: { 'content-type': 'video/mp4', ...headers } });
  return path;
}

/** The responses to one request: for a cold asset, for the same asset again, and after the asset was fetched whole. */
async function coldAndStored(
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

const inclusiveSlice = (value: Buffer, first: number, last: number): Buffer => value.subarray(first, last + 1);

/** Compares with `equals`, because vitest would print a diff of megabytes. */
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
  ])('%s gets a 206 of exactly the bytes %i to %i', async (range, first, last) => {
    for (const answer of await coldAndStored([`Range: ${range}`], { body: FILM })) {
      expect(answer.status).toBe(206);
      expect(parseContentRange(field(answer, 'content-range'))).toEqual({ first, last, total: N });
      expect(field(answer, 'content-length')).toBe(String(last - first + 1));
      expectBytes(answer, inclusiveSlice(FILM, first, last));
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
  ])('%s is unsatisfiable and gets a 416 with the length', async (range) => {
    for (const answer of await coldAndStored([`Range: ${range}`])) {
      expectFault(answer, 'range_unsatisfiable');
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
  ])('%s is malformed and gets a 416, not a large asset by mistake', async (range) => {
    for (const answer of await coldAndStored([`Range: ${range}`])) {
      expectFault(answer, 'range_unsatisfiable');
      expect(field(answer, 'content-range')).toBe(`bytes */${S}`);
    }
  });

  test.each(['seconds=1-2', 'bytess=1-2', 'none=', 'x-bytes=0-0'])(
    '%s has an unknown unit and gets a 200',
    async (range) => {
      for (const answer of await coldAndStored([`Range: ${range}`])) {
        expect(answer.status).toBe(200);
        expect(field(answer, 'content-range')).toBeNull();
        expectBytes(answer, SMALL);
      }
    },
  );

  test('HEAD ignores Range, satisfiable or not: 200 with the whole length', async () => {
    for (const range of ['bytes=0-0', `bytes=${S}-`, 'bytes=x', 'bytes=0-1,5-6'])
      for (const answer of await coldAndStored([`Range: ${range}`], { method: 'HEAD' })) {
        expect(answer.status).toBe(200);
        expect(field(answer, 'content-length')).toBe(String(S));
        expect(field(answer, 'content-range')).toBeNull();
      }
  });

  test('HEAD gets the same fields as GET', async () => {
    const path = cold();
    const before = await sendRequest(appliance.port, { method: 'HEAD', path });
    const get = await sendRequest(appliance.port, { path });
    const after = await sendRequest(appliance.port, { method: 'HEAD', path });
    const stableFields = (answer: HttpResponse): unknown =>
      Object.fromEntries(answer.fields.filter(([name]) => !['date', 'cache-status', 'age'].includes(name)));
    expect(stableFields(before)).toEqual(stableFields(get));
    expect(stableFields(after)).toEqual(stableFields(get));
    expect(field(get, 'content-length')).toBe(String(N));
  });

  test.each<readonly [string, number]>([
    ['bytes=0-', 416],
    ['bytes=0-0', 416],
    ['bytes=-5', 200],
  ])('for an empty asset %s gets a %i', async (range, status) => {
    for (const answer of await coldAndStored([`Range: ${range}`], { body: Buffer.alloc(0) })) {
      expect(answer.status).toBe(status);
      expect(field(answer, 'content-range')).toBe(status === 416 ? 'bytes */0' : null);
      if (status === 200) expect(field(answer, 'content-length')).toBe('0');
    }
  });

  test('a GET of an empty asset gets an empty 200', async () => {
    for (const answer of await coldAndStored([], { body: Buffer.alloc(0) })) {
      expect(answer.status).toBe(200);
      expectBytes(answer, Buffer.alloc(0));
    }
  });
});

describe('several ranges', () => {
  test('are sent as parts in the requested order, each with its Content-Range and none in the header section', async () => {
    const range = `bytes=${2 * MB}-${2 * MB + 9},0-4,-7`;
    for (const answer of await coldAndStored([`Range: ${range}`], { body: FILM })) {
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
      for (const part of found) expect(part.body.equals(inclusiveSlice(FILM, part.first, part.last))).toBe(true);
    }
  });

  test('whose sum exceeds the asset get the whole asset once', async () => {
    for (const range of [`bytes=0-${S - 2},1-`, 'bytes=0-,0-,0-', `bytes=0-,-1`])
      for (const answer of await coldAndStored([`Range: ${range}`])) {
        expect(answer.status).toBe(200);
        expect(field(answer, 'content-range')).toBeNull();
        expectBytes(answer, SMALL);
      }
  });

  test('are served up to 32 that lie apart, refused from 33 on, and coalesced where they overlap', async () => {
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

  test('of any kind get their bytes, the whole asset, or a 416 if none is satisfiable', async () => {
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
        connection.send(requestText({ path: '/small', lines: [`Range: bytes=${range}`] }));
        const answer = (await connection.readResponse())!;
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

  /** The ranges that a 206 carries, merged; throws if a byte differs from the asset or is sent twice. */
  function covered(answer: HttpResponse, asset: Buffer): [number, number][] {
    const single = field(answer, 'content-range');
    const found = single === null ? multipartParts(answer) : [{ ...parseContentRange(single), body: answer.body }];
    const merged: [number, number][] = [];
    for (const { first, last, total, body } of [...found].sort((a, b) => a.first - b.first)) {
      expect(total).toBe(asset.length);
      expect(body.equals(inclusiveSlice(asset, first, last))).toBe(true);
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
    ['the weak form of the tag', `W/${ETAG}`, 200],
    ['a tag without its quotes', 'film,v1', 200],
    ['two tags', `${ETAG}, "x"`, 200],
    ['the date of the last change', MODIFIED, 206],
    ['a later date', LATER, 200],
    ['an earlier date', EARLIER, 200],
    ['text that is not a date', 'yesterday', 200],
    ['a star', '*', 200],
  ])('with %s (%s) gets a %i', async (_, value, status) => {
    for (const answer of await coldAndStored([range, `If-Range: ${value}`])) {
      expect(answer.status).toBe(status);
      expectBytes(answer, status === 206 ? inclusiveSlice(SMALL, 5, 9) : SMALL);
    }
  });

  test('that matches an unsatisfiable range gets a 416; one that does not match gets the whole asset', async () => {
    for (const answer of await coldAndStored([`Range: bytes=${S}-`, `If-Range: ${ETAG}`]))
      expect(answer.status).toBe(416);
    for (const answer of await coldAndStored([`Range: bytes=${S}-`, 'If-Range: "x"'])) {
      expect(answer.status).toBe(200);
      expectBytes(answer, SMALL);
    }
  });

  test('without Range is ignored', async () => {
    for (const answer of await coldAndStored(['If-Range: "x"'])) expectBytes(answer, SMALL);
  });

  test('decides for several ranges alike', async () => {
    const lines = ['Range: bytes=0-1,5-6'];
    for (const answer of await coldAndStored([...lines, `If-Range: ${ETAG}`]))
      expect(multipartParts(answer).length).toBe(2);
    for (const answer of await coldAndStored([...lines, 'If-Range: "x"'])) expectBytes(answer, SMALL);
  });

  test('never matches a weak tag, which is sent unchanged', async () => {
    const path = cold(SMALL, {}, 'W/"soft"');
    for (const value of ['W/"soft"', '"soft"']) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1', `If-Range: ${value}`] });
      expect(answer.status).toBe(200);
      expect(field(answer, 'etag')).toBe('W/"soft"');
      expectBytes(answer, SMALL);
    }
  });

  test('does not match a Last-Modified that equals the Date of its response: that is weak (8.8.2.2)', async () => {
    const now = new Date(systemClock.now()).toUTCString();
    const path = cold(SMALL, { 'last-modified': now, date: now }, null);
    for (let count = 0; count < 2; count += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1', `If-Range: ${now}`] });
      expect(answer.status).toBe(200);
      expectBytes(answer, SMALL);
    }
  });
});

describe('preconditions', () => {
  test.each<readonly [string, number, readonly string[]]>([
    ['If-None-Match of the tag', 304, [`If-None-Match: ${ETAG}`]],
    ['If-None-Match of the weak form of the tag', 304, [`If-None-Match: W/${ETAG}`]],
    ['If-None-Match of a list with the tag', 304, [`If-None-Match: "a", W/"b",${ETAG}`]],
    ['two If-None-Match fields, the second with the tag', 304, ['If-None-Match: "a"', `If-None-Match: ${ETAG}`]],
    ['If-None-Match: *', 304, ['If-None-Match: *']],
    ['If-None-Match of other tags', 200, ['If-None-Match: "film", "v1", "film,v2"']],
    ['If-None-Match of the tag without quotes', 200, ['If-None-Match: film,v1']],
    ['If-None-Match of a star in quotes', 200, ['If-None-Match: "*"']],
    ['If-None-Match of the tag, and a range', 304, [`If-None-Match: ${ETAG}`, 'Range: bytes=0-1']],
    ['If-None-Match of the tag, and an unsatisfiable range', 304, [`If-None-Match: ${ETAG}`, `Range: bytes=${S}-`]],
    ['If-None-Match of another tag, and a range', 206, ['If-None-Match: "x"', 'Range: bytes=0-1']],
    [
      'If-None-Match of another tag, and a matching date',
      200,
      ['If-None-Match: "x"', `If-Modified-Since: ${MODIFIED}`],
    ],
    ['If-Modified-Since the date of change', 304, [`If-Modified-Since: ${MODIFIED}`]],
    ['If-Modified-Since in RFC 850 form', 304, ['If-Modified-Since: Sunday, 01-Nov-26 00:00:00 GMT']],
    ['If-Modified-Since in asctime form', 304, ['If-Modified-Since: Sun Nov  1 00:00:00 2026']],
    ['If-Modified-Since a later date', 304, [`If-Modified-Since: ${LATER}`]],
    ['If-Modified-Since an earlier date', 200, [`If-Modified-Since: ${EARLIER}`]],
    ['If-Modified-Since with text that is not a date', 200, ['If-Modified-Since: 2026']],
    ['If-Modified-Since the date of change, and a range', 304, [`If-Modified-Since: ${MODIFIED}`, 'Range: bytes=0-1']],
    ['If-Match of the tag', 200, [`If-Match: ${ETAG}`]],
    ['If-Match of a list', 200, [`If-Match: "a",${ETAG}`]],
    ['If-Match of a star', 200, ['If-Match: *']],
    ['If-Match of another tag', 412, ['If-Match: "x"']],
    ['If-Match of the weak form of the tag', 412, [`If-Match: W/${ETAG}`]],
    ['If-Match of another tag, with a range', 412, ['If-Match: "x"', 'Range: bytes=0-1']],
    ['If-Match of the tag, with a range', 206, [`If-Match: ${ETAG}`, 'Range: bytes=0-1']],
    ['If-Match of another tag, and If-None-Match of the tag', 412, ['If-Match: "x"', `If-None-Match: ${ETAG}`]],
    ['If-Match and If-None-Match of the tag', 304, [`If-Match: ${ETAG}`, `If-None-Match: ${ETAG}`]],
    ['If-Unmodified-Since the date of change', 200, [`If-Unmodified-Since: ${MODIFIED}`]],
    ['If-Unmodified-Since an earlier date', 412, [`If-Unmodified-Since: ${EARLIER}`]],
    ['If-Unmodified-Since with text that is not a date', 200, ['If-Unmodified-Since: x']],
    [
      'If-Match of the tag, and If-Unmodified-Since an earlier date',
      200,
      [`If-Match: ${ETAG}`, `If-Unmodified-Since: ${EARLIER}`],
    ],
    [
      'If-Unmodified-Since an earlier date, and If-None-Match of the tag',
      412,
      [`If-Unmodified-Since: ${EARLIER}`, `If-None-Match: ${ETAG}`],
    ],
  ])('%s: %i', async (_, status, lines) => {
    for (const method of ['GET', 'HEAD'])
      for (const answer of await coldAndStored(lines, { method })) {
        const want = method === 'HEAD' && status === 206 ? 200 : status;
        expect(answer.status, method).toBe(want);
        if (want === 304 || want < 300) {
          expect(field(answer, 'etag')).toBe(ETAG);
          expect(field(answer, 'date')).not.toBeNull();
        }
        if (want === 200 && method === 'GET') expectBytes(answer, SMALL);
        if (want === 206) expectBytes(answer, inclusiveSlice(SMALL, 0, 1));
      }
  });

  test('a 304 carries the caching fields of the 200, and no wrong Content-Length', async () => {
    const path = cold(SMALL, { 'cache-control': 'public, max-age=60', vary: 'Accept-Encoding' });
    for (let count = 0; count < 2; count += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: [`If-None-Match: ${ETAG}`] });
      expect(answer.status).toBe(304);
      expect(field(answer, 'cache-control')).toBe('public, max-age=60');
      expect(field(answer, 'vary')).toContain('Accept-Encoding');
      expect([null, String(SMALL.length)]).toContain(field(answer, 'content-length'));
    }
  });

  test('the preconditions of a client are not sent with a fetch that is stored', async () => {
    const path = cold();
    await sendRequest(appliance.port, { path, lines: ['If-None-Match: "x"', `If-Modified-Since: ${EARLIER}`] });
    for (const request of origin.requests.filter((request) => request.path === path)) {
      expect(request.headers['if-none-match']).toBeUndefined();
      expect(request.headers['if-modified-since']).toBeUndefined();
    }
  });
});

describe('fields of a response', () => {
  test('that describe the asset are those of the origin, on a 200, on a 206 and from the store', async () => {
    const described = {
      'content-type': 'application/vnd.apple.mpegurl; charset=utf-8',
      'content-language': 'fi',
      'cache-control': 'max-age=31536000, immutable',
      'content-disposition': 'inline; filename="a.m3u8"',
      vary: 'Accept-Encoding',
    };
    const path = cold(SMALL, described);
    for (const lines of [[], ['Range: bytes=1-2'], ['Range: bytes=3-'], []]) {
      const answer = await sendRequest(appliance.port, { path, lines });
      for (const [name, value] of Object.entries(described)) expect([name, field(answer, name)]).toEqual([name, value]);
      expect(field(answer, 'last-modified')).toBe(MODIFIED);
      expect(field(answer, 'accept-ranges')).toBe('bytes');
      expect(answer.fields.filter(([name]) => name === 'date').length).toBe(1);
    }
  });

  test('keep the content coding, and ranges count the coded bytes', async () => {
    const path = cold(SMALL, { 'content-encoding': 'br' });
    for (let count = 0; count < 2; count += 1) {
      const answer = await sendRequest(appliance.port, { path, lines: ['Accept-Encoding: br', 'Range: bytes=1-2'] });
      expect(field(answer, 'content-encoding')).toBe('br');
      expectBytes(answer, inclusiveSlice(SMALL, 1, 2));
    }
  });

  test('may be beyond ASCII', async () => {
    const title = Buffer.from('Hämärä 日本').toString('latin1');
    const path = cold(SMALL, { 'x-title': title, 'content-type': 'video/mp4' });
    for (const lines of [['Range: bytes=1-2'], [], ['Range: bytes=0-0']]) {
      const answer = await sendRequest(appliance.port, { path, lines });
      expect(answer.status).toBeLessThan(300);
      expect(field(answer, 'etag')).toBe(ETAG);
      expect([title, null]).toContain(field(answer, 'x-title'));
    }
  });

  test('do not include what the origin sent for its connection to the appliance', async () => {
    const path = cold(SMALL, {
      connection: 'x-hop, close',
      'x-hop': 'secret',
      'keep-alive': 'timeout=77',
    });
    for (let count = 0; count < 2; count += 1) {
      const answer = await sendRequest(appliance.port, { path });
      expect(field(answer, 'x-hop')).toBeNull();
      expect(field(answer, 'keep-alive') ?? '').not.toContain('77');
    }
  });

  test('a 404 without a lifetime is not stored: the asset is served as soon as the origin has it', async () => {
    coldPaths += 1;
    const path = `/later/${coldPaths}`;
    for (const method of ['GET', 'HEAD'])
      expect((await sendRequest(appliance.port, { method, path })).status).toBe(404);
    expect((await sendRequest(appliance.port, { path, lines: ['Range: bytes=0-1'] })).status).toBe(404);
    expect((await sendRequest(appliance.port, { path, lines: ['If-None-Match: *'] })).status).toBe(404);
    origin.put(path, SMALL);
    expectBytes(await sendRequest(appliance.port, { path }), SMALL);
  });

  test('the query is part of the cache key of a stand-alone appliance', async () => {
    origin.put('/by-query?v=1', SMALL);
    origin.put('/by-query?v=2', FILM);
    for (let count = 0; count < 2; count += 1) {
      expectBytes(await sendRequest(appliance.port, { path: '/by-query?v=1' }), SMALL);
      expectBytes(await sendRequest(appliance.port, { path: '/by-query?v=2' }), FILM);
    }
  });
});

describe('CORS', () => {
  test('any page may read and time every response, errors included', async () => {
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
      const which = `of the ${answer.status}`;
      expect(field(answer, 'access-control-allow-origin'), which).toBe('*');
      expect(field(answer, 'timing-allow-origin'), which).toBe('*');
      const exposed = (field(answer, 'access-control-expose-headers') ?? '').toLowerCase().split(/, */);
      for (const name of ['content-range', 'etag', 'retry-after']) expect(exposed, which).toContain(name);
    }
  });

  test('a preflight is answered without the origin, for the fields that players send', async () => {
    const requestsBefore = origin.requests.length;
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
    expect(origin.requests.length).toBe(requestsBefore);
  });
});

describe('methods', () => {
  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'PROPFIND', 'TRACE', 'PURGE'])(
    '%s gets a 405 with Allow, is neither echoed nor forwarded, and leaves the connection in step',
    async (method) => {
      const requestsBefore = origin.requests.length;
      const connection = await HttpConnection.open(appliance.port);
      const body = method === 'TRACE' ? [] : ['Content-Length: 5'];
      connection.send(requestText({ method, path: '/film.mp4', lines: ['X-Secret: s3cret', ...body] }));
      if (body.length > 0) connection.send('GET /');
      const refused = (await connection.readResponse(method))!;
      expectFault(refused, 'method_not_allowed');
      expect((field(refused, 'allow') ?? '').split(/, */).sort()).toEqual(['GET', 'HEAD', 'OPTIONS']);
      expect(refused.body.toString()).not.toContain('s3cret');
      connection.send(requestText({ path: '/small' }));
      const next = await connection.readResponse();
      if (next !== null) expectBytes(next, SMALL);
      connection.destroy();
      expect(origin.requests.length).toBe(requestsBefore);
    },
  );

  test.each(['/film.mp4', '*'])('OPTIONS %s gets the allowed methods', async (path) => {
    const answer = await sendRequest(appliance.port, { method: 'OPTIONS', path });
    expect([200, 204]).toContain(answer.status);
    expect((field(answer, 'allow') ?? '').split(/, */).sort()).toEqual(['GET', 'HEAD', 'OPTIONS']);
  });
});

describe('Cache-Status', () => {
  /** RFC 9211: hit and fwd exclude each other; stored and collapsed apply to forwarded requests only. */
  const form =
    /^larder; (hit|fwd=(uri-miss|partial|stale|miss|bypass)(; (stored|collapsed|fwd-status=\d+))*)(; (ttl=-?\d+|key="[^"]*"|detail=("[^"]*"|[\w-]+)))*$/;

  const statusOf = async (path: string, lines: readonly string[], method = 'GET'): Promise<string> =>
    field(await sendRequest(appliance.port, { path, method, lines }), 'cache-status')!;

  /** Waits for blocks that are still being written although the reader has all its bytes. */
  const untilHit = (path: string, lines: readonly string[]): Promise<void> =>
    appliance.until(async () => (await statusOf(path, lines)).startsWith('larder; hit'), 10_000);

  test('distinguishes uri-miss, hit and partial', async () => {
    const path = cold();
    expect(await statusOf(path, ['Range: bytes=0-9'])).toMatch(/^larder; fwd=uri-miss/);
    await untilHit(path, ['Range: bytes=10-19']);
    expect(await statusOf(path, [`Range: bytes=${MB - 5}-${2 * MB + 5}`])).toMatch(/^larder; fwd=partial/);
    await untilHit(path, [`Range: bytes=${MB - 5}-${2 * MB + 5}`]);
  });

  test.each<readonly [string, readonly string[]]>([
    ['GET', []],
    ['GET', ['Range: bytes=0-9']],
    ['GET', ['Range: bytes=-9']],
    ['GET', ['Range: bytes=5-6,-9']],
    ['GET', [`If-None-Match: ${ETAG}`]],
    ['GET', ['Range: bytes=-9', `If-Modified-Since: ${MODIFIED}`]],
    ['HEAD', []],
  ])(
    '%s with %j is a miss for a cold asset, and a hit without an origin request for a stored one',
    async (method, lines) => {
      const path = cold(SMALL);
      const first = await statusOf(path, lines, method);
      expect(first).toMatch(form);
      expect(first).toMatch(/^larder; fwd=/);
      await untilHit(path, []);
      const requestsBefore = origin.requests.length;
      expect(await statusOf(path, lines, method)).toMatch(/^larder; hit/);
      expect(origin.requests.length).toBe(requestsBefore);
    },
  );

  test('is never hit if the origin was asked', async () => {
    const path = cold();
    const position = fc.integer({ min: 0, max: N - 1 });
    const requestRange = async (a: number, b: number): Promise<void> => {
      const [first, last] = a < b ? [a, b] : [b, a];
      const requestsBefore = origin.requests.length;
      const answer = await sendRequest(appliance.port, { path, lines: [`Range: bytes=${first}-${last}`] });
      expectBytes(answer, inclusiveSlice(FILM, first, last));
      const status = field(answer, 'cache-status')!;
      expect(status).toMatch(form);
      if (status.startsWith('larder; hit')) expect(origin.requests.length).toBe(requestsBefore);
    };
    await fc.assert(fc.asyncProperty(position, position, requestRange), { numRuns: 15 });
    await untilHit(path, []);
    const requestsBefore = origin.requests.length;
    await fc.assert(fc.asyncProperty(position, position, requestRange), { numRuns: 15 });
    expect(origin.requests.length).toBe(requestsBefore);
  });
});
