// Range parsing and arithmetic (RFC 9110 14), against an oracle that marks the selected bytes one by one.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { firstByteHint, rangeBytes, RANGES_MAX, selectRanges, type ByteRange } from '../range.ts';

type Spec = readonly [first: number | null, last: number | null];

const lengths = fc.oneof(fc.nat(3), fc.nat(60));
const positions = fc.oneof(fc.nat(5), fc.nat(70));
/** Valid by 14.1.2, satisfiable or not. */
const specs: fc.Arbitrary<Spec> = fc.oneof(
  fc.tuple(positions, positions).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const),
  positions.map((first) => [first, null] as const),
  positions.map((suffix) => [null, suffix] as const),
);
const separators = fc.constantFrom(',', ', ', ' ,\t', ',,');
const zeros = fc.constantFrom('', '0', '000');

const rangeHeaders = fc
  .tuple(
    fc.array(specs, { minLength: 1, maxLength: 40 }),
    separators,
    zeros,
    fc.constantFrom('bytes', 'Bytes', 'BYTES'),
  )
  .map(([list, separator, zero, unit]) => ({
    list,
    header: `${unit}=${list
      .map(([first, last]) => `${first === null ? '' : zero + first}-${last === null ? '' : zero + last}`)
      .join(separator)}`,
  }));

/** Byte positions that one range selects, in ascending order. */
function selectedBy([first, last]: Spec, length: number): number[] {
  return Array.from({ length }, (_, at) => at).filter((at) =>
    first === null ? at >= length - last! : at >= first && (last === null || at <= last),
  );
}

const positionsOf = (ranges: readonly ByteRange[]): number[] =>
  ranges.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, at) => first + at));

test('valid ranges select exactly their bytes, each once, in the order in which they are first named', () => {
  fc.assert(
    fc.property(rangeHeaders, lengths, ({ list, header }, length) => {
      const each = list.map((spec) => selectedBy(spec, length));
      const satisfied = each.filter((bytes) => bytes.length > 0);
      const union = [...new Set(each.flat())];
      const got = selectRanges(header, length);
      if (got.kind === 'whole') {
        const sum = satisfied.reduce((total, bytes) => total + bytes.length, 0);
        const emptySuffix = length === 0 && list.some(([first, last]) => first === null && last! > 0);
        expect(emptySuffix || (satisfied.length > 1 && sum > length)).toBe(true);
        return;
      }
      if (got.kind === 'unsatisfiable') {
        const runs = union.filter((at) => !union.includes(at - 1)).length;
        expect(union.length === 0 || runs > RANGES_MAX).toBe(true);
        return;
      }
      const bytes = positionsOf(got.ranges);
      expect(new Set(bytes).size).toBe(bytes.length);
      expect([...bytes].sort((a, b) => a - b)).toEqual(union.sort((a, b) => a - b));
      expect(got.ranges.length).toBeLessThanOrEqual(RANGES_MAX);
      const firstNamed = ({ first, last }: ByteRange): number =>
        each.findIndex((one) => one.some((at) => at >= first && at <= last));
      const order = got.ranges.map(firstNamed);
      expect(order).toEqual(order.toSorted((a, b) => a - b));
    }),
    { numRuns: 2_000 },
  );
});

