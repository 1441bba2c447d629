// Every client verb as a process: its exit status, its output, and the requests that it sends.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { FaultBody } from '../../protocol/faults.ts';
import type { Run } from '../../protocol/plan.ts';
import { ensureFleetKey, issueToken, verifyToken } from '../../runtime/auth.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { RUN, startStub, type Stub } from './stub.ts';

const LARDER = join(packageRoot, 'dist', 'larder.js');

let home: string;
let key: Buffer;
let stub: Stub;

beforeAll(async () => {
  expect(existsSync(LARDER), 'dist/ is built before the tests: npm run build').toBe(true);
  home = mkdtempSync(join(tmpdir(), 'larder-verbs-'));
  key = ensureFleetKey(join(home, 'fleet.key'));
  stub = await startStub(key);
});

afterAll(async () => {
  await stub.close();
  rmSync(home, { recursive: true });
});

beforeEach(() => {
  stub.requests.length = 0;
  stub.state.runs = [RUN];
  stub.state.imports = [{ state: 'done' }];
});

interface ExitedProcess {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface RunningProcess {
  readonly ended: Promise<ExitedProcess>;
  readonly interrupt: () => void;
  readonly stderr: () => string;
}

function start(args: readonly string[], env: Record<string, string> = {}): RunningProcess {
  const child = spawn(process.execPath, [LARDER, ...args], {
    env: { PATH: process.env['PATH']!, LARDER_HOME: home, LARDER_STEERING: stub.url, LARDER_FILL: stub.url, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return {
    ended: new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr }))),
    interrupt: () => child.kill('SIGINT'),
    stderr: () => stderr,
  };
}

const larder = (args: string, env: Record<string, string> = {}): Promise<ExitedProcess> =>
  start(args.split(' '), env).ended;

const VERBS = [
  'appliance ls',
  'appliance show north-1',
  'appliance drain north-1 --for 4h',
  'appliance resume north-1',
  'steer explain --client 192.0.2.7 --title film',
  'catalog import http://origin.example/film/master.m3u8',
  'catalog ls',
  'catalog show film',
  'fill plan',
  'fill plan --appliance north-1',
  'fill run --now',
  'fill run --wait --detach',
  'fill status',
  'fill status run-1',
  'fill status run-1 --follow',
  'fill pin film --until 2026-04-01',
  'fill unpin film',
  'keys issue --operator',
];

describe.each(VERBS)('larder %s', (args) => {
  test('prints lines of at most 80 columns without colour to a pipe, and exits with 0', async () => {
    const { status, stdout, stderr } = await larder(args);
    expect(stderr.includes('larder:'), stderr).toBe(false);
    expect(status).toBe(0);
    expect(stdout.trim()).not.toBe('');
    // A token is one word, which cannot be wrapped.
    if (!args.startsWith('keys'))
      for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(stdout).not.toContain('\u001b');
  });

  test('prints JSON alone on stdout with --json', async () => {
    const { status, stdout } = await larder(`${args} --json`);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toBeTypeOf('object');
  });
});

test.each([...new Set(VERBS.map((args) => args.split(' ').slice(0, 2).join(' ')))])(
  'larder %s --help has an example',
  async (words) => {
    const help = await larder(`${words} --help`);
    expect(help.status).toBe(0);
    expect(help.stdout).toMatch(new RegExp(`Examples:\\n(.*\\n)*.*larder ${words}`));
  },
);

/** The help of every command, found by following the lists of commands. */
async function helpOf(words: string): Promise<[words: string, help: string][]> {
  const help = (await larder(`${words} --help`.trim())).stdout;
  const names = [...(help.split('\nCommands:\n')[1] ?? '').matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]!);
  const below: [string, string][] = [];
  for (const name of names.filter((each) => each !== 'help')) below.push(...(await helpOf(`${words} ${name}`.trim())));
  return [[words, help], ...below];
}

test('no line of any help is longer than 100 columns', async () => {
  const all = await helpOf('');
  expect(all.map(([words]) => words)).toEqual(
    expect.arrayContaining(['', 'bench', 'fill', 'fill pin', 'appliance run']),
  );
  const long = all.flatMap(([words, help]) =>
    help
      .split('\n')
      .filter((line) => line.length > 100)
      .map((line) => `${words}: ${line}`),
  );
  expect(long).toEqual([]);
});

