// In a fleet nothing reaches a viewer before its digest was checked: an origin that changes bytes under the same entity tag, with
// a real fill that imported the title, and an appliance with and without its storekeeper.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HttpConnection, sendRequest } from '../appliance/test/http-client.ts';
import { noise, RunningAppliance } from '../appliance/test/rig.ts';
import { FillHarness } from '../fill/test/fill-harness.ts';
import { putFilm } from '../fill/test/origin-double.ts';
import { issueToken } from '../runtime/auth.ts';

const MB = 2 ** 20;
const SEGMENT = '/film/video/low/1.m4s';

let fill: FillHarness;
let appliance: RunningAppliance;
let segment: Buffer;

beforeEach(async () => {
  fill = await FillHarness.start();
  putFilm(fill.origin, '/film/');
  segment = noise(2 * MB + 50_000);
  fill.origin.put(SEGMENT, segment);
  await fill.importTitle('/film/master.m3u8');
  appliance = await RunningAppliance.start({
    origin: fill.originUrl,
    flags: [
      ...['--steering', fill.steeringUrl, '--fill', fill.url, '--advertise', 'http://127.0.0.1:2', '--workers', '1'],
      ...['--fleet-key', join(fill.directory, 'fleet.key'), '--id', 'box'],
      ...['--token', issueToken(fill.key, { role: 'appliance', id: 'box' })],
    ],
  });
});

afterEach(async () => {
  await appliance?.stop();
  await fill.stop();
});

/** The origin sends other bytes than those that were imported, under the tag that they had. Returns them. */
function changeBytes(from: number): Buffer {
  const etag = `"${createHash('sha256').update(segment).digest('hex').slice(0, 16)}"`;
  const changed = Buffer.from(segment);
  for (let at = from; at < changed.length; at += 1) changed[at]! ^= 0x5a;
  fill.origin.misbehaviours.set(SEGMENT, (request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const part = changed.subarray(Number(first ?? 0), Number(last ?? changed.length - 1) + 1);
    const range = first === undefined ? {} : { 'content-range': `bytes ${first}-${last}/${changed.length}` };
    response.writeHead(first === undefined ? 200 : 206, { etag, ...range, 'content-length': part.length });
    // In pieces, so that a reader could have the first long before the last is known to be wrong.
    response.write(part.subarray(0, 100_000));
    setImmediate(() => response.end(part.subarray(100_000)));
  });
  return changed;
}

/** What a plain client received, whatever the end was. */
async function receive(path: string): Promise<{ readonly status: number; readonly body: Buffer }> {
  const connection = await HttpConnection.open(appliance.port);
  connection.send(`GET ${path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n`);
  await connection.closed();
  const text = connection.unread;
  const endOfHead = text.indexOf('\r\n\r\n');
  return { status: Number(text.toString('latin1', 9, 12)), body: text.subarray(endOfHead + 4) };
}

const metrics = async (): Promise<string> => {
  const token = issueToken(fill.key, { role: 'operator', id: 'operator' });
  return (await fetch(`${appliance.admin}/metrics`, { headers: { authorization: `Bearer ${token}` } })).text();
};

test('a block that differs from the catalog from its first byte on is refused, counted and not stored', async () => {
  changeBytes(0);
  expect((await receive(SEGMENT)).status).toBe(502);
  expect(await metrics()).toMatch(/larder_faults_total\{code="digest_mismatch"\} [1-9]/);
  fill.origin.misbehaviours.clear();
  // The origin is asked again after ten seconds.
  await appliance.until(async () => (await receive(SEGMENT)).body.equals(segment), 30_000);
});

test('bytes that the origin changed under their tag are served once the title is imported again, and never mixed', async () => {
  const range = [`Range: bytes=0-${MB - 1}`];
  for (let count = 0; count < 3; count += 1) await sendRequest(appliance.port, { path: SEGMENT, lines: range });
  const changed = changeBytes(0);
  const { status, body } = await receive(SEGMENT);
  expect([status, body.length <= MB, body.equals(segment.subarray(0, body.length))]).toEqual([200, true, true]);
  expect(await metrics()).toContain('larder_mismatched_holdings 1');

  await fill.importTitle('/film/master.m3u8');
  await appliance.until(async () => {
    // A key that nobody knows has the catalog pulled.
    await receive(`/film/nothing-${performance.now()}`);
    const answer = await receive(SEGMENT);
    const isOld = answer.body.equals(segment.subarray(0, answer.body.length));
    expect(isOld || answer.body.equals(changed.subarray(0, answer.body.length))).toBe(true);
    return answer.body.equals(changed);
  }, 30_000);
  expect(await metrics()).toContain('larder_mismatched_holdings 0');
});

test('a viewer gets the blocks before one that differs, and not a byte of that one', async () => {
  changeBytes(MB + 300_000);
  const { status, body } = await receive(SEGMENT);
  expect(status).toBe(200);
  expect(body.length).toBeLessThanOrEqual(MB);
  expect(body.equals(segment.subarray(0, body.length))).toBe(true);
});

test('while its storekeeper is killed again and again, an appliance passes on nothing that nobody verified', async () => {
  const range = [`Range: bytes=0-${MB - 1}`];
  for (let count = 0; count < 3; count += 1)
    expect((await sendRequest(appliance.port, { path: SEGMENT, lines: range })).body.length).toBe(MB);
  changeBytes(0);
  const statuses = new Set<number>();
  for (let round = 0; round < 10; round += 1) {
    await appliance.until(async () => (await appliance.pids()).storekeeper !== 0);
    const { storekeeper } = await appliance.pids();
    process.kill(storekeeper, 'SIGKILL');
    await appliance.until(() => !existsSync(`/proc/${storekeeper}`));
    const { status, body } = await receive(SEGMENT);
    statuses.add(status);
    if (status === 200) expect(body.equals(segment.subarray(0, Math.min(body.length, MB)))).toBe(true);
  }
  // Blocks on disk were served at least once, so that the worker was asked for those behind them.
  expect(statuses).toContain(200);
});
