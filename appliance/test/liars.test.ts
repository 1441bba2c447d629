// Origins that lie, change their mind, break off or hang. A client gets the right bytes, an error, or a short read that it
// can see: never a wrong byte, never two versions in one answer, and nothing wrong is kept for the next client.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import { sendRequest, field, requestText, HttpConnection, type HttpResponse } from './http-client.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 100_005);
const OTHER = noise(MB + 100_005, 99);
const LONGER = noise(2 * MB + 9, 55);
const N = FILM.length;
const ETAG = '"v1"';
const MIDDLE = [MB - 100_000, MB + 109] as const;

type Handler = (request: IncomingMessage, response: ServerResponse, turn: number) => void;

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
const scripts = new Map<string, { handler: Handler; turns: number }>();
let paths = 0;
/** Waits beside all other cases. */
let silent: Promise<HttpResponse>;

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  origin.intercept = (request, response) => {
    const script = scripts.get(request.url!);
    if (script === undefined) return false;
    script.turns += 1;
    script.handler(request, response, script.turns);
    return true;
  };
  appliance = await RunningAppliance.start({ origin: origin.url });
  silent = sendRequest(appliance.port, { path: scripted(() => undefined) }, 40_000);
  silent.catch(() => undefined);
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

/** A path of its own for each case. */
function scripted(handler: Handler): string {
  paths += 1;
  const path = `/liar-${paths}`;
  scripts.set(path, { handler, turns: 0 });
  return path;
}

const turnsOf = (path: string): number => scripts.get(path)!.turns;

interface Asked {
  readonly first: number;
  readonly last: number;
  readonly ranged: boolean;
}

function asked(request: IncomingMessage, length: number): Asked {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  if (match === null) return { first: 0, last: length - 1, ranged: false };
  return {
    first: Number(match[1]),
    last: match[2] === '' ? length - 1 : Math.min(Number(match[2]), length - 1),
    ranged: true,
  };
}

interface Say {
  readonly body?: Buffer;
  readonly status?: number;
  readonly headers?: Record<string, string | string[] | undefined>;
  /** What is sent in place of the part that was asked for. */
  readonly bytes?: (part: Buffer) => Buffer;
  /** After the bytes: hang up in place of an orderly end. */
  readonly cut?: boolean;
}

/** The honest answer, but for what `say` overrides; `undefined` takes a field away. */
function answer(request: IncomingMessage, response: ServerResponse, say: Say = {}): void {
  const body = say.body ?? FILM;
  const { first, last, ranged } = asked(request, body.length);
  const part = body.subarray(first, last + 1);
  const fields: Record<string, string | string[] | undefined> = {
    'content-type': 'video/mp4',
    etag: ETAG,
    'content-length': String(part.length),
    ...(ranged ? { 'content-range': `bytes ${first}-${last}/${body.length}` } : {}),
    ...say.headers,
  };
  const kept = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  response.writeHead(say.status ?? (ranged ? 206 : 200), kept as Record<string, string | string[]>);
  const bytes = say.bytes === undefined ? part : say.bytes(part);
  if (request.method === 'HEAD') response.end();
  else if (say.cut === true) response.write(bytes, () => request.socket.destroy());
  else response.end(bytes);
}

type Verdict = 'right' | 'short' | 'refused';

/** What a client got, judged by the truths that it may have got; throws for a wrong byte. */
function judge(got: HttpResponse, truths: readonly Buffer[], range: readonly [number, number] | null): Verdict {
  if (got.status >= 400) return 'refused';
  expect([200, 206]).toContain(got.status);
  const wanted = truths.map((truth) =>
    got.status === 206 && range !== null ? truth.subarray(range[0], range[1] + 1) : truth,
  );
  const fits = wanted.some((want) => (got.complete ? want : want.subarray(0, got.body.length)).equals(got.body));
  expect([got.status, got.complete, got.body.length, fits]).toEqual([got.status, got.complete, got.body.length, true]);
  return got.complete ? 'right' : 'short';
}

async function whole(path: string, truths: readonly Buffer[] = [FILM]): Promise<Verdict> {
  return judge(await sendRequest(appliance.port, { path }), truths, null);
}

async function part(path: string, truths: readonly Buffer[] = [FILM], range = MIDDLE): Promise<Verdict> {
  const lines = [`Range: bytes=${range[0]}-${range[1]}`];
  return judge(await sendRequest(appliance.port, { path, lines }), truths, range);
}

