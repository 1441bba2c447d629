// Opening LevelDB databases: directories, locks, damage, and layout versions.

import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkLayout, openLevel } from '../level.ts';
import { silentLog } from '../log.ts';
import { ManualClock } from './manual-clock.ts';

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-level-'));
  path = join(directory, 'state', 'index');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const open = (options: Partial<Parameters<typeof openLevel>[0]> = {}): ReturnType<typeof openLevel<number>> =>
  openLevel<number>({ path, valueEncoding: 'json', ...options });

/** Creates a database with one record and overwrites the file that lists its tables. */
async function createDamaged(): Promise<void> {
  const db = await open();
  await db.put('key', 1);
  await db.close();
  const manifest = readdirSync(path).find((name) => name.startsWith('MANIFEST'))!;
  writeFileSync(join(path, manifest), 'not a manifest');
}

test('the directory is created with its parents, and values survive reopening', async () => {
  const db = await open();
  await db.put('key', 7);
  await db.close();
  expect(existsSync(path)).toBe(true);
  const reopened = await open();
  expect(await reopened.get('key')).toBe(7);
  await reopened.close();
});

test('a database in use is refused at once if there is no wait', async () => {
  const holder = await open();
  const clock = new ManualClock();
  await expect(open({ clock })).rejects.toMatchObject({
    code: 'store_locked',
    message: `${path} is in use by another process`,
  });
  expect(clock.monotonic()).toBe(0);
  await holder.close();
});

test('a database in use is opened once it is released within the wait', async () => {
  const holder = await open();
  const clock = new ManualClock();
  const opening = open({ lockWaitMs: 10_000, clock, log: silentLog });
  await expect.poll(() => clock.pending).toBe(1);
  await holder.close();
  clock.advance(100);
  const db = await opening;
  expect(db.status).toBe('open');
  await db.close();
});

test('a database that stays in use is refused after the wait', async () => {
  const holder = await open();
  const clock = new ManualClock();
  const refused = open({ lockWaitMs: 300, clock }).catch((error: unknown) => error);
  for (let attempt = 0; attempt < 3; attempt += 1) {
    await expect.poll(() => clock.pending).toBe(1);
    clock.advance(100);
  }
  expect(await refused).toMatchObject({ code: 'store_locked' });
  expect(clock.monotonic()).toBe(300);
  await holder.close();
});

test('a damaged database is a disk fault without a repair', async () => {
  await createDamaged();
  await expect(open()).rejects.toMatchObject({ code: 'disk_failed', message: expect.stringContaining(path) });
});

test('a damaged database that the repair moves away is created anew', async () => {
  await createDamaged();
  const errors: Error[] = [];
  const db = await open({
    repair: (error) => {
      errors.push(error);
      renameSync(path, `${path}.damaged`);
      return true;
    },
  });
  expect(errors).toHaveLength(1);
  expect(await db.get('key')).toBeUndefined();
  expect(existsSync(`${path}.damaged`)).toBe(true);
  await db.close();
});

test('a repair that does not help is attempted once', async () => {
  await createDamaged();
  let attempts = 0;
  const repair = (): boolean => {
    attempts += 1;
    return true;
  };
  await expect(open({ repair })).rejects.toMatchObject({ code: 'disk_failed' });
  expect(attempts).toBe(1);
});

test('a repair that declines leaves the fault and the database', async () => {
  await createDamaged();
  await expect(open({ repair: () => false })).rejects.toMatchObject({ code: 'disk_failed' });
  expect(existsSync(path)).toBe(true);
});

test('a new database gets the layout version, and the same version is accepted later', async () => {
  const db = await open();
  await checkLayout(db, { key: '!layout', layout: 3, directory });
  expect(await db.get('!layout')).toBe(3);
  await checkLayout(db, { key: '!layout', layout: 3, directory });
  expect(db.status).toBe('open');
  await db.close();
});

test('a database with another layout version is refused by name and closed', async () => {
  const db = await open();
  await checkLayout(db, { key: '!layout', layout: 2, directory });
  await expect(checkLayout(db, { key: '!layout', layout: 3, directory })).rejects.toMatchObject({
    code: 'store_mismatch',
    message: `${directory} has layout 2, this version writes 3; use an empty --state directory`,
  });
  expect(db.status).toBe('closed');
});
