import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseDeclaredPathways, steeringList } from '../steering-list.ts';

const ids = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9-]{0,5}$/), { minLength: 1, maxLength: 8 });

describe('the steering list', () => {
  it('orders exactly the declared ids: avoided ones go last, the others keep their order', () => {
    fc.assert(
      fc.property(ids, fc.func(fc.boolean()), (declared, isAvoided) => {
        const avoided = new Set(declared.filter((id) => isAvoided(id)));
        const list = steeringList(declared, avoided, 30)['PATHWAY-PRIORITY'];
        expect([...list].sort()).toEqual([...declared].sort());
        const others = declared.filter((id) => !avoided.has(id));
        expect(list.slice(0, others.length)).toEqual(others);
      }),
    );
  });

  it('puts an avoided appliance behind the origin', () => {
    expect(steeringList(['a', 'b', 'origin'], new Set(['a']), 30)['PATHWAY-PRIORITY']).toEqual(['b', 'origin', 'a']);
  });

  it('parses what a manifest declares', () => {
    fc.assert(
      fc.property(ids, (declared) => {
        expect(parseDeclaredPathways(declared.join(','))).toEqual(declared);
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
    expect(() => parseDeclaredPathways(text)).toThrow(
      expect.objectContaining({ code: 'request_malformed', detail: { field: 'query.pathways' } }),
    );
  });
});
