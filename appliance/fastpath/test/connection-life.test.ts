// The life of a connection on the fast path: how it returns from node:http, how it waits, drains and is abandoned, and what
// that leaves in the counters and in memory.

import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BufferPool } from '../../io/buffer-pool.ts';
import { LIMITS } from '../../limits.ts';
import { openBlocksMax } from '../../serve/block-reader.ts';
import { blockPath } from '../../store/layout.ts';
import { type MemorySocket, FastPathRig } from './fast-path-rig.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { noise } from '../../test/rig.ts';
import { eventLoopRounds, until } from '../../test/waiting.ts';

const MB = 2 ** 20;
const FILM = noise(3 * MB + 77);
const SMALL = noise(500, 3);
const getRequest = (path: string, ...lines: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: x', ...lines, '', ''].join('\r\n');
const CLOSE = getRequest('/small', 'Connection: close');

let clock: ManualClock;
let rig: FastPathRig;

beforeEach(async () => {
  clock = new ManualClock();
  rig = new FastPathRig('alone', clock);
  await rig.put('/film', FILM);
  await rig.put('/small', SMALL);
  rig.counters.drain(0);
});

afterEach(() => rig.close());

/** Collects what a client receives. `ended` resolves when the connection has closed. */
function collect(client: MemorySocket): { bytes(): Buffer; readonly ended: Promise<unknown> } {
  const chunks: Buffer[] = [];
  client.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { bytes: () => Buffer.concat(chunks), ended: once(client, 'close') };
}

describe('after a response from node:http', () => {
  test.each([
    ['a miss', getRequest('/nothing')],
    ['a conditional request', getRequest('/small', 'If-None-Match: "v2"')],
    ['a request that is refused', getRequest('/small', 'Range: bytes=9999-')],
    ['OPTIONS', 'OPTIONS /small HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['two requests in one chunk', getRequest('/small') + getRequest('/film')],
  ])('the next request takes the fast path again: %s', async (_, odd) => {
    await rig.exchange('fast', [odd, getRequest('/small'), odd, getRequest('/small'), getRequest('/film'), CLOSE]);
    expect(rig.drainCount('larder_fast_path_total')).toBe(3);
  });

  test('the next request takes the fast path also if this one came byte by byte', async () => {
    await rig.exchange('fast', [...getRequest('/small'), getRequest('/small'), CLOSE]);
    expect(rig.drainCount('larder_fast_path_total')).toBe(1);
  });

  test('a chunk that continues a request begun in an earlier chunk is not parsed as a request of its own', async () => {
    const chunks = [`${getRequest('/nothing')}GET /small HTTP/1.1\r\nX-Odd: `, getRequest('/film'), CLOSE];
    const text = (await rig.exchange('fast', chunks)).toString('latin1');
    expect(text.split(SMALL.toString('latin1'))).toHaveLength(3);
    expect(text.length).toBeLessThan(MB);
    expect(rig.drainCount('larder_fast_path_total')).toBe(0);
  });

  test.each([
    ['half a request', 'GET /small HT'],
    ['a request whose body is still to come', 'OPTIONS /small HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n'],
  ])('a message that is still incomplete stays with node:http: %s', async (_, half) => {
    const answers = await rig.exchange('fast', [getRequest('/nothing'), half, getRequest('/small'), CLOSE]);
    expect(rig.drainCount('larder_fast_path_total')).toBe(0);
    expect(answers.toString('latin1')).toContain('404');
  });
});

describe('an idle connection', () => {
  const FIRST_REQUEST_MS = 10_000;
  /** The 60 s that are announced and one of grace. */
  const KEEP_ALIVE_MS = 61_000;

  test('that sends nothing gets a 408 and is closed', async () => {
    const received = collect(rig.open('fast'));
    clock.advance(FIRST_REQUEST_MS);
    rig.fastPath.sweep();
    await eventLoopRounds();
    expect(received.bytes().length).toBe(0);
    clock.advance(1);
    rig.fastPath.sweep();
    await received.ended;
    expect(received.bytes().toString()).toBe('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n');
    expect(rig.fastPath.size).toBe(0);
  });

  test.each([
    ['the fast path', getRequest('/small')],
    ['node:http', getRequest('/nothing')],
  ])('is kept after a response from %s for as long as was announced', async (_, text) => {
    const socket = rig.open('fast');
    const received = collect(socket);
    clock.advance(FIRST_REQUEST_MS - 1);
    socket.write(text);
    await eventLoopRounds();
    clock.advance(KEEP_ALIVE_MS);
    rig.fastPath.sweep();
    await eventLoopRounds();
    expect(rig.fastPath.size).toBe(1);
    clock.advance(1);
    rig.fastPath.sweep();
    await received.ended;
    expect(rig.fastPath.size).toBe(0);
  });

  test('gives up its node:http socket after five seconds, and gets a new one with the next request', async () => {
    let bridges = 0;
    rig.http.on('connection', (bridge) => {
      bridges += 1;
      bridge.on('close', () => (bridges -= 1));
    });
    const socket = rig.open('fast');
    const received = collect(socket);
    for (let count = 1; count <= 3; count += 1) {
      socket.write(getRequest('/nothing'));
      await until(() => received.bytes().toString().split('HTTP/1.1 404').length === count + 1);
      await eventLoopRounds();
      rig.fastPath.sweep();
      await eventLoopRounds();
      expect(bridges).toBe(1);
      clock.advance(5_001);
      rig.fastPath.sweep();
      await eventLoopRounds();
      expect(bridges).toBe(0);
    }
    expect(rig.fastPath.size).toBe(1);
  });

  test('may be swept at any moment of any request', async () => {
    for (const text of [
      'broken\r\n\r\n',
      getRequest('/nothing'),
      getRequest('/film'),
      CLOSE,
      'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n',
    ]) {
      rig.open('fast').write(text);
      for (let step = 0; step < 200; step += 1) {
        rig.fastPath.sweep();
        await (step % 20 === 19 ? eventLoopRounds(1) : Promise.resolve());
      }
    }
  });

  test('is not one that is sending a response: that may take as long as its reader needs', async () => {
    const socket = rig.open('fast', { blocked: true });
    const received = collect(socket);
    socket.write(getRequest('/film'));
    await eventLoopRounds();
    clock.advance(10 * KEEP_ALIVE_MS);
    rig.fastPath.sweep();
    socket.peer.unblock();
    await until(() => bodyOf(received.bytes()).length === FILM.length);
    expect(bodyOf(received.bytes()).equals(FILM)).toBe(true);
  });
});

describe('a stored response', () => {
  test.each([
    ['is stale', 'node:http', { 'cache-control': 'max-age=60' }, 61_000],
    ['has no-cache', 'node:http', { 'cache-control': 'no-cache' }, 0],
    [
      'is fresh and varies by Accept-Encoding alone',
      'fast path',
      { vary: 'accept-encoding', 'cache-control': 'max-age=60' },
      0,
    ],
  ])('that %s is served by the %s', async (_, server, headers, ageMs) => {
    await rig.put('/news', SMALL, { headers, generatedAtMs: clock.now() - ageMs });
    const response = await rig.exchange('fast', [getRequest('/news'), CLOSE]);
    expect(response.indexOf(SMALL)).toBeGreaterThan(0);
    expect(rig.drainCount('larder_fast_path_total')).toBe(server === 'fast path' ? 1 : 0);
  });
});

describe('a client that has closed its half of the connection', () => {
  test('gets a 400 for a malformed last request, after the responses before it', async () => {
    const client = rig.open('fast');
    const received = collect(client);
    client.write(getRequest('/nothing'));
    await until(() => received.bytes().length > 0);
    client.write('GARBAGE\r\n\r\n');
    client.end();
    await received.ended;
    expect(received.bytes().toString('latin1')).toMatch(/^HTTP\/1.1 404 [^]*HTTP\/1.1 400 /);
  });

  test('gets its response first', async () => {
    const client = rig.open('fast');
    const received = collect(client);
    client.write(getRequest('/film'));
    client.end();
    await received.ended;
    expect(bodyOf(received.bytes()).equals(FILM)).toBe(true);
    expect(rig.drainCount('larder_fast_path_total')).toBe(1);
  });

  test('or both halves, before its request was read, costs nothing', async () => {
    const client = rig.open('fast');
    client.write(getRequest('/small'));
    await new Promise((resolve) => process.nextTick(resolve));
    client.peer.destroy();
    await eventLoopRounds();
    expect([rig.drainCount('larder_fast_path_total'), rig.drainCount('larder_requests_total')]).toEqual([0, 0]);
  });
});

describe('a drain', () => {
  test('closes idle connections, completes the running response, and leaves the next request to node:http', async () => {
    const idle = collect(rig.open('fast'));
    const busySocket = rig.open('fast', { blocked: true });
    const busy = collect(busySocket);
    // node:http has an idle parser for this connection, and will try to close it.
    busySocket.peer.unblock();
    busySocket.write(getRequest('/nothing'));
    await eventLoopRounds();
    busySocket.peer.block();
    busySocket.write(getRequest('/film'));
    await eventLoopRounds();
    rig.draining = true;
    rig.fastPath.closeIdle();
    rig.http.closeIdleConnections();
    await idle.ended;
    expect(rig.fastPath.size).toBe(1);
    busySocket.write(getRequest('/small'));
    busySocket.peer.unblock();
    await busy.ended;
    const text = busy.bytes().toString('latin1');
    expect(text).toContain(FILM.toString('latin1'));
    expect(text.slice(-SMALL.length)).toBe(SMALL.toString('latin1'));
    expect(text).toContain('connection: close');
    expect(rig.drainCount('larder_fast_path_total')).toBe(1);
  });
});

describe('counters', () => {
  test('are the same on both paths', async () => {
    const chunks = [
      getRequest('/film'),
      getRequest('/film', 'Range: bytes=5-1048580'),
      'HEAD /film HTTP/1.1\r\nHost: x\r\n\r\n',
      CLOSE,
    ];
    const reports = [];
    for (const path of ['fast', 'slow'] as const) {
      await rig.exchange(path, chunks);
      const { counts, ...report } = rig.counters.drain(0);
      const sums: Record<string, number> = {};
      for (const { name, labels, value } of counts) {
        const line = `${name} ${Object.values(labels).join(' ')}`;
        if (name !== 'larder_fast_path_total') sums[line] = (sums[line] ?? 0) + value;
      }
      reports.push({ ...report, sums });
    }
    expect(reports[0]).toEqual(reports[1]);
    expect(reports[0]!.bytes).toBe(FILM.length + 1_048_576 + SMALL.length);
  });

  test('count a client that hangs up in mid-response, with the bytes that it was sent', async () => {
    const socket = rig.open('fast', { blocked: true });
    socket.write(getRequest('/film'));
    await eventLoopRounds();
    socket.peer.destroy();
    await eventLoopRounds();
    const { counts, bytes } = rig.counters.drain(0);
    expect(bytes).toBe(512 * 1024);
    expect(counts.find(({ name }) => name === 'larder_aborted_total')?.value).toBe(1);
    expect(rig.fastPath.size).toBe(0);
  });
});

describe('a block that is no longer open', () => {
  test('sends the request to node:http if it holds the first byte', async () => {
    rig.reader.closeAll();
    const answer = await rig.exchange('fast', [CLOSE.replace('/small', '/film')]);
    expect(answer.subarray(-FILM.length).equals(FILM)).toBe(true);
    expect(rig.drainCount('larder_fast_path_total')).toBe(0);
  });

  test('is read from disk if it is missed in mid-response', async () => {
    const socket = rig.open('fast', { blocked: true });
    const received = collect(socket);
    socket.write(getRequest('/film'));
    await eventLoopRounds();
    expect(rig.drainCount('larder_fast_path_total')).toBe(1);
    rig.reader.closeAll();
    socket.peer.unblock();
    await until(() => bodyOf(received.bytes()).length === FILM.length);
    expect(received.bytes().subarray(-FILM.length).equals(FILM)).toBe(true);
  });

  test('ends the response short if its file is gone and the asset has changed, and the asset is not remembered', async () => {
    const socket = rig.open('fast', { blocked: true });
    const received = collect(socket);
    socket.write(getRequest('/film'));
    await eventLoopRounds();
    const asset = rig.assets.get('/film')!;
    rig.assets.set('/film', { ...asset, version: '"other"' });
    for (const number of [1, 2, 3]) rmSync(blockPath(rig.directory, asset.id, number));
    rig.reader.closeAll();
    socket.peer.unblock();
    await received.ended;
    expect(received.bytes().subarray(-MB).equals(FILM.subarray(0, MB))).toBe(true);
    expect(rig.drainCount('larder_faults_total')).toBe(1);
    expect(rig.server.freshHit('/film')).toBe(null);
  });
});

test('requests that come while a response is being sent are answered in order', async () => {
  const socket = rig.open('fast', { blocked: true });
  const received = collect(socket);
  socket.write(getRequest('/film'));
  await eventLoopRounds();
  for (let at = 0; at < 3; at += 1) socket.write(getRequest('/small'));
  await eventLoopRounds();
  socket.peer.unblock();
  const text = (): string => received.bytes().toString('latin1');
  await until(() => text().split(SMALL.toString('latin1')).length === 4);
  expect(text().slice(-SMALL.length)).toBe(SMALL.toString('latin1'));
  expect(bodyOf(received.bytes()).subarray(0, FILM.length).equals(FILM)).toBe(true);
});

test('a worker keeps as many block files open as a quarter of memory and its file limit allow', () => {
  const GB = 2 ** 30;
  const most = (memoryBytes: number, filesMax: number): number =>
    openBlocksMax({ memoryBytes, filesMax, connectionsMax: 5_000 });
  expect(most(16 * GB, 1_000_000)).toBe(4_096);
  expect(most(16 * GB, 10_000)).toBe(10_000 - 5_000 - 2_048);
  expect(most(1_024 * GB, 1_000_000)).toBe(65_536);
  expect(most(16 * GB, 1_024)).toBe(256);
});

test('stalled readers hold large buffers only while there are at most 256 of them', async () => {
  const STALLED = 600;
  const sockets = Array.from({ length: STALLED }, () => rig.open('fast', { blocked: true }));
  for (const socket of sockets) socket.write(getRequest('/film'));
  await until(() => sockets.every((socket) => socket.peer.blockedBytes > 0));
  const sizes = sockets.map((socket) => socket.peer.blockedBytes);
  expect(sizes.filter((bytes) => bytes > 200_000).length).toBeLessThanOrEqual(256);
  // When they hang up, the next reader gets a large buffer again.
  for (const socket of sockets) socket.peer.destroy();
  await eventLoopRounds();
  const next = rig.open('fast', { blocked: true });
  next.write(getRequest('/film'));
  await until(() => next.peer.blockedBytes > 0);
  expect(next.peer.blockedBytes).toBeGreaterThan(200_000);
});

test('ten thousand stalled readers hold no more than 1.1 GiB of buffers', () => {
  const pool = new BufferPool();
  const buffers = Array.from({ length: 10_000 }, () => pool.acquire(LIMITS.largeBufferBytes));
  expect(buffers.reduce((bytes, { buffer }) => bytes + buffer.length, 0)).toBeLessThan(1.1 * 2 ** 30);
  for (const pooled of buffers) pool.release(pooled);
  expect(pool.acquire(LIMITS.largeBufferBytes).room).toBe(LIMITS.largeBufferBytes);
});

test('acquired buffers do not overlap, and those of the huge page are handed out first', () => {
  const pool = new BufferPool();
  const buffers = [LIMITS.largeBufferBytes, 1].flatMap((bytes) =>
    Array.from({ length: 20 }, () => pool.acquire(bytes)),
  );
  for (const [at, { buffer }] of buffers.entries()) buffer.fill(at);
  for (const [at, { buffer }] of buffers.entries()) expect(buffer.equals(Buffer.alloc(buffer.length, at))).toBe(true);
  const huge = buffers.filter((pooled) => pooled.inHugePage);
  for (const pooled of [...huge, ...buffers.filter((pooled) => !pooled.inHugePage)]) pool.release(pooled);
  const again = [LIMITS.largeBufferBytes, 1].flatMap((bytes) => Array.from({ length: 20 }, () => pool.acquire(bytes)));
  const first = [...again.slice(0, 3), ...again.slice(20, 27)];
  expect(huge).toHaveLength(first.length);
  for (const pooled of first) expect(pooled.inHugePage).toBe(true);
});

const bodyOf = (received: Buffer): Buffer => received.subarray(received.indexOf('\r\n\r\n') + 4);