/** The origin comes to reason: nothing that it said before may be in the way for long, nor in the bytes. */
async function mended(path: string): Promise<void> {
  scripts.get(path)!.handler = (request, response) => answer(request, response);
  await appliance.until(async () => (await whole(path)) === 'right', 10_000);
  expect(await part(path)).toBe('right');
}

describe('an origin that', () => {
  const right: readonly Verdict[] = ['right'];
  const no: readonly Verdict[] = ['refused'];
  const noBytes: readonly Verdict[] = ['refused', 'short'];
  const any: readonly Verdict[] = ['right', 'refused', 'short'];

  test.each<readonly [string, readonly Verdict[], Handler]>([
    [
      'sends all in answer to a range',
      right,
      (request, response) => {
        delete request.headers.range;
        answer(request, response);
      },
    ],
    [
      'sends another range than asked',
      no,
      (request, response) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-range': `bytes ${first + 1}-${last + 1}/${N}` } });
      },
    ],
    [
      'sends the range before the one asked',
      any,
      (request, response) => {
        request.headers.range = `bytes=0-${MB - 1}`;
        answer(request, response);
      },
    ],
    [
      'sends all of the range asked but its first byte, and says so',
      no,
      (request, response) => {
        const { first, last } = asked(request, N);
        request.headers.range = `bytes=${first + 1}-${last}`;
        answer(request, response);
      },
    ],
    [
      'sends less than the range asked, and says so',
      any,
      (request, response) => {
        const { first, last } = asked(request, N);
        request.headers.range = `bytes=${first}-${Math.max(first, last - 7)}`;
        answer(request, response);
      },
    ],
    [
      'says a total beyond its last byte',
      any,
      (request, response) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${N + 1}` } });
      },
    ],
    [
      'says another total each time',
      any,
      (request, response, turn) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${N + turn}` } });
      },
    ],
    [
      'says a total before its last byte',
      no,
      (request, response) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${last}` } });
      },
    ],
    [
      'keeps the total to itself',
      any,
      (request, response) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-range': `bytes ${first}-${last}/*` } });
      },
    ],
    [
      'sends a 206 without Content-Range',
      no,
      (request, response) => {
        answer(request, response, { headers: { 'content-range': undefined } });
      },
    ],
    [
      'sends a Content-Range that is none',
      no,
      (request, response) => {
        answer(request, response, { headers: { 'content-range': 'bytes x-y/z' } });
      },
    ],
    [
      'sends a Content-Range in another unit',
      no,
      (request, response) => {
        answer(request, response, { headers: { 'content-range': `lines 0-5/${N}` } });
      },
    ],
    [
      'sends numbers beyond counting',
      no,
      (request, response) => {
        answer(request, response, {
          headers: { 'content-range': `bytes 0-99999999999999999998/99999999999999999999` },
        });
      },
    ],
    [
      'sends two Content-Range fields',
      any,
      (request, response) => {
        const { first, last } = asked(request, N);
        const value = `bytes ${first}-${last}/${N}`;
        answer(request, response, { headers: { 'content-range': [value, value] } });
      },
    ],
    [
      'sends parts in answer to one range',
      no,
      (request, response) => {
        const { first, last } = asked(request, N);
        const head = `--b\r\ncontent-range: bytes ${first}-${last}/${N}\r\n\r\n`;
        const multipart = Buffer.concat([
          Buffer.from(head),
          FILM.subarray(first, last + 1),
          Buffer.from('\r\n--b--\r\n'),
        ]);
        answer(request, response, {
          headers: {
            'content-range': undefined,
            'content-type': 'multipart/byteranges; boundary=b',
            'content-length': String(multipart.length),
          },
          bytes: () => multipart,
        });
      },
    ],
    [
      'says a Content-Length that the range is not',
      no,
      (request, response) => {
        const { first, last } = asked(request, N);
        answer(request, response, { headers: { 'content-length': String(last - first + 11) }, cut: true });
      },
    ],
    [
      'breaks off in the body, once',
      right,
      (request, response, turn) => {
        answer(
          request,
          response,
          turn === 1 ? { bytes: (bytes) => bytes.subarray(0, bytes.length / 2), cut: true } : {},
        );
      },
    ],
    [
      'breaks off in the body, always',
      noBytes,
      (request, response) => {
        answer(request, response, {
          bytes: (bytes) => bytes.subarray(0, Math.min(1_000, bytes.length - 1)),
          cut: true,
        });
      },
    ],
    [
      'breaks off before the body, always',
      noBytes,
      (request, response) => {
        answer(request, response, { bytes: () => Buffer.alloc(0), cut: true });
      },
    ],
    [
      'hangs up in place of an answer, once',
      any,
      (request, response, turn) => {
        if (turn === 1) request.socket.destroy();
        else answer(request, response);
      },
    ],
    ['hangs up in place of an answer, always', no, (request) => void request.socket.destroy()],
    ['resets in place of an answer', no, (request) => void request.socket.resetAndDestroy()],
    ['talks garbage', no, (request) => void request.socket.end('garbage\r\n\r\n')],
    [
      'sends 40 KB of fields',
      no,
      (request) => {
        request.socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: ${'x'.repeat(40_000)}\r\n\r\nx`);
      },
    ],
    [
      'sends two lengths',
      no,
      (request) => {
        request.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx');
      },
    ],
    ['sends a status of another kind', no, (request) => void request.socket.end('HTTP/1.1 099 Huh\r\n\r\n')],
    [
      'sends a body that breaks its chunks',
      noBytes,
      (request) => {
        request.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n');
        request.socket.write(FILM.subarray(0, 5));
        request.socket.end('ZZ\r\n');
      },
    ],
    [
      'has no validator',
      right,
      (request, response) => {
        answer(request, response, { headers: { etag: undefined } });
      },
    ],
    [
      'has a weak validator',
      right,
      (request, response) => {
        answer(request, response, { headers: { etag: 'W/"soft"' } });
      },
    ],
    [
      'has an entity tag without quotes',
      right,
      (request, response) => {
        answer(request, response, { headers: { etag: 'bare' } });
      },
    ],
    [
      'has an entity tag that is empty',
      right,
      (request, response) => {
        answer(request, response, { headers: { etag: '""' } });
      },
    ],
    [
      'has an entity tag beyond ASCII',
      right,
      (request, response) => {
        answer(request, response, { headers: { etag: '"\xe4\xf6"' } });
      },
    ],
    [
      'sends chunks and no length',
      right,
      (request, response) => {
        delete request.headers.range;
        answer(request, response, { headers: { 'content-length': undefined } });
      },
    ],
    [
      'sends chunks in a 206',
      right,
      (request, response) => {
        answer(request, response, { headers: { 'content-length': undefined } });
      },
    ],
    [
      'breaks off in chunks without a length',
      noBytes,
      (request, response) => {
        delete request.headers.range;
        answer(request, response, {
          headers: { 'content-length': undefined },
          bytes: (bytes) => bytes.subarray(0, 1_000),
          cut: true,
        });
      },
    ],
    [
      'says fewer bytes than it sends, and no more than that is believed',
      any,
      (request, response) => {
        delete request.headers.range;
        response.socket!.write(`HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: ${N}\r\n\r\n`);
        response.socket!.end(Buffer.concat([FILM, Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad')]));
      },
    ],
    [
      'drips',
      right,
      (request, response) => {
        const small = FILM.subarray(0, 200);
        const { first, last } = asked(request, N);
        const bytes = FILM.subarray(first, last + 1);
        response.writeHead(206, {
          etag: ETAG,
          'content-range': `bytes ${first}-${last}/${N}`,
          'content-length': bytes.length,
        });
        let sent = 0;
        const drip = (): void => {
          if (sent < small.length) response.write(bytes.subarray(sent, (sent += 1)), () => setImmediate(drip));
          else response.end(bytes.subarray(sent));
        };
        drip();
      },
    ],
    [
      'sends early hints first',
      right,
      (request, response) => {
        response.writeEarlyHints({ link: '</x>; rel=preload' }, () => answer(request, response));
      },
    ],
  ])('%s', async (_, allowed, handler) => {
    const [first, second] = [scripted(handler), scripted(handler)];
    const verdicts = [await whole(first), await part(second)];
    for (const verdict of verdicts) expect(allowed).toContain(verdict);
    // However it ends, the origin is not asked without end on behalf of one client.
    expect(turnsOf(first)).toBeLessThanOrEqual(12);
    expect(turnsOf(second)).toBeLessThanOrEqual(12);
    for (const path of [first, second]) await mended(path);
  });

  test.each([
    ['its own address, which becomes a path here', (): string => `${origin.url}/elsewhere?x=1#y`, '/elsewhere?x=1#y'],
    ['another address, which stays', (): string => 'http://other.example/elsewhere', 'http://other.example/elsewhere'],
  ] as const)('redirects to %s', async (_, location, expected) => {
    const path = scripted((_request, response) => {
      response.writeHead(302, { location: location(), 'content-length': '0' }).end();
    });
    const got = await sendRequest(appliance.port, { path });
    expect([got.status, field(got, 'location')]).toEqual([302, expected]);
  });

  test.each([301, 302, 304, 307, 400, 401, 403, 404, 405, 410, 412, 416, 418, 429, 451, 500, 502, 503, 504])(
    'answers %i gives no bytes of an asset, and is believed no longer than it lasts',
    async (status) => {
      const path = scripted((_, response) => {
        response.writeHead(status, {
          'retry-after': '7',
          location: '/elsewhere',
          'content-length': status === 304 ? '' : '5',
        });
        response.end(status === 304 ? '' : 'oops\n');
      });
      const got = await sendRequest(appliance.port, { path });
      if ([301, 302, 307].includes(status))
        expect([got.status, field(got, 'location')]).toEqual([status, '/elsewhere']);
      else if (status === 304) expect(got.status).toBeGreaterThanOrEqual(500);
      else expect([got.status, got.status >= 400]).toEqual([got.status >= 502 ? got.status : status, true]);
      if (status === 429 || status === 503) expect(field(got, 'retry-after')).toBe('7');
      expect(got.body.length).toBeLessThan(1_000);
      await mended(path);
    },
  );

  test('answers 204 gives no byte and no length', async () => {
    const path = scripted((_, response) => void response.writeHead(204).end());
    const got = await sendRequest(appliance.port, { path });
    if (got.status === 204) expect(field(got, 'content-length')).toBeNull();
    else expect(got.status).toBeGreaterThanOrEqual(500);
    await mended(path);
  });
});

describe('an asset that changes', () => {
  interface Version {
    readonly body: Buffer;
    readonly headers: Record<string, string | undefined>;
  }
  const strong = (tag: string): Version['headers'] => ({ etag: tag });
  const dated = (second: number): Version['headers'] => ({
    etag: undefined,
    'last-modified': new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toUTCString(),
  });

  const kinds: readonly (readonly [string, boolean, Version, Version])[] = [
    [
      'with a strong tag, If-Match obeyed',
      true,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('"2"') },
    ],
    [
      'with a strong tag, If-Match ignored',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('"2"') },
    ],
    ['and its length with it', true, { body: FILM, headers: strong('"1"') }, { body: LONGER, headers: strong('"2"') }],
    ['and becomes shorter', false, { body: LONGER, headers: strong('"1"') }, { body: FILM, headers: strong('"2"') }],
    [
      'in length alone, the tag staying',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: LONGER, headers: strong('"1"') },
    ],
    ['under one weak tag', false, { body: FILM, headers: strong('W/"1"') }, { body: OTHER, headers: strong('W/"1"') }],
    [
      'from a strong to a weak tag',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('W/"1"') },
    ],
    ['and loses its tag', false, { body: FILM, headers: strong('"1"') }, { body: OTHER, headers: { etag: undefined } }],
    ['with a date alone', false, { body: FILM, headers: dated(1) }, { body: OTHER, headers: dated(2) }],
    [
      'without any validator',
      false,
      { body: FILM, headers: { etag: undefined } },
      { body: OTHER, headers: { etag: undefined } },
    ],
  ];

  /** The tag of an answer names the version that its bytes are of, where versions have tags. */
  function judgeVersion(
    got: HttpResponse,
    versions: readonly Version[],
    range: readonly [number, number] | null,
  ): Verdict {
    const tags = new Set(versions.map(({ headers }) => headers['etag']));
    const named = versions.filter(({ headers }) => (headers['etag'] ?? null) === field(got, 'etag'));
    const candidates = tags.size === versions.length && named.length > 0 ? named : versions;
    return judge(
      got,
      candidates.map(({ body }) => body),
      range,
    );
  }

  test.each(kinds)('%s, between two requests', async (_, obeys, before, after) => {
    let now = before;
    const path = scripted((request, response) => {
      if (obeys && ![undefined, now.headers['etag']].includes(request.headers['if-match']))
        response.writeHead(412).end();
      else answer(request, response, now);
    });
    // One connection while it lasts: the process that answers remembers the version of before.
    let connection = await HttpConnection.open(appliance.port);
    const get = async (range: readonly [number, number] | null): Promise<HttpResponse> => {
      const lines = range === null ? [] : [`Range: bytes=${range[0]}-${range[1]}`];
      const got = (await connection.send(requestText({ path, lines })).readResponse())!;
      if (!got.complete) {
        connection.destroy();
        connection = await HttpConnection.open(appliance.port);
      }
      return got;
    };
    expect(judgeVersion(await get([0, 99]), [before], [0, 99])).toBe('right');
    now = after;
    for (const range of [[MB + 1, MB + 90_000], null, [0, 99], MIDDLE, null] as const) {
      const got = await get(range);
      // A precondition that the client did not state cannot have failed.
      expect(got.status).not.toBe(412);
      judgeVersion(got, [before, after], range);
    }
    await appliance.until(async () => judgeVersion(await get(null), [before, after], null) === 'right', 10_000);
    connection.destroy();
  });

  test.each(kinds)('%s, in the middle of a body', async (_, obeys, before, after) => {
    let now = before;
    const path = scripted((request, response, turn) => {
      if (obeys && ![undefined, now.headers['etag']].includes(request.headers['if-match']))
        response.writeHead(412).end();
      else if (turn > 1) answer(request, response, now);
      else {
        answer(request, response, { ...now, bytes: (bytes) => bytes.subarray(0, MB + 50_000), cut: true });
        now = after;
      }
    });
    const both = [before, after];
    const readers = Array.from({ length: 4 }, () => sendRequest(appliance.port, { path }));
    for (const got of await Promise.all(readers)) {
      expect(got.status).not.toBe(412);
      judgeVersion(got, both, null);
    }
    await appliance.until(
      async () => judgeVersion(await sendRequest(appliance.port, { path }), both, null) === 'right',
      10_000,
    );
  });

  test('again and again under readers is never mixed', async () => {
    const versions = Array.from({ length: 4 }, (_, at) => ({
      body: noise(MB + 300_009, at + 20),
      headers: strong(`"s${at}"`),
    }));
    let requests = 0;
    const path = scripted((request, response) => {
      requests += 1;
      const now = versions[Math.floor(requests / 2) % versions.length]!;
      if (![undefined, now.headers['etag']].includes(request.headers['if-match'])) response.writeHead(412).end();
      else answer(request, response, now);
    });
    const verdicts: Verdict[] = [];
    const reader = async (seed: number): Promise<void> => {
      for (let turn = 0; turn < 8; turn += 1) {
        const first = ((seed * 31 + turn * 17) * 65_537) % (MB + 300_000);
        const range = turn % 2 === 0 ? ([first, first + 300_000] as const) : null;
        const got = await sendRequest(appliance.port, {
          path,
          lines: range === null ? [] : [`Range: bytes=${range[0]}-${range[1]}`],
        });
        const clamped = range === null ? null : ([range[0], Math.min(range[1], MB + 300_008)] as const);
        verdicts.push(judgeVersion(got, versions, clamped));
      }
    };
    await Promise.all([1, 2, 3].map(reader));
    expect(verdicts).toContain('right');
  });
});

