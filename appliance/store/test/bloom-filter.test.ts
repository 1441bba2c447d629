// What the rotating Bloom filter remembers, for how long and with how many false positives; and second-hit admission on it.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { SecondHit } from '../admission.ts';
import { assetsToRemember, demandPolicy } from '../demand-policy.ts';
import { DISK_RUN_GEOMETRY } from '../eviction-policy.ts';
import { FALSE_POSITIVES_MAX, hashKey, hashPart, RotatingBloomFilter } from '../bloom-filter.ts';

const KEYS = 20_000;
const filterOf = (seed: number): RotatingBloomFilter => new RotatingBloomFilter({ generationKeys: () => KEYS, seed });

test('a key is remembered for one generation of other keys and forgotten after two', () => {
  const filter = filterOf(1);
  const hashes = Array.from({ length: 4 * KEYS }, (_, at) => hashKey(`/title/${at}.m4s`));
  for (const [at, hash] of hashes.entries()) {
    filter.add(hash);
    if (at >= KEYS && !filter.has(hashes[at - KEYS + 1]!)) throw new Error(`forgot key ${at - KEYS + 1} at ${at}`);
  }
  const falsePositives = hashes.slice(0, 2 * KEYS).filter((hash) => filter.has(hash)).length;
  expect(falsePositives).toBeLessThanOrEqual(2 * KEYS * FALSE_POSITIVES_MAX);
});

test('keys that repeat do not use up a generation', () => {
  const filter = filterOf(2);
  filter.add(hashKey('/rare'));
  for (let at = 0; at < 10 * KEYS; at += 1) filter.add(hashKey(`/hot/${at % 10}`));
  expect(filter.has(hashKey('/rare'))).toBe(true);
});

test('with both generations full, at most 1 % of unknown keys are false positives', () => {
  for (const seed of [1, 2 ** 31, 2 ** 32 - 1]) {
    const filter = filterOf(seed);
    for (let at = 0; at < 2 * KEYS; at += 1) filter.add(hashKey(`/title/${at}/segment-${at % 100}.m4s`));
    let falsePositives = 0;
    for (let at = 0; at < 50_000; at += 1)
      if (filter.has(hashKey(`/other/${at}/segment-${at % 100}.m4s`))) falsePositives += 1;
    expect(falsePositives / 50_000).toBeLessThanOrEqual(FALSE_POSITIVES_MAX);
    // A filter that contains nothing would pass the line above.
    expect(falsePositives).toBeGreaterThan(0);
  }
});

test('property: keys that differ have hashes that differ, as do their parts', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.nat(10_000), fc.nat(10_000), (a, b, one, other) => {
      expect(Number.isSafeInteger(hashPart(hashKey(a), one))).toBe(true);
      expect(hashKey(a) === hashKey(b)).toBe(a === b);
      expect(hashPart(hashKey(a), one) === hashPart(hashKey(a), other)).toBe(one === other);
    }),
    { numRuns: 5_000 },
  );
});

test('second-hit admits an asset from its second request on', () => {
  const admission = new SecondHit({ assets: 1_000, seed: 3 });
  expect([1, 2, 1, 1, 3].map((hash) => admission.admits(hash))).toEqual([false, false, true, true, false]);
});

test('the filter takes at most 51 MB for the largest store and 4 kB for the smallest', () => {
  const filledBytes = (demandBytes: number): number => {
    const { admission } = demandPolicy('second-hit', {
      geometry: DISK_RUN_GEOMETRY,
      assets: assetsToRemember(demandBytes),
      seed: 1,
    });
    return 2 * admission.memoryBytes;
  };
  expect(filledBytes(1e15)).toBeLessThan(51e6);
  expect(filledBytes(6e6)).toBeLessThan(4e3);
});
