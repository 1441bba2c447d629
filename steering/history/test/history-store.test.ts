// Rows of history against a list that forgets nothing: values, bounds and what pruning leaves.

import * as fc from 'fast-check';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, describe, expect, it } from 'vitest';
import { HistoryStore, type Change } from '../store.ts';

const directories: string[] = [];
function aDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'history-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

const commit = (at: number, changes: readonly Change[]): Parameters<HistoryStore['commit']>[0] => ({
  at,
  changes,
  notes: new Map(),
  span: null,
});

/** Names that begin alike, and one that is a part of another. */
const FACTS = ['held!a!t', 'held!a!t.x', 'held!a.b!t', 'held!a-!t', 'held!ab!t', 'title!t', 'map'];
const PREFIXES = ['held!', 'held!a!', 'held!a.b!', 'title!', 'nothing!'];

type Step =
  | { readonly kind: 'commit'; readonly gap: number; readonly changes: readonly Change[] }
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

/** Everything that was ever said. */
class Oracle {
  readonly rows: (Change & { readonly at: number })[] = [];
  horizon = 0;

  value(fact: string, at: number): unknown {
    return this.rows.findLast((row) => row.fact === fact && row.at <= at)?.value ?? null;
  }

  values(prefix: string, at: number): Map<string, unknown> {
    const held = FACTS.filter((fact) => fact.startsWith(prefix)).map((fact) => [fact, this.value(fact, at)] as const);
    return new Map(held.filter(([, value]) => value !== null));
  }

  /** Rows that somebody may still need who asks for the horizon or later. */
  needed(horizon = this.horizon): number {
    const newest = FACTS.filter((fact) => horizon > 0 && this.value(fact, horizon) !== null).length;
    return newest + this.rows.filter((row) => row.at > horizon).length;
  }

  /** No further than it must. */
  prune(before: number, rowsMax: number): void {
    const instants = [...new Set(this.rows.map(({ at }) => at))].filter((at) => at > this.horizon);
    for (const at of instants) if (at <= before || this.needed() > rowsMax) this.horizon = at;
  }
}

describe('history on disk', () => {
  it('tells at every instant since its horizon what was so, and keeps no row more than that takes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(aStep, { minLength: 5, maxLength: 40 }), async (steps) => {
        const directory = aDirectory();
        const oracle = new Oracle();
        let store = await HistoryStore.open(directory);
        let now = 1_000;
        for (const step of steps) {
          if (step.kind === 'commit') {
            now += step.gap;
            await store.commit(commit(now, step.changes));
            oracle.rows.push(...step.changes.map((change) => ({ ...change, at: now })));
          } else if (step.kind === 'prune') {
            const limits = { before: now - step.age, rowsMax: step.rowsMax, stepMax: step.stepMax };
            while (await store.prune(limits));
            oracle.prune(limits.before, limits.rowsMax);
          } else {
            await store.close();
            store = await HistoryStore.open(directory);
          }
          expect([store.rows, store.horizon]).toEqual([oracle.needed(), oracle.horizon]);
        }
        const asked = oracle.rows.flatMap(({ at }) => [at - 1, at, at + 1]).filter((at) => at >= oracle.horizon);
        await store.read(async (reading) => {
          expect(reading.horizon).toBe(oracle.horizon);
          for (const at of [...asked, now + 1, Infinity]) {
            for (const fact of FACTS) expect(await reading.value(fact, at)).toEqual(oracle.value(fact, at));
            for (const prefix of PREFIXES) expect(await reading.values(prefix, at)).toEqual(oracle.values(prefix, at));
          }
        });
        await store.close();
      }),
      { numRuns: 60 },
    );
  });

  it('shows a reader one moment, whatever is written and pruned meanwhile', async () => {
    const store = await HistoryStore.open(aDirectory());
    await store.commit(commit(1, [{ fact: 'a', value: 'old' }]));
    await store.commit(commit(2, [{ fact: 'a', value: 'new' }]));
    await store.read(async (reading) => {
      await store.prune({ before: 2, rowsMax: 0, stepMax: 100 });
      expect(store.horizon).toBe(2);
      expect([reading.horizon, await reading.value('a', 1)]).toEqual([0, 'old']);
    });
    await store.close();
  });

  it('lets go of old spans where nothing ever changed', async () => {
    const store = await HistoryStore.open(aDirectory());
    for (const from of [10, 20, 30]) {
      const span = { from, to: from + 5, start: true };
      await store.commit({ ...commit(from + 5, []), span });
      await store.prune({ before: from - 2, rowsMax: 0, stepMax: 100 });
    }
    await store.read(async (reading) => {
      expect(await reading.spans(0)).toEqual({ last: null, next: { from: 30, to: 35, start: true } });
    });
    await store.close();
  });

  it('of another layout is refused by name, and says what is lost with it', async () => {
    const directory = aDirectory();
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
