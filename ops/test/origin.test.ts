// The demo origin at its socket: what it sends, byte for byte, for well-formed and malformed requests.

import { createHash, randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { selectResponse, type RequestConditions, type FileMetadata } from '../origin-response.ts';
import { createOrigin, type OriginStats } from '../origin-server.ts';

const FILE = randomBytes(300_000);
const MODIFIED = new Date('2026-01-02T03:04:05Z');

let directory: string;
let server: Server;
let port: number;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-origin-'));
  const root = join(directory, 'root');
  mkdirSync(join(root, 'film'), { recursive: true });
  writeFileSync(join(root, 'film', 'a.m4s'), FILE);
  utimesSync(join(root, 'film', 'a.m4s'), MODIFIED, MODIFIED);
  for (const name of ['a.m3u8', 'a.mpd', 'a.mp4', 'a.ts', 'a.vtt', 'a.bin']) writeFileSync(join(root, name), 'x');
  writeFileSync(join(root, 'empty.bin'), '');
  writeFileSync(join(root, 'ä ö.txt'), 'umlaut');
  writeFileSync(join(directory, 'secret.txt'), 'secret');
  symlinkSync(join(directory, 'secret.txt'), join(root, 'link.txt'));
  ({ server, port } = await start(root));
});

afterAll(async () => {
  await stop(server);
  rmSync(directory, { recursive: true });
});

test('a GET returns the whole file with every header that a cache needs', async () => {
  const answer = await send('GET /film/a.m4s');
  expect(answer.status).toBe(200);
  expect(answer.body.equals(FILE)).toBe(true);
  expect(answer.headers).toMatchObject({
    'content-length': String(FILE.length),
    'content-type': 'video/mp4',
    'accept-ranges': 'bytes',
    'last-modified': MODIFIED.toUTCString(),
    'access-control-allow-origin': '*',
  });
  expect(answer.headers['etag']).toMatch(/^"[A-Za-z0-9_-]{20,}"$/);
  expect(answer.headers['cache-control']).toContain('max-age');
});

test('a HEAD returns the same headers without a body, and ignores Range', async () => {
  const whole = await send('GET /film/a.m4s');
  const head = await send('HEAD /film/a.m4s', ['Range: bytes=0-9']);
  expect(head.status).toBe(200);
  expect(head.body.length).toBe(0);
  expect(head.headers['content-length']).toBe(String(FILE.length));
  expect(head.headers['etag']).toBe(whole.headers['etag']);
});

test.each([
  ['bytes=0-0', 0, 1],
  ['bytes=0-99', 0, 100],
  ['bytes=299999-', 299_999, 300_000],
  ['bytes=100-9999999', 100, 300_000],
  ['bytes=-1', 299_999, 300_000],
  ['bytes=-300001', 0, 300_000],
  ['Bytes=5-6', 5, 7],
])('%s is a single range', async (range, from, to) => {
  const answer = await send('GET /film/a.m4s', [`Range: ${range}`]);
  expect(answer.status).toBe(206);
  expect(answer.headers['content-range']).toBe(`bytes ${from}-${to - 1}/300000`);
  expect(answer.headers['content-length']).toBe(String(to - from));
  expect(answer.body.equals(FILE.subarray(from, to))).toBe(true);
});

test.each(['bytes=300000-', 'bytes=9-8', 'bytes=-0', 'bytes=', 'bytes=a-b', 'bytes=-', 'bytes', 'bytes=0-1-2'])(
  '%s is answered 416 with the length of the file',
  async (range) => {
    const answer = await send('GET /film/a.m4s', [`Range: ${range}`]);
    expect(answer.status).toBe(416);
    expect(answer.headers['content-range']).toBe('bytes */300000');
    expect(answer.body.length).toBe(0);
  },
);

test.each(['lines=1-2', 'bytes=0-1,5-6'])('%s is answered with the whole file', async (range) => {
  const answer = await send('GET /film/a.m4s', [`Range: ${range}`]);
  expect(answer.status).toBe(200);
  expect(answer.body.length).toBe(FILE.length);
});

