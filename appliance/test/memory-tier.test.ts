// The memory tier of a running appliance: what is read again is served from memory, whatever becomes of its files and of the
// storekeeper; what is invalidated leaves it before the next answer; and a worker that hangs with a slot in hand does not live to send it.

import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { sendRequest } from './http-client.ts';
import { metricValue } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
const HANG_MS = 60_000;
const HEADERS = { 'cache-control': 'max-age=3600' };

let origin: ScriptedOrigin;
let appliance: RunningAppliance;

beforeEach(async () => {
  origin = await ScriptedOrigin.start();
});

afterEach(async () => {
  await appliance.stop();
  await origin.stop();
});

const start = async (...flags: string[]): Promise<void> => {
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
};

const put = (path: string, bytes: number, seed: number): Buffer =>
  origin.put(path, noise(bytes, seed), { headers: HEADERS });

const get = async (path: string): Promise<Buffer> => (await sendRequest(appliance.port, { path })).body;

const bytesInMemory = (): Promise<number> => metricValue(appliance, 'larder_memory_bytes');

/** Reads an asset until that many bytes are in the tier. */
async function readUntilInMemory(path: string, body: Buffer, bytes: number): Promise<void> {
  await appliance.until(async () => {
    expect((await get(path)).equals(body)).toBe(true);
    return (await bytesInMemory()) >= bytes;
  }, HANG_MS);
}

test('what is read again is served from memory, also when its files are spoilt and its storekeeper is dead', async () => {
  // One worker, which knows the asset by then.
  await start('--memory-bytes', '16MB', '--workers', '1');
  const film = put('/film', 2 * MB + 5, 1);
  await readUntilInMemory('/film', film, 2 * MB);
  const [store] = appliance.stores();
  for (const name of readdirSync(join(store!, 'blocks'), { recursive: true, encoding: 'utf8' }))
    if (name.includes('.')) writeFileSync(join(store!, 'blocks', name), 'spoilt');
  origin.requests.length = 0;
  for (let count = 0; count < 6; count += 1) expect((await get('/film')).equals(film)).toBe(true);
  const { storekeeper } = await appliance.pids();
  process.kill(storekeeper, 'SIGSTOP');
  for (let count = 0; count < 6; count += 1) expect((await get('/film')).equals(film)).toBe(true);
  expect(origin.requests).toEqual([]);
  process.kill(storekeeper, 'SIGKILL');
  await appliance.until(() => !existsSync(`/proc/${storekeeper}`));
  expect((await get('/film')).equals(film)).toBe(true);
});

test('an invalidated asset leaves the tier before the answer to the request that invalidated it', async () => {
  await start('--memory-bytes', '16MB', '--reverse-proxy');
  let film = put('/film', MB, 1);
  for (let version = 2; version < 6; version += 1) {
    await readUntilInMemory('/film', film, MB);
    film = put('/film', MB, version);
    expect((await sendRequest(appliance.port, { method: 'POST', path: '/film' })).status).toBe(200);
    for (let count = 0; count < 4; count += 1) expect((await get('/film')).equals(film)).toBe(true);
  }
});

test('with 0 there is no tier, and the bytes are the same', async () => {
  await start('--memory-bytes', '0');
  const film = put('/film', MB + 9, 1);
  for (let count = 0; count < 10; count += 1) {
    expect((await get('/film')).equals(film)).toBe(true);
    await systemClock.sleep(100);
  }
  expect(await bytesInMemory()).toBe(0);
});

test('a worker that hangs while a block that it may be sending is evicted is killed, and the tier goes on', async () => {
  await start('--memory-bytes', '1MiB');
  const [first, second] = [put('/first', MB, 1), put('/second', MB, 2)];
  await readUntilInMemory('/first', first, MB);
  const [hanging] = (await appliance.pids()).workers;
  process.kill(hanging!, 'SIGSTOP');
  const evicted = (): Promise<number> => metricValue(appliance, 'larder_memory_blocks_total{event="filled"}');
  const before = await evicted();
  await appliance.until(async () => {
    // Connections that the stopped worker gets are not answered before it is killed.
    await Promise.race([get('/second').catch(() => null), systemClock.sleep(500)]);
    return !existsSync(`/proc/${hanging}`);
  }, HANG_MS);
  await appliance.until(async () => {
    expect((await get('/second')).equals(second)).toBe(true);
    return (await evicted()) > before;
  }, HANG_MS);
});
