import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Inventory } from '../inventory.ts';
import { aTitle, allHoldings } from './harness.ts';

const INCARNATION = '00000000000000aa';
const holding = fc.constantFrom(...allHoldings('harbor'), ...allHoldings('meadow'));
const change = fc.record({ added: fc.uniqueArray(holding), removed: fc.uniqueArray(holding) });

describe('an inventory', () => {
  it('is the set that its deltas make, also after a reload', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 10 }), (changes) => {
        let inventory = new Inventory();
        const model = new Set<string>();
        changes.forEach(({ added, removed }, at) => {
          if (at === 0) model.clear();
          for (const gone of removed) model.delete(gone);
          for (const more of added) model.add(more);
          expect(inventory.apply(INCARNATION, { since: at, revision: at + 1, added, removed })).toBe(true);
          inventory = Inventory.from(inventory.record('a'));
        });
        expect(inventory.holdings()).toEqual([...model].sort());
        expect(inventory.size).toBe(model.size);
      }),
    );
  });

  it('refuses a delta that does not follow and stays unchanged', () => {
    const inventory = new Inventory();
    inventory.apply(INCARNATION, { since: 0, revision: 3, added: allHoldings('harbor'), removed: [] });
    expect(inventory.apply(INCARNATION, { since: 2, revision: 4, added: [], removed: allHoldings('harbor') })).toBe(
      false,
    );
    expect(inventory.apply('00000000000000bb', { since: 3, revision: 4, added: [], removed: [] })).toBe(false);
    expect(inventory.heldShare(aTitle({ id: 'harbor' }))).toBe(1);
  });

  it('keeps the holdings of an earlier incarnation until the new one has reported its own', () => {
    const inventory = new Inventory();
    inventory.apply(INCARNATION, { since: 0, revision: 1, added: allHoldings('harbor'), removed: [] });
    expect(inventory.revisionFor('00000000000000bb')).toBeNull();
    expect(inventory.heldShare(aTitle({ id: 'harbor' }))).toBe(1);
    inventory.apply('00000000000000bb', { since: 0, revision: 1, added: [], removed: [] });
    expect(inventory.heldShare(aTitle({ id: 'harbor' }))).toBe(0);
  });

  it('measures the held share in bytes, and is whole only with all renditions', () => {
    const inventory = new Inventory();
    const title = aTitle({ id: 'harbor' });
    inventory.apply(INCARNATION, { since: 0, revision: 1, added: allHoldings('harbor').slice(0, 3), removed: [] });
    expect(inventory.heldShare(title)).toBe(0.75);
    expect(inventory.heldShare(aTitle({ id: 'meadow' }))).toBe(0);
    const empty = { ...title, renditions: title.renditions.map((rendition) => ({ ...rendition, bytes: 0 })) };
    expect(inventory.heldShare(empty)).toBe(0);
  });
});
