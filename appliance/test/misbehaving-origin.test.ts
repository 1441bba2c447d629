// Origins that break HTTP, change an asset in mid-download, break off or hang. A client gets the right bytes, an error, or a
// short read that it can detect: never a wrong byte, never two versions in one response. Nothing wrong is stored.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createNetServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import type { FaultCode } from '../../protocol/faults.ts';
import { expectFault } from './faults.ts';
import { expectFallback } from './metrics.ts';
import { residentBytes } from './processes.ts';
import { sendRequest, field, requestText, HttpConnection, type HttpResponse } from './http-client.ts';

const MB = 2 ** 20;
const FILM = noise(MB + 100_005);
const OTHER = noise(MB + 100_005, 99);
const LONGER = noise(2 * MB + 9, 55);
const N = FILM.length;
const ETAG = '"v1"';
const MIDDLE = [MB - 100_000, MB + 109] as const;

/** `ordinal` counts the requests for the path, from 1. */
type Handler = (request: IncomingMessage, response: ServerResponse, ordinal: number) => void;

let origin: ScriptedOrigin;
let appliance: RunningAppliance;
const scripts = new Map<string, { handler: Handler; requests: number }>();
let paths = 0;
/** Response to a request that the origin never answers; it is awaited while all other cases run. */
let unanswered: Promise<HttpResponse>;

