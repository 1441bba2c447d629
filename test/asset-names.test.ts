// An asset has one name: whatever URI a manifest gives it, the appliance looks a player's request for that URI up under the path that the
// import wrote into the catalog.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseTarget } from '../appliance/http/asset-key.ts';
import { resolveUri } from '../fill/import/manifest.ts';

const BASE = '/film/';
const MANIFEST = `${BASE}master.m3u8`;
const imported = (uri: string): string =>
  resolveUri(uri, {
    baseUrl: MANIFEST,
    titleRoot: { origin: 'http://origin.example', base: BASE },
    location: { path: MANIFEST, line: 1 },
  });
/** What a player's URL parser makes of the URI, in a play with a session. */
const requested = (uri: string): string => new URL(uri, `http://box.example/~s1${MANIFEST}`).pathname;

test.each([
  ['caf%c3%a9.m4s', '/film/caf%C3%A9.m4s'],
  ['caf\u00e9.m4s', '/film/caf%C3%A9.m4s'],
  ['a%2Db%7Ec.m4s', '/film/a-b~c.m4s'],
  ['v/../%61.m4s', '/film/a.m4s'],
])('%s is %s', (uri, path) => {
  expect(imported(uri)).toBe(path);
  expect(parseTarget(requested(uri), 'fleet').key).toBe(path);
});

test.each(['a%2f..%2fb.m4s', 'a%5cb.m4s', 'a%00b.m4s', 'a%7fb.m4s', 'a%zzb.m4s'])(
  '%s is refused at the import, as by an appliance',
  (uri) => {
    expect(() => imported(uri)).toThrow(/film\/master\.m3u8 line 1/);
    expect(() => parseTarget(requested(uri), 'fleet')).toThrow();
  },
);

test('property: every URI that an import accepts is found by the appliance', () => {
  const piece = fc.oneof(
    fc.constantFrom(
      'a',
      '-',
      '~',
      '.',
      '..',
      '/',
      '%2D',
      '%2d',
      '%7e',
      '%C3%A9',
      '%c3%a9',
      '%20',
      '%25',
      '%2F',
      '%5C',
      '\u00e9',
    ),
    fc.constantFrom('+', ':', '@', '!', '$', '&', "'", '(', ')', '*', ',', ';', '=', '[', ']', '|', '"', '^', '`', '{'),
  );
  let accepted = 0;
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 12 }), (pieces) => {
      const uri = `v/${pieces.join('')}`;
      let path: string;
      try {
        path = imported(uri);
      } catch {
        return;
      }
      accepted += 1;
      expect(parseTarget(requested(uri), 'fleet').key).toBe(path);
    }),
    { numRuns: 3_000 },
  );
  expect(accepted).toBeGreaterThan(500);
});
