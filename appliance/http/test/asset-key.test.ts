// From request target to cache key: one key per asset, and no key for a target that two parsers could read differently.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isFault } from '../../../protocol/faults.ts';
import { parseTarget } from '../asset-key.ts';

const keyOf = (target: string): string | null => {
  try {
    return parseTarget(target, 'alone').key;
  } catch (error) {
    expect(isFault(error) && error.code === 'request_malformed').toBe(true);
    return null;
  }
};

const token = fc.constantFrom(
  ...['/', '.', '..', '%2e', '%2E', '%2f', '%2F', '%5c', '\\', '%00', '%0a', '%7f', '%', '%zz', '%25', '%41', 'A', '~'],
  ...['?', '#', '&', 'CMCD=x', ' ', '\u00e4', '%C3%A4', '"', ';', ':', '@', 'http://x', '//', '~s', '%7Es'],
);
const target = fc.oneof(
  fc.array(token, { maxLength: 12 }).map((tokens) => `/${tokens.join('')}`),
  fc.string(),
);

test('a target has no key, or a key that every decoder reads as the same path', () => {
  fc.assert(
    fc.property(target, (text) => {
      const key = keyOf(text);
      if (key === null) return;
      const path = key.split('?')[0]!;
      expect(path).toMatch(/^\/[!-~]*$/);
      const decoded = path.replaceAll(/%([0-9A-F]{2})/g, (_, hex: string) =>
        String.fromCharCode(Number.parseInt(hex, 16)),
      );
      expect(decoded.split('/').filter((segment) => segment === '.' || segment === '..')).toEqual([]);
      expect(decoded).not.toMatch(/[\u0000-\u001f\u007f\\]/);
    }),
    { numRuns: 3_000 },
  );
});

test('a key is its own key, and the absolute form of a target has the same key', () => {
  fc.assert(
    fc.property(target, (text) => {
      const key = keyOf(text);
      if (key === null) return;
      expect(keyOf(key)).toBe(key);
      if (text.startsWith('/')) expect(keyOf(`HTTP://any.example:80${text}`)).toBe(key);
    }),
    { numRuns: 2_000 },
  );
});

test('percent-encoding of unreserved characters does not change the key', () => {
  const path = fc.string({ unit: fc.constantFrom(...'abzAZ019-_~/'), minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(path, fc.infiniteStream(fc.nat(2)), (text, how) => {
      const escaped = [...text].map((char) => {
        const choice = how.next().value as number;
        const hex = char.charCodeAt(0).toString(16);
        return char === '/' || choice === 0 ? char : `%${choice === 1 ? hex : hex.toUpperCase()}`;
      });
      expect(keyOf(`/${escaped.join('')}`)).toBe(keyOf(`/${text}`));
    }),
  );
});

test('different paths and queries have different keys', () => {
  const plain = fc.string({
    unit: fc.constantFrom('a', 'b', '/', '%2F', '%C3', '?', '=', '&', ';'),
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(plain, plain, (a, b) => {
      // An empty query equals none.
      const [one, other] = [`/${a}`, `/${b}`].map((text) => text.replace(/^([^?]*)\?$/, '$1')) as [string, string];
      if (one !== other) expect(keyOf(one) === null || keyOf(one) !== keyOf(other)).toBe(true);
    }),
    { numRuns: 1_000 },
  );
});

describe('in the modes alone and fleet', () => {
  test.each<readonly [string, string, string, string | null]>([
    ['/a/b.mp4', '/a/b.mp4', '/a/b.mp4', null],
    ['/a?x=1', '/a?x=1', '/a', null],
    ['/a?CMCD=bl%3D1', '/a', '/a', null],
    ['/a?CMCD=bl%3D1&', '/a', '/a', null],
    ['/a?x=1&cmcd=bl&y', '/a?x=1&y', '/a', null],
    ['/a?cmcdx=1', '/a?cmcdx=1', '/a', null],
    ['/~abc/a', '/~abc/a', '/a', 'abc'],
    ['/%7Eabc/a', '/~abc/a', '/a', 'abc'],
    ['/~abc', '/~abc', '/~abc', null],
    ['/~abc/', '/~abc/', '/', 'abc'],
    ['/~abc/~def/a', '/~abc/~def/a', '/~def/a', 'abc'],
    ['/a/~abc/b', '/a/~abc/b', '/a/~abc/b', null],
    ['http://x', '/', '/', null],
    ['http://x?y', '/?y', '/', null],
    ['http://x/~abc/a?y', '/~abc/a?y', '/a', 'abc'],
  ])('the target %s has the keys %s and %s, and session %s', (text, alone, fleet, session) => {
    expect(parseTarget(text, 'alone')).toEqual({ key: alone, session: null });
    expect(parseTarget(text, 'fleet')).toEqual({ key: fleet, session });
  });

  test('a query does not change the key in a fleet', () => {
    const keys = Array.from({ length: 1_000 }, (_, at) => parseTarget(`/film?x=${at}`, 'fleet').key);
    expect(new Set(keys)).toEqual(new Set(['/film']));
  });
});

test.each(['http://', 'http:///a', 'http://?a', 'http://x@y/a', 'http://a b/', 'http://x:y/a', 'http://x%zz/a'])(
  '%s has no valid host, so it has no key (RFC 9110 4.2.1, 4.2.4)',
  (text) => {
    expect(keyOf(text)).toBeNull();
  },
);

test.each(['http://[::1]:80/a', 'http://x.example:/a', 'HTTPS://%41.example:8080/a'])('%s has a valid host', (text) => {
  expect(keyOf(text)).toBe('/a');
});
