// The planner: examples of each rule, and properties that hold for plans of arbitrary sites.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Rendition } from '../../../protocol/catalog.ts';
import { holdingOf, splitHolding } from '../../../protocol/ids.ts';
import type { FillItem } from '../../../protocol/plan.ts';
import {
  planSite,
  planTitle,
  type AppliancePlan,
  type PlanAppliance,
  type PlanTitle,
  type SiteInput,
} from '../planner.ts';

/** Sizes are in units far above the overhead of headers and rounding. */
const U = 1_000_000;
const rendition = (id: string, kind: Rendition['kind'], bytes: number): Rendition => ({
  id,
  kind,
  bytes: bytes * U,
  assets: 1,
  bandwidth: null,
  width: null,
  height: null,
  language: null,
});
const film = (id: string, bytes: number, revision = 1): PlanTitle => ({
  id,
  revision,
  renditions: [rendition('manifest', 'manifest', 1), rendition('v', 'video', bytes)],
});
const box = (id: string, planBytes: number, held: string[] = []): PlanAppliance => ({
  id,
  planBytes: planBytes * U,
  held: new Set(held),
  rateBitsPerSecond: null,
  timeLeftMs: null,
});
const site = (input: Partial<SiteInput> & Pick<SiteInput, 'appliances' | 'titles'>): SiteInput => ({
  scores: new Map(),
  pinnedTitles: new Set(),
  ...input,
});
const planned = (plan: AppliancePlan | undefined): string[] =>
  [...plan!.keep, ...plan!.add].map((item) => item.holding).sort();
const names = (items: readonly FillItem[]): string[] => items.map((item) => item.holding);

describe('the plan of a site', () => {
  test('leaves space for the headers and the rounding of many small files', () => {
    const segments = { ...rendition('v', 'video', 1), assets: 1_000 };
    const titles = [{ id: 'film', revision: 1, renditions: [segments] }];
    expect(planned(planSite(site({ appliances: [box('a', 9)], titles }))[0])).toEqual([]);
    expect(planned(planSite(site({ appliances: [box('a', 10)], titles }))[0])).toEqual(['film:v']);
  });

  test('holds the most popular renditions, with their manifest', () => {
    const titles = [film('dull', 60), film('loved', 60)];
    const scores = new Map([
      ['loved:v', 3.21],
      ['dull:v', 0.5],
    ]);
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles, scores }));
    expect(plan!.add.map(({ holding, reason }) => [holding, reason])).toEqual([
      ['loved:manifest', 'manifest of loved'],
      ['loved:v', 'popularity 3.21'],
    ]);
    expect(plan!.addBytes).toBe(61 * U);
  });

  test('prefers a pinned title to a popular one', () => {
    const titles = [film('pinned', 60), film('loved', 60)];
    const scores = new Map([['loved:v', 9]]);
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles, scores, pinnedTitles: new Set(['pinned']) }));
    expect(plan!.add.map((item) => item.reason)).toEqual(['manifest of pinned', 'pinned']);
  });

  test('holds the newest titles if there is no demand', () => {
    const titles = [film('old', 60, 1), film('new', 60, 2)];
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles }));
    expect(names(plan!.add)).toEqual(['new:manifest', 'new:v']);
  });

  test('replaces a held rendition by a clearly more popular one, but not by a slightly more popular one', () => {
    const titles = [film('held', 60), film('rival', 60)];
    const appliances = [box('a', 100, ['held:manifest', 'held:v'])];
    const slightly = planSite(
      site({
        appliances,
        titles,
        scores: new Map([
          ['held:v', 1],
          ['rival:v', 1.2],
        ]),
      }),
    );
    expect(names(slightly[0]!.keep)).toEqual(['held:manifest', 'held:v']);
    expect(slightly[0]!.add).toEqual([]);
    const clearly = planSite(
      site({
        appliances,
        titles,
        scores: new Map([
          ['held:v', 1],
          ['rival:v', 1.4],
        ]),
      }),
    );
    expect(names(clearly[0]!.add)).toEqual(['rival:manifest', 'rival:v']);
    expect(clearly[0]!.remove.map((item) => item.reason)).toEqual([
      'nothing of held is planned here',
      'popularity 1.00, less than what takes its room',
    ]);
  });

  test('removes what is no longer in the catalog', () => {
    const [plan] = planSite(site({ appliances: [box('a', 100, ['gone:v'])], titles: [film('film', 10)] }));
    expect(plan!.remove.map((item) => item.reason)).toEqual(['no longer in the catalog']);
  });

  test('adds the best renditions if the window is too short for all, and removes nothing for those it leaves out', () => {
    const titles = [film('held', 20), film('loved', 60), film('liked', 60)];
    const scores = new Map([
      ['loved:v', 3],
      ['liked:v', 2],
    ]);
    const appliance = {
      ...box('a', 1_000, ['held:manifest', 'held:v']),
      rateBitsPerSecond: 800 * U,
      timeLeftMs: 1_000,
    };
    const [plan] = planSite(site({ appliances: [appliance], titles, scores }));
    expect(names(plan!.add)).toEqual(['loved:manifest', 'loved:v']);
    expect(plan!.expectedMs).toBe(610);
    expect(plan!.remove).toEqual([]);
  });

  test('has two copies at a site of three if space is short, and three if it is not', () => {
    const titles = Array.from({ length: 12 }, (_, i) => film(`t${i}`, 99));
    const copies = (planBytes: number): number[] => {
      const plans = planSite(site({ appliances: ['a', 'b', 'c'].map((id) => box(id, planBytes)), titles }));
      return titles.map((t) => plans.filter((p) => planned(p).includes(holdingOf(t.id, 'v'))).length);
    };
    expect(Math.max(...copies(600))).toBe(2);
    expect(copies(1_300)).toEqual(titles.map(() => 3));
  });

  test('places the renditions of a title together', () => {
    const titles = Array.from({ length: 30 }, (_, i): PlanTitle => ({
      id: `t${i}`,
      revision: 1,
      renditions: [rendition('manifest', 'manifest', 1), rendition('a', 'audio', 10), rendition('v', 'video', 89)],
    }));
    const appliances = ['a', 'b', 'c', 'd'].map((id) => box(id, 2_000));
    const plans = planSite(site({ appliances, titles }));
    const whole = (t: PlanTitle): number =>
      plans.filter((p) => t.renditions.every((r) => planned(p).includes(holdingOf(t.id, r.id)))).length;
    expect(titles.filter((t) => whole(t) < 2)).toEqual([]);
  });
});

