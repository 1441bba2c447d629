// Pins in memory and on disk agree, also after failed writes and concurrent changes.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { openDatabase, type Database } from '../../database.ts';
import { failNextBatch, holdNextBatch, WRITE_ERROR } from '../../test/failing-writes.ts';
import { Pins, PINS_MAX } from '../pins.ts';

const clock = new ManualClock();
const inDays = (days: number): string => new Date(clock.now() + days * 86_400_000).toISOString();

let directory: string;
let database: Database;
let pins: Pins;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-pins-'));
  database = await openDatabase(directory);
  pins = await open();
});

afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true });
});

const open = (): Promise<Pins> => Pins.open(database, clock);

test('a pin or an unpin that cannot be written changes nothing', async () => {
  await pins.put('one', null);
  const before = pins.list();
  failNextBatch(database);
  await expect(pins.put('two', null)).rejects.toThrow(WRITE_ERROR);
  failNextBatch(database);
  await expect(pins.remove('one')).rejects.toThrow(WRITE_ERROR);
  expect(pins.list()).toEqual(before);
  pins = await open();
  expect(pins.list()).toEqual(before);
});

test('concurrent changes of a pin leave the same pin in memory and on disk', async () => {
  const release = holdNextBatch(database);
  const first = pins.put('film', inDays(1));
  const second = pins.put('film', inDays(2));
  await Promise.race([second, systemClock.sleep(100)]);
  release();
  await Promise.all([first, second]);
  const shown = pins.list();
  expect(shown).toMatchObject([{ title: 'film', until: inDays(2) }]);
  pins = await open();
  expect(pins.list()).toEqual(shown);
});

test('concurrent pins cannot exceed the limit', async () => {
  const value = { until: null, since: inDays(0) };
  await database.batch(
    Array.from({ length: PINS_MAX - 1 }, (_, n) => {
      return { type: 'put', key: `pin!t${n}`, value: { ...value, title: `t${n}` } } as const;
    }),
  );
  pins = await open();
  const outcomes = await Promise.allSettled(['one', 'two'].map((title) => pins.put(title, null)));
  expect(outcomes).toMatchObject([{ status: 'fulfilled' }, { status: 'rejected', reason: { code: 'overloaded' } }]);
  expect(pins.list()).toHaveLength(PINS_MAX);
});