test.each(VERBS.filter((args) => !args.startsWith('keys')))(
  'larder %s exits with 3 and shows how to start the service if nothing listens',
  async (args) => {
    const unreachable = 'http://127.0.0.1:1';
    const { status, stdout, stderr } = await larder(args, { LARDER_STEERING: unreachable, LARDER_FILL: unreachable });
    expect([status, stdout]).toEqual([3, '']);
    expect(stderr).toMatch(/larder (steering run|fill serve) --listen 127\.0\.0\.1:1/);
  },
);

test.each([
  'steer explain --client nonsense --title film',
  'steer explain --title film',
  'appliance drain north-1 --for soon',
  'appliance drain north-1 --at yesterday',
  'appliance show',
  'catalog import film.m3u8',
  'catalog import ftp://origin.example/film.m3u8',
  'fill run',
  'fill run --now --wait',
  'fill status --follow',
  'fill pin film --until later',
  'keys issue',
  'keys issue --operator --appliance north-1',
  'keys issue --appliance NORTH',
  'appliance ls --nonsense',
  'demo --port 99999',
])('larder %s is a usage error: it exits with 2 and a reason', async (args) => {
  const { status, stdout, stderr } = await larder(args);
  expect([status, stdout]).toEqual([2, '']);
  expect(stderr.trim()).not.toBe('');
  expect(stub.requests).toEqual([]);
});

test.each([
  ['appliance show north-9', 1, 'not_found', 'north-9'],
  ['appliance ls --steering http://127.0.0.1:1', 3, 'unreachable', 'larder steering run --listen 127.0.0.1:1'],
  ['appliance drain north-1 --for soon', 2, 'config_invalid', '--for is "soon"'],
  ['fill run', 2, 'config_invalid', '--now'],
  ['fill pin', 2, 'config_invalid', "missing required argument 'title'"],
  ['appliance ls --nonsense', 2, 'config_invalid', "unknown option '--nonsense'"],
  ['fill nonsense', 2, 'config_invalid', "unknown command 'nonsense'"],
] as const)('larder %s --json exits with %i and prints %s as JSON too', async (args, status, code, message) => {
  const plain = await larder(args);
  for (const ended of [await larder(`${args} --json`), await larder(args, { LARDER_JSON: 'true' })]) {
    expect([ended.status, ended.stderr]).toEqual([status, plain.stderr]);
    const { error } = JSON.parse(ended.stdout) as FaultBody;
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
    expect(error.help).not.toBe('');
  }
});

test('demo --json without --check is a usage error', async () => {
  const { status, stdout } = await larder('demo --json');
  expect(status).toBe(2);
  expect((JSON.parse(stdout) as FaultBody).error.message).toContain('--check');
});

test('an unknown appliance or title exits with 1 and shows what exists', async () => {
  const show = await larder('appliance show north-9');
  expect([show.status, show.stdout]).toEqual([1, '']);
  expect(show.stderr).toContain('north-1');
  const title = await larder('catalog show nothing');
  expect(title.status).toBe(1);
  expect(title.stderr).toContain('larder catalog ls');
});

test('without a token and a fleet key the message says where a token comes from', async () => {
  const { status, stderr } = await larder('appliance ls', { LARDER_HOME: join(home, 'nowhere') });
  expect(status).toBe(2);
  expect(stderr).toContain('larder keys issue');
  const forged = await larder('appliance ls', {
    LARDER_TOKEN: issueToken(Buffer.alloc(32), { role: 'operator', id: 'operator' }),
  });
  expect(forged.status).toBe(1);
});

test('requests carry the values of flags and arguments', async () => {
  await larder('appliance drain north-1 --at 2030-01-02T03:04Z --for 90m');
  await larder('fill run --now --site north --title film');
  await larder('fill pin film --until 2030-01-02T00:00Z');
  await larder('catalog import http://origin.example/film/manifest.mpd --title film');
  const bodies = stub.requests.filter((row) => row.method !== 'GET').map((row) => row.body);
  expect(bodies).toEqual([
    { state: 'draining', at: '2030-01-02T03:04:00.000Z', forMs: 5_400_000 },
    { site: 'north', title: 'film', now: true },
    { until: '2030-01-02T00:00:00.000Z' },
    { url: 'http://origin.example/film/manifest.mpd', title: 'film' },
  ]);
});