describe('what no shared cache may keep', () => {
  test.each<readonly [string, Record<string, string | string[]>]>([
    ['no-store', { 'cache-control': 'no-store' }],
    ['no-store, spelt large, among others', { 'cache-control': 'max-age=3600, No-Store, public' }],
    ['no-store in a second line', { 'cache-control': ['max-age=3600', 'no-store'] }],
    ['private', { 'cache-control': 'private' }],
    ['private, of a field', { 'cache-control': 'max-age=9, private="x"' }],
    ['Set-Cookie', { 'set-cookie': ['a=1; Path=/', 'b=2'] }],
    ['Vary of everything', { vary: '*' }],
  ])('%s: each client has its own, whole and in ranges', async (_, headers) => {
    const path = scripted((request, response, turn) => {
      const body = Buffer.from(`for client ${turn}, and for no other`);
      answer(request, response, { body, headers: { etag: `"t${turn}"`, ...headers } });
    });
    const seen = new Set<string>();
    for (let turn = 0; turn < 3; turn += 1) {
      const got = await sendRequest(appliance.port, { path });
      expect(got.status).toBe(200);
      expect(seen.has(got.body.toString())).toBe(false);
      seen.add(got.body.toString());
      if ('set-cookie' in headers)
        expect(got.fields.filter(([name]) => name === 'set-cookie').map(([, value]) => value)).toEqual(
          headers['set-cookie'],
        );
      expect(field(got, 'cache-status')).not.toMatch(/hit|stored/);
    }
    const ranged = await sendRequest(appliance.port, { path, lines: ['Range: bytes=4-9'] });
    expect([ranged.status, ranged.body.toString()]).toEqual([206, 'client']);
    const together = await Promise.all(Array.from({ length: 10 }, () => sendRequest(appliance.port, { path })));
    expect(new Set(together.map(({ body }) => body.toString())).size).toBe(10);
  });

  /** An origin that gives each user a body of their own and strangers 401, and says nothing of caching. */
  const personal: Handler = (request, response) => {
    const user = request.headers.authorization;
    if (user === undefined) response.writeHead(401, { 'www-authenticate': 'Bearer' }).end('who are you?\n');
    else answer(request, response, { body: Buffer.from(`the film of ${user}`), headers: { etag: `"${user.length}"` } });
  };

  test('an answer to Authorization is neither kept nor given to another', async () => {
    const path = scripted(personal);
    const get = (user: string | null): Promise<HttpResponse> =>
      sendRequest(appliance.port, { path, lines: user === null ? [] : [`Authorization: ${user}`] });
    expect((await get('ann')).body.toString()).toBe('the film of ann');
    expect((await get(null)).status).toBe(401);
    expect((await get('bobby')).body.toString()).toBe('the film of bobby');
    expect((await get('ann')).body.toString()).toBe('the film of ann');
    const users = ['ann', null, 'bobby', null, 'cecilia', null];
    const got = await Promise.all(users.map(get));
    expect(got.map(({ status }) => status)).toEqual(users.map((user) => (user === null ? 401 : 200)));
    for (const [at, user] of users.entries()) if (user !== null) expect(got[at]!.body.toString()).toContain(user);
  });

  test('a Cookie does not colour what the next client gets', async () => {
    const path = scripted((request, response) => {
      answer(request, response, { body: Buffer.from(`cookie ${request.headers.cookie ?? 'none'}`) });
    });
    await sendRequest(appliance.port, { path, lines: ['Cookie: id=secret'] });
    expect((await sendRequest(appliance.port, { path })).body.toString()).toBe('cookie none');
  });
});

