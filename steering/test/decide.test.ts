import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Position } from '../../protocol/heartbeat.ts';
import { decide, type Contender, type Question, type Verdict } from '../decide.ts';
import { holdingClass, rank } from '../rank.ts';

const SITES = new Map<string, Position | null>([
  ['home', { lat: 0, lon: 0 }],
  ['near', { lat: 0, lon: 1 }],
  ['far', { lat: 0, lon: 20 }],
  ['unplaced', null],
]);

const aContender = (id: string, given: Partial<Contender> = {}): Contender => ({
  id,
  site: 'home',
  weight: 100,
  held: 1,
  base: `http://${id}.example`,
  refusal: null,
  ...given,
});

const ask = (contenders: readonly Contender[], given: Partial<Question> = {}): Verdict =>
  decide({
    title: 'harbor',
    session: 'abcdefghij012345',
    client: {
      footing: { address: '192.0.2.1', by: 'prefix', prefix: '192.0.2.0/24', site: 'home' },
      position: { lat: 0, lon: 0 },
    },
    home: { backups: [], nearestAfterBackups: true },
    sites: SITES,
    contenders,
    pathways: 3,
    originBase: 'http://origin.example',
    ...given,
  });

const idsOf = (verdict: Verdict): string[] => verdict.pathways.map(({ id }) => id);

describe('a decision', () => {
  it('names the own site first, then sites by distance, unknown distance last, the origin behind all', () => {
    const verdict = ask(
      [
        aContender('u', { site: 'unplaced' }),
        aContender('f', { site: 'far' }),
        aContender('n', { site: 'near' }),
        aContender('h', { held: 0 }),
      ],
      { pathways: 4 },
    );
    expect(idsOf(verdict)).toEqual(['h', 'n', 'f', 'u', 'origin']);
    expect(verdict.pathways.map(({ reason }) => reason)).toEqual([
      'its site serves 192.0.2.0/24; holds none of it and would pull it through',
      'its site is 111 km away; holds the title',
      'its site is 2224 km away; holds the title',
      'the distance of its site is unknown; holds the title',
      'last resort: the source of every asset',
    ]);
    expect(verdict.fallbacks).toEqual([]);
  });

  it('prefers holders of the same site to those that would pull', () => {
    const contenders = [aContender('none', { held: 0 }), aContender('half', { held: 0.5 }), aContender('all')];
    expect(idsOf(ask(contenders))).toEqual(['all', 'half', 'none', 'origin']);
  });

  it('gives each play its session in every base but the origin, which knows none', () => {
    expect(ask([aContender('a')]).pathways.map(({ base }) => base)).toEqual([
      'http://a.example/~abcdefghij012345',
      'http://origin.example',
    ]);
  });

  it('says of everybody why, in rank order', () => {
    const verdict = ask([aContender('a'), aContender('b', { refusal: 'it is full' }), aContender('c', { held: 0.2 })], {
      pathways: 1,
    });
    expect(verdict.considered.map(({ appliance, outcome }) => `${appliance} ${outcome}`).sort()).toEqual([
      'a chosen',
      'b refused',
      'c spare',
    ]);
    expect(verdict.considered.find(({ appliance }) => appliance === 'b')!.reason).toBe('it is full');
  });

  it('takes the named fallbacks: the next site, then the origin alone', () => {
    const down = { refusal: 'its lease ended' };
    expect(ask([aContender('h', down), aContender('n', { site: 'near' })]).fallbacks).toEqual(['site_down_next_site']);
    const nobody = ask([aContender('h', down), aContender('n', { site: 'near', ...down })]);
    expect(idsOf(nobody)).toEqual(['origin']);
    expect(nobody.fallbacks).toEqual(['appliances_down_origin']);
    expect(ask([]).fallbacks).toEqual(['appliances_down_origin']);
  });

  it("goes to the map's backups before any nearer site, and nowhere else where the map says so", () => {
    const contenders = [aContender('n', { site: 'near' }), aContender('f', { site: 'far' })];
    const backups = ['far'];
    expect(idsOf(ask(contenders, { home: { backups, nearestAfterBackups: true } }))).toEqual(['f', 'n', 'origin']);
    const strict = ask(contenders, { home: { backups, nearestAfterBackups: false } });
    expect(idsOf(strict)).toEqual(['f', 'origin']);
    expect(strict.considered.find(({ appliance }) => appliance === 'n')!.reason).toContain('backupZones only');
  });
});