test('an explanation of the past shows its instant, and one for another instant is rejected', async () => {
  const args = 'steer explain --client 192.0.2.7 --title film --at 2020-01-01T00:00:07Z';
  stub.state.explanation = { ...stub.state.explanation, at: '2020-01-01T00:00:07.000Z' };
  expect((await larder(args)).stdout).toMatch(/^as it was at 2020-01-01 00:00:07 UTC: 192\.0\.2\.7 belongs to/);
  expect(stub.requests.at(-1)!.url).toContain('at=2020-01-01T00%3A00%3A07.000Z');

  stub.state.explanation = { ...stub.state.explanation, at: '2026-03-01T02:00:00.000Z' };
  const { status, stdout, stderr } = await larder(args);
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toContain('2026-03-01T02:00:00.000Z');
});

test('an explanation of the future is a usage error', async () => {
  const { status, stdout, stderr } = await larder('steer explain --client 192.0.2.7 --title film --at 2999-01-01');
  expect([status, stdout]).toEqual([2, '']);
  expect(stderr).toContain('which lies ahead');
});

test('an import that fails exits with 1 and shows the line that is wrong', async () => {
  stub.state.imports = [{ state: 'running' }, { state: 'failed', message: 'line 7: EXTINF has no number' }];
  const { status, stdout, stderr } = await larder('catalog import http://origin.example/film/master.m3u8');
  expect([status, stdout]).toEqual([1, '']);
  expect(stderr).toContain('line 7: EXTINF has no number');
});

const running = (bytesDone: number): Run => ({
  ...RUN,
  state: 'running',
  endedAt: null,
  bytesDone,
  appliances: RUN.appliances.map((part) => ({ ...part, state: 'filling' as const, bytesDone })),
});

test('a run is followed to its end in plain lines on stderr', async () => {
  stub.state.runs = [running(0), running(1e9), running(2e9), running(3e9), RUN];
  const { status, stdout, stderr } = await larder('fill run --now --json');
  expect(status).toBe(0);
  expect((JSON.parse(stdout) as Run).state).toBe('done');
  expect(stderr).toMatch(/^fill: .* of 4\.00 GB, 100 %, done$/m);
});

test('a run with nothing to fetch says so, and prints no empty line', async () => {
  const parts = (state: 'waiting' | 'filling'): Run['appliances'] =>
    RUN.appliances.map((part) => ({ ...part, state, bytesTotal: 0, bytesDone: 0 }));
  const empty = { ...RUN, bytesTotal: 0, bytesDone: 0 };
  const begun = { ...empty, state: 'running' as const, endedAt: null };
  stub.state.runs = [
    { ...begun, appliances: parts('waiting') },
    ...Array.from({ length: 5 }, () => ({ ...begun, appliances: parts('filling') })),
    { ...empty, appliances: RUN.appliances.map((part) => ({ ...part, bytesTotal: 0, bytesDone: 0 })) },
  ];
  const { stderr } = await larder('fill run --now');
  expect(stderr.trim().split('\n')).toEqual(['fill: waiting', 'fill: nothing to fetch', 'fill: done']);
});

test('a run that fails exits with 1 and shows its faults', async () => {
  const faults = [{ asset: '/film/a.m4s', code: 'origin_timeout', message: 'no answer in 10 s' }];
  stub.state.runs = [
    running(0),
    {
      ...RUN,
      state: 'failed',
      appliances: RUN.appliances.map((part) => ({ ...part, state: 'failed' as const, faults })),
    },
  ];
  const { status, stdout, stderr } = await larder('fill run --now --json');
  expect(status).toBe(1);
  expect(stderr).toContain('north-1: /film/a.m4s: no answer in 10 s');
  expect((JSON.parse(stdout) as Run).state).toBe('failed');
});

test('Ctrl-C leaves the run running, shows how to follow it, and exits with 130', async () => {
  stub.state.runs = [running(1e9)];
  const follower = start(['fill', 'run', '--now']);
  await expect
    .poll(() => stub.requests.filter((row) => row.url === '/v1/runs/run-1').length, { timeout: 5_000 })
    .toBeGreaterThan(0);
  follower.interrupt();
  const { status, stdout, stderr } = await follower.ended;
  expect([status, stdout]).toEqual([130, '']);
  expect(stderr).toContain('larder fill status run-1 --follow');
  expect(stub.requests.some((row) => row.method === 'DELETE')).toBe(false);
});

test('an issued token verifies as the appliance that it was issued for', async () => {
  const { stdout } = await larder('keys issue --appliance north-1');
  expect(verifyToken(key, `Bearer ${stdout.trim()}`)).toEqual({ role: 'appliance', id: 'north-1' });
});