beforeAll(async () => {
  origin = await ScriptedOrigin.start();
  origin.intercept = (request, response) => {
    const script = scripts.get(request.url!);
    if (script === undefined) return false;
    script.requests += 1;
    script.handler(request, response, script.requests);
    return true;
  };
  appliance = await RunningAppliance.start({ origin: origin.url });
  unanswered = sendRequest(appliance.port, { path: scripted(() => undefined) }, 40_000);
  unanswered.catch(() => undefined);
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

/** A new path with this script. */
function scripted(handler: Handler): string {
  paths += 1;
  const path = `/liar-${paths}`;
  scripts.set(path, { handler, requests: 0 });
  return path;
}

const requestsFor = (path: string): number => scripts.get(path)!.requests;

interface RequestedRange {
  readonly first: number;
  readonly last: number;
  readonly ranged: boolean;
}

function requestedRange(request: IncomingMessage, length: number): RequestedRange {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  if (match === null) return { first: 0, last: length - 1, ranged: false };
  return {
    first: Number(match[1]),
    last: match[2] === '' ? length - 1 : Math.min(Number(match[2]), length - 1),
    ranged: true,
  };
}

interface Override {
  readonly body?: Buffer;
  readonly status?: number;
  /** `undefined` removes a field. */
  readonly headers?: Record<string, string | string[] | undefined>;
  /** The bytes that are sent instead of the requested part. */
  readonly bytes?: (part: Buffer) => Buffer;
  /** The connection is destroyed after the bytes. */
  readonly breakOff?: boolean;
}

/** The correct response, except for what `override` changes. */
function respond(request: IncomingMessage, response: ServerResponse, override: Override = {}): void {
  const body = override.body ?? FILM;
  const { first, last, ranged } = requestedRange(request, body.length);
  const part = body.subarray(first, last + 1);
  const fields: Record<string, string | string[] | undefined> = {
    'content-type': 'video/mp4',
    etag: ETAG,
    'content-length': String(part.length),
    ...(ranged ? { 'content-range': `bytes ${first}-${last}/${body.length}` } : {}),
    ...override.headers,
  };
  const present = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  response.writeHead(override.status ?? (ranged ? 206 : 200), present as Record<string, string | string[]>);
  const bytes = override.bytes === undefined ? part : override.bytes(part);
  if (request.method === 'HEAD') response.end();
  else if (override.breakOff === true) response.write(bytes, () => request.socket.destroy());
  else response.end(bytes);
}

type Outcome = 'right' | 'short' | 'refused';

/** Compares a response with the bodies that are correct for it; throws for a wrong byte. */
function outcomeOf(got: HttpResponse, bodies: readonly Buffer[], range: readonly [number, number] | null): Outcome {
  if (got.status >= 400) return 'refused';
  expect([200, 206]).toContain(got.status);
  const wanted = bodies.map((body) =>
    got.status === 206 && range !== null ? body.subarray(range[0], range[1] + 1) : body,
  );
  const fits = wanted.some((want) => (got.complete ? want : want.subarray(0, got.body.length)).equals(got.body));
  expect([got.status, got.complete, got.body.length, fits]).toEqual([got.status, got.complete, got.body.length, true]);
  return got.complete ? 'right' : 'short';
}

async function getWhole(path: string, bodies: readonly Buffer[] = [FILM]): Promise<Outcome> {
  return outcomeOf(await sendRequest(appliance.port, { path }), bodies, null);
}

async function getRange(path: string, bodies: readonly Buffer[] = [FILM], range = MIDDLE): Promise<Outcome> {
  const lines = [`Range: bytes=${range[0]}-${range[1]}`];
  return outcomeOf(await sendRequest(appliance.port, { path, lines }), bodies, range);
}

/** The origin behaves from now on: nothing that it sent before may delay the right bytes for long. */
async function expectRecovery(path: string): Promise<void> {
  scripts.get(path)!.handler = (request, response) => respond(request, response);
  await appliance.until(async () => (await getWhole(path)) === 'right', 10_000);
  expect(await getRange(path)).toBe('right');
}

describe('an origin that', () => {
  const right = 'right';
  const refused = 'refused';
  const noBytes = 'refused or short';
  const any = 'right, refused or short';

  test.each<readonly [string, string, Handler]>([
    [
      'sends the whole asset for a range',
      right,
      (request, response) => {
        delete request.headers.range;
        respond(request, response);
      },
    ],
    [
      'sends another range than requested',
      refused,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `bytes ${first + 1}-${last + 1}/${N}` } });
      },
    ],
    [
      'sends the range before the requested one',
      any,
      (request, response) => {
        request.headers.range = `bytes=0-${MB - 1}`;
        respond(request, response);
      },
    ],
    [
      'sends the range without its first byte, with a matching Content-Range',
      refused,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        request.headers.range = `bytes=${first + 1}-${last}`;
        respond(request, response);
      },
    ],
    [
      'sends at most 300,000 bytes of the range, with a matching Content-Range',
      right,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        request.headers.range = `bytes=${first}-${Math.min(last, first + 299_999)}`;
        respond(request, response);
      },
    ],
    [
      'sends one byte of the range, with a matching Content-Range',
      noBytes,
      (request, response) => {
        const { first } = requestedRange(request, N);
        request.headers.range = `bytes=${first}-${first}`;
        respond(request, response);
      },
    ],
    [
      'names the unit in capitals',
      right,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `Bytes ${first}-${last}/${N}` } });
      },
    ],
    [
      'states a total beyond its last byte',
      any,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${N + 1}` } });
      },
    ],
    [
      'states another total each time',
      any,
      (request, response, ordinal) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${N + ordinal}` } });
      },
    ],
    [
      'states a total before its last byte',
      refused,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `bytes ${first}-${last}/${last}` } });
      },
    ],
    [
      'states an unknown total',
      any,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-range': `bytes ${first}-${last}/*` } });
      },
    ],
    [
      'sends a 206 without Content-Range',
      refused,
      (request, response) => {
        respond(request, response, { headers: { 'content-range': undefined } });
      },
    ],
    [
      'sends a malformed Content-Range',
      refused,
      (request, response) => {
        respond(request, response, { headers: { 'content-range': 'bytes x-y/z' } });
      },
    ],
    [
      'sends a Content-Range in another unit',
      refused,
      (request, response) => {
        respond(request, response, { headers: { 'content-range': `lines 0-5/${N}` } });
      },
    ],
    [
      'sends positions beyond 2^64',
      refused,
      (request, response) => {
        respond(request, response, {
          headers: { 'content-range': `bytes 0-99999999999999999998/99999999999999999999` },
        });
      },
    ],
    [
      'sends two Content-Range fields',
      any,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        const value = `bytes ${first}-${last}/${N}`;
        respond(request, response, { headers: { 'content-range': [value, value] } });
      },
    ],
    [
      'sends multipart/byteranges for one range',
      refused,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        const head = `--b\r\ncontent-range: bytes ${first}-${last}/${N}\r\n\r\n`;
        const multipart = Buffer.concat([
          Buffer.from(head),
          FILM.subarray(first, last + 1),
          Buffer.from('\r\n--b--\r\n'),
        ]);
        respond(request, response, {
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
      'sends a Content-Length that differs from its Content-Range',
      refused,
      (request, response) => {
        const { first, last } = requestedRange(request, N);
        respond(request, response, { headers: { 'content-length': String(last - first + 11) }, breakOff: true });
      },
    ],
    [
      'breaks off in the body once',
      right,
      (request, response, ordinal) => {
        respond(
          request,
          response,
          ordinal === 1 ? { bytes: (bytes) => bytes.subarray(0, bytes.length / 2), breakOff: true } : {},
        );
      },
    ],
    [
      'always breaks off in the body',
      noBytes,
      (request, response) => {
        respond(request, response, {
          bytes: (bytes) => bytes.subarray(0, Math.min(1_000, bytes.length - 1)),
          breakOff: true,
        });
      },
    ],
    [
      'always breaks off before the body',
      noBytes,
      (request, response) => {
        respond(request, response, { bytes: () => Buffer.alloc(0), breakOff: true });
      },
    ],
    [
      'closes the connection instead of responding once',
      right,
      (request, response, ordinal) => {
        if (ordinal === 1) request.socket.destroy();
        else respond(request, response);
      },
    ],
    ['always closes the connection instead of responding', refused, (request) => void request.socket.destroy()],
    ['resets the connection instead of responding', refused, (request) => void request.socket.resetAndDestroy()],
    ['sends something that is not HTTP', refused, (request) => void request.socket.end('garbage\r\n\r\n')],
    [
      'sends 40 KB of header fields',
      refused,
      (request) => {
        request.socket.end(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: ${'x'.repeat(40_000)}\r\n\r\nx`);
      },
    ],
    [
      'sends two Content-Length fields',
      refused,
      (request) => {
        request.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx');
      },
    ],
    ['sends the status 099', refused, (request) => void request.socket.end('HTTP/1.1 099 Huh\r\n\r\n')],
    [
      'sends malformed chunks',
      noBytes,
      (request) => {
        request.socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n');
        request.socket.write(FILM.subarray(0, 5));
        request.socket.end('ZZ\r\n');
      },
    ],
    [
      'sends no validator',
      right,
      (request, response) => {
        respond(request, response, { headers: { etag: undefined } });
      },
    ],
    [
      'sends a weak validator',
      right,
      (request, response) => {
        respond(request, response, { headers: { etag: 'W/"soft"' } });
      },
    ],
    [
      'sends an entity tag without quotes',
      right,
      (request, response) => {
        respond(request, response, { headers: { etag: 'bare' } });
      },
    ],
    [
      'sends an empty entity tag',
      right,
      (request, response) => {
        respond(request, response, { headers: { etag: '""' } });
      },
    ],
    [
      'sends an entity tag beyond ASCII',
      right,
      (request, response) => {
        respond(request, response, { headers: { etag: '"\xe4\xf6"' } });
      },
    ],
    [
      'sends chunks and no length in a 200',
      right,
      (request, response) => {
        delete request.headers.range;
        respond(request, response, { headers: { 'content-length': undefined } });
      },
    ],
    [
      'sends chunks in a 206',
      right,
      (request, response) => {
        respond(request, response, { headers: { 'content-length': undefined } });
      },
    ],
    [
      'breaks off in a chunked body',
      noBytes,
      (request, response) => {
        delete request.headers.range;
        respond(request, response, {
          headers: { 'content-length': undefined },
          bytes: (bytes) => bytes.subarray(0, 1_000),
          breakOff: true,
        });
      },
    ],
    [
      'sends more bytes than its Content-Length',
      any,
      (request, response) => {
        delete request.headers.range;
        response.socket!.write(`HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: ${N}\r\n\r\n`);
        response.socket!.end(Buffer.concat([FILM, Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad')]));
      },
    ],
    [
      'sends the first 200 bytes one by one',
      right,
      (request, response) => {
        const small = FILM.subarray(0, 200);
        const { first, last } = requestedRange(request, N);
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
      'sends early hints before the response',
      right,
      (request, response) => {
        response.writeEarlyHints({ link: '</x>; rel=preload' }, () => respond(request, response));
      },
    ],
  ])('%s: the response is %s', async (_, allowed, handler) => {
    const [first, second] = [scripted(handler), scripted(handler)];
    const outcomes = [await getWhole(first), await getRange(second)];
    for (const outcome of outcomes) expect(allowed).toContain(outcome);
    // However it ends, retries on behalf of one client are bounded.
    expect(requestsFor(first)).toBeLessThanOrEqual(12);
    expect(requestsFor(second)).toBeLessThanOrEqual(12);
    for (const path of [first, second]) await expectRecovery(path);
  });

  test.each([
    [
      'its own address gets the client redirected to the path on the appliance',
      (): string => `${origin.url}/elsewhere?x=1#y`,
      '/elsewhere?x=1#y',
    ],
    [
      'another address gets the client redirected there',
      (): string => 'http://other.example/elsewhere',
      'http://other.example/elsewhere',
    ],
  ] as const)('redirects to %s', async (_, location, expected) => {
    const path = scripted((_request, response) => {
      response.writeHead(302, { location: location(), 'content-length': '0' }).end();
    });
    const got = await sendRequest(appliance.port, { path });
    expect([got.status, field(got, 'location')]).toEqual([302, expected]);
  });

  test.each([301, 302, 304, 307, 400, 401, 403, 404, 405, 410, 412, 416, 418, 429, 451, 500, 502, 503, 504])(
    'responds with %i causes no asset bytes to be sent, and is asked again for the next client',
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
      await expectRecovery(path);
    },
  );

  test('responds with 204 causes neither a body nor a Content-Length', async () => {
    const path = scripted((_, response) => void response.writeHead(204).end());
    const got = await sendRequest(appliance.port, { path });
    if (got.status === 204) expect(field(got, 'content-length')).toBeNull();
    else expect(got.status).toBeGreaterThanOrEqual(500);
    await expectRecovery(path);
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
      'with a strong tag at an origin that evaluates If-Match',
      true,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('"2"') },
    ],
    [
      'with a strong tag at an origin that ignores If-Match',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('"2"') },
    ],
    ['in content and length', true, { body: FILM, headers: strong('"1"') }, { body: LONGER, headers: strong('"2"') }],
    ['and becomes shorter', false, { body: LONGER, headers: strong('"1"') }, { body: FILM, headers: strong('"2"') }],
    [
      'in length under the same tag',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: LONGER, headers: strong('"1"') },
    ],
    [
      'under the same weak tag',
      false,
      { body: FILM, headers: strong('W/"1"') },
      { body: OTHER, headers: strong('W/"1"') },
    ],
    [
      'from a strong to a weak tag',
      false,
      { body: FILM, headers: strong('"1"') },
      { body: OTHER, headers: strong('W/"1"') },
    ],
    ['and loses its tag', false, { body: FILM, headers: strong('"1"') }, { body: OTHER, headers: { etag: undefined } }],
    ['with Last-Modified alone', false, { body: FILM, headers: dated(1) }, { body: OTHER, headers: dated(2) }],
    [
      'without any validator',
      false,
      { body: FILM, headers: { etag: undefined } },
      { body: OTHER, headers: { etag: undefined } },
    ],
  ];

  /** Where versions have different tags, the tag of a response must be that of the version whose bytes it carries. */
  function outcomeOfVersion(
    got: HttpResponse,
    versions: readonly Version[],
    range: readonly [number, number] | null,
  ): Outcome {
    const tags = new Set(versions.map(({ headers }) => headers['etag']));
    const named = versions.filter(({ headers }) => (headers['etag'] ?? null) === field(got, 'etag'));
    const candidates = tags.size === versions.length && named.length > 0 ? named : versions;
    return outcomeOf(
      got,
      candidates.map(({ body }) => body),
      range,
    );
  }

  test.each(kinds)('%s, between two requests, is never mixed with the old version', async (_, obeys, before, after) => {
    let current = before;
    const path = scripted((request, response) => {
      if (obeys && ![undefined, current.headers['etag']].includes(request.headers['if-match']))
        response.writeHead(412).end();
      else respond(request, response, current);
    });
    // The same connection as long as possible: its worker remembers the old version.
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
    expect(outcomeOfVersion(await get([0, 99]), [before], [0, 99])).toBe('right');
    current = after;
    for (const range of [[MB + 1, MB + 90_000], null, [0, 99], MIDDLE, null] as const) {
      const got = await get(range);
      // The client stated no precondition, so none can have failed.
      expect(got.status).not.toBe(412);
      outcomeOfVersion(got, [before, after], range);
    }
    await appliance.until(async () => outcomeOfVersion(await get(null), [before, after], null) === 'right', 10_000);
    connection.destroy();
  });

  test.each(kinds)(
    '%s, in the middle of a body, is never mixed with the old version',
    async (_, obeys, before, after) => {
      let current = before;
      const path = scripted((request, response, ordinal) => {
        if (obeys && ![undefined, current.headers['etag']].includes(request.headers['if-match']))
          response.writeHead(412).end();
        else if (ordinal > 1) respond(request, response, current);
        else {
          respond(request, response, { ...current, bytes: (bytes) => bytes.subarray(0, MB + 50_000), breakOff: true });
          current = after;
        }
      });
      const both = [before, after];
      const readers = Array.from({ length: 4 }, () => sendRequest(appliance.port, { path }));
      for (const got of await Promise.all(readers)) {
        expect(got.status).not.toBe(412);
        outcomeOfVersion(got, both, null);
      }
      await appliance.until(
        async () => outcomeOfVersion(await sendRequest(appliance.port, { path }), both, null) === 'right',
        10_000,
      );
    },
  );

  test('again and again while clients read is never mixed', async () => {
    const versions = Array.from({ length: 4 }, (_, at) => ({
      body: noise(MB + 300_009, at + 20),
      headers: strong(`"s${at}"`),
    }));
    let requests = 0;
    const path = scripted((request, response) => {
      requests += 1;
      const current = versions[Math.floor(requests / 2) % versions.length]!;
      if (![undefined, current.headers['etag']].includes(request.headers['if-match'])) response.writeHead(412).end();
      else respond(request, response, current);
    });
    const outcomes: Outcome[] = [];
    const reader = async (seed: number): Promise<void> => {
      for (let round = 0; round < 8; round += 1) {
        const first = ((seed * 31 + round * 17) * 65_537) % (MB + 300_000);
        const range = round % 2 === 0 ? ([first, first + 300_000] as const) : null;
        const got = await sendRequest(appliance.port, {
          path,
          lines: range === null ? [] : [`Range: bytes=${range[0]}-${range[1]}`],
        });
        const clamped = range === null ? null : ([range[0], Math.min(range[1], MB + 300_008)] as const);
        outcomes.push(outcomeOfVersion(got, versions, clamped));
      }
    };
    await Promise.all([1, 2, 3].map(reader));
    expect(outcomes).toContain('right');
  });
});

