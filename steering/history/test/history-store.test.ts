// The history store against a model that keeps every row: values, row counts, the horizon and pruning.

import * as fc from 'fast-check';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, describe, expect, it } from 'vitest';
import { HistoryStore, type FactChange, type HistoryCommit } from '../store.ts';

const directories: string[] = [];
function newDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'history-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

const commitOf = (at: number, changes: readonly FactChange[]): HistoryCommit => ({
  at,
  changes,
  checkpoints: new Map(),
  period: null,
});

/** Keys with common beginnings, and one that is a prefix of another. */
const FACTS = ['held!a!t', 'held!a!t.x', 'held!a.b!t', 'held!a-!t', 'held!ab!t', 'title!t', 'map'];
const PREFIXES = ['held!', 'held!a!', 'held!a.b!', 'title!', 'nothing!'];

type Step =
  | { readonly kind: 'commit'; readonly gap: number; readonly changes: readonly FactChange[] }
  | { readonly kind: 'prune'; readonly age: number; readonly rowsMax: number; readonly stepMax: number }
  | { readonly kind: 'reopen' };

const aChange = fc.record({
  fact: fc.constantFrom(...FACTS),
  value: fc.oneof({ weight: 3, arbitrary: fc.nat(9) }, fc.constant(null)),
});
const aStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('commit' as const),
      gap: fc.integer({ min: 1, max: 100 }),
      changes: fc.uniqueArray(aChange, { maxLength: 4, selector: ({ fact }) => fact }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('prune' as const),
      age: fc.nat(400),
      rowsMax: fc.integer({ min: 0, max: 30 }),
      stepMax: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
);

/** A store that never removes a row. */
class Model {
  readonly rows: (FactChange & { readonly at: number })[] = [];
  horizon = 0;

  value(fact: string, at: number): unknown {
    return this.rows.findLast((row) => row.fact === fact && row.at <= at)?.value ?? null;
  }

  values(prefix: string, at: number): Map<string, unknown> {
    const held = FACTS.filter((fact) => fact.startsWith(prefix)).map((fact) => [fact, this.value(fact, at)] as const);
    return new Map(held.filter(([, value]) => value !== null));
  }

  /** Rows that queries for the horizon or later may need. */
  needed(horizon = this.horizon): number {
    const newest = FACTS.filter((fact) => horizon > 0 && this.value(fact, horizon) !== null).length;
    return newest + this.rows.filter((row) => row.at > horizon).length;
  }

  /** Moves the horizon no further than the limits require. */
  prune(before: number, rowsMax: number): void {
    const instants = [...new Set(this.rows.map(({ at }) => at))].filter((at) => at > this.horizon);
    for (const at of instants) if (at <= before || this.needed() > rowsMax) this.horizon = at;
  }
}

describe('history on disk', () => {
  it('returns the values of every instant from its horizon on, and keeps only the rows needed for that', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(aStep, { minLength: 5, maxLength: 40 }), async (steps) => {
        const directory = newDirectory();
        const model = new Model();
        let store = await HistoryStore.open(directory);
        let now = 1_000;
        for (const step of steps) {
          if (step.kind === 'commit') {
            now += step.gap;
            await store.commit(commitOf(now, step.changes));
            model.rows.push(...step.changes.map((change) => ({ ...change, at: now })));
          } else if (step.kind === 'prune') {
            const limits = { before: now - step.age, rowsMax: step.rowsMax, stepMax: step.stepMax };
            while (await store.prune(limits));
            model.prune(limits.before, limits.rowsMax);
          } else {
            await store.close();
            store = await HistoryStore.open(directory);
          }
          expect([store.rows, store.horizon]).toEqual([model.needed(), model.horizon]);
        }
        const instants = model.rows.flatMap(({ at }) => [at - 1, at, at + 1]).filter((at) => at >= model.horizon);
        await store.read(async (snapshot) => {
          expect(snapshot.horizon).toBe(model.horizon);
          for (const at of [...instants, now + 1, Infinity]) {
            for (const fact of FACTS) expect(await snapshot.value(fact, at)).toEqual(model.value(fact, at));
            for (const prefix of PREFIXES) expect(await snapshot.values(prefix, at)).toEqual(model.values(prefix, at));
          }
        });
        await store.close();
      }),
      { numRuns: 60 },
    );
  });

  it('gives a reader a consistent snapshot, whatever is written and pruned meanwhile', async () => {
    const store = await HistoryStore.open(newDirectory());
    await store.commit(commitOf(1, [{ fact: 'a', value: 'old' }]));
    await store.commit(commitOf(2, [{ fact: 'a', value: 'new' }]));
    await store.read(async (snapshot) => {
      await store.prune({ before: 2, rowsMax: 0, stepMax: 100 });
      expect(store.horizon).toBe(2);
      expect([snapshot.horizon, await snapshot.value('a', 1)]).toEqual([0, 'old']);
    });
    await store.close();
  });

  it('prunes old periods even if no fact ever changed', async () => {
    const store = await HistoryStore.open(newDirectory());
    for (const from of [10, 20, 30]) {
      const period = { from, to: from + 5, start: true };
      await store.commit({ ...commitOf(from + 5, []), period });
      await store.prune({ before: from - 2, rowsMax: 0, stepMax: 100 });
    }
    await store.read(async (snapshot) => {
      expect(await snapshot.periods(0)).toEqual({ last: null, next: { from: 30, to: 35, start: true } });
    });
    await store.close();
  });

  it('with another layout is refused, and the fault says that only explanations are lost', async () => {
    const directory = newDirectory();
    await (await HistoryStore.open(directory)).close();
    const db = new Level<string, unknown>(join(directory, 'history'), { valueEncoding: 'json' });
    await db.put('meta', { layout: 99, horizon: 0, rows: 0 });
    await db.close();
    await expect(HistoryStore.open(directory)).rejects.toMatchObject({
      code: 'store_mismatch',
      message: expect.stringContaining('only explanations of the past are lost') as string,
    });
  });
});
