// The life of a connection on the short way: how it comes back from node:http, waits, drains, is left, and what all of that
// leaves in the accounts and in memory.

import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BufferPool } from '../../io/buffer-pool.ts';
import { LIMITS } from '../../limits.ts';
import { openBlocksMax } from '../../serve/block-reader.ts';
import { blockPath } from '../../store/layout.ts';
import { type End, LaneRig } from './fast-path-rig.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { noise } from '../../test/rig.ts';

const MB = 2 ** 20;
const FILM = noise(3 * MB + 77);
const SMALL = noise(500, 3);
const ask = (path: string, ...lines: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: x', ...lines, '', ''].join('\r\n');
const CLOSE = ask('/small', 'Connection: close');

let nowMs = 0;
let rig: LaneRig;

beforeEach(async () => {
  nowMs = 0;
  rig = new LaneRig('alone', { ...systemClock, monotonic: () => nowMs });
  await rig.put('/film', FILM);
  await rig.put('/small', SMALL);
  rig.counters.drain(0);
});

afterEach(() => rig.close());

/** Bytes that a player has received, and when the connection has ended. */
function listen(player: End): { bytes(): Buffer; readonly ended: Promise<unknown> } {
  const chunks: Buffer[] = [];
  player.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { bytes: () => Buffer.concat(chunks), ended: once(player, 'close') };
}

const turns = async (count = 20): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe('after node:http has answered', () => {
  test.each([
    ['a miss', ask('/nothing')],
    ['a condition', ask('/small', 'If-None-Match: "v2"')],
    ['a request that is refused', ask('/small', 'Range: bytes=9999-')],
    ['OPTIONS', 'OPTIONS /small HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['two requests in one chunk', ask('/small') + ask('/film')],
  ])('the next request goes the short way again: %s', async (_, odd) => {
    await rig.converse('short', [odd, ask('/small'), odd, ask('/small'), ask('/film'), CLOSE]);
    expect(rig.count('larder_fast_path_total')).toBe(3);
  });

  test('a request in pieces comes back too, whatever the pieces', async () => {
    await rig.converse('short', [...ask('/small'), ask('/small'), CLOSE]);
    expect(rig.count('larder_fast_path_total')).toBe(1);
  });

  test('what goes on with a request that began in the chunk of another is not taken for one', async () => {
    const chunks = [`${ask('/nothing')}GET /small HTTP/1.1\r\nX-Odd: `, ask('/film'), CLOSE];
    const text = (await rig.converse('short', chunks)).toString('latin1');
    expect(text.split(SMALL.toString('latin1'))).toHaveLength(3);
    expect(text.length).toBeLessThan(MB);
    expect(rig.count('larder_fast_path_total')).toBe(0);
  });

  test.each([
    ['half a request', 'GET /small HT'],
    ['a body that is to come', 'OPTIONS /small HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n'],
  ])('what is half said is not cut off: %s', async (_, half) => {
    const answers = await rig.converse('short', [ask('/nothing'), half, ask('/small'), CLOSE]);
    expect(rig.count('larder_fast_path_total')).toBe(0);
    expect(answers.toString('latin1')).toContain('404');
  });
});

describe('waiting', () => {
  const FIRST_MS = 10_000;
  const KEEP_MS = 61_000;

  test('a connection that says nothing is told so and closed', async () => {
    const player = listen(rig.open('short'));
    nowMs = FIRST_MS;
    rig.lane.sweep();
    await turns();
    expect(player.bytes().length).toBe(0);
    nowMs += 1;
    rig.lane.sweep();
    await player.ended;
    expect(player.bytes().toString()).toBe('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n');
    expect(rig.lane.size).toBe(0);
  });

  test.each([
    ['the short way', ask('/small')],
    ['the long way', ask('/nothing')],
  ])('one that was answered by %s is kept for as long as was promised', async (_, text) => {
    const end = rig.open('short');
    const player = listen(end);
    nowMs = FIRST_MS - 1;
    end.write(text);
    await turns();
    nowMs += KEEP_MS;
    rig.lane.sweep();
    await turns();
    expect(rig.lane.size).toBe(1);
    nowMs += 1;
    rig.lane.sweep();
    await player.ended;
    expect(rig.lane.size).toBe(0);
  });

  test('what node:http keeps for a connection is let go in the meantime, and made again', async () => {
    let kept = 0;
    rig.http.on('connection', (bridge) => {
      kept += 1;
      bridge.on('close', () => (kept -= 1));
    });
    const end = rig.open('short');
    const player = listen(end);
    for (let turn = 1; turn <= 3; turn += 1) {
      end.write(ask('/nothing'));
      await until(() => player.bytes().toString().split('HTTP/1.1 404').length === turn + 1);
      await turns();
      rig.lane.sweep();
      await turns();
      expect(kept).toBe(1);
      nowMs += 5_001;
      rig.lane.sweep();
      await turns();
      expect(kept).toBe(0);
    }
    expect(rig.lane.size).toBe(1);
  });

  test('a look at who waits may come at any moment', async () => {
    for (const text of [
      'broken\r\n\r\n',
      ask('/nothing'),
      ask('/film'),
      CLOSE,
      'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n',
    ]) {
      rig.open('short').write(text);
      for (let step = 0; step < 200; step += 1) {
        rig.lane.sweep();
        await (step % 20 === 19 ? turns(1) : Promise.resolve());
      }
    }
  });

  test('an answer under way may take as long as its reader takes', async () => {
    const end = rig.open('short', { stuck: true });
    const player = listen(end);
    end.write(ask('/film'));
    await turns();
    nowMs += 10 * KEEP_MS;
    rig.lane.sweep();
    end.peer.unstick();
    await turns(40);
    expect(player.bytes().subarray(-FILM.length).equals(FILM)).toBe(true);
  });
});

describe('an answer that is not the same for all, or not for ever', () => {
  test.each([
    ['has aged', { headers: { 'cache-control': 'max-age=60' }, generatedAtMs: Date.now() - 61_000 }, 0],
    ['must be asked about', { headers: { 'cache-control': 'no-cache' }, generatedAtMs: Date.now() }, 0],
    ['is fresh', { headers: { vary: 'accept-encoding', 'cache-control': 'max-age=60' }, generatedAtMs: Date.now() }, 1],
  ])('%s', async (_, options, fast) => {
    await rig.put('/news', SMALL, options);
    const answer = await rig.converse('short', [ask('/news'), CLOSE]);
    expect(answer.indexOf(SMALL)).toBeGreaterThan(0);
    expect(rig.count('larder_fast_path_total')).toBe(fast);
  });
});

describe('a player that says no more', () => {
  test('and whose last words are broken is refused, whatever it had before', async () => {
    const player = rig.open('short');
    const heard = listen(player);
    player.write(ask('/nothing'));
    await until(() => heard.bytes().length > 0);
    player.write('GARBAGE\r\n\r\n');
    player.end();
    await heard.ended;
    expect(heard.bytes().toString('latin1')).toMatch(/^HTTP\/1.1 404 [^]*HTTP\/1.1 400 /);
  });

  test('is answered first', async () => {
    const player = rig.open('short');
    const heard = listen(player);
    player.write(ask('/film'));
    player.end();
    await heard.ended;
    expect(bodyOf(heard.bytes()).equals(FILM)).toBe(true);
    expect(rig.count('larder_fast_path_total')).toBe(1);
  });

  test('and is gone before its turn costs nothing', async () => {
    const player = rig.open('short');
    player.write(ask('/small'));
    await new Promise((resolve) => process.nextTick(resolve));
    player.peer.destroy();
    await turns();
    expect([rig.count('larder_fast_path_total'), rig.count('larder_requests_total')]).toEqual([0, 0]);
  });
});

describe('a drain', () => {
  test('ends who waits, lets an answer go on to its end, and takes no next request the short way', async () => {
    const idle = listen(rig.open('short'));
    const busyEnd = rig.open('short', { stuck: true });
    const busy = listen(busyEnd);
    // node:http has an idle parser for this connection, which it will want to close.
    busyEnd.peer.unstick();
    busyEnd.write(ask('/nothing'));
    await turns();
    busyEnd.peer.stick();
    busyEnd.write(ask('/film'));
    await turns();
    rig.draining = true;
    rig.lane.closeIdle();
    rig.http.closeIdleConnections();
    await idle.ended;
    expect(rig.lane.size).toBe(1);
    busyEnd.write(ask('/small'));
    busyEnd.peer.unstick();
    await busy.ended;
    const text = busy.bytes().toString('latin1');
    expect(text).toContain(FILM.toString('latin1'));
    expect(text.slice(-SMALL.length)).toBe(SMALL.toString('latin1'));
    expect(text).toContain('connection: close');
    expect(rig.count('larder_fast_path_total')).toBe(1);
  });
});

describe('accounts', () => {
  test('are the same on both ways', async () => {
    const chunks = [
      ask('/film'),
      ask('/film', 'Range: bytes=5-1048580'),
      'HEAD /film HTTP/1.1\r\nHost: x\r\n\r\n',
      CLOSE,
    ];
    const reports = [];
    for (const way of ['short', 'long'] as const) {
      await rig.converse(way, chunks);
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

  test('a player that hangs up in the middle is counted, with what it was sent', async () => {
    const end = rig.open('short', { stuck: true });
    end.write(ask('/film'));
    await turns();
    end.peer.destroy();
    await turns();
    const { counts, bytes } = rig.counters.drain(0);
    expect(bytes).toBe(512 * 1024);
    expect(counts.find(({ name }) => name === 'larder_aborted_total')?.value).toBe(1);
    expect(rig.lane.size).toBe(0);
  });
});

describe('what is not at hand after all', () => {
  test('goes the long way where the first byte is concerned', async () => {
    rig.reader.closeAll();
    const answer = await rig.converse('short', [CLOSE.replace('/small', '/film')]);
    expect(answer.subarray(-FILM.length).equals(FILM)).toBe(true);
    expect(rig.count('larder_fast_path_total')).toBe(0);
  });

  test('is read from the disk where it turns out on the way', async () => {
    const end = rig.open('short', { stuck: true });
    const player = listen(end);
    end.write(ask('/film'));
    await turns();
    expect(rig.count('larder_fast_path_total')).toBe(1);
    rig.reader.closeAll();
    end.peer.unstick();
    await until(() => bodyOf(player.bytes()).length === FILM.length);
    expect(player.bytes().subarray(-FILM.length).equals(FILM)).toBe(true);
  });

  test('ends the answer short where it is gone, and nothing is learnt from it', async () => {
    const end = rig.open('short', { stuck: true });
    const player = listen(end);
    end.write(ask('/film'));
    await turns();
    const view = rig.views.get('/film')!;
    rig.views.set('/film', { ...view, version: '"other"' });
    for (const number of [1, 2, 3]) rmSync(blockPath(rig.directory, view.id, number));
    rig.reader.closeAll();
    end.peer.unstick();
    await player.ended;
    expect(player.bytes().subarray(-MB).equals(FILM.subarray(0, MB))).toBe(true);
    expect(rig.count('larder_faults_total')).toBe(1);
    expect(rig.server.freshHit('/film')).toBe(null);
  });
});

test('requests that come while an answer is under way are answered in order', async () => {
  const end = rig.open('short', { stuck: true });
  const player = listen(end);
  end.write(ask('/film'));
  await turns();
  for (let at = 0; at < 3; at += 1) end.write(ask('/small'));
  await turns();
  end.peer.unstick();
  const text = (): string => player.bytes().toString('latin1');
  await until(() => text().split(SMALL.toString('latin1')).length === 4);
  expect(text().slice(-SMALL.length)).toBe(SMALL.toString('latin1'));
  expect(bodyOf(player.bytes()).subarray(0, FILM.length).equals(FILM)).toBe(true);
});

test('a worker keeps open what a quarter of memory and its files let it', () => {
  const GB = 2 ** 30;
  const most = (memoryBytes: number, filesMax: number): number =>
    openBlocksMax({ memoryBytes, filesMax, connectionsMax: 5_000 });
  expect(most(16 * GB, 1_000_000)).toBe(4_096);
  expect(most(16 * GB, 10_000)).toBe(10_000 - 5_000 - 2_048);
  expect(most(1_024 * GB, 1_000_000)).toBe(65_536);
  expect(most(16 * GB, 1_024)).toBe(256);
});

test('readers that stall hold a large piece only while few of them do', async () => {
  const STALLED = 600;
  const ends = Array.from({ length: STALLED }, () => rig.open('short', { stuck: true }));
  for (const end of ends) end.write(ask('/film'));
  await until(() => ends.every((end) => end.peer.heldBytes > 0));
  const sizes = ends.map((end) => end.peer.heldBytes);
  expect(sizes.filter((bytes) => bytes > 200_000).length).toBeLessThanOrEqual(256);
  // Everybody hangs up: large pieces are there for the next.
  for (const end of ends) end.peer.destroy();
  await turns();
  const next = rig.open('short', { stuck: true });
  next.write(ask('/film'));
  await until(() => next.peer.heldBytes > 0);
  expect(next.peer.heldBytes).toBeGreaterThan(200_000);
});

test('ten thousand readers that stall hold a gigabyte of buffers and no more', () => {
  const pool = new BufferPool();
  const slabs = Array.from({ length: 10_000 }, () => pool.acquire(LIMITS.largeBufferBytes));
  expect(slabs.reduce((bytes, { buffer }) => bytes + buffer.length, 0)).toBeLessThan(1.1 * 2 ** 30);
  for (const slab of slabs) pool.release(slab);
  expect(pool.acquire(LIMITS.largeBufferBytes).room).toBe(LIMITS.largeBufferBytes);
});

test('pieces that are out do not share a byte, and those of the huge page go before others', () => {
  const pool = new BufferPool();
  const slabs = [LIMITS.largeBufferBytes, 1].flatMap((bytes) => Array.from({ length: 20 }, () => pool.acquire(bytes)));
  for (const [at, { buffer }] of slabs.entries()) buffer.fill(at);
  for (const [at, { buffer }] of slabs.entries()) expect(buffer.equals(Buffer.alloc(buffer.length, at))).toBe(true);
  const huge = slabs.filter((slab) => slab.inHugePage);
  for (const slab of [...huge, ...slabs.filter((slab) => !slab.inHugePage)]) pool.release(slab);
  const again = [LIMITS.largeBufferBytes, 1].flatMap((bytes) => Array.from({ length: 20 }, () => pool.acquire(bytes)));
  const first = [...again.slice(0, 3), ...again.slice(20, 27)];
  expect(huge).toHaveLength(first.length);
  for (const slab of first) expect(slab.inHugePage).toBe(true);
});

const bodyOf = (received: Buffer): Buffer => received.subarray(received.indexOf('\r\n\r\n') + 4);

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error('condition not met in 10 s');
    await turns(1);
  }
}
