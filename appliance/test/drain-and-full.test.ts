// Leaving in order, and a disk that is full: SIGTERM ends what runs within its bound, and no room on the volume costs no
// reader a byte.

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;
let mounted: string | null = null;

afterEach(async () => {
  if (appliance !== null && appliance.process.exitCode === null) await appliance.killAll('SIGKILL');
  if (mounted !== null) execFileSync('umount', ['-l', mounted]);
  mounted = null;
  await appliance?.stop();
  await origin?.stop();
  appliance = null;
  origin = null;
});

const get = async (path: string): Promise<Buffer> => {
  const response = await fetch(appliance!.url + path);
  const body = Buffer.from(await response.arrayBuffer());
  if (response.status !== 200) throw new Error(`${path}: ${String(response.status)} ${body.toString('utf8', 0, 500)}`);
  return body;
};

/** A response whose body nobody has read yet. */
function openSlowly(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    httpRequest(url, { agent: false }, (response) => resolve(response.pause()))
      .on('error', reject)
      .end();
  });
}

async function readRest(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

test('SIGTERM refuses new connections, lets a running answer end, and leaves 0', async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
  const film = origin.put('/film', noise(24 * MB));
  await get('/film');
  const running = await openSlowly(`${appliance.url}/film`);
  process.kill(appliance.process.pid!, 'SIGTERM');
  await appliance.until(() => appliance!.log.includes('"draining"'));
  await expect(fetch(`${appliance.url}/film`)).rejects.toThrow();
  const exited = once(appliance.process, 'exit');
  expect((await readRest(running)).equals(film)).toBe(true);
  expect((await exited)[0]).toBe(0);
});

test('a reader that never ends does not hold the drain beyond its bound', async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags: ['--drain-timeout', '1s'] });
  origin.put('/film', noise(24 * MB));
  await get('/film');
  const stuck = await openSlowly(`${appliance.url}/film`);
  stuck.on('error', () => undefined);
  const exited = once(appliance.process, 'exit');
  process.kill(appliance.process.pid!, 'SIGTERM');
  expect((await exited)[0]).toBe(0);
  expect(appliance.log).toMatch(/drain bound reached/);
  stuck.destroy();
});

const root = process.getuid?.() === 0;

test.skipIf(!root)(
  'when no room can be made, blocks pass through unstored and it is counted (store_full_pass)',
  async () => {
    origin = await ScriptedOrigin.start();
    const film = origin.put('/film', noise(20 * MB));
    appliance = await RunningAppliance.start({ origin: origin.url });
    await appliance.killAll('SIGTERM');
    // A real disk of 8 MB under a store that believes in 10 GB.
    const [store] = appliance.stores();
    rmSync(store!, { recursive: true });
    mkdirSync(store!);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', store!]);
    mounted = store!;
    await appliance.start();
    for (let turn = 0; turn < 3; turn += 1) expect((await get('/film')).equals(film)).toBe(true);
    const metrics = await (
      await fetch(`${appliance.admin}/metrics`, { headers: { authorization: `Bearer ${appliance.token}` } })
    ).text();
    expect(metrics).toMatch(/larder_fallback_total\{name="store_full_pass"\} [1-9]/);
    // Full to the brim by somebody else, index included; then there is room again.
    const filler = join(store!, 'somebody-elses');
    for (let bytes = statfsSync(store!).bavail * 4096; bytes > 4096; bytes = statfsSync(store!).bavail * 4096)
      writeFileSync(filler, Buffer.alloc(bytes), { flag: 'a' });
    const other = origin.put('/other', noise(3 * MB, 5));
    for (let turn = 0; turn < 3; turn += 1) expect((await get('/other')).equals(other)).toBe(true);
    execFileSync('mount', ['-o', 'remount,size=64m', store!]);
    rmSync(filler);
    await appliance.until(async () => {
      expect((await get('/other')).equals(other)).toBe(true);
      origin!.requests.length = 0;
      expect((await get('/other')).equals(other)).toBe(true);
      return origin!.requests.length === 0;
    });
  },
);