test('for any field value, the selected ranges lie inside the asset', () => {
  const near = fc
    .array(fc.constantFrom('bytes', '=', '-', ',', ' ', '0', '7', '99999999999999999999', 'x', '\u00a0', '\n'), {
      maxLength: 20,
    })
    .map((tokens) => tokens.join(''));
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        near,
        near.map((text) => `bytes=${text}`),
      ),
      lengths,
      (header, length) => {
        const got = selectRanges(header, length);
        if (got.kind !== 'ranges') return;
        expect(got.ranges.length).toBeGreaterThan(0);
        for (const range of got.ranges) {
          expect(Number.isSafeInteger(range.first) && Number.isSafeInteger(range.last)).toBe(true);
          expect(0 <= range.first && range.first <= range.last && range.last < length).toBe(true);
          expect(rangeBytes(range)).toBe(range.last - range.first + 1);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

describe('by the clauses of RFC 9110 14', () => {
  const ranges = (...list: [number, number][]) => ({
    kind: 'ranges',
    ranges: list.map(([first, last]) => ({ first, last })),
  });
  test.each<readonly [string, string | null, number, object]>([
    ['no Range selects the whole asset', null, 10, { kind: 'whole' }],
    ['an unknown unit selects the whole asset (14.2)', 'lines=1-2', 10, { kind: 'whole' }],
    ['the unit is case-insensitive (14.1)', 'BYTES=1-2', 10, ranges([1, 2])],
    ['a suffix longer than the asset selects all of it', 'bytes=-11', 10, ranges([0, 9])],
    ['a suffix of length 0 is unsatisfiable', 'bytes=-0', 10, { kind: 'unsatisfiable' }],
    ['a suffix of length 0 of an empty asset is unsatisfiable', 'bytes=-0', 0, { kind: 'unsatisfiable' }],
    ['a suffix of an empty asset selects the whole asset', 'bytes=-1', 0, { kind: 'whole' }],
    ['any other range of an empty asset is unsatisfiable', 'bytes=0-', 0, { kind: 'unsatisfiable' }],
    ['a last position beyond the end is clamped', 'bytes=8-99', 10, ranges([8, 9])],
    ['a first position beyond the end is unsatisfiable', 'bytes=10-99', 10, { kind: 'unsatisfiable' }],
    ['one satisfiable range is enough', 'bytes=99-,1-2,-0', 10, ranges([1, 2])],
    ['a last position before the first is malformed', 'bytes=5-4', 10, { kind: 'unsatisfiable' }],
    ['a list with a malformed range is malformed', 'bytes=5-4,1-2', 10, { kind: 'unsatisfiable' }],
    ['tabs separate list members like blanks (5.6.3)', 'bytes=\t1-2\t,\t5-6', 10, ranges([1, 2], [5, 6])],
    ['a no-break space is not white space', 'bytes=1-2\u00a0', 10, { kind: 'unsatisfiable' }],
    ['adjacent ranges are coalesced', 'bytes=0-4,5-6', 10, ranges([0, 6])],
    ['descending ranges keep their order (15.3.7.2)', 'bytes=8-9,4-5,0-1', 10, ranges([8, 9], [4, 5], [0, 1])],
    ['a coalesced range takes the place of its first part', 'bytes=8-8,0-1,9-9', 10, ranges([8, 9], [0, 1])],
    ['ranges whose sum exceeds the asset select the whole asset', 'bytes=0-5,4-9', 10, { kind: 'whole' }],
    ['a last position beyond 2^53 is clamped', 'bytes=1-99999999999999999999', 10, ranges([1, 9])],
    ['a first position beyond 2^53 is unsatisfiable', 'bytes=99999999999999999999-', 10, { kind: 'unsatisfiable' }],
  ])('%s', (_, header, length, want) => {
    expect(selectRanges(header, length)).toEqual(want);
  });

  test(`${RANGES_MAX} ranges apart are served, one more is refused`, () => {
    const apart = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, at) => `${at * 2}-${at * 2}`).join()}`;
    expect(selectRanges(apart(RANGES_MAX), 1_000)).toMatchObject({ kind: 'ranges' });
    expect(selectRanges(apart(RANGES_MAX + 1), 1_000)).toEqual({ kind: 'unsatisfiable' });
  });

  test('the most ranges that fit a header are evaluated in well under a second (17.15)', () => {
    const long = `bytes=${Array.from({ length: 4_000 }, (_, at) => `${at}-`).join()}`;
    const before = systemClock.monotonic();
    for (let round = 0; round < 10; round += 1) selectRanges(long, 1e10);
    expect(systemClock.monotonic() - before).toBeLessThan(5_000);
  });
});

test('the first-byte hint of a header is where its first range begins', () => {
  fc.assert(
    fc.property(rangeHeaders, ({ list, header }) => {
      const [first] = list[0]!;
      const hint = firstByteHint(header);
      expect(hint).toBe(first === null ? 'suffix' : first);
    }),
  );
  expect(firstByteHint(null)).toBe(0);
  expect(firstByteHint('lines=5-')).toBe(0);
});
