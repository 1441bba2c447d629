// Popularity: decay, the estimate of bytes that no appliance served, and the scores that plans rank by.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Rendition } from '../../../protocol/catalog.ts';
import {
  addAmount,
  computePopularity,
  decayedAmount,
  siteScores,
  type DecayingAmount,
  type DemandRow,
} from '../popularity.ts';

const HOUR = 3_600_000;
const HALF_LIFE = 72 * HOUR;

const rendition = (id: string, kind: Rendition['kind'], bytes: number): Rendition => ({
  id,
  kind,
  bytes,
  assets: 1,
  bandwidth: null,
  width: null,
  height: null,
  language: null,
});
const FILM = {
  id: 'film',
  renditions: [
    rendition('manifest', 'manifest', 100),
    rendition('video/low', 'video', 1_000),
    rendition('video/high', 'video', 3_000),
    rendition('audio/en', 'audio', 500),
  ],
};
const row = (key: string, site: string | null, amount: number, atMs = 0): DemandRow => ({ key, site, amount, atMs });
const find = (rows: ReturnType<typeof computePopularity>, holding: string, site: string | null): number =>
  rows.find((r) => r.holding === holding && r.site === site)?.popularity ?? 0;

test('an amount halves with every half-life', () => {
  expect(decayedAmount({ amount: 8, atMs: 0 }, HALF_LIFE, HALF_LIFE)).toBeCloseTo(4);
  expect(decayedAmount({ amount: 8, atMs: 0 }, 3 * HALF_LIFE, HALF_LIFE)).toBeCloseTo(1);
});

test('an amount does not grow if the clock was set back', () => {
  expect(decayedAmount({ amount: 8, atMs: HOUR }, 0, HALF_LIFE)).toBe(8);
});

test('the amount of a row does not depend on the order of its reports', () => {
  const report = fc.record({
    amount: fc.double({ min: 0, max: 1e12, noNaN: true }),
    atMs: fc.integer({ min: 0, max: 1e10 }),
  });
  fc.assert(
    fc.property(fc.array(report, { minLength: 1, maxLength: 20 }), fc.infiniteStream(fc.nat()), (reports, order) => {
      const fold = (list: readonly DecayingAmount[]): number =>
        decayedAmount(
          list.reduce<DecayingAmount | null>((sum, r) => addAmount(sum, r.amount, r.atMs, HALF_LIFE), null)!,
          2e10,
          HALF_LIFE,
        );
      const shuffled = [...reports].sort(() => (order.next().value % 2 === 0 ? 1 : -1));
      const direct = reports.reduce((sum, r) => sum + decayedAmount(r, 2e10, HALF_LIFE), 0);
      expect(fold(shuffled)).toBeCloseTo(direct, -Math.log10(Math.max(1e-6, direct * 1e-9)));
    }),
  );
});

test('popularity is bytes streamed divided by the bytes of the rendition, per site and in total', () => {
  const rows = computePopularity({
    titles: [FILM],
    served: [row('film:video/low', 'north', 4_000), row('film:video/low', 'south', 1_000)],
    asked: [],
    atMs: 0,
    halfLifeMs: HALF_LIFE,
  });
  expect(find(rows, 'film:video/low', 'north')).toBe(4);
  expect(find(rows, 'film:video/low', 'south')).toBe(1);
  expect(find(rows, 'film:video/low', null)).toBe(5);
  expect(rows).toHaveLength(3);
});

test('a title that only the origin served becomes popular through its plays', () => {
  const rows = computePopularity({
    titles: [FILM],
    served: [],
    asked: [row('film', null, 10)],
    atMs: 0,
    halfLifeMs: HALF_LIFE,
  });
  // Ten plays of one mean video (2,000) and one audio (500), spread over 4,500 bytes of media.
  expect(find(rows, 'film:video/high', null)).toBeCloseTo(25_000 / 4_500);
  expect(find(rows, 'film:audio/en', null)).toBeCloseTo(25_000 / 4_500);
  expect(siteScores(rows, 'north', 2).get('film:video/low')).toBeCloseTo(25_000 / 4_500 / 2);
});

test('plays that appliances served do not count in addition to their bytes', () => {
  const served = [row('film:video/low', 'north', 20_000), row('film:audio/en', 'north', 5_000)];
  const input = { titles: [FILM], served, atMs: 0, halfLifeMs: HALF_LIFE };
  const without = computePopularity({ ...input, asked: [] });
  expect(computePopularity({ ...input, asked: [row('film', 'north', 10)] })).toEqual(without);
});

test("a site's score is its own popularity plus a share of that of all other sites", () => {
  const rows = computePopularity({
    titles: [FILM],
    served: [row('film:video/low', 'north', 4_000), row('film:video/low', 'south', 2_000)],
    asked: [],
    atMs: 0,
    halfLifeMs: HALF_LIFE,
  });
  expect(siteScores(rows, 'north', 2).get('film:video/low')).toBe(4 + 2 / 2);
  expect(siteScores(rows, 'elsewhere', 3).get('film:video/low')).toBe(6 / 3);
});

test('a rendition without bytes has a finite popularity', () => {
  const titles = [{ id: 'film', renditions: [rendition('text/en', 'text', 0)] }];
  const rows = computePopularity({
    titles,
    served: [row('film:text/en', 'north', 5)],
    asked: [],
    atMs: 0,
    halfLifeMs: 1,
  });
  expect(find(rows, 'film:text/en', 'north')).toBe(5);
});
