// Traffic to the origin: each byte is fetched once for any number of clients, of a huge asset only the requested blocks, and
// nothing for readers that do not read.

import { once } from 'node:events';
import { createServer, get, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createConnection, type AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { waitWritable } from '../../runtime/backpressure.ts';
import { systemClock } from '../../runtime/clock.ts';
import { residentBytes } from './processes.ts';
import { noise, RunningAppliance } from './rig.ts';
import { deferred } from './waiting.ts';
import { sendRequest, field, multipartParts, requestText } from './http-client.ts';

const MB = 2 ** 20;
const GB = 1_000_000_000;
const PIECE_BYTES = 2 ** 16;

/** Content of an asset of any size, computed per offset. The period is no multiple of a block, chunk or page. */
const PERIOD = noise(1_000_003);
const TWICE = Buffer.concat([PERIOD, PERIOD]);
const bytesAt = (at: number, count: number): Buffer => TWICE.subarray(at % PERIOD.length, (at % PERIOD.length) + count);

/** An origin with an asset of SIZE bytes at every path `/SIZE/name`. It records what it sends, and waits where `holdBefore` says. */
class VirtualOrigin {
  readonly sent: { readonly path: string; readonly first: number; count: number }[] = [];
  active = 0;
  /** Awaited before the piece at each offset is sent. */
  holdBefore: (at: number) => Promise<void> | undefined = () => undefined;
  readonly #server: Server = createServer((request, response) => void this.#respond(request, response));

  async start(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  bytesOf(path: string): number {
    return this.sent.filter((one) => one.path === path).reduce((sum, one) => sum + one.count, 0);
  }

  /** Whether any byte of an asset was sent twice. */
  sentTwice(path: string): boolean {
    const ranges = this.sent.filter((one) => one.path === path && one.count > 0).sort((a, b) => a.first - b.first);
    return ranges.some((one, at) => at > 0 && one.first < ranges[at - 1]!.first + ranges[at - 1]!.count);
  }

  async #respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const size = Number(/^\/(\d+)\//.exec(request.url!)?.[1]);
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const first = Number(range?.[1] ?? 0);
    const last = Math.min(range === null || range[2] === '' ? Infinity : Number(range[2]), size - 1);
    if (first >= size) {
      response.writeHead(416, { 'content-range': `bytes */${size}` }).end();
      return;
    }
    response.writeHead(range === null ? 200 : 206, {
      etag: `"${size}"`,
      'cache-control': 'max-age=3600',
      'content-type': 'video/mp4',
      'content-length': last - first + 1,
      ...(range === null ? {} : { 'content-range': `bytes ${first}-${last}/${size}` }),
    });
    const record = { path: request.url!, first, count: 0 };
    this.sent.push(record);
    this.active += 1;
    for (let at = first; at <= last && !response.destroyed;) {
      await this.holdBefore(at);
      const piece = bytesAt(at, Math.min(PIECE_BYTES, last + 1 - at));
      at += piece.length;
      record.count += piece.length;
      response.write(piece);
      await waitWritable(response);
    }
    response.end();
    this.active -= 1;
  }
}

let origin: VirtualOrigin;
let appliance: RunningAppliance;
let names = 0;

beforeAll(async () => {
  origin = new VirtualOrigin();
  appliance = await RunningAppliance.start({ origin: await origin.start(), flags: ['--store-bytes', '256MB'] });
});

beforeEach(() => {
  origin.holdBefore = () => undefined;
});

afterAll(async () => {
  await appliance?.stop();
  await origin?.stop();
});

function asset(size: number): string {
  names += 1;
  return `/${size}/${names}`;
}

/** A client that compares each chunk with the asset as it reads. */
class Reader {
  bytes = 0;
  wrong = false;
  /** Resolves at the end of the response: true if it was whole. */
  readonly ended: Promise<boolean>;
  readonly #response: Promise<IncomingMessage>;
  readonly #requestSent: Promise<unknown>;
  readonly #hangUp: () => void;
  #waiting: { readonly bytes: number; readonly resolve: () => void }[] = [];

  constructor(path: string, first: number, last: number | null) {
    const headers = first === 0 && last === null ? {} : { range: `bytes=${first}-${last ?? ''}` };
    const request = get({ port: appliance.port, path, headers, agent: false });
    this.#requestSent = once(request, 'finish');
    this.#hangUp = () => request.destroy();
    this.#response = once(request, 'response').then(([response]) => response as IncomingMessage);
    this.#response.catch(() => undefined);
    this.ended = new Promise((resolve) => {
      request.on('error', () => resolve(false));
      request.on('response', (response: IncomingMessage) => {
        response.on('error', () => resolve(false));
        response.on('end', () => resolve(response.complete));
        response.on('close', () => resolve(false));
        response.on('data', (chunk: Buffer) => this.#compare(first, chunk));
      });
    });
  }

  requestSent(): Promise<unknown> {
    return this.#requestSent;
  }

  hangUp(): void {
    this.#hangUp();
  }

  received(bytes: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.bytes >= bytes) resolve();
      else this.#waiting.push({ bytes, resolve });
    });
  }

  #compare(first: number, chunk: Buffer): void {
    this.wrong ||= !bytesAt(first + this.bytes, chunk.length).equals(chunk);
    this.bytes += chunk.length;
    for (const { bytes, resolve } of this.#waiting) if (this.bytes >= bytes) resolve();
    this.#waiting = this.#waiting.filter(({ bytes }) => this.bytes < bytes);
  }
}

