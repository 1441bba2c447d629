// Units, ids and placement, on which components must agree.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { assetPath, splitSession, withSession } from '../ids.ts';
import { hash32 } from '../hash.ts';
import { rendezvous } from '../placement.ts';
import { formatBytes, formatDuration, parseDuration, parseRate, parseSize } from '../units.ts';

test.each([
  ['10GB', 10e9],
  ['10GiB', 10 * 2 ** 30],
  ['1.5TB', 1.5e12],
  ['512', 512],
  ['64 kib', 65_536],
  ['', null],
  ['-1GB', null],
  ['1GB2', null],
  ['1e3', null],
  ['99999999PB', null],
])('size %j is %j', (text, bytes) => expect(parseSize(text)).toBe(bytes));

test.each([
  ['30s', 30_000],
  ['4h', 14_400_000],
  ['250ms', 250],
  ['30', null],
  ['1 week', null],
])('duration %j is %j ms', (text, ms) => expect(parseDuration(text)).toBe(ms));

test.each([
  ['400Mb/s', 400e6],
  ['1.2Gb/s', 1.2e9],
  ['400', null],
])('rate %j is %j b/s', (text, rate) => expect(parseRate(text)).toBe(rate));

test('sizes and durations are formatted with their unit', () => {
  expect([0, 999, 1_000, 1_234, 12_345_678, 999_999_999_999].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.00 kB',
    '1.23 kB',
    '12.3 MB',
    '1000 GB',
  ]);
  expect([5, 1_500, 61_000, 3_600_000, 90_000_000].map(formatDuration)).toEqual([
    '5 ms',
    '2 s',
    '1 m 01 s',
    '1 h 00 m',
    '1 d 01 h',
  ]);
});

test.each(['/a/../b', '/..', '/./a', '/a?b', '/a#b', 'a', '/a b', '/ä', '/a\\b'])('%j is not an asset path', (path) => {
  expect(assetPath.safeParse(path).success).toBe(false);
});

test('property: a session prefix that was added is removed, and nothing else is', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9]{1,40}$/), fc.stringMatching(/^\/[a-z0-9/.~-]{0,60}$/), (session, path) => {
      expect(splitSession(withSession(session, path))).toEqual({ session, path });
      if (!path.startsWith('/~')) expect(splitSession(path)).toEqual({ session: null, path });
    }),
  );
});

test('the rendezvous order of known keys never changes', () => {
  expect([hash32(''), hash32('harbor'), hash32('harbor2')]).toEqual([2_872_998_923, 2_548_949_957, 1_280_853_535]);
  const members = ['a', 'b', 'c', 'd'].map((id) => ({ id, weight: 1 }));
  const orders = ['harbor', 'meadow', 'tunnel'].map((key) =>
    rendezvous(key, members)
      .map((member) => member.id)
      .join(''),
  );
  expect(orders).toEqual(['dbca', 'acdb', 'bcda']);
});

test('removing a member moves only its own keys, and load is proportional to weight', () => {
  const members = Array.from({ length: 10 }, (_, at) => ({ id: `m${at}`, weight: at === 0 ? 3 : 1 }));
  const keys = Array.from({ length: 12_000 }, (_, at) => `key-${at}`);
  const first = new Map(keys.map((key) => [key, rendezvous(key, members)[0]!.id]));
  const left = members.filter((member) => member.id !== 'm4');
  for (const key of keys) {
    const now = rendezvous(key, left)[0]!.id;
    if (first.get(key) !== 'm4') expect(now).toBe(first.get(key));
  }
  const share = (id: string): number => keys.filter((key) => first.get(key) === id).length / keys.length;
  expect(share('m0')).toBeGreaterThan(0.22);
  expect(share('m0')).toBeLessThan(0.28);
  for (const { id } of members.slice(1)) expect(Math.abs(share(id) - 1 / 12)).toBeLessThan(0.015);
});
