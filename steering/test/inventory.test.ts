import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Inventory } from '../inventory.ts';
import { aTitle, wholeTitle } from './stage.ts';

const RUN = '00000000000000aa';
const holding = fc.constantFrom(...wholeTitle('harbor'), ...wholeTitle('meadow'));
const change = fc.record({ added: fc.uniqueArray(holding), removed: fc.uniqueArray(holding) });

describe('an inventory', () => {
  it('after any deltas is the set that they make, on disk too', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 10 }), (changes) => {
        let inventory = new Inventory();
        const model = new Set<string>();
        changes.forEach(({ added, removed }, at) => {
          if (at === 0) model.clear();
          for (const gone of removed) model.delete(gone);
          for (const more of added) model.add(more);
          expect(inventory.apply(RUN, { since: at, revision: at + 1, added, removed })).toBe(true);
          inventory = Inventory.from(inventory.record('a'));
        });
        expect(inventory.holdings()).toEqual([...model].sort());
        expect(inventory.size).toBe(model.size);
      }),
    );
  });

  it('takes no delta that does not follow, and changes nothing then', () => {
    const inventory = new Inventory();
    inventory.apply(RUN, { since: 0, revision: 3, added: wholeTitle('harbor'), removed: [] });
    expect(inventory.apply(RUN, { since: 2, revision: 4, added: [], removed: wholeTitle('harbor') })).toBe(false);
    expect(inventory.apply('00000000000000bb', { since: 3, revision: 4, added: [], removed: [] })).toBe(false);
    expect(inventory.share(aTitle({ id: 'harbor' }))).toBe(1);
  });

  it('keeps what an earlier incarnation held until the new one has spoken', () => {
    const inventory = new Inventory();
    inventory.apply(RUN, { since: 0, revision: 1, added: wholeTitle('harbor'), removed: [] });
    expect(inventory.revisionFor('00000000000000bb')).toBeNull();
    expect(inventory.share(aTitle({ id: 'harbor' }))).toBe(1);
    inventory.apply('00000000000000bb', { since: 0, revision: 1, added: [], removed: [] });
    expect(inventory.share(aTitle({ id: 'harbor' }))).toBe(0);
  });

  it('measures a share in bytes, and in renditions only where all are there', () => {
    const inventory = new Inventory();
    const title = aTitle({ id: 'harbor' });
    inventory.apply(RUN, { since: 0, revision: 1, added: wholeTitle('harbor').slice(0, 3), removed: [] });
    expect(inventory.share(title)).toBe(0.75);
    expect(inventory.share(aTitle({ id: 'meadow' }))).toBe(0);
    const empty = { ...title, renditions: title.renditions.map((rendition) => ({ ...rendition, bytes: 0 })) };
    expect(inventory.share(empty)).toBe(0);
  });
});