test('200 concurrent clients of a cold asset, whole and in ranges, cost the origin each byte once', async () => {
  const size = 2 * MB + 33;
  const path = asset(size);
  const released = deferred();
  origin.holdBefore = () => released.promise;
  const readers = Array.from({ length: 200 }, (_, at) => {
    const first = at % 2 === 0 ? 0 : (at * 104_729) % size;
    const last = at % 4 === 3 ? Math.min(first + 99_999, size - 1) : null;
    return { reader: new Reader(path, first, last), bytes: (last ?? size - 1) - first + 1 };
  });
  await Promise.all(readers.map(({ reader }) => reader.requestSent()));
  released.resolve();
  for (const { reader, bytes } of readers)
    expect([await reader.ended, reader.wrong, reader.bytes]).toEqual([true, false, bytes]);
  expect(origin.sentTwice(path)).toBe(false);
  expect(origin.bytesOf(path)).toBe(size);
});

test('when the client that caused a fetch hangs up, the others get the whole asset, and each byte is fetched once', async () => {
  const size = 3 * MB + 1;
  const path = asset(size);
  const released = deferred();
  origin.holdBefore = (at) => (at >= 300_000 ? released.promise : undefined);
  const leader = new Reader(path, 0, null);
  await leader.received(1);
  const followers = Array.from({ length: 20 }, () => new Reader(path, 0, null));
  await Promise.all(followers.map((follower) => follower.received(1)));
  leader.hangUp();
  expect(await leader.ended).toBe(false);
  released.resolve();
  for (const follower of followers)
    expect([await follower.ended, follower.wrong, follower.bytes]).toEqual([true, false, size]);
  expect(origin.sentTwice(path)).toBe(false);
  expect(origin.bytesOf(path)).toBe(size);
});

test('when all clients hang up in mid-fetch, the next one gets the whole asset, and no byte is fetched twice', async () => {
  const size = MB + 500_000;
  const path = asset(size);
  const released = deferred();
  origin.holdBefore = (at) => (at >= 300_000 ? released.promise : undefined);
  const readers = Array.from({ length: 5 }, () => new Reader(path, 0, null));
  await Promise.all(readers.map((reader) => reader.received(1)));
  for (const reader of readers) reader.hangUp();
  await Promise.all(readers.map((reader) => reader.ended));
  released.resolve();
  const next = new Reader(path, 0, null);
  expect([await next.ended, next.wrong, next.bytes]).toEqual([true, false, size]);
  expect(origin.sentTwice(path)).toBe(false);
});

test.each<readonly [string, string, number, number]>([
  ['in the middle', `bytes=${5 * GB}-${5 * GB + 65_535}`, 5 * GB, 65_536],
  ['across blocks', `bytes=${5_000 * MB - 9}-${5_000 * MB + 9}`, 5_000 * MB - 9, 19],
  ['of one byte', `bytes=${7 * GB}-${7 * GB}`, 7 * GB, 1],
  ['at the very end', 'bytes=-1000', 10 * GB - 1_000, 1_000],
  ['of 3 MB', `bytes=${3 * GB}-${3 * GB + 2_999_999}`, 3 * GB, 3_000_000],
])(
  'a range of a cold 10 GB asset, %s, costs the origin its bytes and at most two blocks more',
  async (_, range, first, count) => {
    const path = asset(10 * GB);
    const got = await sendRequest(appliance.port, { path, lines: [`Range: ${range}`] });
    expect(got.status).toBe(206);
    expect(field(got, 'content-range')).toBe(`bytes ${first}-${first + count - 1}/${10 * GB}`);
    for (let at = 0; at < count; at += MB / 2) {
      const want = bytesAt(first + at, Math.min(MB / 2, count - at));
      expect(got.body.subarray(at, at + MB / 2).equals(want)).toBe(true);
    }
    await appliance.until(() => origin.active === 0);
    expect(origin.bytesOf(path)).toBeLessThanOrEqual(count + 2 * MB);
    await appliance.until(async () => {
      const again = await sendRequest(appliance.port, { path, lines: [`Range: ${range}`] });
      expect(again.body.equals(got.body)).toBe(true);
      return /^larder; hit; ttl=\d+$/.test(field(again, 'cache-status') ?? '');
    });
    expect(origin.sentTwice(path)).toBe(false);
  },
);