test('preconditions are evaluated before the range', async () => {
  const etag = (await send('GET /film/a.m4s')).headers['etag']!;
  const range = 'Range: bytes=0-9';
  const expectStatus = async (status: number, ...fields: string[]) =>
    expect((await send('GET /film/a.m4s', fields)).status, fields.join(', ')).toBe(status);
  await expectStatus(304, `If-None-Match: ${etag}`, range);
  await expectStatus(304, `If-None-Match: "other", W/${etag}`);
  await expectStatus(304, 'If-None-Match: *');
  await expectStatus(206, 'If-None-Match: "other"', range);
  await expectStatus(206, `If-Match: ${etag}`, range);
  await expectStatus(206, 'If-Match: *', range);
  await expectStatus(412, 'If-Match: "other"', range);
  await expectStatus(412, `If-Match: W/${etag}`);
  await expectStatus(206, `If-Range: ${etag}`, range);
  await expectStatus(200, 'If-Range: "other"', range);
  await expectStatus(200, `If-Range: W/${etag}`, range);
  await expectStatus(206, `If-Range: ${MODIFIED.toUTCString()}`, range);
  await expectStatus(200, `If-Range: ${new Date(MODIFIED.getTime() + 1000).toUTCString()}`, range);
  await expectStatus(304, `If-Modified-Since: ${MODIFIED.toUTCString()}`);
  await expectStatus(200, `If-Modified-Since: ${new Date(MODIFIED.getTime() - 1000).toUTCString()}`);
  await expectStatus(412, `If-Unmodified-Since: ${new Date(MODIFIED.getTime() - 1000).toUTCString()}`);
});

test('the entity tag depends on the bytes alone: a restart, a copy and another time keep it, other bytes change it', async () => {
  const first = (await send('GET /film/a.m4s')).headers['etag'];
  const copy = join(directory, 'copy');
  cpSync(join(directory, 'root'), copy, { recursive: true, dereference: true });
  const second = await start(copy);
  try {
    expect((await send('GET /film/a.m4s', [], second.port)).headers['etag']).toBe(first);
    const changed = Buffer.from(FILE);
    changed[150_000]! ^= 1;
    writeFileSync(join(copy, 'film', 'a.m4s'), changed);
    expect((await send('GET /film/a.m4s', [], second.port)).headers['etag']).not.toBe(first);
    expect(first).toBe(`"${createHash('sha256').update(FILE).digest('base64url').slice(0, 27)}"`);
  } finally {
    await stop(second.server);
  }
});

test.each([
  ['/a.m3u8', 'application/vnd.apple.mpegurl'],
  ['/a.mpd', 'application/dash+xml'],
  ['/a.mp4', 'video/mp4'],
  ['/a.ts', 'video/mp2t'],
  ['/a.vtt', 'text/vtt'],
  ['/a.bin', 'application/octet-stream'],
])('%s is served as %s', async (path, type) => {
  expect((await send(`GET ${path}`)).headers['content-type']).toBe(type);
});

test.each([
  ['/../secret.txt', 400],
  ['/%2e%2e/secret.txt', 400],
  ['/film/..%2f..%2fsecret.txt', 400],
  ['/film/%00', 400],
  ['/film\\a.m4s', 400],
  ['/%zz', 400],
  ['*', 400],
  ['/link.txt', 404],
  ['/film', 404],
  ['/film/', 404],
  ['/film/a.m4s/', 404],
  ['/nothing', 404],
  [`/${'x'.repeat(5_000)}`, 404],
])('%s is confined to the root: %i', async (path, status) => {
  const answer = await send(`GET ${path}`);
  expect(answer.status).toBe(status);
  expect(answer.body.toString()).not.toBe('secret');
});

test('an absolute-form target, percent-encoding, a query and an empty file are served', async () => {
  expect((await send('GET http://elsewhere.example/a.bin?x=1')).body.toString()).toBe('x');
  expect((await send('GET /%C3%A4%20%C3%B6.txt')).body.toString()).toBe('umlaut');
  const empty = await send('GET /empty.bin', ['Range: bytes=-5']);
  expect([empty.status, empty.body.length, empty.headers['content-length']]).toEqual([200, 0, '0']);
});

