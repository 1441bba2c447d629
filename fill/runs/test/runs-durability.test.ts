// Runs in memory and on disk agree, also when a write fails: memory changes only after the commit has resolved.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PROTOCOL_VERSION } from '../../../protocol/ids.ts';
import type { FillPlan, FillProgress, Run } from '../../../protocol/plan.ts';
import { silentLog } from '../../../runtime/log.ts';
import { createMetrics } from '../../../runtime/metrics.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { METRICS } from '../../metrics.ts';
import { openDatabase, type Database } from '../../database.ts';
import { failNextBatch, WRITE_ERROR } from '../../test/failing-writes.ts';
import { ENDED_RUNS_MAX, Runs } from '../runs.ts';

/** Each reading is a millisecond later than the one before, as on a busy machine. */
class TickingClock extends ManualClock {
  override now(): number {
    this.advance(1);
    return super.now();
  }
}

let directory: string;
let database: Database;
let runs: Runs;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-runs-'));
  database = await openDatabase(directory);
  runs = await open();
});

afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true });
});

const open = (): Promise<Runs> =>
  Runs.open({ database, clock: new TickingClock(), log: silentLog, metrics: createMetrics(METRICS) });

const planFor = (run: string, appliance = 'a'): FillPlan => ({
  protocol: PROTOCOL_VERSION,
  id: `${run}.plan`,
  run,
  appliance,
  site: 'north',
  createdAt: new Date(0).toISOString(),
  closesAt: null,
  rateBitsPerSecond: null,
  concurrency: 1,
  add: [],
  keep: [],
  remove: [],
  addBytes: 0,
  expectedMs: null,
});

function create(appliance = 'a'): Promise<Run> {
  const participant = { appliance, site: 'north', opensAt: 1, closesAt: null, superseded: false };
  const plans = [planFor(runs.nextId(), appliance)];
  return runs.create({ scope: { site: null, title: null }, trigger: 'now', participants: [participant], plans });
}

function done(run: Run, appliance = 'a'): FillProgress {
  const before = run.appliances.find((progress) => progress.appliance === appliance)!;
  return { ...before, plan: `${run.id}.plan`, state: 'done' };
}

/** Everything that a caller can see. */
const visible = (): unknown => ({
  runs: runs.list(Number.POSITIVE_INFINITY),
  next: runs.nextId(),
  plan: runs.currentPlan('a'),
  plannedOpening: runs.plannedOpening('a'),
});

/** As many ended runs as are retained, written as an earlier process would have. */
async function fillHistory(): Promise<void> {
  const ended = await runs.recordProgress(done(await create()));
  const [record] = await database.values({ gte: 'run!', lt: 'run"' }).all();
  await database.batch(
    Array.from({ length: ENDED_RUNS_MAX }, (_, at) => {
      const number = at + 1;
      const value = { ...(record as object), number, run: { ...ended, id: `r${number}` } };
      return { type: 'put', key: `run!${String(number).padStart(12, '0')}`, value } as const;
    }),
  );
  runs = await open();
}

test('a run on disk names its participants `parts`, as layout 1 has it', async () => {
  await create();
  expect(await database.get('run!000000000001')).toMatchObject({ number: 1, parts: { a: { appliance: 'a' } } });
});

test('a run that cannot be written changes nothing, and the next run gets its number', async () => {
  await create();
  const before = visible();
  failNextBatch(database);
  await expect(create()).rejects.toThrow(WRITE_ERROR);
  expect(visible()).toEqual(before);
  expect(await create()).toMatchObject({ id: 'r2' });
  const after = visible();
  runs = await open();
  expect(visible()).toEqual(after);
});

test('the oldest ended run is dropped only once its successor is on disk', async () => {
  await fillHistory();
  // The limit is reached: this run exceeds it once it has ended.
  await runs.recordProgress(done(await create()));
  const before = visible();
  failNextBatch(database);
  await expect(create()).rejects.toThrow(WRITE_ERROR);
  expect(visible()).toEqual(before);
  expect(runs.get('r1').run.id).toBe('r1');
  await create();
  expect(() => runs.get('r1')).toThrow('no run "r1" is known');
  const after = visible();
  runs = await open();
  expect(visible()).toEqual(after);
});

test('a superseded run ends at the same instant in memory and on disk', async () => {
  await create();
  await create();
  const shown = runs.list(10);
  expect(shown.map((run) => run.state)).toEqual(['running', 'closed']);
  runs = await open();
  expect(runs.list(10)).toEqual(shown);
});
