// The access log: one line per response with what was requested and what was sent, whatever a client puts into its fields. The
// file may be renamed, and a full disk costs lines and nothing else.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { AccessLog, type LoggedRequest } from '../serve/access-log.ts';
import { WorkerCounters } from '../serve/counters.ts';
import { storedBlocks } from './caching-rig.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';
import { sendRequest } from './http-client.ts';
import { eventLoopRounds } from './waiting.ts';

const LINE =
  /^(?<client>\S+) - - \[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000\] "(?<request>[^"]*)" (?<status>\d{3}) (?<bytes>\d+) "(?<referer>[^"]*)" "(?<agent>[^"]*)" "(?<range>[^"]*)" (?<outcome>[a-z_-]+) (?<seconds>\d+\.\d{3})$/;
const FILM = noise(3 * 2 ** 20 + 5);

let directory: string;
let origin: ScriptedOrigin;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-access-'));
  origin = await ScriptedOrigin.start();
  origin.put('/film.mp4', FILM, { headers: { 'cache-control': 'max-age=600' } });
  origin.put('/aging.mp4', noise(500), { headers: { 'cache-control': 'max-age=0' } });
});

afterAll(async () => {
  await origin.stop();
  rmSync(directory, { recursive: true, force: true });
});

const linesOf = (path: string): Record<string, string>[] =>
  (existsSync(path) ? readFileSync(path, 'latin1') : '')
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const groups = LINE.exec(line)?.groups;
      if (groups === undefined) throw new Error(`not a line of an access log: ${line}`);
      return groups;
    });

test('every response has one line with its request, status, bytes and cache outcome, on the fast path and through node:http', async () => {
  const path = join(directory, 'outcomes.log');
  const flags = ['--reverse-proxy', '--access-log', path];
  const appliance = await RunningAppliance.start({ origin: origin.url, flags });
  try {
    const get = (...lines: string[]) => sendRequest(appliance.port, { path: '/film.mp4', lines });
    const agent = ['User-Agent: VLC/3.0 "quoted" \\', 'Referer: http://site.example/'];
    await get(...agent);
    await appliance.until(async () => (await storedBlocks(appliance, '/film.mp4')) === 4);
    await get(...agent, 'Range: bytes=5-104');
    // More than one, because the other worker has not looked the asset up yet.
    for (let at = 0; at < 3; at += 1) await get('Range: bytes=5-104');
    await sendRequest(appliance.port, { method: 'HEAD', path: '/film.mp4' });
    await get('If-None-Match: *');
    await get('Range: bytes=9999999-');
    await sendRequest(appliance.port, { path: '/gone.mp4' });
    await sendRequest(appliance.port, { method: 'POST', path: '/film.mp4', lines: ['Content-Length: 0'] });
    await sendRequest(appliance.port, { path: '/aging.mp4' });
    await appliance.until(async () => (await storedBlocks(appliance, '/aging.mp4')) > 0);
    await sendRequest(appliance.port, { path: '/aging.mp4' });
    await appliance.until(() => linesOf(path).length === 12);

    const lines = linesOf(path);
    expect(new Set(lines.map(({ client }) => client))).toEqual(new Set(['127.0.0.1']));
    expect(lines.every(({ seconds }) => Number(seconds) < 60)).toBe(true);
    const rows = lines.map(({ request, status, bytes, range, outcome }) =>
      [request, status, bytes, range, outcome].join(' | '),
    );
    const countOf = (line: string): number => rows.filter((each) => each === line).length;
    expect(countOf(`GET /film.mp4 HTTP/1.1 | 200 | ${FILM.length} | - | miss`)).toBe(1);
    expect(countOf('GET /film.mp4 HTTP/1.1 | 206 | 100 | bytes=5-104 | hit')).toBe(4);
    expect(countOf('HEAD /film.mp4 HTTP/1.1 | 200 | 0 | - | hit')).toBe(1);
    expect(countOf('GET /film.mp4 HTTP/1.1 | 304 | 0 | - | hit')).toBe(1);
    expect(countOf('GET /film.mp4 HTTP/1.1 | 416 | 0 | bytes=9999999- | range_unsatisfiable')).toBe(1);
    expect(rows.filter((line) => line.startsWith('GET /gone.mp4 HTTP/1.1 | 404 | '))).toHaveLength(1);
    expect(rows.filter((line) => line.startsWith('POST /film.mp4 HTTP/1.1 | '))).toHaveLength(1);
    expect(countOf('GET /aging.mp4 HTTP/1.1 | 200 | 500 | - | miss')).toBe(1);
    expect(countOf('GET /aging.mp4 HTTP/1.1 | 200 | 500 | - | revalidated')).toBe(1);
    const quoted = lines.filter(({ agent: name }) => name === 'VLC/3.0 \\x22quoted\\x22 \\x5c');
    expect(quoted.map(({ referer }) => referer)).toEqual(['http://site.example/', 'http://site.example/']);

    renameSync(path, `${path}.1`);
    await get();
    await get();
    await appliance.until(() => linesOf(path).length === 2);
    expect(linesOf(`${path}.1`)).toHaveLength(12);

    // The last response is logged before the process exits.
    await get();
    appliance.process.kill('SIGTERM');
    await once(appliance.process, 'exit');
    expect(linesOf(path)).toHaveLength(3);
  } finally {
    await appliance.stop();
  }
});

