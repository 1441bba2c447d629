// Preconditions of RFC 9110 13: comparison (8.8.3.2), dates (8.8.2.2) and order (13.2.2).

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  evaluatePreconditions,
  ifRangeMatches,
  isStrong,
  type Preconditions,
  type Validators,
} from '../precondition.ts';

const NONE: Preconditions = {
  ifMatch: null,
  ifUnmodifiedSince: null,
  ifNoneMatch: null,
  ifModifiedSince: null,
  ifRange: null,
};
const day = (date: number): string => new Date(Date.UTC(2026, 2, date)).toUTCString();
const asset = (etag: string | null, modified: string | null = day(2), date: string | null = day(9)): Validators => ({
  etag,
  lastModified: modified,
  date,
});

/** 8.8.3: etagc, with the characters that break a list which is split at its commas. */
const opaque = fc
  .string({ unit: fc.constantFrom('a', 'b', ',', ' ', '\\', 'W', '/', '*', '!', '\xff'), maxLength: 5 })
  .map((text) => text.replaceAll(' ', ''));
const tag = fc.tuple(fc.boolean(), opaque).map(([weak, text]) => `${weak ? 'W/' : ''}"${text}"`);
const bare = (value: string): string => value.replace(/^W\//, '');

test('If-None-Match compares weakly, If-Match strongly, with every tag of a list', () => {
  fc.assert(
    fc.property(
      fc.array(tag, { minLength: 1, maxLength: 5 }),
      tag,
      fc.constantFrom(',', ', ', ' , '),
      (list, own, comma) => {
        const text = list.join(comma);
        const weakly = list.some((one) => bare(one) === bare(own));
        const strongly = list.some((one) => one === own && !own.startsWith('W/'));
        expect(evaluatePreconditions({ ...NONE, ifNoneMatch: text }, asset(own))).toBe(
          weakly ? 'not_modified' : 'proceed',
        );
        expect(evaluatePreconditions({ ...NONE, ifMatch: text }, asset(own))).toBe(strongly ? 'proceed' : 'failed');
      },
    ),
    { numRuns: 1_000 },
  );
});

test('If-Range never holds for what is weak, nor for another tag', () => {
  fc.assert(
    fc.property(tag, tag, (asked, own) => {
      expect(ifRangeMatches(asked, asset(own))).toBe(asked === own && !own.startsWith('W/'));
    }),
  );
});

test('no header at all, however odd, throws or turns a request without conditions away', () => {
  const odd = fc.option(fc.oneof(fc.string(), tag, fc.constant('*'), fc.constant(day(3))), { nil: null });
  fc.assert(
    fc.property(
      fc.record({ ifMatch: odd, ifUnmodifiedSince: odd, ifNoneMatch: odd, ifModifiedSince: odd, ifRange: odd }),
      tag,
      (conditions, own) => {
        const verdict = evaluatePreconditions(conditions, asset(own));
        if (conditions.ifMatch === null && conditions.ifUnmodifiedSince === null) expect(verdict).not.toBe('failed');
        if (conditions.ifNoneMatch === null && conditions.ifModifiedSince === null)
          expect(verdict).not.toBe('not_modified');
        if (conditions.ifRange !== null) ifRangeMatches(conditions.ifRange, asset(own));
      },
    ),
    { numRuns: 1_000 },
  );
});

describe('13.2.2, in order', () => {
  test.each<readonly [string, Partial<Preconditions>, Validators, string]>([
    ['nothing asked', {}, asset('"a"'), 'proceed'],
    ['If-Match: * of an asset without a tag', { ifMatch: '*' }, asset(null), 'proceed'],
    ['If-Match of an asset without a tag', { ifMatch: '"a"' }, asset(null), 'failed'],
    ['If-Match false before If-None-Match true', { ifMatch: '"b"', ifNoneMatch: '"a"' }, asset('"a"'), 'failed'],
    ['If-Match true hides If-Unmodified-Since', { ifMatch: '"a"', ifUnmodifiedSince: day(1) }, asset('"a"'), 'proceed'],
    ['If-Unmodified-Since before the change', { ifUnmodifiedSince: day(1) }, asset('"a"'), 'failed'],
    ['If-Unmodified-Since at the change', { ifUnmodifiedSince: day(2) }, asset('"a"'), 'proceed'],
    ['If-Unmodified-Since of an undated asset', { ifUnmodifiedSince: day(1) }, asset('"a"', null), 'proceed'],
    ['If-None-Match: *', { ifNoneMatch: '*' }, asset(null), 'not_modified'],
    ['If-None-Match of an asset without a tag', { ifNoneMatch: '"a"' }, asset(null), 'proceed'],
    [
      'If-None-Match false hides If-Modified-Since',
      { ifNoneMatch: '"b"', ifModifiedSince: day(3) },
      asset('"a"'),
      'proceed',
    ],
    ['If-Modified-Since at the change', { ifModifiedSince: day(2) }, asset('"a"'), 'not_modified'],
    ['If-Modified-Since before the change', { ifModifiedSince: day(1) }, asset('"a"'), 'proceed'],
    ['If-Modified-Since of an undated asset', { ifModifiedSince: day(3) }, asset('"a"', null), 'proceed'],
    ['If-Modified-Since of no date', { ifModifiedSince: '3 days ago' }, asset('"a"'), 'proceed'],
    ['If-Modified-Since of a number', { ifModifiedSince: '99999999999' }, asset('"a"'), 'proceed'],
  ])('%s', (_, conditions, validators, verdict) => {
    expect(evaluatePreconditions({ ...NONE, ...conditions }, validators)).toBe(verdict);
  });
});

test.each(['"a"x', 'x"a"', '"b"a"', '"b" "a"', '"a""b"', 'w/"a"', 'W/ "a"', '"b", a, "a"', '"a"\u00a0', '*\u00a0'])(
  'a list with a member that is no entity tag matches nothing: %s',
  (list) => {
    expect(evaluatePreconditions({ ...NONE, ifNoneMatch: list }, asset('"a"'))).toBe('proceed');
    expect(evaluatePreconditions({ ...NONE, ifMatch: list }, asset('"a"'))).toBe('failed');
  },
);

describe('dates of conditions', () => {
  const changed = Date.UTC(2026, 2, 1, 9, 8, 7);
  const since = (text: string): string =>
    evaluatePreconditions({ ...NONE, ifModifiedSince: text }, asset('"a"', new Date(changed).toUTCString()));

  test.each([
    'Sun, 01 Mar 2026 09:08:07 GMT',
    'Sunday, 01-Mar-26 09:08:07 GMT',
    'Sun Mar  1 09:08:07 2026',
    'Sun Mar 01 09:08:07 2026',
    'Sunday, 01-Mar-69 09:08:07 GMT',
    'Fri, 31 Dec 9999 23:59:59 GMT',
  ])('%s is understood (5.6.7)', (text) => {
    expect(since(text)).toBe('not_modified');
  });

  test.each([
    'Sun, 01 Mar 2026 09:08:06 GMT',
    'Sunday, 01-Mar-70 09:08:07 GMT',
    'Mon, 01 Jan 0001 00:00:00 GMT',
    'Sun, 01 Mar 2026 09:08:07 CET',
    'Sun, 01 Mar 2026 09:08:07 +0000',
    'Sun, 01 Mar 2026 09:08:07',
    'Sun 01 Mar 2026 09:08:07 GMT',
    'Sun, 1 Mar 2026 09:08:07 GMT',
    'Sun, 01 MAR 2026 09:08:07 GMT',
    'Sun, 01 Mar 2026 24:00:00 GMT',
    'Sun, 30 Feb 2027 09:08:07 GMT',
    'Sun, 01 Xyz 2027 09:08:07 GMT',
    'Sun,  01 Mar 2027 09:08:07 GMT',
    '01 Mar 2027 09:08:07 GMT',
    '2027-03-01T09:08:07Z',
    '',
  ])('%s is earlier, or no date of HTTP and so no condition (13.1.3)', (text) => {
    expect(since(text)).toBe('proceed');
  });
});

describe('If-Range by date', () => {
  test.each<readonly [string, string, Validators, boolean]>([
    ['the very date', day(2), asset(null), true],
    ['a later date', day(3), asset(null), false],
    ['an earlier date', day(1), asset(null), false],
    ['no date', 'soon', asset(null), false],
    ['of an asset without a date of change', day(2), asset(null, null), false],
    ['where it is not known when the asset was got', day(2), asset(null, day(2), null), false],
    ['got in the second of the change: weak', day(2), asset(null, day(2), day(2)), false],
  ])('%s', (_, value, validators, holds) => {
    expect(ifRangeMatches(value, validators)).toBe(holds);
  });
});

test.each<readonly [string | null, boolean]>([
  ['"a"', true],
  ['""', true],
  ['"a,b\xff"', true],
  ['W/"a"', false],
  ['a', false],
  ['"a', false],
  ['"a"b"', false],
  ['"a b"', false],
  ['', false],
  [null, false],
])('%j is a strong entity tag: %s', (value, strong) => {
  expect(isStrong(value)).toBe(strong);
});