describe('the plan for one title', () => {
  const titles = [film('loved', 60), film('asked', 60)];

  test('adds the title to the current plan and displaces nothing of it', () => {
    const currentItems = new Map([
      ['a', [{ holding: 'loved:v', revision: 1, bytes: 60 * U, reason: 'popularity 3.00' }]],
    ]);
    const input = { ...site({ appliances: [box('a', 200)], titles }), title: 'asked', currentItems };
    const [plan] = planTitle(input);
    // Nothing of the current plan has been fetched yet: it is still to be fetched, for its old reason.
    expect(plan!.add.map(({ holding, reason }) => `${holding} ${reason}`)).toEqual([
      'loved:manifest manifest of loved',
      'loved:v popularity 3.00',
      'asked:manifest manifest of asked',
      'asked:v asked',
    ]);
    const [tight] = planTitle({ ...input, appliances: [box('a', 100)] });
    expect(names(tight!.add)).toEqual(['loved:manifest', 'loved:v']);
  });

  test('displaces held renditions that the current plan does not name', () => {
    const appliances = [box('a', 100, ['loved:v', 'loved:manifest'])];
    const [plan] = planTitle({ ...site({ appliances, titles }), title: 'asked', currentItems: new Map([['a', []]]) });
    expect(names(plan!.add)).toEqual(['asked:manifest', 'asked:v']);
    expect(names(plan!.remove).sort()).toEqual(['loved:manifest', 'loved:v']);
  });

  test('keeps everything that an appliance without a plan holds', () => {
    const appliances = [box('a', 100, ['loved:v', 'loved:manifest'])];
    const [plan] = planTitle({ ...site({ appliances, titles }), title: 'asked', currentItems: new Map() });
    expect(names(plan!.keep).sort()).toEqual(['loved:manifest', 'loved:v']);
    expect(plan!.add).toEqual([]);
  });
});