const REQUEST: LoggedRequest = {
  client: '192.0.2.7',
  line: 'GET / HTTP/1.1',
  range: '-',
  referer: '-',
  agent: '-',
  sinceMs: 0,
};

const openLog = (path: string): { readonly access: AccessLog; readonly counters: WorkerCounters } => {
  const counters = new WorkerCounters();
  return { access: new AccessLog(path, { clock: systemClock, counters, log: silentLog }), counters };
};
const droppedLines = (counters: WorkerCounters): number =>
  counters.drain(0).counts.find(({ name }) => name === 'larder_access_log_dropped_total')?.value ?? 0;

test('no text from a client ends a field or a line', async () => {
  const text = fc.string({ unit: 'binary', maxLength: 1_500 });
  const path = join(directory, 'hostile.log');
  const { access } = openLog(path);
  let lines = 0;
  await fc.assert(
    fc.asyncProperty(text, text, text, async (target, referer, agent) => {
      access.add({ ...REQUEST, line: target, referer, agent }, { status: 200, bytes: 1, outcome: 'hit' });
      lines += 1;
    }),
    { numRuns: 300 },
  );
  await access.flush();
  expect(linesOf(path)).toHaveLength(lines);
});

test('lines that cannot be written are dropped and counted', async () => {
  const { access, counters } = openLog('/dev/full');
  for (let at = 0; at < 200_000; at += 1) access.add(REQUEST, { status: 200, bytes: 1, outcome: 'hit' });
  await access.flush();
  expect(droppedLines(counters)).toBe(200_000);

  const path = join(directory, 'missing', 'access.log');
  const other = openLog(path);
  other.access.add(REQUEST, { status: 200, bytes: 1, outcome: 'hit' });
  await other.access.flush();
  expect(droppedLines(other.counters)).toBe(1);
});

test('while writes hang, lines are dropped and memory stays below 64 MiB', async () => {
  const fifo = join(directory, 'unread-fifo');
  execFileSync('/usr/bin/env', ['mkfifo', fifo]);
  const { access, counters } = openLog(fifo);
  let peak = 0;
  for (let second = 0; second < 40; second += 1) {
    for (let at = 0; at < 2_000; at += 1) access.add(REQUEST, { status: 200, bytes: 1, outcome: 'hit' });
    void access.flush();
    peak = Math.max(peak, process.memoryUsage().arrayBuffers);
  }
  expect(droppedLines(counters)).toBeGreaterThan(0);
  expect(peak).toBeLessThan(64 * 2 ** 20);
  // Once the FIFO has a reader, the pending write completes.
  const reader = spawn('cat', [fifo], { stdio: 'ignore' });
  await access.flush();
  reader.kill();
});

test('lines of several writers to one file stay whole, also when they exceed a buffer', async () => {
  const path = join(directory, 'shared.log');
  const writers = [openLog(path), openLog(path), openLog(path)];
  for (let at = 0; at < 20_000; at += 1)
    for (const { access } of writers) {
      access.add({ ...REQUEST, line: `GET /${at} HTTP/1.1` }, { status: 206, bytes: at, outcome: 'hit' });
      if (at % 5_000 === 0) await eventLoopRounds(1);
    }
  await Promise.all(writers.map(({ access }) => access.flush()));
  expect(linesOf(path)).toHaveLength(60_000);
  expect(writers.map(({ counters }) => droppedLines(counters))).toEqual([0, 0, 0]);
});
