import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Position } from '../../protocol/heartbeat.ts';
import { decide, jitteredTtlS, type PlayDecision } from '../decide.ts';
import type { ApplianceCandidate } from '../decision-inputs.ts';
import type { Zone } from '../footprint.ts';
import { noGeoIp } from '../geoip.ts';
import { holdingClass, rank, type RankContext } from '../rank.ts';

const SITES = new Map<string, Position | null>([
  ['home', { lat: 0, lon: 0 }],
  ['near', { lat: 0, lon: 1 }],
  ['far', { lat: 0, lon: 20 }],
  ['unplaced', null],
]);

const aCandidate = (id: string, fields: Partial<ApplianceCandidate> = {}): ApplianceCandidate => ({
  id,
  site: 'home',
  weight: 100,
  held: 1,
  base: `http://${id}.example`,
  refusal: null,
  ...fields,
});

interface DecideOptions extends Partial<Pick<Zone, 'backups' | 'nearestAfterBackups'>> {
  readonly pathwaysMax?: number;
}

/** The decision for a client whose prefix belongs to site `home`. */
const decideFor = (
  candidates: readonly ApplianceCandidate[],
  { pathwaysMax = 3, backups = [], nearestAfterBackups = true }: DecideOptions = {},
): PlayDecision =>
  decide(
    {
      at: 0,
      footprint: {
        zones: new Map([['home', { site: 'home', position: null, prefixes: 1, backups, nearestAfterBackups }]]),
        locate: () => ({ site: 'home', prefix: '192.0.2.0/24' }),
      },
      geoip: noGeoIp,
      defaultSite: null,
      sites: SITES,
      candidates,
      originBase: 'http://origin.example',
      ttlMs: 30_000,
    },
    { title: 'harbor', address: '192.0.2.1', session: 'abcdefghij012345', pathwaysMax },
  );

const pathwayIds = ({ decision }: PlayDecision): string[] => decision.pathways.map(({ id }) => id);

describe('a decision', () => {
  it('names the own site first, then sites by distance, unknown distances next and the origin last', () => {
    const { decision, fallbacks } = decideFor(
      [
        aCandidate('u', { site: 'unplaced' }),
        aCandidate('f', { site: 'far' }),
        aCandidate('n', { site: 'near' }),
        aCandidate('h', { held: 0 }),
      ],
      { pathwaysMax: 4 },
    );
    expect(decision.pathways.map(({ id }) => id)).toEqual(['h', 'n', 'f', 'u', 'origin']);
    expect(decision.pathways.map(({ reason }) => reason)).toEqual([
      'its site serves 192.0.2.0/24; holds none of it and would pull it through',
      'its site is 111 km away; holds the title',
      'its site is 2224 km away; holds the title',
      'the distance of its site is unknown; holds the title',
      'last resort: the source of every asset',
    ]);
    expect(fallbacks).toEqual([]);
  });

  it('prefers holders of the title to other appliances of the same site', () => {
    const candidates = [aCandidate('none', { held: 0 }), aCandidate('half', { held: 0.5 }), aCandidate('all')];
    expect(pathwayIds(decideFor(candidates))).toEqual(['all', 'half', 'none', 'origin']);
  });

  it('prefixes every base with the session, except that of the origin', () => {
    expect(decideFor([aCandidate('a')]).decision.pathways.map(({ base }) => base)).toEqual([
      'http://a.example/~abcdefghij012345',
      'http://origin.example',
    ]);
  });

  it('gives a reason for every appliance, in rank order', () => {
    const { considered } = decideFor(
      [aCandidate('a'), aCandidate('b', { refusal: 'it is full' }), aCandidate('c', { held: 0.2 })],
      { pathwaysMax: 1 },
    );
    expect(considered.map(({ appliance, outcome }) => `${appliance} ${outcome}`).sort()).toEqual([
      'a chosen',
      'b refused',
      'c spare',
    ]);
    expect(considered.find(({ appliance }) => appliance === 'b')!.reason).toBe('it is full');
  });

  it('uses the named fallbacks: first the next site, then the origin alone', () => {
    const down = { refusal: 'its lease ended' };
    const nextSite = decideFor([aCandidate('h', down), aCandidate('n', { site: 'near' })]);
    expect(nextSite.fallbacks).toEqual(['site_down_next_site']);
    const originOnly = decideFor([aCandidate('h', down), aCandidate('n', { site: 'near', ...down })]);
    expect(pathwayIds(originOnly)).toEqual(['origin']);
    expect(originOnly.fallbacks).toEqual(['appliances_down_origin']);
    expect(decideFor([]).fallbacks).toEqual(['appliances_down_origin']);
  });

  it("prefers the map's backups to nearer sites, and uses no other site if the map forbids it", () => {
    const candidates = [aCandidate('n', { site: 'near' }), aCandidate('f', { site: 'far' })];
    const backups = ['far'];
    expect(pathwayIds(decideFor(candidates, { backups }))).toEqual(['f', 'n', 'origin']);
    const strict = decideFor(candidates, { backups, nearestAfterBackups: false });
    expect(pathwayIds(strict)).toEqual(['f', 'origin']);
    expect(strict.considered.find(({ appliance }) => appliance === 'n')!.reason).toContain('backupZones only');
  });

  it('has a TTL spread over ± 20 % that is never zero', () => {
    expect(jitteredTtlS(30_000, 0)).toBe(24);
    expect(jitteredTtlS(30_000, 0.999)).toBe(36);
    expect(jitteredTtlS(100, 0)).toBe(1);
  });
});

