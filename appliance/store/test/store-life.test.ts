// Invariants of the store through crashes and damage: it serves again without the origin, stays within its budget and never
// serves a wrong byte.

import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { noise, RunningAppliance, ScriptedOrigin } from '../../test/rig.ts';

let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;

afterEach(async () => {
  await appliance?.stop();
  await origin?.stop();
  appliance = null;
  origin = null;
});

const MB = 2 ** 20;

async function rig(
  flags: readonly string[] = [],
  stores = 1,
): Promise<{ appliance: RunningAppliance; origin: ScriptedOrigin }> {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags, stores });
  return { appliance, origin };
}

const get = async (path: string): Promise<Buffer> =>
  Buffer.from(await (await fetch(appliance!.url + path)).arrayBuffer());

/** Files with a dot in their name are blocks; a stat of each could fail, because files vanish meanwhile. */
const blockFiles = (): string[] =>
  appliance!.stores().flatMap((store) =>
    readdirSync(join(store, 'blocks'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.includes('.'))
      .map((name) => join(store, 'blocks', name)),
  );

const stored = (): number => blockFiles().filter((path) => !path.endsWith('.tmp')).length;

test.each(['SIGTERM', 'SIGKILL'] as const)(
  'after %s and a restart a stored asset is served without a request to the origin',
  async (signal) => {
    const { appliance, origin } = await rig();
    const film = origin.put('/film', noise(5 * MB + 123));
    expect((await get('/film')).equals(film)).toBe(true);
    await appliance.until(() => stored() === 6);
    await appliance.killAll(signal);
    await appliance.start();
    origin.requests.length = 0;
    expect((await get('/film')).equals(film)).toBe(true);
    expect(origin.requests).toEqual([]);
  },
);

test('a lost index is rebuilt from block files, without a request to the origin', async () => {
  const { appliance, origin } = await rig([], 2);
  const films = Array.from({ length: 6 }, (_, at) => origin.put(`/film-${at}`, noise(MB + 77, at + 1)));
  for (const [at, film] of films.entries()) expect((await get(`/film-${at}`)).equals(film)).toBe(true);
  await appliance.until(() => stored() === 12);
  await appliance.killAll('SIGKILL');
  for (const store of appliance.stores()) rmSync(join(store, 'index'), { recursive: true });
  await appliance.start();
  origin.requests.length = 0;
  for (const [at, film] of films.entries()) expect((await get(`/film-${at}`)).equals(film)).toBe(true);
  expect(origin.requests).toEqual([]);
});

test('a damaged block is discarded, fetched again and counted, never served', async () => {
  const { appliance, origin } = await rig();
  const film = origin.put('/film', noise(2 * MB));
  await get('/film');
  await appliance.until(() => stored() === 2);
  await appliance.killAll('SIGTERM');
  for (const path of blockFiles()) {
    const bytes = readFileSync(path);
    bytes[bytes.length - 5]! ^= 0xff;
    writeFileSync(path, bytes);
  }
  await appliance.start();
  expect((await get('/film')).equals(film)).toBe(true);
  const metrics = await metricsOf(appliance);
  expect(metrics).toMatch(/larder_fallback_total\{name="block_damaged_refetch"\} [1-9]/);
  expect(metrics).toMatch(/larder_blocks_discarded_total [1-9]/);
});

test('a missing block file is fetched again', async () => {
  const { origin } = await rig();
  const film = origin.put('/film', noise(2 * MB));
  await get('/film');
  await appliance!.until(() => stored() === 2);
  await appliance!.killAll('SIGTERM');
  rmSync(blockFiles()[0]!);
  await appliance!.start();
  expect((await get('/film')).equals(film)).toBe(true);
});

test('--store-bytes is never exceeded while more than that is served, byte for byte', async () => {
  const limit = 40 * MB;
  const { appliance, origin } = await rig(['--store-bytes', String(limit)]);
  const films = Array.from({ length: 30 }, (_, at) => origin.put(`/film-${at}`, noise(3 * MB + at, at + 1)));
  let bytesMost = 0;
  const watch = systemClock.setInterval(() => {
    bytesMost = Math.max(bytesMost, directoryBytes(appliance.stores()[0]!));
  }, 5);
  const readers = Array.from({ length: 6 }, async (_, reader) => {
    for (let turn = 0; turn < 15; turn += 1) {
      const at = (reader * 7 + turn * 11) % films.length;
      expect((await get(`/film-${at}`)).equals(films[at]!)).toBe(true);
    }
  });
  await Promise.all(readers);
  systemClock.clear(watch);
  expect(bytesMost).toBeGreaterThan(limit / 4);
  expect(bytesMost).toBeLessThanOrEqual(limit);
});

function directoryBytes(path: string): number {
  let bytes = 0;
  for (const name of readdirSync(path, { recursive: true, encoding: 'utf8' })) {
    try {
      const stat = statSync(join(path, name));
      if (stat.isFile()) bytes += stat.blocks * 512;
    } catch {
      // Evicted between the two calls.
    }
  }
  return bytes;
}

test('a store with another layout refuses to start and names the remedy', async () => {
  const { appliance } = await rig();
  await appliance.killAll('SIGTERM');
  writeFileSync(join(appliance.stores()[0]!, 'larder-store.json'), '{"layout":9,"blockBytes":1048576}');
  await expect(appliance.start()).rejects.toThrow();
  expect(appliance.process.exitCode).toBe(2);
  expect(appliance.log).toMatch(/layout 9.*; use an empty --store directory/);
});

test('without a storekeeper hits are served and misses bypass to the origin (storekeeper_down_origin); within seconds it stores again', async () => {
  const { appliance, origin } = await rig();
  const film = origin.put('/film', noise(2 * MB));
  const other = origin.put('/other', noise(2 * MB, 9));
  await get('/film');
  await appliance.until(() => stored() === 2);
  for (let at = 0; at < 4; at += 1) await get('/film');
  process.kill((await appliance.pids()).storekeeper, 'SIGKILL');
  const [hit, miss] = await Promise.all([get('/film'), get('/other')]);
  expect(hit.equals(film)).toBe(true);
  expect(miss.equals(other)).toBe(true);
  await appliance.until(async () => {
    expect((await get('/other')).equals(other)).toBe(true);
    return stored() === 4;
  });
  await appliance.until(async () =>
    /larder_fallback_total\{name="storekeeper_down_origin"\} [1-9]/.test(await metricsOf(appliance)),
  );
});

test('a miss under way when the storekeeper is killed is served completely', async () => {
  const { appliance, origin } = await rig();
  const film = origin.put('/film', noise(48 * MB));
  const response = await fetch(`${appliance.url}/film`);
  const reader = response.body!.getReader();
  const first = await reader.read();
  const { storekeeper } = await appliance.pids();
  process.kill(storekeeper, 'SIGKILL');
  const chunks = [Buffer.from(first.value)];
  for (let step = await reader.read(); !step.done; step = await reader.read()) chunks.push(Buffer.from(step.value));
  expect(Buffer.concat(chunks).equals(film)).toBe(true);
});

const metricsOf = async (appliance: RunningAppliance): Promise<string> => {
  const response = await fetch(`${appliance.admin}/metrics`, {
    headers: { authorization: `Bearer ${appliance.token}` },
  }).catch(() => null);
  return response === null ? '' : response.text();
};