describe('every plan', () => {
  const kinds = fc.constantFrom<Rendition['kind']>('video', 'audio', 'text', 'iframe');
  const arbitrarySite = fc
    .record({
      titles: fc.array(fc.array(fc.tuple(kinds, fc.integer({ min: 0, max: 100 })), { minLength: 1, maxLength: 5 }), {
        maxLength: 12,
      }),
      boxes: fc.array(
        fc.record({
          planBytes: fc.integer({ min: 0, max: 1_500 }),
          rate: fc.option(fc.integer({ min: 1, max: 10_000 })),
          timeLeftMs: fc.option(fc.integer({ min: 0, max: 5_000 })),
        }),
        { minLength: 1, maxLength: 5 },
      ),
      seed: fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
    })
    .map(({ titles: shapes, boxes, seed }): SiteInput => {
      const chance = (): number => seed.next().value;
      const titles = shapes.map((renditions, t): PlanTitle => ({
        id: `t${t}`,
        revision: t + 1,
        renditions: [
          rendition('manifest', 'manifest', 3),
          ...renditions.map(([kind, bytes], r) => rendition(`r${r}`, kind, bytes)),
        ],
      }));
      const holdings = titles.flatMap((t) => t.renditions.map((r) => holdingOf(t.id, r.id)));
      return {
        titles,
        appliances: boxes.map(({ planBytes, rate, timeLeftMs }, b) => ({
          id: `b${b}`,
          planBytes: planBytes * U,
          rateBitsPerSecond: rate === null ? null : rate * U,
          timeLeftMs,
          held: new Set(holdings.filter(() => chance() < 0.3)),
        })),
        scores: new Map(holdings.filter(() => chance() < 0.6).map((holding) => [holding, chance() * 5])),
        pinnedTitles: new Set(titles.filter(() => chance() < 0.1).map((t) => t.id)),
      };
    });

  const sizeOf = (input: SiteInput, holding: string): number => {
    const { title, rendition: name } = splitHolding(holding);
    return input.titles.find((t) => t.id === title)!.renditions.find((r) => r.id === name)!.bytes;
  };

  const assertSound = (input: SiteInput, plans: readonly AppliancePlan[]): void => {
    expect(plans.map((p) => p.appliance)).toEqual(input.appliances.map((a) => a.id));
    for (const [at, plan] of plans.entries()) {
      const appliance = input.appliances[at]!;
      const holdings = planned(plan);
      expect(new Set(holdings).size).toBe(holdings.length);
      expect(holdings.reduce((sum, h) => sum + sizeOf(input, h), 0)).toBeLessThanOrEqual(appliance.planBytes);
      expect(plan.keep.every((item) => appliance.held.has(item.holding))).toBe(true);
      expect(plan.add.some((item) => appliance.held.has(item.holding))).toBe(false);
      expect([...names(plan.keep), ...names(plan.remove)].sort()).toEqual([...appliance.held].sort());
      for (const holding of holdings) expect(holdings).toContain(holdingOf(splitHolding(holding).title, 'manifest'));
      for (const item of [...plan.add, ...plan.keep, ...plan.remove]) expect(item.reason).not.toBe('');
      if (appliance.rateBitsPerSecond !== null && appliance.timeLeftMs !== null)
        expect(plan.addBytes * 8_000).toBeLessThanOrEqual(appliance.rateBitsPerSecond * appliance.timeLeftMs);
    }
  };

  test('fits the disk and the window, includes manifests and gives reasons', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => assertSound(input, planSite(input))),
      { numRuns: 500 },
    );
  });

  test('is stable: once it is carried out, the next plan changes nothing', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => {
        const unlimited = input.appliances.map((a) => ({ ...a, rateBitsPerSecond: null }));
        const plans = planSite({ ...input, appliances: unlimited });
        const after = unlimited.map((a, at) => ({ ...a, held: new Set(planned(plans[at])) }));
        for (const plan of planSite({ ...input, appliances: after })) expect([...plan.add, ...plan.remove]).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  test('for one title fits too, and drops nothing of the current plan', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => {
        fc.pre(input.titles.length > 0);
        const unlimited = { ...input, appliances: input.appliances.map((a) => ({ ...a, rateBitsPerSecond: null })) };
        const before = planSite(unlimited);
        const currentItems = new Map(before.map((plan) => [plan.appliance, [...plan.keep, ...plan.add]]));
        const plans = planTitle({ ...unlimited, title: 't0', currentItems });
        assertSound(unlimited, plans);
        for (const [at, plan] of plans.entries())
          expect(planned(plan)).toEqual(expect.arrayContaining(planned(before[at])));
      }),
      { numRuns: 500 },
    );
  });
});