const anyCandidate: fc.Arbitrary<Omit<ApplianceCandidate, 'id' | 'base'>> = fc.record({
  site: fc.constantFrom(...SITES.keys()),
  weight: fc.integer({ min: 1, max: 1000 }),
  held: fc.constantFrom(0, 0.05, 0.5, 0.99, 1),
  refusal: fc.constantFrom(null, null, null, 'down'),
});

const anyFleet = fc
  .array(anyCandidate, { maxLength: 30 })
  .map((fleet) => fleet.map((fields, index) => aCandidate(`a${index}`, fields)));

const contextFor = (title: string): RankContext => ({
  title,
  home: { site: 'home', position: { lat: 0, lon: 0 }, backups: [], nearestAfterBackups: true },
  sites: SITES,
});

describe('any decision', () => {
  it('ends with the origin, repeats no pathway, names no refused appliance and at most the requested number', () => {
    fc.assert(
      fc.property(anyFleet, fc.integer({ min: 1, max: 8 }), (fleet, pathwaysMax) => {
        const playDecision = decideFor(fleet, { pathwaysMax });
        const ids = pathwayIds(playDecision);
        const eligible = fleet.filter(({ refusal }) => refusal === null).length;
        expect(ids.length).toBe(Math.min(pathwaysMax, eligible) + 1);
        expect(ids.indexOf('origin')).toBe(ids.length - 1);
        expect(new Set(ids).size).toBe(ids.length);
        for (const id of ids.slice(0, -1)) expect(fleet.find((each) => each.id === id)!.refusal).toBeNull();
        expect(playDecision.considered.length).toBe(fleet.length);
      }),
    );
  });

  it('does not depend on the order in which the fleet is listed', () => {
    fc.assert(
      fc.property(
        anyFleet.chain((fleet) =>
          fc.tuple(fc.constant(fleet), fc.shuffledSubarray(fleet, { minLength: fleet.length })),
        ),
        ([fleet, shuffled]) => {
          const options = { pathwaysMax: 8 };
          expect(pathwayIds(decideFor(shuffled, options))).toEqual(pathwayIds(decideFor(fleet, options)));
        },
      ),
    );
  });

  it('keeps the order of the other appliances when one disappears', () => {
    fc.assert(
      fc.property(anyFleet, fc.nat(), (fleet, pick) => {
        fc.pre(fleet.length > 0);
        const gone = fleet[pick % fleet.length]!.id;
        const before = rank(fleet, contextFor('harbor')).map(({ candidate }) => candidate.id);
        const after = rank(
          fleet.filter(({ id }) => id !== gone),
          contextFor('harbor'),
        ).map(({ candidate }) => candidate.id);
        expect(after).toEqual(before.filter((id) => id !== gone));
      }),
    );
  });

  it('ranks by site tier, then by distance, then by the share held', () => {
    fc.assert(
      fc.property(anyFleet, (fleet) => {
        const ranked = rank(fleet, contextFor('harbor'));
        for (let index = 1; index < ranked.length; index += 1) {
          const [before, after] = [ranked[index - 1]!, ranked[index]!];
          expect(before.distanceKm ?? Infinity).toBeLessThanOrEqual(after.distanceKm ?? Infinity);
          if (before.candidate.site === after.candidate.site)
            expect(holdingClass(before.candidate.held)).toBeGreaterThanOrEqual(holdingClass(after.candidate.held));
        }
      }),
    );
  });
});

describe('rendezvous hashing', () => {
  it('spreads titles over the equal appliances of a site and sends each title to one of them', () => {
    const equals = ['a', 'b', 'c'].map((id) => aCandidate(id));
    const firsts = Array.from(
      { length: 300 },
      (_, index) => rank(equals, contextFor(`title-${index}`))[0]!.candidate.id,
    );
    for (const { id } of equals) expect(firsts.filter((first) => first === id).length).toBeGreaterThan(60);
  });

  it('spreads titles over the sites for clients without a location', () => {
    const candidates = [aCandidate('x', { site: 'x' }), aCandidate('y', { site: 'y' })];
    const home = { site: null, position: null, backups: [], nearestAfterBackups: true };
    const firsts = Array.from(
      { length: 100 },
      (_, index) => rank(candidates, { title: `t${index}`, home, sites: new Map() })[0]!.candidate.id,
    );
    expect(new Set(firsts).size).toBe(2);
  });
});
