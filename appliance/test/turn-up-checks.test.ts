// Turn-up checks: each passes on a sound appliance and fails on the defect that it exists to find.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ensureFleetKey, verifyToken } from '../../runtime/auth.ts';
import { systemClock } from '../../runtime/clock.ts';
import { resolveConfig } from '../../runtime/config.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { CHECKS, runChecks, type CheckResult, type Probes } from '../turn-up-checks.ts';
import { APPLIANCE_TABLE, type ApplianceConfig } from '../config.ts';
import { RunningAppliance } from './rig.ts';

const run = promisify(execFile);
/** A port without a listener. */
const CLOSED = 'http://127.0.0.1:1';

let directory: string;
const servers: Server[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-check-'));
});

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  }
  rmSync(directory, { recursive: true, force: true });
});

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const healthy = (): Promise<string> => serve((_, response) => response.end('{}'));

/** Settings of a sound appliance in a sound fleet, with `changes`. */
async function settings(changes: Record<string, string | readonly string[]> = {}): Promise<ApplianceConfig> {
  const fleetKey = join(directory, 'fleet.key');
  const key = ensureFleetKey(fleetKey);
  const flags: Record<string, string | readonly string[]> = {
    id: 'box-1',
    site: 'site-1',
    origin: await healthy(),
    steering: [await healthy()],
    fill: await serve((request, response) => {
      try {
        verifyToken(key, request.headers.authorization);
        response.end('{}');
      } catch {
        response.writeHead(403).end(
          JSON.stringify({
            error: { code: 'token_forged', message: 'not made with this fleet key', help: '', detail: {} },
          }),
        );
      }
    }),
    advertise: [await serve((_, response) => response.writeHead(204, { 'larder-appliance': 'box-1' }).end())],
    store: [join(directory, 'store')],
    storeBytes: '100MB',
    fleetKey,
    ...changes,
  };
  return resolveConfig(APPLIANCE_TABLE, { file: null, env: {}, flags });
}

async function outcomeOf(name: string, config: ApplianceConfig, probes?: Probes): Promise<CheckResult> {
  const results = await (probes === undefined ? runChecks(config) : runChecks(config, probes));
  return results.find((result) => result.name === name)!;
}

test('a sound appliance passes every check', async () => {
  const results = await runChecks(await settings());
  expect(results.filter((result) => result.outcome !== 'passed')).toEqual([]);
  expect(results.map((result) => result.name)).toEqual(CHECKS.map((check) => check.name));
});

test('the check of the advertised URL passes for a running appliance with the right id', async () => {
  const appliance = await RunningAppliance.start({ origin: await healthy() });
  const own = await settings({ advertise: [appliance.url], id: 'appliance' });
  expect(await outcomeOf('advertised URL', own)).toMatchObject({ outcome: 'passed' });
  const other = await outcomeOf('advertised URL', await settings({ advertise: [appliance.url] }));
  expect(other).toMatchObject({ outcome: 'failed', detail: expect.stringMatching(/answered by appliance appliance/) });
  await appliance.stop();
});

test.each<[string, Record<string, string | readonly string[]>, RegExp]>([
  ['settings', { advertise: [] }, /--advertise/],
  ['disk space', { storeBytes: '900TB' }, /--store-bytes/],
  ['origin', { origin: CLOSED }, /curl -I/],
  ['steering', { steering: [CLOSED] }, /--steering/],
  ['fill', { fill: CLOSED }, /--fill/],
  ['fill', { token: `larder_appliance_box-1_${'0'.repeat(64)}` }, /larder keys issue --appliance box-1/],
  ['advertised URL', { advertise: [CLOSED] }, /firewall/],
])('the check of %s fails with %j and names the remedy', async (name, changes, remedy) => {
  const result = await outcomeOf(name, await settings(changes));
  expect(result.outcome).toBe('failed');
  expect(result.remedy).toMatch(remedy);
});

test('the check of the advertised URL fails if the URL leads to another server', async () => {
  const result = await outcomeOf('advertised URL', await settings({ advertise: [await healthy()] }));
  expect(result).toMatchObject({ outcome: 'failed', remedy: expect.stringMatching(/--listen/) });
});

test('the check of the clock fails if it is an hour off', async () => {
  const slowClock = await serve((_, response) =>
    response.writeHead(200, { date: new Date(systemClock.now() - 3_600_000).toUTCString() }).end(),
  );
  expect(await outcomeOf('clock', await settings({ steering: [slowClock] }))).toMatchObject({
    outcome: 'failed',
    remedy: expect.stringMatching(/timedatectl/),
  });
});

test('the check of the disk rate fails at 10 MB/s', async () => {
  const result = await outcomeOf('disk rate', await settings(), { writeRate: async () => 10e6 });
  expect(result).toMatchObject({ outcome: 'failed', detail: expect.stringMatching(/80\.0 Mb\/s/) });
});

test('the check of open files fails at a limit of 256; the command exits with 1 and prints nothing but JSON', async () => {
  const config = await settings();
  const flags = [
    '--origin',
    config.origin,
    '--store',
    config.store[0]!,
    '--store-bytes',
    '100MB',
    '--fleet-key',
    config.fleetKey,
    '--json',
  ];
  const command = `ulimit -n 256; exec "$0" "$@"`;
  const failed = await run('bash', [
    '-c',
    command,
    process.execPath,
    join(packageRoot, 'dist/larder.js'),
    'appliance',
    'check',
    ...flags,
  ]).catch((error: { code: number; stdout: string }) => error);
  expect(failed).toMatchObject({ code: 1 });
  const printed = JSON.parse(failed.stdout) as { ok: boolean; checks: CheckResult[] };
  expect(printed.ok).toBe(false);
  expect(printed.checks.find((check) => check.name === 'open files')).toMatchObject({
    outcome: 'failed',
    detail: '256 open files',
    remedy: expect.stringMatching(/LimitNOFILE/),
  });
});
