// `larder steering run` as a process, from the dist/ that `npm run build` made: start, kill, restart, shutdown and bad settings.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { explanation, playAnswer, type Fleet } from '../../protocol/decision.ts';
import type { FaultBody } from '../../protocol/faults.ts';
import { issueToken, readFleetKey } from '../../runtime/auth.ts';
import { systemClock } from '../../runtime/clock.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { aHeartbeat, openFillStub, send, aTitle, fleetKey, until, type HttpAnswer, type FillStub } from './harness.ts';

const entry = join(packageRoot, 'dist', 'larder.js');
let directory: string;
let fill: FillStub;
const children: ChildProcess[] = [];

beforeEach(async () => {
  if (!existsSync(entry)) throw new Error(`${entry} is missing; run: npm run build`);
  directory = mkdtempSync(join(tmpdir(), 'steering-'));
  fill = await openFillStub((since) => ({
    protocol: 1,
    revision: 1,
    titles: since < 1 ? [aTitle({ id: 'harbor' })] : [],
    removed: [],
    more: false,
  }));
});

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await fill.close();
  rmSync(directory, { recursive: true, force: true });
});

interface Running {
  readonly url: string;
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
}

function launch(...flags: string[]): { readonly child: ChildProcess; readonly exited: Promise<number | null> } {
  const child = spawn(process.execPath, [entry, 'steering', 'run', '--state', join(directory, 'state'), ...flags], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LARDER_HOME: directory, LARDER_LISTEN: '127.0.0.1:0', LARDER_FILL: fill.url },
  });
  children.push(child);
  return { child, exited: new Promise((resolve) => child.on('exit', resolve)) };
}

/** Waits for the log line `listening`, which contains the port. */
async function start(...flags: string[]): Promise<Running> {
  const { child, exited } = launch('--origin', 'http://origin.example', ...flags);
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr! })) {
    lines.push(line);
    if (!line.startsWith('{')) continue;
    const { msg, listen } = JSON.parse(line) as { msg: string; listen?: string };
    if (msg !== 'listening') continue;
    child.stderr!.resume();
    return { url: `http://${listen}`, child, exited };
  }
  throw new Error(`steering did not come up:\n${lines.join('\n')}`);
}

async function runFailing(...flags: string[]): Promise<{ readonly code: number | null; readonly stderr: string }> {
  const { child, exited } = launch(...flags);
  let stderr = '';
  for await (const chunk of child.stderr! as AsyncIterable<Buffer>) stderr += chunk.toString('utf8');
  return { code: await exited, stderr };
}

const tokenOf = (role: 'operator' | 'appliance', id: string): string =>
  issueToken(readFleetKey(join(directory, 'fleet.key'))!, { role, id });
const sendHeartbeat = (url: string, appliance: string): Promise<HttpAnswer> =>
  send(`${url}/v1/appliances/${appliance}/heartbeat`, {
    method: 'POST',
    body: aHeartbeat({ appliance, advertise: [fill.url] }),
    token: tokenOf('appliance', appliance),
  });
const explainAt = (url: string, at: number): Promise<HttpAnswer> =>
  send(`${url}/v1/explain?client=127.0.0.1&title=harbor&at=${new Date(at).toISOString()}`, {
    token: tokenOf('operator', 'operator'),
  });
const fleetOf = async (url: string): Promise<Fleet> =>
  (await send(`${url}/v1/fleet`, { token: tokenOf('operator', 'operator') })).json<Fleet>();