test('an origin that is not there: an error at once, and what is stored is served all the same', async () => {
  const film = FILM.subarray(0, 10_000);
  const headers = { 'cache-control': 'max-age=3600' };
  const gone = createServer((request, response) => answer(request, response, { body: film, headers }));
  gone.listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const second = await RunningAppliance.start({ origin: `http://127.0.0.1:${(gone.address() as AddressInfo).port}` });
  try {
    expect((await sendRequest(second.port, { path: '/film' })).body.equals(film)).toBe(true);
    await second.until(async () =>
      (field(await sendRequest(second.port, { path: '/film' }), 'cache-status') ?? '').startsWith('larder; hit'),
    );
    gone.closeAllConnections();
    gone.close();
    await once(gone, 'close');
    for (const path of ['/nothing', '/nothing', '/else']) {
      const got = await sendRequest(second.port, { path });
      expect([502, 503, 504]).toContain(got.status);
      expect(got.body.toString()).not.toContain('127.0.0.1');
    }
    expect((await sendRequest(second.port, { path: '/film' })).body.equals(film)).toBe(true);
  } finally {
    await second.stop();
  }
});

test('an origin that hangs costs a client a bounded time and another client none', async () => {
  const got = await silent;
  expect(got.status).toBe(504);
  // Half a body and silence: what came is right, and nobody else waits for the rest.
  const path = scripted((request, response) => {
    const { first, last } = asked(request, N);
    response.writeHead(206, { etag: ETAG, 'content-range': `bytes ${first}-${last}/${N}` });
    response.write(FILM.subarray(first, first + 1_000));
  });
  const connection = await HttpConnection.open(appliance.port);
  connection.send(requestText({ path }));
  const fine = scripted((request, response) => answer(request, response));
  expect(await whole(fine)).toBe('right');
  while (connection.unread.indexOf(FILM.subarray(0, 1_000)) < 0) await once(connection.socket, 'data');
  connection.destroy();
});