test('a preflight is allowed, and another method is answered 405 with Allow', async () => {
  const preflight = await send('OPTIONS /film/a.m4s', ['Origin: http://page.example']);
  expect(preflight.status).toBe(204);
  expect(preflight.headers['access-control-allow-headers']).toContain('Range');
  const post = await send('POST /film/a.m4s', ['Content-Length: 0']);
  expect([post.status, post.headers['allow']]).toEqual([405, 'GET, HEAD, OPTIONS']);
});

test('requests and their bytes are counted, except requests for the statistics', async () => {
  const before = await stats();
  await send('GET /film/a.m4s', ['Range: bytes=10-19']);
  await send('HEAD /film/a.m4s');
  await send('GET /nothing');
  const after = await stats();
  expect(after.requests - before.requests).toBe(3);
  expect(after.bytes - before.bytes).toBe(10);
  const path = '/film/a.m4s';
  expect(after.byPath![path]!.requests - before.byPath![path]!.requests).toBe(2);
  expect(JSON.parse((await send('GET /-/stats')).body.toString())).not.toHaveProperty('byPath');
});

test('property: a selected range is within the file and begins where the request says', () => {
  const ranges = fc.oneof(
    fc.tuple(fc.nat(400), fc.nat(400)).map(([a, b]) => `bytes=${a}-${b}`),
    fc.nat(400).map((a) => `bytes=${a}-`),
    fc.nat(400).map((a) => `bytes=-${a}`),
    fc.string({ maxLength: 20 }),
    fc.string({ maxLength: 20 }).map((text) => `bytes=${text}`),
  );
  fc.assert(
    fc.property(ranges, fc.nat(300), (range, bytes) => {
      const answer = selectResponse(fileOf(bytes), { ...UNCONDITIONAL, range });
      if (answer.status !== 206) return answer.status === 200 || answer.status === 416;
      const plain = /^bytes=(\d*)-(\d*)$/i.exec(range.replaceAll(/\s/g, ''))!;
      const expectedFirst = plain[1] === '' ? Math.max(0, bytes - Number(plain[2])) : Number(plain[1]);
      return answer.first === expectedFirst && answer.first <= answer.last && answer.last < bytes;
    }),
  );
});

const UNCONDITIONAL: RequestConditions = {
  method: 'GET',
  range: undefined,
  ifRange: undefined,
  ifMatch: undefined,
  ifNoneMatch: undefined,
  ifModifiedSince: undefined,
  ifUnmodifiedSince: undefined,
};

const fileOf = (bytes: number): FileMetadata => ({ bytes, etag: '"e"', modifiedMs: 0 });

interface RawResponse {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

/** Writes exactly these bytes and reads until the origin closes the connection. */
function send(requestLine: string, fields: readonly string[] = [], to = port): Promise<RawResponse> {
  return new Promise((resolve, reject) => {
    const socket = connect(to, '127.0.0.1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => {
      const raw = Buffer.concat(chunks);
      const end = raw.indexOf('\r\n\r\n');
      const [statusLine = '', ...lines] = raw.subarray(0, end).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(
        lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
      );
      let body: Buffer = raw.subarray(end + 4);
      if (headers['transfer-encoding'] === 'chunked') body = unchunk(body);
      resolve({ status: Number(statusLine.split(' ')[1]), headers, body });
    });
    socket.write([`${requestLine} HTTP/1.1`, 'Host: origin', 'Connection: close', ...fields, '', ''].join('\r\n'));
  });
}

function unchunk(raw: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = raw.indexOf('\r\n', at);
    const length = Number.parseInt(raw.subarray(at, lineEnd).toString('latin1'), 16);
    if (!(length > 0)) return Buffer.concat(parts);
    parts.push(raw.subarray(lineEnd + 2, lineEnd + 2 + length));
    at = lineEnd + 2 + length + 2;
  }
}

async function stats(): Promise<OriginStats> {
  return JSON.parse((await send('GET /-/stats?paths=1')).body.toString()) as OriginStats;
}

async function start(root: string): Promise<{ server: Server; port: number }> {
  const started = await createOrigin(root);
  await new Promise<void>((resolve) => {
    started.listen(0, '127.0.0.1', resolve);
  });
  return { server: started, port: (started.address() as AddressInfo).port };
}

function stop(started: Server): Promise<void> {
  return new Promise((resolve) => {
    started.close(() => resolve());
    started.closeAllConnections();
  });
}
