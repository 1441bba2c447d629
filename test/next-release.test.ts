// The state of fill and of steering goes from this release to the next one and back: each opens what the other has written, and loses
// nothing. The store and the state of an appliance do so in appliance/store/test/next-release.test.ts.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { assetPage, catalogPage } from '../protocol/catalog.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { run } from '../protocol/plan.ts';
import { popularity } from '../protocol/plays.ts';
import { FillHarness } from '../fill/test/fill-harness.ts';
import { putFilm } from '../fill/test/origin-double.ts';
import { silentLog } from '../runtime/log.ts';
import { writeAsNextRelease } from '../runtime/test/next-release.ts';
import { HistoryStore } from '../steering/history/store.ts';
import { storedHeartbeat } from '../steering/registry.ts';
import { openStateStore } from '../steering/store.ts';
import { aHeartbeat, aTitle } from '../steering/test/harness.ts';

test('fill: catalog, pins, demand and runs are as they were, and the next change is accepted', async () => {
  const fill = await FillHarness.start();
  const goToNextReleaseAndBack = async (): Promise<void> => {
    await fill.fill!.close();
    await writeAsNextRelease(join(fill.directory, 'state'));
    await fill.open();
  };
  const seen = async (): Promise<object> => ({
    catalog: await fill.call('/v1/catalog', catalogPage),
    assets: await fill.call('/v1/titles/film/assets', assetPage),
    pins: await fill.call('/v1/pins', z.unknown()),
    demand: (await fill.call('/v1/popularity', popularity)).rows.map(({ holding, site }) => ({ holding, site })),
    runs: await fill.call('/v1/runs', z.object({ runs: z.array(run) }).loose()),
  });
  try {
    putFilm(fill.origin, '/film/');
    await fill.importTitle('/film/master.m3u8');
    await fill.call('/v1/pins/film', z.unknown(), { method: 'PUT', body: { until: null } });
    fill.fleet.add('north-1');
    await fill.startRun();
    const report = {
      ...{ protocol: PROTOCOL_VERSION, source: 'north-1', site: 'north', incarnation: '0123456789abcdef', seq: 0 },
      ...{ from: new Date(0).toISOString(), to: new Date().toISOString(), asked: [] },
      served: [{ holding: 'film:video/low', bytes: 1_000_000, requests: 1 }],
    };
    await fill.call('/v1/plays', z.unknown(), { method: 'POST', body: report, as: 'appliance', id: 'north-1' });
    const before = await seen();
    await goToNextReleaseAndBack();
    expect(await seen()).toMatchObject(before);

    putFilm(fill.origin, '/film/', 'y');
    await fill.importTitle('/film/master.m3u8');
    const after = await seen();
    expect(after).toMatchObject({ catalog: { revision: 2 } });
    await goToNextReleaseAndBack();
    expect(await seen()).toMatchObject(after);
  } finally {
    await fill.stop();
  }
});

test('steering: appliances, inventories, catalog and history are as they were', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'larder-next-release-'));
  try {
    const appliance = {
      ...{ beat: storedHeartbeat.parse(aHeartbeat({ appliance: 'a' })), retired: null },
      ...{ beatAt: '2026-03-01T12:00:00.000Z', leaseEndsAt: '2026-03-01T12:00:10.000Z' },
      drain: { from: '2026-03-01T12:00:00Z', until: null, told: true },
      orders: [{ id: 'o1', kind: 'drain' as const, until: null }],
    };
    const inventory = { appliance: 'a', incarnation: '00000000000000aa', revision: 1, holdings: ['film:video'] };
    const titles = [aTitle({ id: 'film' })];
    let store = await openStateStore(directory, silentLog);
    await store.registry.save(appliance);
    await store.registry.saveInventory(inventory);
    await store.catalog.apply({ revision: 7, titles, removed: [] });
    await store.close();
    let history = await HistoryStore.open(directory);
    const period = { from: 5, to: 5, start: true };
    const checkpoints = new Map([['prefixes', { hash: 'x' }]]);
    await history.commit({ at: 5, changes: [{ fact: 'title!film', value: { bytes: 9 } }], checkpoints, period });
    await history.close();

    for (const name of ['level', 'history']) await writeAsNextRelease(join(directory, name));

    store = await openStateStore(directory, silentLog);
    expect(await store.registry.load()).toEqual({ appliances: [appliance], inventories: [inventory] });
    expect(await store.catalog.load()).toEqual({ revision: 7, titles });
    await store.close();
    history = await HistoryStore.open(directory);
    await history.commit({ at: 6, changes: [], checkpoints: new Map(), period: null });
    await history.read(async (snapshot) => {
      expect(await snapshot.value('title!film', 6)).toEqual({ bytes: 9 });
      expect((await snapshot.periods(6)).last).toEqual(period);
      expect((await snapshot.checkpoints()).get('prefixes')).toMatchObject({ hash: 'x' });
    });
    await history.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
});