describe('steering run', () => {
  it('restores its fleet and its drains after a kill', async () => {
    const first = await start();
    expect(statSync(join(directory, 'fleet.key')).mode & 0o777).toBe(0o600);
    for (const appliance of ['a', 'b']) expect((await sendHeartbeat(first.url, appliance)).status).toBe(200);
    const drained = await send(`${first.url}/v1/appliances/a/state`, {
      method: 'PUT',
      body: { state: 'draining', at: null, forMs: null },
      token: tokenOf('operator', 'operator'),
    });
    expect(drained.status).toBe(200);
    first.child.kill('SIGKILL');
    await first.exited;

    const second = await start();
    const { appliances } = await fleetOf(second.url);
    expect(appliances.map(({ id, liveness, draining }) => [id, liveness, draining !== null])).toEqual([
      ['a', 'alive', true],
      ['b', 'alive', false],
    ]);
    second.child.kill('SIGTERM');
    expect(await second.exited).toBe(0);
  });

  it('explains decisions from before a kill, and reports when it was down', async () => {
    writeFileSync(join(directory, 'fleet.key'), fleetKey.toString('hex'), { mode: 0o600 });
    const first = await start();
    await until(async () => (await send(`${first.url}/v1/play/harbor`)).status === 200, 'the catalog is pulled');
    const idsAt = async (url: string, at: number): Promise<string[]> => {
      const answer = await explainAt(url, at);
      return answer.status === 200 ? explanation.parse(answer.json()).pathways.map(({ id }) => id) : [];
    };
    const joined = async (appliance: string): Promise<number> => {
      await sendHeartbeat(first.url, appliance);
      let at = 0;
      await until(
        async () => (await idsAt(first.url, (at = systemClock.now()))).includes(appliance),
        'the heartbeat is in the history',
      );
      return at;
    };
    const at = await joined('a');
    const play = playAnswer.parse((await send(`${first.url}/v1/play/harbor`)).json());
    // A later commit extends the recorded period beyond `at`.
    await joined('b');
    first.child.kill('SIGKILL');
    await first.exited;
    const killedAt = systemClock.now();

    const second = await start();
    await until(
      async () => (await explainAt(second.url, systemClock.now())).status === 200,
      'history is recorded again',
    );
    expect(await idsAt(second.url, at)).toEqual(play.pathways.map(({ id }) => id));
    const whileDown = (await explainAt(second.url, killedAt)).json<FaultBody>().error;
    expect([whileDown.code, whileDown.message]).toEqual([
      'history_missing',
      expect.stringMatching(/: steering did not run: it was last seen at \S+Z and started at \S+Z$/),
    ]);
    second.child.kill('SIGTERM');
    expect(await second.exited).toBe(0);
  });

  it('reports its last plays on SIGTERM and exits with 0', async () => {
    writeFileSync(join(directory, 'fleet.key'), fleetKey.toString('hex'), { mode: 0o600 });
    const running = await start();
    await until(async () => (await send(`${running.url}/v1/play/harbor`)).status === 200, 'the catalog is pulled');
    running.child.kill('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(fill.reports.map(({ asked }) => asked)).toEqual([[{ title: 'harbor', site: null, plays: 1 }]]);
  });

  it('reports every problem of its settings and exits with 2', async () => {
    const { code, stderr } = await runFailing('--ttl', 'soon', '--trust-proxy', 'everybody');
    expect(code).toBe(2);
    expect(stderr).toContain('--origin is required');
    expect(stderr).toContain('--ttl is "soon"');
    expect(stderr).toContain('--trust-proxy is "everybody"');
  });

  it('names the address where it cannot listen and exits with 2', async () => {
    const { code, stderr } = await runFailing('--origin', 'http://o.example', '--listen', new URL(fill.url).host);
    expect(code).toBe(2);
    expect(stderr).toMatch(/cannot listen at 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  });

  it('refuses a bad map, naming zone and value, and exits with 2', async () => {
    const map = join(directory, 'map.json');
    writeFileSync(map, '{"coverageZones":{"north":{"network":["10.0.0.1/8"]}}}');
    const { code, stderr } = await runFailing('--origin', 'http://o.example', '--map', map);
    expect(code).toBe(2);
    expect(stderr).toContain('zone north: network "10.0.0.1/8" has bits set beyond its length; write 10.0.0.0/8');
  });

  it('reads the map again on SIGHUP; a bad one changes nothing', async () => {
    writeFileSync(join(directory, 'fleet.key'), fleetKey.toString('hex'), { mode: 0o600 });
    const map = join(directory, 'map.json');
    const putMap = (zone: string, network: string): void =>
      writeFileSync(map, JSON.stringify({ coverageZones: { [zone]: { network: [network] } } }));
    putMap('north', '127.0.0.0/8');
    const running = await start('--map', map);
    await until(async () => (await send(`${running.url}/v1/play/harbor`)).status === 200, 'the catalog is pulled');
    const siteNow = async (): Promise<string | null> =>
      playAnswer.parse((await send(`${running.url}/v1/play/harbor`)).json()).client.site;
    const reload = (): boolean => running.child.kill('SIGHUP');
    expect(await siteNow()).toBe('north');
    putMap('south', '127.0.0.0/8');
    reload();
    await until(async () => (await siteNow()) === 'south', 'the new map is in force');
    putMap('west', '127.0.0.1/8');
    const logged = new Promise<Buffer>((resolve) => running.child.stderr!.once('data', resolve));
    reload();
    expect((await logged).toString()).toMatch(/the former one stays in force/);
    expect(await siteNow()).toBe('south');
    // A change counts in the history from the second in which it is recorded.
    await until(async () => {
      const answer = await explainAt(running.url, systemClock.now());
      return answer.status === 200 && explanation.parse(answer.json()).client.site === 'south';
    }, 'the history has it');
  });

  it('refuses a state directory that another process has open', async () => {
    await start();
    const { code, stderr } = await runFailing('--origin', 'http://o.example');
    expect(code).toBe(1);
    expect(stderr).toContain('is in use by another process');
  });
});
