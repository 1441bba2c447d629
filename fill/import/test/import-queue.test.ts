// Import jobs in memory and on disk agree, also when a write fails: memory changes only after the commit has resolved.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ImportProgress } from '../../../protocol/answers.ts';
import { silentLog } from '../../../runtime/log.ts';
import { createMetrics } from '../../../runtime/metrics.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { Catalog } from '../../catalog.ts';
import { METRICS } from '../../metrics.ts';
import { openDatabase, type Database } from '../../database.ts';
import { failNextBatch, WRITE_ERROR } from '../../test/failing-writes.ts';
import { OriginDouble, putFilm } from '../../test/origin-double.ts';
import { ENDED_IMPORTS_MAX, ImportQueue, RECORD_RETRY_MS } from '../import-queue.ts';

let directory: string;
let origin: OriginDouble;
let url: string;
let clock: ManualClock;
let database: Database;
let imports: ImportQueue;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-import-queue-'));
  origin = new OriginDouble();
  url = await origin.start();
  clock = new ManualClock();
  await open();
});

afterEach(async () => {
  await close();
  await origin.stop();
  rmSync(directory, { recursive: true });
});

async function open(): Promise<void> {
  database = await openDatabase(directory);
  const catalog = await Catalog.open(database);
  const metrics = createMetrics(METRICS);
  imports = await ImportQueue.open({ database, catalog, origin: url, concurrency: 2, clock, log: silentLog, metrics });
}

async function close(): Promise<void> {
  await imports.close();
  await database.close();
}

const submit = (title: string): Promise<string> => imports.submit({ url: `${url}/${title}/master.m3u8`, title });
const hold = (): void => void (origin.gate = () => new Promise(() => undefined));
const stateOf = (id: string): ImportProgress['state'] => imports.progress(id).state;
const ended = (id: string): Promise<void> => expect.poll(() => stateOf(id), { interval: 5 }).not.toBe('running');

/** What a caller can see of the first jobs; null for an id that is unknown. */
function visible(count: number): (ImportProgress | null)[] {
  return Array.from({ length: count }, (_, at) => {
    try {
      return imports.progress(`i${at + 1}`);
    } catch {
      return null;
    }
  });
}

/** As many ended jobs as are retained, written as an earlier process would have. */
async function fillHistory(): Promise<void> {
  await ended(await submit('absent'));
  const [job] = await database.values({ gte: 'import!', lt: 'import"' }).all();
  await database.batch(
    Array.from({ length: ENDED_IMPORTS_MAX }, (_, at) => {
      const key = `import!${String(at + 1).padStart(12, '0')}`;
      return { type: 'put', key, value: { ...(job as object), number: at + 1 } } as const;
    }),
  );
  await close();
  await open();
}

test('an import that cannot be written does not exist, and the next one gets its number', async () => {
  hold();
  failNextBatch(database);
  await expect(submit('one')).rejects.toThrow(WRITE_ERROR);
  expect(visible(2)).toEqual([null, null]);
  expect(await submit('two')).toBe('i1');
  const before = visible(2);
  await close();
  await open();
  expect(visible(2)).toEqual(before);
});

test('the oldest ended import is dropped only once its successor is on disk', async () => {
  await fillHistory();
  await ended(await submit('absent'));
  hold();
  const before = visible(ENDED_IMPORTS_MAX + 2);
  failNextBatch(database);
  await expect(submit('one')).rejects.toThrow(WRITE_ERROR);
  expect(visible(ENDED_IMPORTS_MAX + 2)).toEqual(before);
  expect(await submit('one')).toBe(`i${ENDED_IMPORTS_MAX + 2}`);
  const after = visible(ENDED_IMPORTS_MAX + 2);
  expect(after[0]).toBeNull();
  await close();
  await open();
  expect(visible(ENDED_IMPORTS_MAX + 2)).toEqual(after);
});

test('concurrent submissions get different numbers, also if the first of them cannot be written', async () => {
  hold();
  failNextBatch(database);
  const submitted = await Promise.allSettled(['one', 'two', 'three'].map(submit));
  expect(submitted).toEqual([
    { status: 'rejected', reason: expect.any(Error) },
    { status: 'fulfilled', value: 'i1' },
    { status: 'fulfilled', value: 'i2' },
  ]);
  expect(visible(3).map((progress) => progress?.title)).toEqual(['two', 'three', undefined]);
});

test('an import is running until its outcome is on disk, and the write is retried', async () => {
  putFilm(origin, '/film/');
  const id = await submit('film');
  failNextBatch(database, (keys) => keys.some((key) => key.startsWith('import!')));
  await expect.poll(() => clock.pending).toBe(1);
  expect(stateOf(id)).toBe('running');
  clock.advance(RECORD_RETRY_MS);
  await ended(id);
  const before = visible(1);
  expect(before).toMatchObject([{ state: 'done', title: 'film', revision: 1, assetsDone: 13, assetsTotal: 13 }]);
  await close();
  hold();
  await open();
  expect(visible(1)).toEqual(before);
});

test('an import whose outcome was not written runs again with the service and finds nothing changed', async () => {
  putFilm(origin, '/film/');
  const id = await submit('film');
  failNextBatch(database, (keys) => keys.some((key) => key.startsWith('import!')));
  await expect.poll(() => clock.pending).toBe(1);
  await close();
  await open();
  await ended(id);
  expect(visible(1)).toMatchObject([{ state: 'done', revision: 1 }]);
});
