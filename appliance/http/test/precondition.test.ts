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

/** Opaque tags (8.8.3) with characters that break a parser which splits lists at commas. */
const opaque = fc
  .string({ unit: fc.constantFrom('a', 'b', ',', ' ', '\\', 'W', '/', '*', '!', '\xff'), maxLength: 5 })
  .map((text) => text.replaceAll(' ', ''));
const tag = fc.tuple(fc.boolean(), opaque).map(([weak, text]) => `${weak ? 'W/' : ''}"${text}"`);
const bare = (value: string): string => value.replace(/^W\//, '');

test('If-None-Match compares weakly and If-Match strongly, with every tag of a list', () => {
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

test('If-Range matches neither a weak tag nor another tag', () => {
  fc.assert(
    fc.property(tag, tag, (value, own) => {
      expect(ifRangeMatches(value, asset(own))).toBe(value === own && !own.startsWith('W/'));
    }),
  );
});

test('no field value, however odd, throws or fails a condition that was not stated', () => {
  const odd = fc.option(fc.oneof(fc.string(), tag, fc.constant('*'), fc.constant(day(3))), { nil: null });
  fc.assert(
    fc.property(
      fc.record({ ifMatch: odd, ifUnmodifiedSince: odd, ifNoneMatch: odd, ifModifiedSince: odd, ifRange: odd }),
      tag,
      (conditions, own) => {
        const result = evaluatePreconditions(conditions, asset(own));
        if (conditions.ifMatch === null && conditions.ifUnmodifiedSince === null) expect(result).not.toBe('failed');
        if (conditions.ifNoneMatch === null && conditions.ifModifiedSince === null)
          expect(result).not.toBe('not_modified');
        if (conditions.ifRange !== null) ifRangeMatches(conditions.ifRange, asset(own));
      },
    ),
    { numRuns: 1_000 },
  );
});

describe('the order of 13.2.2', () => {
  test.each<readonly [string, string, Partial<Preconditions>, Validators]>([
    ['no condition', 'proceed', {}, asset('"a"')],
    ['If-Match: * of an asset without a tag', 'proceed', { ifMatch: '*' }, asset(null)],
    ['If-Match of an asset without a tag', 'failed', { ifMatch: '"a"' }, asset(null)],
    ['If-Match that fails, If-None-Match that matches', 'failed', { ifMatch: '"b"', ifNoneMatch: '"a"' }, asset('"a"')],
    [
      'If-Match that holds, If-Unmodified-Since that fails',
      'proceed',
      { ifMatch: '"a"', ifUnmodifiedSince: day(1) },
      asset('"a"'),
    ],
    ['If-Unmodified-Since before the change', 'failed', { ifUnmodifiedSince: day(1) }, asset('"a"')],
    ['If-Unmodified-Since at the change', 'proceed', { ifUnmodifiedSince: day(2) }, asset('"a"')],
    ['If-Unmodified-Since of an undated asset', 'proceed', { ifUnmodifiedSince: day(1) }, asset('"a"', null)],
    ['If-None-Match: *', 'not_modified', { ifNoneMatch: '*' }, asset(null)],
    ['If-None-Match of an asset without a tag', 'proceed', { ifNoneMatch: '"a"' }, asset(null)],
    [
      'If-None-Match that does not match, If-Modified-Since that does',
      'proceed',
      { ifNoneMatch: '"b"', ifModifiedSince: day(3) },
      asset('"a"'),
    ],
    ['If-Modified-Since at the change', 'not_modified', { ifModifiedSince: day(2) }, asset('"a"')],
    ['If-Modified-Since before the change', 'proceed', { ifModifiedSince: day(1) }, asset('"a"')],
    ['If-Modified-Since of an undated asset', 'proceed', { ifModifiedSince: day(3) }, asset('"a"', null)],
    ['If-Modified-Since that is not a date', 'proceed', { ifModifiedSince: '3 days ago' }, asset('"a"')],
    ['If-Modified-Since of a number', 'proceed', { ifModifiedSince: '99999999999' }, asset('"a"')],
  ])('%s: %s', (_, expected, conditions, validators) => {
    expect(evaluatePreconditions({ ...NONE, ...conditions }, validators)).toBe(expected);
  });
});

test.each(['"a"x', 'x"a"', '"b"a"', '"b" "a"', '"a""b"', 'w/"a"', 'W/ "a"', '"b", a, "a"', '"a"\u00a0', '*\u00a0'])(
  'a list with a member that is not an entity tag matches nothing: %s',
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
  ])('%s is parsed (5.6.7)', (text) => {
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
  ])('%s is earlier, or not an HTTP date and therefore ignored (13.1.3)', (text) => {
    expect(since(text)).toBe('proceed');
  });
});

describe('If-Range by date', () => {
  test.each<readonly [string, 'matches' | 'does not match', string, Validators]>([
    ['the date of change', 'matches', day(2), asset(null)],
    ['a later date', 'does not match', day(3), asset(null)],
    ['an earlier date', 'does not match', day(1), asset(null)],
    ['text that is not a date', 'does not match', 'soon', asset(null)],
    ['the date, for an asset without Last-Modified', 'does not match', day(2), asset(null, null)],
    ['the date of change, for an asset without Date', 'does not match', day(2), asset(null, day(2), null)],
    ['the date of change, if Date is the same second', 'does not match', day(2), asset(null, day(2), day(2))],
  ])('with %s %s', (_, result, value, validators) => {
    expect(ifRangeMatches(value, validators)).toBe(result === 'matches');
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
])('%j as a strong entity tag: %s', (value, strong) => {
  expect(isStrong(value)).toBe(strong);
});