describe('a response with', () => {
  test.each<readonly [string, Record<string, string | string[]>]>([
    ['no-store', { 'cache-control': 'no-store' }],
    ['No-Store among other directives', { 'cache-control': 'max-age=3600, No-Store, public' }],
    ['no-store in a second field', { 'cache-control': ['max-age=3600', 'no-store'] }],
    ['private', { 'cache-control': 'private' }],
    ['private for one field', { 'cache-control': 'max-age=9, private="x"' }],
    ['Set-Cookie', { 'set-cookie': ['a=1; Path=/', 'b=2'] }],
    ['Vary: *', { vary: '*' }],
  ])('%s is fetched for each client, whole and in ranges', async (_, headers) => {
    const path = scripted((request, response, ordinal) => {
      const body = Buffer.from(`for client ${ordinal}, and for no other`);
      respond(request, response, { body, headers: { etag: `"t${ordinal}"`, ...headers } });
    });
    const seen = new Set<string>();
    for (let count = 0; count < 3; count += 1) {
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

  /** Sends each user a body of their own, and 401 without credentials, without any caching directive. */
  const personal: Handler = (request, response) => {
    const user = request.headers.authorization;
    if (user === undefined) response.writeHead(401, { 'www-authenticate': 'Bearer' }).end('who are you?\n');
    else
      respond(request, response, { body: Buffer.from(`the film of ${user}`), headers: { etag: `"${user.length}"` } });
  };

  test('no directives to a request with Authorization is neither stored nor given to another client', async () => {
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

  test('content that depends on Cookie is not given to the next client', async () => {
    const path = scripted((request, response) => {
      respond(request, response, { body: Buffer.from(`cookie ${request.headers.cookie ?? 'none'}`) });
    });
    await sendRequest(appliance.port, { path, lines: ['Cookie: id=secret'] });
    expect((await sendRequest(appliance.port, { path })).body.toString()).toBe('cookie none');
  });
});

test.each<readonly [string, FaultCode, Handler]>([
  [
    'cuts a chunked response short',
    'origin_unreachable',
    (request) =>
      void request.socket.end(
        'HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab',
      ),
  ],
  ['sends a 304 that nobody asked for', 'origin_protocol_error', (_, response) => void response.writeHead(304).end()],
])('an origin that %s is to blame', async (_, code, handler) => {
  const range = ['Range: bytes=0-1'];
  expectFault(await sendRequest(appliance.port, { path: scripted(handler), lines: range }), code);
});

test('an origin that closes a kept connection when the next request comes is asked again over a fresh one', async () => {
  // Alternate requests failed.
  const head = `HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "v"\r\n\r\n`;
  const closing = createNetServer((socket) => {
    let requests = 0;
    socket.on('error', () => undefined);
    socket.on('data', () => {
      requests += 1;
      if (requests === 1) socket.write(`${head}right`);
      else socket.destroy();
    });
  });
  await once(closing.listen(0, '127.0.0.1'), 'listening');
  const url = `http://127.0.0.1:${(closing.address() as AddressInfo).port}`;
  const other = await RunningAppliance.start({ origin: url });
  try {
    for (let number = 0; number < 8; number += 1) {
      const { status, body } = await sendRequest(other.port, { path: `/kept-${number}` });
      expect([status, body.toString()]).toEqual([200, 'right']);
    }
    await expectFallback(other, 'kept_connection_closed_retry');
  } finally {
    await other.stop();
    closing.close();
  }
});

test('a size that the origin claims takes no memory, and stops nobody else', async () => {
  // 5 TB took 4 GB and all CPU; a range of a petabyte a map of 119 MB.
  const { storekeeper } = await appliance.pids();
  const before = residentBytes([storekeeper]);
  const claims = [5_000_000_000_000, 999_999_999_999_999, 900_000_000_000];
  const clients = claims.flatMap((size) => {
    const headers = { 'content-length': String(size), etag: ETAG };
    const whole = scripted((_request, response) => response.writeHead(200, headers).write(FILM));
    const part = scripted((request, response) => {
      const { first, last } = requestedRange(request, size);
      const range = { 'content-range': `bytes ${first}-${last}/${size}`, 'content-length': String(last - first + 1) };
      response.writeHead(206, { ...headers, ...range }).write(FILM);
    });
    return [whole, part].map(async (path) => {
      const client = await HttpConnection.open(appliance.port);
      client.send(requestText({ path, lines: [`Range: bytes=${size - 2 * MB}-${size - 1}`] }));
      return client;
    });
  });
  const path = scripted((request, response) => respond(request, response));
  for (let number = 0; number < 5; number += 1) expect(await getWhole(path)).toBe('right');
  expect(residentBytes([storekeeper]) - before).toBeLessThan(100 * MB);
  for (const client of await Promise.all(clients)) client.destroy();
});

test('an origin that is down causes a 5xx at once for misses, and hits go on', async () => {
  const film = FILM.subarray(0, 10_000);
  const headers = { 'cache-control': 'max-age=3600' };
  const gone = createServer((request, response) => respond(request, response, { body: film, headers }));
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
      expectFault(got, 'origin_unreachable');
      expect(got.body.toString()).not.toContain('127.0.0.1');
    }
    expect((await sendRequest(second.port, { path: '/film' })).body.equals(film)).toBe(true);
  } finally {
    await second.stop();
  }
});

test('an origin that hangs causes a 504 for one client and delays no other', async () => {
  expectFault(await unanswered, 'origin_timeout');
  // It sends half a body and hangs: the bytes that came are right, and no other client waits for the rest.
  const path = scripted((request, response) => {
    const { first, last } = requestedRange(request, N);
    response.writeHead(206, { etag: ETAG, 'content-range': `bytes ${first}-${last}/${N}` });
    response.write(FILM.subarray(first, first + 1_000));
  });
  const connection = await HttpConnection.open(appliance.port);
  connection.send(requestText({ path }));
  const other = scripted((request, response) => respond(request, response));
  expect(await getWhole(other)).toBe('right');
  while (connection.unread.indexOf(FILM.subarray(0, 1_000)) < 0) await once(connection.socket, 'data');
  connection.destroy();
});

test('none of it was reported as a failure of the appliance', () => {
  expect(appliance.log).not.toContain('request failed');
});
