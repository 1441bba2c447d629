import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Rendition } from '../../../protocol/catalog.ts';
import { addTo, amountAt, popularityOf, scoreFor, type Decayed, type DemandRow } from '../popularity.ts';

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
const find = (rows: ReturnType<typeof popularityOf>, holding: string, site: string | null): number =>
  rows.find((r) => r.holding === holding && r.site === site)?.popularity ?? 0;

test('an amount halves with every half-life', () => {
  expect(amountAt({ amount: 8, atMs: 0 }, HALF_LIFE, HALF_LIFE)).toBeCloseTo(4);
  expect(amountAt({ amount: 8, atMs: 0 }, 3 * HALF_LIFE, HALF_LIFE)).toBeCloseTo(1);
});

test('an amount does not grow where the clock went back', () => {
  expect(amountAt({ amount: 8, atMs: HOUR }, 0, HALF_LIFE)).toBe(8);
});

test('a row is the same in whatever order its reports come, late ones included', () => {
  const report = fc.record({
    amount: fc.double({ min: 0, max: 1e12, noNaN: true }),
    atMs: fc.integer({ min: 0, max: 1e10 }),
  });
  fc.assert(
    fc.property(fc.array(report, { minLength: 1, maxLength: 20 }), fc.infiniteStream(fc.nat()), (reports, order) => {
      const fold = (list: readonly Decayed[]): number =>
        amountAt(
          list.reduce<Decayed | null>((sum, r) => addTo(sum, r.amount, r.atMs, HALF_LIFE), null)!,
          2e10,
          HALF_LIFE,
        );
      const shuffled = [...reports].sort(() => (order.next().value % 2 === 0 ? 1 : -1));
      const direct = reports.reduce((sum, r) => sum + amountAt(r, 2e10, HALF_LIFE), 0);
      expect(fold(shuffled)).toBeCloseTo(direct, -Math.log10(Math.max(1e-6, direct * 1e-9)));
    }),
  );
});

test('bytes streamed are divided by the bytes of the rendition, per site and in all', () => {
  const rows = popularityOf({
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

test('a title that only the origin served becomes popular by its plays', () => {
  const rows = popularityOf({
    titles: [FILM],
    served: [],
    asked: [row('film', null, 10)],
    atMs: 0,
    halfLifeMs: HALF_LIFE,
  });
  // Ten plays of one mean video (2,000) and one audio (500), spread over 4,500 bytes of media.
  expect(find(rows, 'film:video/high', null)).toBeCloseTo(25_000 / 4_500);
  expect(find(rows, 'film:audio/en', null)).toBeCloseTo(25_000 / 4_500);
  expect(scoreFor(rows, 'north', 2).get('film:video/low')).toBeCloseTo(25_000 / 4_500 / 2);
});

test('plays whose bytes appliances served do not count twice', () => {
  const served = [row('film:video/low', 'north', 20_000), row('film:audio/en', 'north', 5_000)];
  const input = { titles: [FILM], served, atMs: 0, halfLifeMs: HALF_LIFE };
  const without = popularityOf({ ...input, asked: [] });
  expect(popularityOf({ ...input, asked: [row('film', 'north', 10)] })).toEqual(without);
});

test("a site's score is its own popularity and a share of everywhere else's", () => {
  const rows = popularityOf({
    titles: [FILM],
    served: [row('film:video/low', 'north', 4_000), row('film:video/low', 'south', 2_000)],
    asked: [],
    atMs: 0,
    halfLifeMs: HALF_LIFE,
  });
  expect(scoreFor(rows, 'north', 2).get('film:video/low')).toBe(4 + 2 / 2);
  expect(scoreFor(rows, 'elsewhere', 3).get('film:video/low')).toBe(6 / 3);
});

test('an empty rendition has a finite popularity', () => {
  const titles = [{ id: 'film', renditions: [rendition('text/en', 'text', 0)] }];
  const rows = popularityOf({ titles, served: [row('film:text/en', 'north', 5)], asked: [], atMs: 0, halfLifeMs: 1 });
  expect(find(rows, 'film:text/en', 'north')).toBe(5);
});
