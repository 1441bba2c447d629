// Settings that do not fit together end the start with 2 and say what to do, before anything is forked.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageRoot } from '../../runtime/paths.ts';
import { RunningAppliance } from './rig.ts';

const run = promisify(execFile);
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-settings-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const refused = (...flags: readonly string[]): Promise<{ readonly code: number; readonly stderr: string }> =>
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
    { timeout: 20_000, cwd: directory },
  ).then(
    () => ({ code: 0, stderr: '' }),
    (error: { code: number; stderr: string }) => error,
  );

const FLEET = ['--origin', 'http://127.0.0.1:1', '--steering', 'http://127.0.0.1:1'];

test('a fleet member says at once what it lacks: advertised URL, fill and token', async () => {
  const { code, stderr } = await refused(...FLEET, '--id', 'box-1');
  expect(code).toBe(2);
  expect(stderr).toMatch(/--advertise is required/);
  expect(stderr).toMatch(/--fill is required/);
  expect(stderr).toMatch(/larder keys issue --appliance box-1/);
});

test.each([
  ['no origin', [], /--origin is required/],
  ['a store that is too small', ['--origin', 'http://127.0.0.1:1', '--store-bytes', '1MB'], /at least/],
  [
    'a size without a unit that is none',
    ['--origin', 'http://127.0.0.1:1', '--store-bytes', 'big'],
    /--store-bytes is "big"/,
  ],
  ['a time zone that does not exist', ['--origin', 'http://127.0.0.1:1', '--time-zone', 'Mars/Base'], /IANA time zone/],
  ['a window that is none', ['--origin', 'http://127.0.0.1:1', '--fill-window', '25:00-26:00'], /02:00-14:00/],
  ['a flag that does not exist', ['--origin', 'http://127.0.0.1:1', '--stroe', 'x'], /unknown option '--stroe'/],
] as const)('%s ends with 2 and names the remedy', async (_, flags, message) => {
  const { code, stderr } = await refused(...flags);
  expect(code).toBe(2);
  expect(stderr).toMatch(message);
});

test.each([
  ['is a file', (path: string) => writeFileSync(path, '')],
  ['lies below a file', (path: string) => writeFileSync(join(path, '..'), '')],
] as const)('a only store that %s ends with 2', async (_, spoil) => {
  const place = join(directory, 'spoilt', 'store');
  if (_ === 'is a file') mkdirSync(join(directory, 'spoilt'));
  spoil(place);
  const { code, stderr } = await refused('--origin', 'http://127.0.0.1:1', '--store', place);
  expect(code).toBe(2);
  expect(stderr).toMatch(/nothing can be written where the settings say:\n\s+--store: /);
});

test('a store that another appliance has open ends with 2 and says so at once', async () => {
  const first = await RunningAppliance.start({ origin: 'http://127.0.0.1:1' });
  const { code, stderr } = await refused(
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

test('a store larger than its disk starts, and the log names both figures and the flag', async () => {
  const appliance = await RunningAppliance.start({ origin: 'http://127.0.0.1:1', flags: ['--store-bytes', '900TB'] });
  await appliance.stop();
  expect(appliance.log).toMatch(/"level":"warn".* free on a disk of .*--store-bytes is 900 TB\. Lower --store-bytes/);
});

test('a storekeeper that hangs does not outlive its supervisor', async () => {
  const appliance = await RunningAppliance.start({ origin: 'http://127.0.0.1:1', flags: ['--drain-timeout', '1s'] });
  const { storekeeper, supervisor } = await appliance.pids();
  process.kill(storekeeper, 'SIGSTOP');
  process.kill(supervisor, 'SIGTERM');
  await appliance
    .until(() => appliance.process.exitCode !== null || !existsSync(`/proc/${supervisor}`))
    .catch(() => undefined);
  await expect.poll(() => existsSync(`/proc/${storekeeper}`), { timeout: 10_000 }).toBe(false);
  await appliance.stop();
});

test('a port that is taken ends with 2 and names the address', async () => {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  const { code, stderr } = await refused('--origin', 'http://127.0.0.1:1', '--listen', `127.0.0.1:${port}`);
  server.close();
  expect(code).toBe(2);
  expect(stderr).toMatch(new RegExp(`cannot listen at 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`));
});