const anyContender: fc.Arbitrary<Omit<Contender, 'id' | 'base'>> = fc.record({
  site: fc.constantFrom(...SITES.keys()),
  weight: fc.integer({ min: 1, max: 1000 }),
  held: fc.constantFrom(0, 0.05, 0.5, 0.99, 1),
  refusal: fc.constantFrom(null, null, null, 'down'),
});

const anyFleet = fc
  .array(anyContender, { maxLength: 30 })
  .map((list) => list.map((given, at) => aContender(`a${at}`, given)));

describe('any decision', () => {
  it('has the origin once and last, no pathway twice, no refused one, and at most what was asked', () => {
    fc.assert(
      fc.property(anyFleet, fc.integer({ min: 1, max: 8 }), (fleet, pathways) => {
        const verdict = ask(fleet, { pathways });
        const ids = idsOf(verdict);
        const able = fleet.filter(({ refusal }) => refusal === null).length;
        expect(ids.length).toBe(Math.min(pathways, able) + 1);
        expect(ids.indexOf('origin')).toBe(ids.length - 1);
        expect(new Set(ids).size).toBe(ids.length);
        for (const id of ids.slice(0, -1)) expect(fleet.find((one) => one.id === id)!.refusal).toBeNull();
        expect(verdict.considered.length).toBe(fleet.length);
      }),
    );
  });

  it('is the same whatever order the fleet is listed in', () => {
    fc.assert(
      fc.property(
        anyFleet.chain((fleet) =>
          fc.tuple(fc.constant(fleet), fc.shuffledSubarray(fleet, { minLength: fleet.length })),
        ),
        ([fleet, shuffled]) => {
          expect(idsOf(ask(shuffled, { pathways: 8 }))).toEqual(idsOf(ask(fleet, { pathways: 8 })));
        },
      ),
    );
  });

  it('does not reorder the others when one goes down', () => {
    fc.assert(
      fc.property(anyFleet, fc.nat(), (fleet, pick) => {
        fc.pre(fleet.length > 0);
        const gone = fleet[pick % fleet.length]!.id;
        const before = rank(fleet, rankingOf('harbor')).map(({ candidate }) => candidate.id);
        const after = rank(
          fleet.filter(({ id }) => id !== gone),
          rankingOf('harbor'),
        ).map(({ candidate }) => candidate.id);
        expect(after).toEqual(before.filter((id) => id !== gone));
      }),
    );
  });

  it('ranks by site tier, then by distance, then by what is held', () => {
    fc.assert(
      fc.property(anyFleet, (fleet) => {
        const ranked = rank(fleet, rankingOf('harbor'));
        for (let at = 1; at < ranked.length; at += 1) {
          const [before, after] = [ranked[at - 1]!, ranked[at]!];
          expect(before.distanceKm ?? Infinity).toBeLessThanOrEqual(after.distanceKm ?? Infinity);
          if (before.candidate.site === after.candidate.site)
            expect(holdingClass(before.candidate.held)).toBeGreaterThanOrEqual(holdingClass(after.candidate.held));
        }
      }),
    );
  });
});

const rankingOf = (title: string): Parameters<typeof rank>[1] => ({
  title,
  home: { site: 'home', position: { lat: 0, lon: 0 }, backups: [], nearestAfterBackups: true },
  sites: SITES,
});

describe('rendezvous inside a site', () => {
  it('spreads titles over equals and sends one title to one of them', () => {
    const equals = ['a', 'b', 'c'].map((id) => aContender(id));
    const firsts = Array.from({ length: 300 }, (_, at) => rank(equals, rankingOf(`title-${at}`))[0]!.candidate.id);
    for (const { id } of equals) expect(firsts.filter((first) => first === id).length).toBeGreaterThan(60);
  });

  it('gives no client without footing the same site for every title', () => {
    const spread = [aContender('x', { site: 'x' }), aContender('y', { site: 'y' })];
    const home = { site: null, position: null, backups: [], nearestAfterBackups: true };
    const firsts = Array.from(
      { length: 100 },
      (_, at) => rank(spread, { title: `t${at}`, home, sites: new Map() })[0]!.candidate.id,
    );
    expect(new Set(firsts).size).toBe(2);
  });
});
