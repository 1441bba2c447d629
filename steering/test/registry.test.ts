// The contract of every registry and catalog store: exactly what was saved is loaded after reopening.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../runtime/log.ts';
import { MemoryCatalogStore, type CatalogStore } from '../catalog.ts';
import {
  storedHeartbeat,
  MemoryRegistry,
  type ApplianceRecord,
  type InventoryRecord,
  type Registry,
} from '../registry.ts';
import { openStateStore } from '../store.ts';
import { aHeartbeat, aTitle } from './harness.ts';

interface OpenStores {
  readonly registry: Registry;
  readonly catalog: CatalogStore;
  /** Closes and opens again on the same state. */
  reopen(): Promise<OpenStores>;
  close(): Promise<void>;
}

const directories: string[] = [];
function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'steering-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

async function onDisk(directory = newDirectory()): Promise<OpenStores> {
  const store = await openStateStore(directory, silentLog);
  return {
    ...store,
    reopen: async () => {
      await store.close();
      return onDisk(directory);
    },
  };
}

function inMemory(): Promise<OpenStores> {
  const opened: OpenStores = {
    registry: new MemoryRegistry(),
    catalog: new MemoryCatalogStore(),
    reopen: () => Promise.resolve(opened),
    close: () => Promise.resolve(),
  };
  return Promise.resolve(opened);
}

const record = (appliance: string, fields: Partial<ApplianceRecord> = {}): ApplianceRecord => ({
  beat: storedHeartbeat.parse(aHeartbeat({ appliance })),
  beatAt: '2026-03-01T12:00:00.000Z',
  leaseEndsAt: '2026-03-01T12:00:10.000Z',
  retired: null,
  drain: null,
  orders: [],
  ...fields,
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
])('a registry %s', (_, open: () => Promise<OpenStores>) => {
  it('loads what was saved last, also after reopening', async () => {
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

  it('removes an appliance with its inventory, but none whose id has the same beginning', async () => {
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

  it('stores a copy, which later changes to the record do not affect', async () => {
    const store = await open();
    const saved = record('a');
    await store.registry.save(saved);
    (saved.orders as unknown[]).push({ id: 'x', kind: 'resume' });
    expect((await store.registry.load()).appliances[0]!.orders).toEqual([]);
    await store.close();
  });

  it('is empty at first', async () => {
    const store = await open();
    expect(await store.registry.load()).toEqual({ appliances: [], inventories: [] });
    expect(await store.catalog.load()).toEqual({ revision: 0, titles: [] });
    await store.close();
  });

  it('loads the catalog as the last change left it', async () => {
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
  it('is refused while another process has it open', async () => {
    const directory = newDirectory();
    const first = await onDisk(directory);
    await expect(openStateStore(directory, silentLog)).rejects.toMatchObject({ code: 'store_locked' });
    await first.close();
  });

  it('with another layout is refused, and the fault names the remedy', async () => {
    const directory = newDirectory();
    await (await onDisk(directory)).close();
    const db = new Level<string, unknown>(join(directory, 'level'), { valueEncoding: 'json' });
    await db.put('meta!layout', 99);
    await db.close();
    await expect(openStateStore(directory, silentLog)).rejects.toMatchObject({
      code: 'store_mismatch',
      message: expect.stringContaining('empty --state directory') as string,
    });
  });

  it('with an unreadable record loses only that record', async () => {
    const directory = newDirectory();
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
