// A volume that cannot be opened, or whose disk is not mounted, costs its share of the store, not the service.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { noise, RunningAppliance, ScriptedOrigin } from '../../test/rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;

afterEach(async () => {
  await appliance?.stop();
  await origin?.stop();
});

test('with one of two volumes damaged the appliance serves from the other and reports yellow health', async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, stores: 2, flags: ['--store-bytes', '128MiB'] });
  const running = appliance;
  const films = [1, 2, 3, 4].map((seed) => origin!.put(`/film-${seed}`, noise(MB, seed)));
  const fetchAll = async (): Promise<Buffer[]> =>
    Promise.all(
      films.map(async (_, at) => Buffer.from(await (await fetch(`${running.url}/film-${at + 1}`)).arrayBuffer())),
    );
  expect((await fetchAll()).map((body, at) => body.equals(films[at]!))).toEqual([true, true, true, true]);
  await running.killAll();
  const [damaged] = running.stores();
  rmSync(join(damaged!, 'index'), { recursive: true });
  writeFileSync(join(damaged!, 'index'), 'not a directory');
  await running.start();
  expect((await fetchAll()).map((body, at) => body.equals(films[at]!))).toEqual([true, true, true, true]);
  const state = await fetch(`${running.admin}/v1/state`, { headers: { authorization: `Bearer ${running.token}` } });
  expect(await state.json()).toMatchObject({
    health: { level: 'yellow', causes: [expect.stringMatching(/^1 of 2 volumes out of use: \S*store-0/)] },
    volumes: [{ limitBytes: 64 * MB }],
  });
});

const isRoot = process.getuid?.() === 0;

test.skipIf(!isRoot)('a volume whose disk is not mounted is not made anew on the disk of the system', async () => {
  origin = await ScriptedOrigin.start();
  const film = origin.put('/film', noise(MB, 1));
  appliance = await RunningAppliance.start({ origin: origin.url, stores: 2 });
  const running = appliance;
  const [, own] = running.stores();
  let isMounted = false;
  const restart = async (withDisk: boolean): Promise<void> => {
    await running.killAll('SIGTERM');
    if (isMounted) execFileSync('umount', [own!]);
    rmSync(own!, { recursive: true, force: true });
    mkdirSync(own!);
    if (withDisk) execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', own!]);
    isMounted = withDisk;
    await running.start();
  };
  const healthOf = async (): Promise<unknown> => {
    const headers = { authorization: `Bearer ${running.token}` };
    const state = (await (await fetch(`${running.admin}/v1/state`, { headers })).json()) as { health: unknown };
    return state.health;
  };
  try {
    await restart(true);
    expect(await healthOf()).toMatchObject({ level: 'green' });
    await restart(false);
    expect(await healthOf()).toMatchObject({
      level: 'yellow',
      causes: [expect.stringMatching(/had one of its own at/)],
    });
    expect(existsSync(join(own!, 'larder-store.json'))).toBe(false);
    expect(Buffer.from(await (await fetch(`${running.url}/film`)).arrayBuffer()).equals(film)).toBe(true);
    await restart(true);
    expect(await healthOf()).toMatchObject({ level: 'green' });
  } finally {
    await running.killAll('SIGKILL');
    if (isMounted) execFileSync('umount', ['-l', own!]);
  }
});
