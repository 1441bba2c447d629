// What the filter remembers, for how long, and how often it is wrong; and what second-hit makes of it.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { assetsToRemember, demandPolicy, SecondHit } from '../admission.ts';
import { DISK_RUNS } from '../eviction.ts';
import { FALSE_POSITIVES_MAX, hashKey, hashPart, RotatingBloomFilter } from '../bloom-filter.ts';

const NAMES = 20_000;
const filterOf = (seed: number): RotatingBloomFilter => new RotatingBloomFilter({ generationNames: () => NAMES, seed });

test('a name is remembered while as many others come as a generation holds, and forgotten after two', () => {
  const filter = filterOf(1);
  const names = Array.from({ length: 4 * NAMES }, (_, at) => hashKey(`/title/${at}.m4s`));
  for (const [at, name] of names.entries()) {
    filter.add(name);
    if (at >= NAMES && !filter.has(names[at - NAMES + 1]!)) throw new Error(`forgot name ${at - NAMES + 1} at ${at}`);
  }
  const negative = names.slice(0, 2 * NAMES).filter((name) => filter.has(name)).length;
  expect(negative).toBeLessThanOrEqual(2 * NAMES * FALSE_POSITIVES_MAX);
});

test('what comes again and again does not wear the memory out', () => {
  const filter = filterOf(2);
  filter.add(hashKey('/rare'));
  for (let at = 0; at < 10 * NAMES; at += 1) filter.add(hashKey(`/hot/${at % 10}`));
  expect(filter.has(hashKey('/rare'))).toBe(true);
});

test('with both generations full, a name that never came is taken for one that did in at most 1 of 100 cases', () => {
  for (const seed of [1, 2 ** 31, 2 ** 32 - 1]) {
    const filter = filterOf(seed);
    for (let at = 0; at < 2 * NAMES; at += 1) filter.add(hashKey(`/title/${at}/segment-${at % 100}.m4s`));
    let wrong = 0;
    for (let at = 0; at < 50_000; at += 1) if (filter.has(hashKey(`/other/${at}/segment-${at % 100}.m4s`))) wrong += 1;
    expect(wrong / 50_000).toBeLessThanOrEqual(FALSE_POSITIVES_MAX);
    // A filter that says no to everything would pass as well.
    expect(wrong).toBeGreaterThan(0);
  }
});

test('property: texts that differ have names that differ, parts included', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.nat(10_000), fc.nat(10_000), (a, b, one, other) => {
      expect(Number.isSafeInteger(hashPart(hashKey(a), one))).toBe(true);
      expect(hashKey(a) === hashKey(b)).toBe(a === b);
      expect(hashPart(hashKey(a), one) === hashPart(hashKey(a), other)).toBe(one === other);
    }),
    { numRuns: 5_000 },
  );
});

test('second-hit admits at the second request for an asset and refuses what is asked for once', () => {
  const admission = new SecondHit({ assets: 1_000, seed: 3 });
  expect([1, 2, 1, 1, 3].map((name) => admission.admits(name))).toEqual([false, false, true, true, false]);
});

test('the filter of the largest store takes 50 MB, that of the smallest 4 kB', () => {
  const filled = (demandBytes: number): number => {
    const { admission } = demandPolicy('second-hit', {
      shape: DISK_RUNS,
      assets: assetsToRemember(demandBytes),
      seed: 1,
    });
    return 2 * admission.memoryBytes;
  };
  expect(filled(1e15)).toBeLessThan(51e6);
  expect(filled(6e6)).toBeLessThan(4e3);
});
