// `larder steering run` as a process, from dist/ as `npm test` built it: starts, is killed, comes back, drains, refuses.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { explanation, playAnswer, type Fleet } from '../../protocol/decision.ts';
import type { FaultBody } from '../../protocol/faults.ts';
import { issueToken, readFleetKey } from '../../runtime/auth.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { aBeat, aFill, ask, aTitle, fleetKey, until, type Answer, type FillStub } from './stage.ts';

const entry = join(packageRoot, 'dist', 'larder.js');
let directory: string;
let fill: FillStub;
const children: ChildProcess[] = [];

beforeEach(async () => {
  if (!existsSync(entry)) throw new Error(`${entry} is missing; run: npm run build`);
  directory = mkdtempSync(join(tmpdir(), 'steering-'));
  fill = await aFill((since) => ({
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

/** The port is in the log line that says `listening`. */
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

async function failing(...flags: string[]): Promise<{ readonly code: number | null; readonly said: string }> {
  const { child, exited } = launch(...flags);
  let said = '';
  for await (const chunk of child.stderr! as AsyncIterable<Buffer>) said += chunk.toString('utf8');
  return { code: await exited, said };
}

const tokenOf = (role: 'operator' | 'appliance', id: string): string =>
  issueToken(readFleetKey(join(directory, 'fleet.key'))!, { role, id });
const beat = (url: string, appliance: string): Promise<Answer> =>
  ask(`${url}/v1/appliances/${appliance}/heartbeat`, {
    method: 'POST',
    body: aBeat({ appliance, advertise: [fill.url] }),
    token: tokenOf('appliance', appliance),
  });
const explainAt = (url: string, at: number): Promise<Answer> =>
  ask(`${url}/v1/explain?client=127.0.0.1&title=harbor&at=${new Date(at).toISOString()}`, {
    token: tokenOf('operator', 'operator'),
  });
const fleetOf = async (url: string): Promise<Fleet> =>
  (await ask(`${url}/v1/fleet`, { token: tokenOf('operator', 'operator') })).json<Fleet>();

describe('steering run', () => {
  it('killed outright knows its fleet and its drains when it comes back', async () => {
    const first = await start();
    expect(statSync(join(directory, 'fleet.key')).mode & 0o777).toBe(0o600);
    for (const appliance of ['a', 'b']) expect((await beat(first.url, appliance)).status).toBe(200);
    const drained = await ask(`${first.url}/v1/appliances/a/state`, {
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

  it('killed outright still explains what it decided before, and says when it was away', async () => {
    writeFileSync(join(directory, 'fleet.key'), fleetKey.toString('hex'), { mode: 0o600 });
    const first = await start();
    await until(async () => (await ask(`${first.url}/v1/play/harbor`)).status === 200, 'the catalog is pulled');
    const idsAt = async (url: string, at: number): Promise<string[]> => {
      const answer = await explainAt(url, at);
      return answer.status === 200 ? explanation.parse(answer.json()).pathways.map(({ id }) => id) : [];
    };
    const joined = async (appliance: string): Promise<number> => {
      await beat(first.url, appliance);
      let at = 0;
      await until(async () => (await idsAt(first.url, (at = Date.now()))).includes(appliance), 'it is in the history');
      return at;
    };
    const at = await joined('a');
    const play = playAnswer.parse((await ask(`${first.url}/v1/play/harbor`)).json());
    // Written after `at`, so that nobody doubts that steering lived until then.
    await joined('b');
    first.child.kill('SIGKILL');
    await first.exited;
    const killed = Date.now();

    const second = await start();
    await until(async () => (await explainAt(second.url, Date.now())).status === 200, 'history goes on');
    expect(await idsAt(second.url, at)).toEqual(play.pathways.map(({ id }) => id));
    const away = (await explainAt(second.url, killed)).json<FaultBody>().error;
    expect([away.code, away.message]).toEqual([
      'history_missing',
      expect.stringMatching(/: steering did not run: it was last seen at \S+Z and started at \S+Z$/),
    ]);
    second.child.kill('SIGTERM');
    expect(await second.exited).toBe(0);
  });

  it('told to stop sends its last plays and ends with 0', async () => {
    writeFileSync(join(directory, 'fleet.key'), fleetKey.toString('hex'), { mode: 0o600 });
    const running = await start();
    await until(async () => (await ask(`${running.url}/v1/play/harbor`)).status === 200, 'the catalog is pulled');
    running.child.kill('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(fill.reports.map(({ asked }) => asked)).toEqual([[{ title: 'harbor', site: null, plays: 1 }]]);
  });

  it('says everything that is wrong with its settings, and ends with 2', async () => {
    const { code, said } = await failing('--ttl', 'soon', '--trust-proxy', 'everybody');
    expect(code).toBe(2);
    expect(said).toContain('--origin is required');
    expect(said).toContain('--ttl is "soon"');
    expect(said).toContain('--trust-proxy is "everybody"');
  });

  it('says where it cannot listen, and ends with 2', async () => {
    const { code, said } = await failing('--origin', 'http://o.example', '--listen', new URL(fill.url).host);
    expect(code).toBe(2);
    expect(said).toMatch(/cannot listen at 127\.0\.0\.1:\d+: .*EADDRINUSE/);
  });

  it('refuses a bad map by zone and value, and ends with 2', async () => {
    const map = join(directory, 'map.json');
    writeFileSync(map, '{"coverageZones":{"north":{"network":["10.0.0.1/8"]}}}');
    const { code, said } = await failing('--origin', 'http://o.example', '--map', map);
    expect(code).toBe(2);
    expect(said).toContain('zone north: network "10.0.0.1/8" has bits set beyond its length; write 10.0.0.0/8');
  });

  it('refuses a state directory that another steering has open', async () => {
    await start();
    const { code, said } = await failing('--origin', 'http://o.example');
    expect(code).toBe(1);
    expect(said).toContain('is in use by another process');
  });
});
