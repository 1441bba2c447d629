// The three forms of RFC 9110 5.6.7, and that nothing else is a date.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseHttpDate } from '../http-date.ts';

describe('valid dates', () => {
  test.each<readonly [string, string]>([
    ['Sun, 06 Nov 1994 08:49:37 GMT', '1994-11-06T08:49:37.000Z'],
    ['Sunday, 06-Nov-94 08:49:37 GMT', '1994-11-06T08:49:37.000Z'],
    ['Sun Nov  6 08:49:37 1994', '1994-11-06T08:49:37.000Z'],
    ['Sun Nov 06 08:49:37 1994', '1994-11-06T08:49:37.000Z'],
    ['Wednesday, 09-Nov-94 08:49:37 GMT', '1994-11-09T08:49:37.000Z'],
    ['Thu, 01 Jan 1970 00:00:00 GMT', '1970-01-01T00:00:00.000Z'],
    ['Thu, 29 Feb 2024 23:59:59 GMT', '2024-02-29T23:59:59.000Z'],
    ['Tue, 29 Feb 2000 00:00:00 GMT', '2000-02-29T00:00:00.000Z'],
    ['Fri, 31 Dec 9999 23:59:59 GMT', '9999-12-31T23:59:59.000Z'],
    ['Mon, 01 Jan 0001 00:00:00 GMT', '0001-01-01T00:00:00.000Z'],
  ])('%s', (text, iso) => {
    expect(parseHttpDate(text)).toBe(Date.parse(iso));
  });

  test('the day of the week is not compared with the date', () => {
    expect(parseHttpDate('Mon, 06 Nov 1994 08:49:37 GMT')).toBe(Date.UTC(1994, 10, 6, 8, 49, 37));
  });

  test.each([
    ['00', 2000],
    ['26', 2026],
    ['69', 2069],
    ['70', 1970],
    ['99', 1999],
  ])('the two-digit year %s is %i', (digits, year) => {
    expect(parseHttpDate(`Sunday, 06-Nov-${digits} 08:49:37 GMT`)).toBe(Date.UTC(year, 10, 6, 8, 49, 37));
  });
});

describe('everything else is no date', () => {
  test.each([
    ...['', '0', '-1', 'now', '3 days ago', '784111777', '1994-11-06T08:49:37Z'],
    // Days and times that do not exist.
    ...['Wed, 30 Feb 2024 00:00:00 GMT', 'Wed, 29 Feb 2023 00:00:00 GMT', 'Mon, 29 Feb 1900 00:00:00 GMT'],
    ...['Mon, 31 Apr 2023 00:00:00 GMT', 'Sun, 00 Nov 1994 08:49:37 GMT', 'Sun, 32 Dec 1994 08:49:37 GMT'],
    ...['Sun, 06 Nov 1994 24:00:00 GMT', 'Sun, 06 Nov 1994 08:60:00 GMT', 'Sat, 31 Dec 2016 23:59:60 GMT'],
    ...['Sunday, 31-Feb-94 08:49:37 GMT', 'Sun Feb 30 08:49:37 1994', 'Sun Nov  0 08:49:37 1994'],
    // Names in another case, or of no day or month.
    ...['sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 nov 1994 08:49:37 GMT', 'Sun, 06 NOV 1994 08:49:37 GMT'],
    ...['Sun, 06 Nov 1994 08:49:37 gmt', 'Son, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Okt 1994 08:49:37 GMT'],
    // Another zone, or none.
    ...['Sun, 06 Nov 1994 08:49:37', 'Sun, 06 Nov 1994 08:49:37 UTC', 'Sun, 06 Nov 1994 08:49:37 EST'],
    ...['Sun, 06 Nov 1994 08:49:37 +0000', 'Sun Nov  6 08:49:37 1994 GMT', 'Sunday, 06-Nov-94 08:49:37'],
    // Forms that are mixed or abridged.
    ...['Sun, 06-Nov-1994 08:49:37 GMT', 'Sun, 06-Nov-94 08:49:37 GMT', 'Sunday, 06 Nov 1994 08:49:37 GMT'],
    ...['Sun, 6 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 94 08:49:37 GMT', 'Sun, 06 Nov 1994 8:49:37 GMT'],
    ...['Sun, 06 Nov 1994 08:49 GMT', 'Sun 06 Nov 1994 08:49:37 GMT', '06 Nov 1994 08:49:37 GMT'],
    ...['Sun,  6 Nov 1994 08:49:37 GMT', 'Sun Nov 6 08:49:37 1994', 'Sun, 06 Nov 1994 08:49:37.000 GMT'],
    // White space and text around a date.
    ...[' Sun, 06 Nov 1994 08:49:37 GMT', 'Sun, 06 Nov 1994 08:49:37 GMT ', 'Sun, 06 Nov 1994 08:49:37 GMT\n'],
    'Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37 GMT'.padEnd(100_000, ' '),
    `Sun, ${'0'.repeat(100_000)}6 Nov 1994 08:49:37 GMT`,
  ])('%#: %.60s', (text) => {
    expect(parseHttpDate(text)).toBeNull();
  });

  test('an absent field is none either', () => {
    expect(parseHttpDate(null)).toBeNull();
    expect(parseHttpDate(undefined)).toBeNull();
  });
});

/** Whole seconds from the year 0 to the year 9999, which are all that an IMF-fixdate can express. */
const seconds = fc.oneof(
  fc.integer({ min: Date.UTC(1970, 0) / 1000, max: Date.UTC(2100, 0) / 1000 }),
  fc.integer({ min: -62_167_219_200, max: 253_402_300_799 }),
);

test('every date that Node writes is read back', () => {
  fc.assert(
    fc.property(seconds, (second) => {
      expect(parseHttpDate(new Date(second * 1000).toUTCString())).toBe(second * 1000);
    }),
    { numRuns: 5_000 },
  );
});

test('a date reads the same in each of the three forms', () => {
  fc.assert(
    fc.property(fc.integer({ min: Date.UTC(1970, 0) / 1000, max: Date.UTC(2070, 0) / 1000 - 1 }), (second) => {
      const [, dayName, day, month, year, time] = /^(\w+), (\d+) (\w+) (\d+) ([\d:]+) GMT$/.exec(
        new Date(second * 1000).toUTCString(),
      ) as unknown as string[];
      const longName = LONG_DAY_NAMES.find((name) => name.startsWith(dayName!))!;
      expect(parseHttpDate(`${longName}, ${day}-${month}-${year!.slice(2)} ${time} GMT`)).toBe(second * 1000);
      expect(parseHttpDate(`${dayName} ${month} ${day!.replace(/^0/, ' ')} ${time} ${year}`)).toBe(second * 1000);
    }),
    { numRuns: 2_000 },
  );
});

test('a text that differs from a date in one character is another date or none', () => {
  fc.assert(
    fc.property(seconds, fc.nat(28), fc.string({ minLength: 1, maxLength: 1 }), (second, at, char) => {
      const text = new Date(second * 1000).toUTCString();
      const ms = parseHttpDate(text.slice(0, at) + char + text.slice(at + 1));
      // The first three characters name the day of the week, which does not count.
      if (ms !== null && at > 2)
        expect(new Date(ms).toUTCString().slice(4)).toBe((text.slice(0, at) + char + text.slice(at + 1)).slice(4));
    }),
    { numRuns: 5_000 },
  );
});

const LONG_DAY_NAMES = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];
