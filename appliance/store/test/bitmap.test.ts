// A bitmap behaves as a set of block numbers, whether it is kept in a number or in an array, and survives serialisation.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Bitmap } from '../bitmap.ts';

const steps = fc.array(fc.record({ adds: fc.boolean(), at: fc.nat(100) }), { maxLength: 200 });

test.each([0, 1, 7, 8, 30, 31, 32, 33, 64, 90])(
  'property: a bitmap of %i blocks agrees with a Set through any adds and deletes',
  (size) => {
    fc.assert(
      fc.property(steps, (operations) => {
        const bitmap = new Bitmap(size);
        const plain = new Set<number>();
        for (const { adds, at } of operations) {
          if (adds) bitmap.add(at);
          else bitmap.delete(at);
          // Numbers beyond the size are ignored.
          if (adds && at < size) plain.add(at);
          else plain.delete(at);
        }
        const expected = [...plain].toSorted((a, b) => a - b);
        const decoded = new Bitmap(size, bitmap.toBytes());
        for (const each of [bitmap, decoded]) {
          expect([...each]).toEqual(expected);
          expect(each.count).toBe(expected.length);
          expect(each.occupiedRuns).toBe(new Set(expected.map((at) => at >> 3)).size);
        }
      }),
    );
  },
);

test('bits beyond the size are ignored', () => {
  for (const size of [5, 13, 31, 45]) {
    const all = new Bitmap(size, new Uint8Array(20).fill(0xff));
    expect([all.count, [...all].length, all.has(size)]).toEqual([size, size, false]);
  }
});
