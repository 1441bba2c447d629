// An appliance in a fleet serves what the catalog names and nothing else, with and without its storekeeper. Steering and fill
// are down in these tests, and the catalog is empty.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { issueToken } from '../../runtime/auth.ts';
import { expectFault } from './faults.ts';
import { sendRequest } from './http-client.ts';
import { RunningAppliance, ScriptedOrigin } from './rig.ts';

/** A port without a listener. */
const DOWN = 'http://127.0.0.1:1';
const FLEET_FLAGS = [
  ...['--steering', DOWN, '--fill', DOWN, '--advertise', 'http://127.0.0.1:2'],
  ...['--token', issueToken(randomBytes(32), { role: 'appliance', id: 'appliance' })],
];

let origin: ScriptedOrigin;
let appliance: RunningAppliance | null = null;

beforeEach(async () => {
  origin = await ScriptedOrigin.start();
  origin.put('/film', Buffer.from('not catalogued'), { headers: { 'cache-control': 'max-age=600' } });
});

afterEach(async () => {
  await appliance?.stop();
  appliance = null;
  await origin.stop();
});

test('an asset that is not catalogued is 404, whatever the request carries, and the origin is not asked', async () => {
  appliance = await RunningAppliance.start({ origin: origin.url, flags: FLEET_FLAGS });
  for (const lines of [[], ['Authorization: Bearer x'], ['Range: bytes=0-1'], ['Cookie: a=b']])
    for (const path of ['/film', '/film?x=1', '/~abcdefgh01234567/film'])
      expectFault(await sendRequest(appliance.port, { path, lines }), 'asset_uncatalogued');
  expect(origin.requests).toEqual([]);
});

test('without its storekeeper it forwards neither the request nor its credentials to the origin', async () => {
  appliance = await RunningAppliance.start({ origin: origin.url, flags: ['--workers', '1', ...FLEET_FLAGS] });
  expectFault(await sendRequest(appliance.port, { path: '/film' }), 'asset_uncatalogued');
  const { storekeeper } = await appliance.pids();
  process.kill(storekeeper, 'SIGKILL');
  await appliance.until(() => !existsSync(`/proc/${storekeeper}`));
  const lines = [
    'Cookie: session=1',
    'Authorization: ann',
    'X-Forwarded-Host: evil.example',
    'Cache-Control: no-store',
  ];
  expectFault(await sendRequest(appliance.port, { path: '/film', lines }), 'overloaded');
  expect(origin.requests).toEqual([]);
});

test('what was stored while stand-alone is not served once the appliance has joined a fleet', async () => {
  const flags = ['--workers', '1'];
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
  expect((await sendRequest(appliance.port, { path: '/film' })).status).toBe(200);
  const { admin, token } = appliance;
  const assets = async (): Promise<string> =>
    (await fetch(`${admin}/v1/assets?prefix=/film`, { headers: { authorization: `Bearer ${token}` } })).text();
  await appliance.until(async () => /"blocks":1\b/.test(await assets()));
  await appliance.killAll();
  flags.push(...FLEET_FLAGS);
  await appliance.start();
  expectFault(await sendRequest(appliance.port, { path: '/film' }), 'asset_uncatalogued');
});
