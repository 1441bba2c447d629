// Demand counts each play report once, whatever the order of reports, repetitions, restarts and failed writes.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PROTOCOL_VERSION } from '../../../protocol/ids.ts';
import type { PlayReport } from '../../../protocol/plays.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { Demand, INCARNATIONS_MAX, SEQS_ABOVE_MAX } from '../demand.ts';
import { openDatabase, type Database } from '../../database.ts';
import { failNextBatch, WRITE_ERROR } from '../../test/failing-writes.ts';

const FILM = {
  id: 'film',
  renditions: [
    { id: 'v', kind: 'video', bytes: 100, assets: 1, bandwidth: null, width: null, height: null, language: null },
  ],
} as const;
const NOW = Date.UTC(2026, 4, 5);

let directory: string;
let database: Database;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-demand-'));
  database = await openDatabase(directory);
});

afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true });
});

const open = (): Promise<Demand> =>
  Demand.open({ database, halfLifeMs: 1e15, clock: new ManualClock(NOW), isCatalogued: (title) => title === 'film' });
const report = (seq: number, incarnation = 1, source = 'a'): PlayReport => ({
  protocol: PROTOCOL_VERSION,
  source,
  site: 'north',
  incarnation: incarnation.toString(16).padStart(16, '0'),
  seq,
  from: new Date(NOW - 1000).toISOString(),
  to: new Date(NOW).toISOString(),
  served: [{ holding: 'film:v', bytes: 100, requests: 1 }],
  asked: [],
});
/** The number of reports counted: each of them streams the rendition once. */
const counted = (demand: Demand): number => demand.rows([FILM]).find((row) => row.site === 'north')?.popularity ?? 0;

test('each report counts once, in whatever order and however often it is sent, also across restarts', async () => {
  const seqs = fc.array(fc.integer({ min: 0, max: SEQS_ABOVE_MAX - 1 }), { minLength: 1, maxLength: 60 });
  let incarnation = 0;
  await fc.assert(
    fc.asyncProperty(seqs, fc.nat(), async (sent, restart) => {
      incarnation += 1;
      let demand = await open();
      const before = counted(demand);
      for (const [at, seq] of sent.entries()) {
        if (at === restart % sent.length) demand = await open();
        expect(await demand.accept(report(seq, incarnation))).toBe(!sent.slice(0, at).includes(seq));
      }
      expect(counted(demand) - before).toBeCloseTo(new Set(sent).size, 6);
    }),
    { numRuns: 25 },
  );
});

test('concurrent reports are all counted', async () => {
  const demand = await open();
  await Promise.all(Array.from({ length: 200 }, (_, seq) => demand.accept(report(seq))));
  expect(counted(demand)).toBeCloseTo(200);
  expect(counted(await open())).toBeCloseTo(200);
});

test('a report that cannot be written is not counted, and counts when it is sent again', async () => {
  const demand = await open();
  failNextBatch(database);
  await expect(demand.accept(report(1))).rejects.toThrow(WRITE_ERROR);
  expect(counted(demand)).toBe(0);
  expect(await demand.accept(report(1))).toBe(true);
  expect(counted(demand)).toBeCloseTo(1);
  expect(counted(await open())).toBeCloseTo(1);
});

test('too many sequence numbers above a gap make the gap count as seen', async () => {
  const demand = await open();
  for (let seq = 1; seq <= SEQS_ABOVE_MAX + 2; seq += 1) await demand.accept(report(seq * 2));
  expect(await demand.accept(report(1))).toBe(false);
  expect(await demand.accept(report(SEQS_ABOVE_MAX * 2 + 3))).toBe(true);
});

test('only the latest incarnations of a source are remembered, and other sources are unaffected', async () => {
  const demand = await open();
  await demand.accept(report(1, 1, 'b'));
  for (let n = 1; n <= INCARNATIONS_MAX + 5; n += 1) await demand.accept(report(1, n));
  expect(await database.keys({ gte: 'seen!a!', lt: 'seen!a"' }).all()).toHaveLength(INCARNATIONS_MAX);
  expect(await demand.accept(report(1, 1, 'b'))).toBe(false);
  expect(await demand.accept(report(1, INCARNATIONS_MAX + 5))).toBe(false);
});
