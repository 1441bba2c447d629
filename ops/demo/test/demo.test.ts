// The demo as a process: what it leaves behind after each kind of end, and the checks with their JSON output.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageRoot } from '../../../runtime/paths.ts';

const LARDER = join(packageRoot, 'dist', 'larder.js');

let temporary: string;
let demo: ChildProcess | null;

beforeEach(() => {
  temporary = mkdtempSync(join(tmpdir(), 'larder-demo-test-'));
  demo = null;
});

afterEach(() => {
  demo?.kill('SIGKILL');
  rmSync(temporary, { recursive: true, force: true, maxRetries: 5 });
});

interface Ended {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
}

function startDemo(...args: string[]): { readonly ended: Promise<Ended>; readonly stdout: () => string } {
  const child = spawn(process.execPath, [LARDER, 'demo', ...args], {
    env: { PATH: process.env['PATH']!, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  demo = child;
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  return {
    ended: new Promise((resolve) => child.once('close', (status, signal) => resolve({ status, signal, stdout }))),
    stdout: () => stdout,
  };
}

/** Processes with this test's directory in their environment: the demo, its reaper, its services and their workers. */
function running(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/environ`, 'latin1').includes(temporary) &&
          !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
        );
      } catch {
        return false;
      }
    });
}

const directories = (): string[] => (existsSync(temporary) ? readdirSync(temporary) : []);

test.runIf(existsSync('/proc/self/stat')).each([
  ['SIGKILL', null],
  ['SIGINT', 130],
  ['SIGTERM', 130],
  ['SIGHUP', 130],
] as const)('%s leaves no process and no file', { timeout: 60_000 }, async (signal, status) => {
  const started = startDemo();
  await expect.poll(started.stdout, { timeout: 30_000 }).toContain('three appliances run');
  // The demo, its reaper, three services, and three appliances of three processes each. With fewer, another demo would hold the
  // port of a service and respond in its place.
  expect(running()).toHaveLength(1 + 1 + 3 + 3 * 3);
  expect(directories()).toHaveLength(1);
  demo!.kill(signal);
  const ended = await started.ended;
  expect(ended.status).toBe(status);
  // The reaper outlives the demo by a moment. A process that is left behind would outlive this timeout.
  await expect.poll(running, { timeout: 10_000 }).toEqual([]);
  expect(directories()).toEqual([]);
});

test('--port with a port that is taken is a usage error', async () => {
  const { createServer } = await import('node:net');
  const taken = createServer();
  await new Promise<void>((resolve) => {
    taken.listen(0, '127.0.0.1', resolve);
  });
  const address = taken.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  try {
    expect((await startDemo('--port', String(port)).ended).status).toBe(2);
    expect(directories()).toEqual([]);
  } finally {
    taken.close();
  }
});

test('demo --check --json passes, and prints JSON alone on stdout', { timeout: 120_000 }, async () => {
  const { status, stdout } = await startDemo('--check', '--json').ended;
  const result = JSON.parse(stdout) as { ok: boolean; checks: { name: string; ok: boolean; detail: string }[] };
  expect(result.checks.filter((check) => !check.ok)).toEqual([]);
  expect([status, result.ok]).toEqual([0, true]);
  expect(result.checks.length).toBeGreaterThanOrEqual(13);
  for (const check of result.checks) expect(check.detail).not.toBe('');
  expect(directories()).toEqual([]);
});
