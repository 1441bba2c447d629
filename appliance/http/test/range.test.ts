// Range arithmetic against an oracle that knows nothing of parsing: it marks wanted bytes one by one.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { firstByteHint, rangeBytes, RANGES_MAX, selectRanges, type ByteRange } from '../range.ts';

type Spec = readonly [first: number | null, last: number | null];

const lengths = fc.oneof(fc.nat(3), fc.nat(60));
const positions = fc.oneof(fc.nat(5), fc.nat(70));
/** Valid by 14.1.2; satisfiable or not. */
const specs: fc.Arbitrary<Spec> = fc.oneof(
  fc.tuple(positions, positions).map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const),
  positions.map((first) => [first, null] as const),
  positions.map((suffix) => [null, suffix] as const),
);
const separators = fc.constantFrom(',', ', ', ' ,\t', ',,');
const zeros = fc.constantFrom('', '0', '000');

const written = fc
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

/** Byte positions that one spec asks for, in ascending order. */
function wantedBy([first, last]: Spec, length: number): number[] {
  return Array.from({ length }, (_, at) => at).filter((at) =>
    first === null ? at >= length - last! : at >= first && (last === null || at <= last),
  );
}

const positionsOf = (ranges: readonly ByteRange[]): number[] =>
  ranges.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, at) => first + at));

test('valid specifiers select exactly the bytes that they name, each once, in the order of first mention', () => {
  fc.assert(
    fc.property(written, lengths, ({ list, header }, length) => {
      const each = list.map((spec) => wantedBy(spec, length));
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
        const stretches = union.filter((at) => !union.includes(at - 1)).length;
        expect(union.length === 0 || stretches > RANGES_MAX).toBe(true);
        return;
      }
      const bytes = positionsOf(got.ranges);
      expect(new Set(bytes).size).toBe(bytes.length);
      expect([...bytes].sort((a, b) => a - b)).toEqual(union.sort((a, b) => a - b));
      expect(got.ranges.length).toBeLessThanOrEqual(RANGES_MAX);
      const mention = ({ first, last }: ByteRange): number =>
        each.findIndex((one) => one.some((at) => at >= first && at <= last));
      const mentions = got.ranges.map(mention);
      expect(mentions).toEqual(mentions.toSorted((a, b) => a - b));
    }),
    { numRuns: 2_000 },
  );
});

test('whatever the header, the answer lies inside the asset', () => {
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

describe('RFC 9110 14, by clause', () => {
  const ranges = (...list: [number, number][]) => ({
    kind: 'ranges',
    ranges: list.map(([first, last]) => ({ first, last })),
  });
  test.each<readonly [string, string | null, number, object]>([
    ['no header is the whole', null, 10, { kind: 'whole' }],
    ['an unknown unit is the whole (14.2)', 'lines=1-2', 10, { kind: 'whole' }],
    ['a unit of any case (14.1)', 'BYTES=1-2', 10, ranges([1, 2])],
    ['a suffix longer than the asset is all of it', 'bytes=-11', 10, ranges([0, 9])],
    ['a suffix of nothing is unsatisfiable', 'bytes=-0', 10, { kind: 'unsatisfiable' }],
    ['a suffix of nothing of nothing is too', 'bytes=-0', 0, { kind: 'unsatisfiable' }],
    ['a suffix of an empty asset is the whole', 'bytes=-1', 0, { kind: 'whole' }],
    ['any other range of an empty asset is unsatisfiable', 'bytes=0-', 0, { kind: 'unsatisfiable' }],
    ['the last position clamps', 'bytes=8-99', 10, ranges([8, 9])],
    ['the first position does not', 'bytes=10-99', 10, { kind: 'unsatisfiable' }],
    ['one satisfiable range is enough', 'bytes=99-,1-2,-0', 10, ranges([1, 2])],
    ['last before first is malformed', 'bytes=5-4', 10, { kind: 'unsatisfiable' }],
    ['and so is the list that it is in', 'bytes=5-4,1-2', 10, { kind: 'unsatisfiable' }],
    ['tabs are white space of a list (5.6.3)', 'bytes=\t1-2\t,\t5-6', 10, ranges([1, 2], [5, 6])],
    ['a blank that does not break is none', 'bytes=1-2\u00a0', 10, { kind: 'unsatisfiable' }],
    ['touching ranges are one', 'bytes=0-4,5-6', 10, ranges([0, 6])],
    ['descending ranges keep their order (15.3.7.2)', 'bytes=8-9,4-5,0-1', 10, ranges([8, 9], [4, 5], [0, 1])],
    ['a coalesced range stands where its first part did', 'bytes=8-8,0-1,9-9', 10, ranges([8, 9], [0, 1])],
    ['more in sum than the asset is the whole', 'bytes=0-5,4-9', 10, { kind: 'whole' }],
    ['a number beyond 2^53 clamps', 'bytes=1-99999999999999999999', 10, ranges([1, 9])],
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

  test('17.15: the most that fits a header is decided in well under a second', () => {
    const long = `bytes=${Array.from({ length: 4_000 }, (_, at) => `${at}-`).join()}`;
    const before = performance.now();
    for (let turn = 0; turn < 10; turn += 1) selectRanges(long, 1e10);
    expect(performance.now() - before).toBeLessThan(5_000);
  });
});

test('the hint of a header is where its first range begins', () => {
  fc.assert(
    fc.property(written, ({ list, header }) => {
      const [first] = list[0]!;
      const hint = firstByteHint(header);
      expect(hint).toBe(first === null ? 'suffix' : first);
    }),
  );
  expect(firstByteHint(null)).toBe(0);
  expect(firstByteHint('lines=5-')).toBe(0);
});
