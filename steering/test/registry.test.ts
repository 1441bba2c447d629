// One contract for every registry and catalog store: what was saved is there after a reopening, nothing else is.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../runtime/log.ts';
import { MemoryCatalogStore, type CatalogStore } from '../catalog.ts';
import { beatFacts, MemoryRegistry, type ApplianceRecord, type InventoryRecord, type Registry } from '../registry.ts';
import { openStore } from '../store.ts';
import { aBeat, aTitle } from './stage.ts';

interface Opened {
  readonly registry: Registry;
  readonly catalog: CatalogStore;
  /** Closes and opens again on the same state. */
  reopen(): Promise<Opened>;
  close(): Promise<void>;
}

const directories: string[] = [];
function aDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'steering-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

async function onDisk(directory = aDirectory()): Promise<Opened> {
  const store = await openStore(directory, silentLog);
  return {
    ...store,
    reopen: async () => {
      await store.close();
      return onDisk(directory);
    },
  };
}

function inMemory(): Promise<Opened> {
  const opened: Opened = {
    registry: new MemoryRegistry(),
    catalog: new MemoryCatalogStore(),
    reopen: () => Promise.resolve(opened),
    close: () => Promise.resolve(),
  };
  return Promise.resolve(opened);
}

const record = (appliance: string, given: Partial<ApplianceRecord> = {}): ApplianceRecord => ({
  beat: beatFacts.parse(aBeat({ appliance })),
  beatAt: '2026-03-01T12:00:00.000Z',
  leaseEndsAt: '2026-03-01T12:00:10.000Z',
  retired: null,
  drain: null,
  orders: [],
  ...given,
});
const inventory = (appliance: string, revision: number): InventoryRecord => ({
  appliance,
  incarnation: '00000000000000aa',
  revision,
  holdings: ['harbor:video/144p'],
});

describe.each([
  ['on disk', onDisk],
  ['in memory', inMemory],
])('a registry %s', (_, open: () => Promise<Opened>) => {
  it('gives back what was saved last, after a reopening too', async () => {
    let store = await open();
    const drained = record('a', {
      drain: { from: '2026-03-01T12:00:00Z', until: null, told: true },
      orders: [{ id: 'o1', kind: 'drain', until: null }],
    });
    await store.registry.save(record('a'));
    await store.registry.save(record('b'));
    await store.registry.save(drained);
    await store.registry.saveInventory(inventory('a', 1));
    await store.registry.saveInventory(inventory('a', 2));
    store = await store.reopen();
    const loaded = await store.registry.load();
    expect([...loaded.appliances].sort((x, y) => (x.beat.appliance < y.beat.appliance ? -1 : 1))).toEqual([
      drained,
      record('b'),
    ]);
    expect(loaded.inventories).toEqual([inventory('a', 2)]);
    await store.close();
  });

  it('forgets an appliance with its inventory, and no other whose name begins alike', async () => {
    let store = await open();
    for (const id of ['a', 'a.b', 'ab']) {
      await store.registry.save(record(id));
      await store.registry.saveInventory(inventory(id, 1));
    }
    await store.registry.remove('a');
    store = await store.reopen();
    const loaded = await store.registry.load();
    expect(loaded.appliances.map(({ beat }) => beat.appliance).sort()).toEqual(['a.b', 'ab']);
    expect(loaded.inventories.map(({ appliance }) => appliance).sort()).toEqual(['a.b', 'ab']);
    await store.close();
  });

  it('keeps its own copy: a caller that changes a record afterwards changes nothing', async () => {
    const store = await open();
    const mine = record('a');
    await store.registry.save(mine);
    (mine.orders as unknown[]).push({ id: 'x', kind: 'resume' });
    expect((await store.registry.load()).appliances[0]!.orders).toEqual([]);
    await store.close();
  });

  it('is empty at first', async () => {
    const store = await open();
    expect(await store.registry.load()).toEqual({ appliances: [], inventories: [] });
    expect(await store.catalog.load()).toEqual({ revision: 0, titles: [] });
    await store.close();
  });

  it('holds the catalog as the last change left it', async () => {
    let store = await open();
    await store.catalog.apply({
      revision: 2,
      titles: [aTitle({ id: 'harbor' }), aTitle({ id: 'meadow' })],
      removed: [],
    });
    await store.catalog.apply({
      revision: 5,
      titles: [aTitle({ id: 'harbor', revision: 5 })],
      removed: ['meadow', 'never'],
    });
    store = await store.reopen();
    expect(await store.catalog.load()).toEqual({ revision: 5, titles: [aTitle({ id: 'harbor', revision: 5 })] });
    await store.close();
  });
});

describe('the state directory', () => {
  it('open in another process is refused by name', async () => {
    const directory = aDirectory();
    const first = await onDisk(directory);
    await expect(openStore(directory, silentLog)).rejects.toMatchObject({ code: 'store_locked' });
    await first.close();
  });

  it('of another layout is refused with a remedy', async () => {
    const directory = aDirectory();
    await (await onDisk(directory)).close();
    const db = new Level<string, unknown>(join(directory, 'level'), { valueEncoding: 'json' });
    await db.put('meta!layout', 99);
    await db.close();
    await expect(openStore(directory, silentLog)).rejects.toMatchObject({
      code: 'store_mismatch',
      message: expect.stringContaining('empty --state directory') as string,
    });
  });

  it('with a record that cannot be read loses that record only', async () => {
    const directory = aDirectory();
    const store = await onDisk(directory);
    await store.registry.save(record('a'));
    await store.close();
    const db = new Level<string, unknown>(join(directory, 'level'), { valueEncoding: 'json' });
    await db.put('appliance!b', { nonsense: true });
    await db.close();
    const again = await onDisk(directory);
    expect((await again.registry.load()).appliances.map(({ beat }) => beat.appliance)).toEqual(['a']);
    await again.close();
  });
});
