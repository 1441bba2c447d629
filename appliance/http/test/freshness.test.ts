// What a malformed date in a response means for storing it and for its age (RFC 9110 6.6.1, RFC 9111 4.2, 5.3).

import { describe, expect, test } from 'vitest';
import { explicitLifetimeMs, freshnessOf, generatedAtMsOf, unstorableReason } from '../freshness.ts';

const ANONYMOUS = { authorization: false, cookie: false };
const VALID = 'Sun, 06 Nov 1994 08:49:37 GMT';
const HOUR_LATER = 'Sun, 06 Nov 1994 09:49:37 GMT';
const ARRIVAL_MS = Date.parse(HOUR_LATER);

describe.each([
  ['without a zone', 'Sun, 06 Nov 1994 08:49:37'],
  ['in another zone', 'Sun, 06 Nov 1994 08:49:37 +0000'],
  ['of a day that does not exist', 'Wed, 30 Feb 1994 08:49:37 GMT'],
  ['in lower case', 'sun, 06 nov 1994 08:49:37 gmt'],
  ['in the form of cookies', 'Sun, 06-Nov-1994 08:49:37 GMT'],
])('a date %s', (_, malformed) => {
  test('is no validator', () => {
    expect(unstorableReason({ 'last-modified': VALID }, ANONYMOUS)).toBeNull();
    expect(unstorableReason({ 'last-modified': malformed }, ANONYMOUS)).toBe('no freshness');
  });

  test('gives no heuristic lifetime', () => {
    const lifetimeMs = (modified: string): number =>
      freshnessOf({ date: HOUR_LATER, 'last-modified': modified }, ARRIVAL_MS).lifetimeMs;
    expect(lifetimeMs(VALID)).toBe(360_000);
    expect(lifetimeMs(malformed)).toBe(0);
  });

  test('in Expires counts as expired, and in Date leaves nothing to measure Expires by', () => {
    expect(explicitLifetimeMs({ date: VALID, expires: HOUR_LATER })).toBe(3_600_000);
    expect(explicitLifetimeMs({ date: VALID, expires: malformed })).toBe(0);
    expect(explicitLifetimeMs({ date: malformed, expires: HOUR_LATER })).toBe(0);
  });

  test('in Date counts as the time of arrival', () => {
    const times = { askedMs: ARRIVAL_MS, answeredMs: ARRIVAL_MS };
    expect(generatedAtMsOf({ date: VALID }, times)).toBe(ARRIVAL_MS - 3_600_000);
    expect(generatedAtMsOf({ date: malformed }, times)).toBe(ARRIVAL_MS);
  });
});

test.each([
  ['Identity', null],
  ['IDENTITY', null],
  ['gzip', 'content-encoding'],
])('with Content-Encoding %s: %s', (encoding, reason) => {
  expect(unstorableReason({ etag: '"v"', 'content-encoding': encoding }, ANONYMOUS)).toBe(reason);
});