test('ranges far apart in a cold 10 GB asset cost at most two blocks each', async () => {
  const path = asset(10 * GB);
  const firsts = [8 * GB, 5, 4 * GB];
  const range = firsts.map((first) => `${first}-${first + 9}`).join(',');
  const got = multipartParts(await sendRequest(appliance.port, { path, lines: [`Range: bytes=${range}`] }));
  expect(got.map(({ first }) => first)).toEqual(firsts);
  for (const part of got) expect(part.body.equals(bytesAt(part.first, 10))).toBe(true);
  await appliance.until(() => origin.active === 0);
  expect(origin.bytesOf(path)).toBeLessThanOrEqual(firsts.length * 2 * MB);
});

test('HEAD, and a range beyond the end, of a cold 10 GB asset cost at most two blocks', async () => {
  for (const [method, range, status] of [
    ['HEAD', 'bytes=0-', 200],
    ['GET', `bytes=${10 * GB}-`, 416],
  ] as const) {
    const path = asset(10 * GB);
    expect((await sendRequest(appliance.port, { method, path, lines: [`Range: ${range}`] })).status).toBe(status);
    await appliance.until(() => origin.active === 0);
    expect(origin.bytesOf(path)).toBeLessThanOrEqual(2 * MB);
  }
});

test('when the client of an open-ended range hangs up, the fetch stops within 64 MiB', async () => {
  const path = asset(10 * GB);
  const reader = new Reader(path, 5 * GB, null);
  await reader.received(200_000);
  reader.hangUp();
  await reader.ended;
  expect(reader.wrong).toBe(false);
  await appliance.until(() => origin.active === 0);
  expect(origin.bytesOf(path)).toBeLessThanOrEqual(64 * MB);
  expect(origin.sentTwice(path)).toBe(false);
});

test('stalled readers cost neither memory nor origin traffic, and do not slow other readers down', async () => {
  const path = asset(10 * GB);
  const readQuickly = async (first: number): Promise<void> => {
    const reader = new Reader(path, first, first + 32 * MB - 1);
    expect([await reader.ended, reader.wrong, reader.bytes]).toEqual([true, false, 32 * MB]);
  };
  await Promise.all([0, 32 * MB].map(readQuickly));
  const { supervisor, storekeeper, workers } = await appliance.pids();
  const pids = [supervisor, storekeeper, ...workers];
  const before = residentBytes(pids);
  const stalled = Array.from({ length: 24 }, (_, at) => {
    const first = at < 8 ? 0 : at * 300 * MB;
    const socket = createConnection({ port: appliance.port, host: '127.0.0.1' });
    socket.on('error', () => undefined).pause();
    socket.write(requestText({ path, lines: [`Range: bytes=${first}-`] }));
    return { socket, first };
  });
  // Each has received the start of its response before the others begin.
  await Promise.all(stalled.map(({ socket }) => once(socket, 'readable')));
  await appliance.until(() => origin.active === 0);
  // The first fetch of each, up to 16 blocks, may wait in memory for the disk; nothing is fetched beyond it.
  const settled = residentBytes(pids);
  expect(settled - before).toBeLessThan(400 * MB);
  let peak = settled;
  const watch = systemClock.setInterval(() => {
    peak = Math.max(peak, residentBytes(pids));
  }, 20);
  await Promise.all([0, 64 * MB, 96 * MB].map(readQuickly));
  await appliance.until(() => origin.active === 0);
  systemClock.clear(watch);
  expect(peak - settled).toBeLessThan(150 * MB);
  expect(origin.bytesOf(path)).toBeLessThan((5 * 32 + stalled.length * 32) * MB);

  // One of them reads on and gets the right bytes, although many blocks were evicted and fetched again meanwhile.
  const { socket, first } = stalled[9]!;
  let head = '';
  let bytes = 0;
  socket.on('data', (chunk: Buffer) => {
    let body = chunk;
    if (!head.includes('\r\n\r\n')) {
      head += chunk.toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      body = end < 0 ? chunk.subarray(chunk.length) : chunk.subarray(chunk.length - (head.length - end - 4));
    }
    expect(bytesAt(first + bytes, body.length).equals(body)).toBe(true);
    bytes += body.length;
  });
  await appliance.until(() => bytes > 24 * MB);
  for (const one of stalled) one.socket.destroy();
});
