// The access record as those who read it rely on it: a line per answer that says what was asked and what was sent, whatever a
// client puts into its fields; a file that may be renamed; a full disk that costs lines and nothing else.

import { execFileSync, spawn } from 'node:child_process';
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
      if (groups === undefined) throw new Error(`no line of an access record: ${line}`);
      return groups;
    });

test('says of every answer what was asked and what was sent, by whichever way it went', async () => {
  const path = join(directory, 'ways.log');
  const flags = ['--reverse-proxy', '--access-log', path];
  const appliance = await RunningAppliance.start({ origin: origin.url, flags });
  try {
    const get = (...lines: string[]) => sendRequest(appliance.port, { path: '/film.mp4', lines });
    const agent = ['User-Agent: VLC/3.0 "quoted" \\', 'Referer: http://site.example/'];
    await get(...agent);
    await appliance.until(async () => (await storedBlocks(appliance, '/film.mp4')) === 4);
    await get(...agent, 'Range: bytes=5-104');
    // The other worker has not met it yet.
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
    const told = lines.map(({ request, status, bytes, range, outcome }) =>
      [request, status, bytes, range, outcome].join(' | '),
    );
    const of = (line: string): number => told.filter((each) => each === line).length;
    expect(of(`GET /film.mp4 HTTP/1.1 | 200 | ${FILM.length} | - | miss`)).toBe(1);
    expect(of('GET /film.mp4 HTTP/1.1 | 206 | 100 | bytes=5-104 | hit')).toBe(4);
    expect(of('HEAD /film.mp4 HTTP/1.1 | 200 | 0 | - | hit')).toBe(1);
    expect(of('GET /film.mp4 HTTP/1.1 | 304 | 0 | - | hit')).toBe(1);
    expect(of('GET /film.mp4 HTTP/1.1 | 416 | 0 | bytes=9999999- | range_unsatisfiable')).toBe(1);
    expect(told.filter((line) => line.startsWith('GET /gone.mp4 HTTP/1.1 | 404 | '))).toHaveLength(1);
    expect(told.filter((line) => line.startsWith('POST /film.mp4 HTTP/1.1 | '))).toHaveLength(1);
    expect(of('GET /aging.mp4 HTTP/1.1 | 200 | 500 | - | miss')).toBe(1);
    expect(of('GET /aging.mp4 HTTP/1.1 | 200 | 500 | - | revalidated')).toBe(1);
    const quoted = lines.filter(({ agent: name }) => name === 'VLC/3.0 \\x22quoted\\x22 \\x5c');
    expect(quoted.map(({ referer }) => referer)).toEqual(['http://site.example/', 'http://site.example/']);

    renameSync(path, `${path}.1`);
    await get();
    await get();
    await appliance.until(() => linesOf(path).length === 2);
    expect(linesOf(`${path}.1`)).toHaveLength(12);

    // What was answered last is written before the process goes.
    await get();
    appliance.process.kill('SIGTERM');
    await new Promise((resolve) => appliance.process.once('exit', resolve));
    expect(linesOf(path)).toHaveLength(3);
  } finally {
    await appliance.stop();
  }
});

const ASKED: LoggedRequest = {
  client: '192.0.2.7',
  line: 'GET / HTTP/1.1',
  range: '-',
  referer: '-',
  agent: '-',
  sinceMs: 0,
};

const record = (path: string): { readonly access: AccessLog; readonly counters: WorkerCounters } => {
  const counters = new WorkerCounters();
  return { access: new AccessLog(path, { clock: systemClock, counters, log: silentLog }), counters };
};
const lost = (counters: WorkerCounters): number =>
  counters.drain(0).counts.find(({ name }) => name === 'larder_access_log_dropped_total')?.value ?? 0;

test('no text of a client ends a field or a line', async () => {
  const text = fc.string({ unit: 'binary', maxLength: 1_500 });
  const path = join(directory, 'hostile.log');
  const { access } = record(path);
  let lines = 0;
  await fc.assert(
    fc.asyncProperty(text, text, text, async (target, referer, agent) => {
      access.add({ ...ASKED, line: target, referer, agent }, { status: 200, bytes: 1, outcome: 'hit' });
      lines += 1;
    }),
    { numRuns: 300 },
  );
  await access.flush();
  expect(linesOf(path)).toHaveLength(lines);
});

test('a file that takes nothing costs lines, which are counted, and memory has its bound', async () => {
  const { access, counters } = record('/dev/full');
  for (let at = 0; at < 200_000; at += 1) access.add(ASKED, { status: 200, bytes: 1, outcome: 'hit' });
  await access.flush();
  expect(lost(counters)).toBe(200_000);

  const path = join(directory, 'missing', 'access.log');
  const other = record(path);
  other.access.add(ASKED, { status: 200, bytes: 1, outcome: 'hit' });
  await other.access.flush();
  expect(lost(other.counters)).toBe(1);
});

test('a disk that hangs costs lines as well, and no memory without end', async () => {
  const fifo = join(directory, 'nobody-reads');
  execFileSync('/usr/bin/env', ['mkfifo', fifo]);
  const { access, counters } = record(fifo);
  let most = 0;
  for (let second = 0; second < 40; second += 1) {
    for (let at = 0; at < 2_000; at += 1) access.add(ASKED, { status: 200, bytes: 1, outcome: 'hit' });
    void access.flush();
    most = Math.max(most, process.memoryUsage().arrayBuffers);
  }
  expect(lost(counters)).toBeGreaterThan(0);
  expect(most).toBeLessThan(64 * 2 ** 20);
  // Somebody reads: what waited comes, and nothing hangs.
  const reader = spawn('cat', [fifo], { stdio: 'ignore' });
  await access.flush();
  reader.kill();
});

test('lines of several writers share a file whole, more of them than a buffer holds', async () => {
  const path = join(directory, 'shared.log');
  const writers = [record(path), record(path), record(path)];
  for (let at = 0; at < 20_000; at += 1)
    for (const { access } of writers) {
      access.add({ ...ASKED, line: `GET /${at} HTTP/1.1` }, { status: 206, bytes: at, outcome: 'hit' });
      if (at % 5_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  await Promise.all(writers.map(({ access }) => access.flush()));
  expect(linesOf(path)).toHaveLength(60_000);
  expect(writers.map(({ counters }) => lost(counters))).toEqual([0, 0, 0]);
});
