// Invalid settings end the start with exit code 2 and a remedy, before any child is forked.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageRoot } from '../../runtime/paths.ts';
import { RunningAppliance } from './rig.ts';
import { until } from './waiting.ts';

const run = promisify(execFile);
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-settings-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const runRefused = (...flags: readonly string[]): Promise<{ readonly code: number; readonly stderr: string }> =>
  run(
    process.execPath,
    [
      join(packageRoot, 'dist/larder.js'),
      'appliance',
      'run',
      '--state',
      join(directory, 'state'),
      '--fleet-key',
      join(directory, 'fleet.key'),
      ...flags,
    ],
    { timeout: 50_000, cwd: directory },
  ).then(
    () => ({ code: 0, stderr: '' }),
    (error: { code: number; stderr: string }) => error,
  );

const FLEET = ['--origin', 'http://127.0.0.1:1', '--steering', 'http://127.0.0.1:1'];

test('a fleet member without advertised URL, fill and token gets all three named at once', async () => {
  const { code, stderr } = await runRefused(...FLEET, '--id', 'box-1');
  expect(code).toBe(2);
  expect(stderr).toMatch(/--advertise is required/);
  expect(stderr).toMatch(/--fill is required/);
  expect(stderr).toMatch(/larder keys issue --appliance box-1/);
});

test.each([
  ['no origin', [], /--origin is required/],
  ['a store below the minimum', ['--origin', 'http://127.0.0.1:1', '--store-bytes', '1MB'], /at least/],
  ['a size that is not a number', ['--origin', 'http://127.0.0.1:1', '--store-bytes', 'big'], /--store-bytes is "big"/],
  ['an unknown time zone', ['--origin', 'http://127.0.0.1:1', '--time-zone', 'Mars/Base'], /IANA time zone/],
  ['a malformed fill window', ['--origin', 'http://127.0.0.1:1', '--fill-window', '25:00-26:00'], /02:00-14:00/],
  ['an unknown flag', ['--origin', 'http://127.0.0.1:1', '--stroe', 'x'], /unknown option '--stroe'/],
] as const)('%s ends with exit code 2 and names the remedy', async (_, flags, message) => {
  const { code, stderr } = await runRefused(...flags);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});

test.each([
  ['is a file', (path: string) => writeFileSync(path, '')],
  ['lies below a file', (path: string) => writeFileSync(join(path, '..'), '')],
] as const)('an only store that %s ends with exit code 2', async (which, spoil) => {
  const path = join(directory, 'spoilt', 'store');
  if (which === 'is a file') mkdirSync(join(directory, 'spoilt'));
  spoil(path);
  const { code, stderr } = await runRefused('--origin', 'http://127.0.0.1:1', '--store', path);
  expect(code).toBe(2);
  expect(stderr).toMatch(/nothing can be written where the settings say:\n\s+--store: /);
});

test('a store that another appliance has open ends with exit code 2 and says so', async () => {
  const first = await RunningAppliance.start({ origin: 'http://127.0.0.1:1' });
  const { code, stderr } = await runRefused(
    '--origin',
    'http://127.0.0.1:1',
    '--listen',
    '127.0.0.1:0',
    '--admin',
    '127.0.0.1:0',
    '--store',
    first.stores()[0]!,
  );
  await first.stop();
  expect(code).toBe(2);
  expect(stderr).toMatch(/in use by another process, waiting/);
  expect(stderr).toMatch(/in use by another process\n/);
});

test('a store larger than its disk starts with a warning that names both figures and the flag', async () => {
  const appliance = await RunningAppliance.start({ origin: 'http://127.0.0.1:1', flags: ['--store-bytes', '900TB'] });
  await appliance.stop();
  expect(appliance.log).toMatch(/"level":"warn".* free on a disk of .*--store-bytes is 900 TB\. Lower --store-bytes/);
});

test('a storekeeper that hangs does not outlive its supervisor', async () => {
  const appliance = await RunningAppliance.start({ origin: 'http://127.0.0.1:1', flags: ['--drain-timeout', '1s'] });
  const { storekeeper, supervisor } = await appliance.pids();
  process.kill(storekeeper, 'SIGSTOP');
  process.kill(supervisor, 'SIGTERM');
  await until(() => appliance.process.exitCode !== null || !existsSync(`/proc/${supervisor}`));
  await until(() => !existsSync(`/proc/${storekeeper}`));
  await appliance.stop();
});

test('a port in use ends with exit code 2 and names the address', async () => {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const { code, stderr } = await runRefused('--origin', 'http://127.0.0.1:1', '--listen', `127.0.0.1:${port}`);
  server.close();
  expect(code).toBe(2);
  expect(stderr).toMatch(new RegExp(`cannot listen at 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`));
});
