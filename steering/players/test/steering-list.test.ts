import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { declaredPathways, jitteredTtlS, steeringList } from '../steering-list.ts';

const ids = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9-]{0,5}$/), { minLength: 1, maxLength: 8 });

describe('the steering list', () => {
  it('orders exactly the ids declared: those to be left go to the back, the rest keep their order', () => {
    fc.assert(
      fc.property(ids, fc.func(fc.boolean()), (declared, leave) => {
        const list = steeringList(declared, leave, 30)['PATHWAY-PRIORITY'];
        expect([...list].sort()).toEqual([...declared].sort());
        const stay = declared.filter((id) => !leave(id));
        expect(list.slice(0, stay.length)).toEqual(stay);
      }),
    );
  });

  it('puts a dead appliance behind the origin', () => {
    expect(steeringList(['a', 'b', 'origin'], (id) => id === 'a', 30)['PATHWAY-PRIORITY']).toEqual([
      'b',
      'origin',
      'a',
    ]);
  });

  it('reads back what a manifest declares', () => {
    fc.assert(
      fc.property(ids, (declared) => {
        expect(declaredPathways(declared.join(','))).toEqual(declared);
      }),
    );
  });

  it.each([
    '',
    'a,,b',
    'a,a',
    'A',
    'a b',
    '../x',
    'a'.repeat(64),
    Array.from({ length: 10 }, (_, at) => `p${at}`).join(','),
  ])('refuses %j, naming the field', (text) => {
    expect(() => declaredPathways(text)).toThrow(
      expect.objectContaining({ code: 'request_malformed', detail: { field: 'query.pathways' } }),
    );
  });

  it('spreads its TTL over ± 20 % and never reaches zero', () => {
    expect(jitteredTtlS(30_000, 0)).toBe(24);
    expect(jitteredTtlS(30_000, 0.999)).toBe(36);
    expect(jitteredTtlS(100, 0)).toBe(1);
  });
});
