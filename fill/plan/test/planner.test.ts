import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Rendition } from '../../../protocol/catalog.ts';
import { holdingOf, splitHolding } from '../../../protocol/ids.ts';
import type { FillItem } from '../../../protocol/plan.ts';
import {
  planAsked,
  planSite,
  type AppliancePlan,
  type PlanAppliance,
  type PlanTitle,
  type SiteInput,
} from '../planner.ts';

/** Sizes are in units far above the allowance for heads and rounding. */
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
  windowMs: null,
});
const site = (input: Partial<SiteInput> & Pick<SiteInput, 'appliances' | 'titles'>): SiteInput => ({
  score: new Map(),
  pinned: new Set(),
  ...input,
});
const planned = (plan: AppliancePlan | undefined): string[] =>
  [...plan!.keep, ...plan!.add].map((item) => item.holding).sort();
const names = (items: readonly FillItem[]): string[] => items.map((item) => item.holding);

describe('tonight', () => {
  test('room is left for the heads and the rounding of many small files', () => {
    const segments = { ...rendition('v', 'video', 1), assets: 1_000 };
    const titles = [{ id: 'film', revision: 1, renditions: [segments] }];
    expect(planned(planSite(site({ appliances: [box('a', 9)], titles }))[0])).toEqual([]);
    expect(planned(planSite(site({ appliances: [box('a', 10)], titles }))[0])).toEqual(['film:v']);
  });

  test('the most popular bytes take the disk, and the manifest goes with them', () => {
    const titles = [film('dull', 60), film('loved', 60)];
    const score = new Map([
      ['loved:v', 3.21],
      ['dull:v', 0.5],
    ]);
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles, score }));
    expect(plan!.add.map(({ holding, reason }) => [holding, reason])).toEqual([
      ['loved:manifest', 'manifest of loved'],
      ['loved:v', 'popularity 3.21'],
    ]);
    expect(plan!.addBytes).toBe(61 * U);
  });

  test('a pinned title comes before a popular one', () => {
    const titles = [film('pinned', 60), film('loved', 60)];
    const score = new Map([['loved:v', 9]]);
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles, score, pinned: new Set(['pinned']) }));
    expect(plan!.add.map((item) => item.reason)).toEqual(['manifest of pinned', 'pinned']);
  });

  test('without any demand the newest titles fill the disk', () => {
    const titles = [film('old', 60, 1), film('new', 60, 2)];
    const [plan] = planSite(site({ appliances: [box('a', 100)], titles }));
    expect(names(plan!.add)).toEqual(['new:manifest', 'new:v']);
  });

  test('the slightly more popular does not displace what is held, the clearly more popular does', () => {
    const titles = [film('held', 60), film('rival', 60)];
    const appliances = [box('a', 100, ['held:manifest', 'held:v'])];
    const slightly = planSite(
      site({
        appliances,
        titles,
        score: new Map([
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
        score: new Map([
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

  test('what is no longer in the catalog goes', () => {
    const [plan] = planSite(site({ appliances: [box('a', 100, ['gone:v'])], titles: [film('film', 10)] }));
    expect(plan!.remove.map((item) => item.reason)).toEqual(['no longer in the catalog']);
  });

  test('a window too short for everything gets the best of it, and nothing held is lost for it', () => {
    const titles = [film('held', 20), film('loved', 60), film('liked', 60)];
    const score = new Map([
      ['loved:v', 3],
      ['liked:v', 2],
    ]);
    const appliance = { ...box('a', 1_000, ['held:manifest', 'held:v']), rateBitsPerSecond: 800 * U, windowMs: 1_000 };
    const [plan] = planSite(site({ appliances: [appliance], titles, score }));
    expect(names(plan!.add)).toEqual(['loved:manifest', 'loved:v']);
    expect(plan!.expectedMs).toBe(610);
    expect(plan!.remove).toEqual([]);
  });

  test('a site of three holds two copies where room is short, and all three where it is not', () => {
    const titles = Array.from({ length: 12 }, (_, i) => film(`t${i}`, 99));
    const copies = (planBytes: number): number[] => {
      const plans = planSite(site({ appliances: ['a', 'b', 'c'].map((id) => box(id, planBytes)), titles }));
      return titles.map((t) => plans.filter((p) => planned(p).includes(holdingOf(t.id, 'v'))).length);
    };
    expect(Math.max(...copies(600))).toBe(2);
    expect(copies(1_300)).toEqual(titles.map(() => 3));
  });

  test('the renditions of a title sit together', () => {
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

describe('a title that was asked for', () => {
  const titles = [film('loved', 60), film('asked', 60)];

  test('is added to what is kept, which it never displaces', () => {
    const inForce = new Map([['a', [{ holding: 'loved:v', revision: 1, bytes: 60 * U, reason: 'popularity 3.00' }]]]);
    const input = { ...site({ appliances: [box('a', 200)], titles }), asked: 'asked', inForce };
    const [plan] = planAsked(input);
    // Of the plan in force nothing has been fetched yet: it stays to be fetched, for its old reason.
    expect(plan!.add.map(({ holding, reason }) => `${holding} ${reason}`)).toEqual([
      'loved:manifest manifest of loved',
      'loved:v popularity 3.00',
      'asked:manifest manifest of asked',
      'asked:v asked',
    ]);
    const [tight] = planAsked({ ...input, appliances: [box('a', 100)] });
    expect(names(tight!.add)).toEqual(['loved:manifest', 'loved:v']);
  });

  test('takes the room of what only demand brought in', () => {
    const appliances = [box('a', 100, ['loved:v', 'loved:manifest'])];
    const [plan] = planAsked({ ...site({ appliances, titles }), asked: 'asked', inForce: new Map([['a', []]]) });
    expect(names(plan!.add)).toEqual(['asked:manifest', 'asked:v']);
    expect(names(plan!.remove).sort()).toEqual(['loved:manifest', 'loved:v']);
  });

  test('leaves alone all that an appliance without a plan holds', () => {
    const appliances = [box('a', 100, ['loved:v', 'loved:manifest'])];
    const [plan] = planAsked({ ...site({ appliances, titles }), asked: 'asked', inForce: new Map() });
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
          windowMs: fc.option(fc.integer({ min: 0, max: 5_000 })),
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
        appliances: boxes.map(({ planBytes, rate, windowMs }, b) => ({
          id: `b${b}`,
          planBytes: planBytes * U,
          rateBitsPerSecond: rate === null ? null : rate * U,
          windowMs,
          held: new Set(holdings.filter(() => chance() < 0.3)),
        })),
        score: new Map(holdings.filter(() => chance() < 0.6).map((holding) => [holding, chance() * 5])),
        pinned: new Set(titles.filter(() => chance() < 0.1).map((t) => t.id)),
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
      if (appliance.rateBitsPerSecond !== null && appliance.windowMs !== null)
        expect(plan.addBytes * 8_000).toBeLessThanOrEqual(appliance.rateBitsPerSecond * appliance.windowMs);
    }
  };

  test('fits disk and window, brings the manifest, gives reasons', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => assertSound(input, planSite(input))),
      { numRuns: 500 },
    );
  });

  test('is stable: once carried out, the next night changes nothing', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => {
        const unhurried = input.appliances.map((a) => ({ ...a, rateBitsPerSecond: null }));
        const plans = planSite({ ...input, appliances: unhurried });
        const after = unhurried.map((a, at) => ({ ...a, held: new Set(planned(plans[at])) }));
        for (const plan of planSite({ ...input, appliances: after })) expect([...plan.add, ...plan.remove]).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });

  test('for one title fits too, and drops nothing of the plan in force that still fits', () => {
    fc.assert(
      fc.property(arbitrarySite, (input) => {
        fc.pre(input.titles.length > 0);
        const unhurried = { ...input, appliances: input.appliances.map((a) => ({ ...a, rateBitsPerSecond: null })) };
        const before = planSite(unhurried);
        const inForce = new Map(before.map((plan) => [plan.appliance, [...plan.keep, ...plan.add]]));
        const plans = planAsked({ ...unhurried, asked: 't0', inForce });
        assertSound(unhurried, plans);
        for (const [at, plan] of plans.entries())
          expect(planned(plan)).toEqual(expect.arrayContaining(planned(before[at])));
      }),
      { numRuns: 500 },
    );
  });
});
