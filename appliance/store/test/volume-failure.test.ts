// A volume that cannot be opened costs its share of the store, not the service.

import { rmSync, writeFileSync } from 'node:fs';
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
    health: { level: 'yellow', causes: ['1 of 2 volumes are out of use'] },
    volumes: [{ limitBytes: 64 * MB }],
  });
});
