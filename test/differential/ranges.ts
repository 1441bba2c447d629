// Values of Range around the boundaries of an asset, of its blocks, and of the grammar (RFC 9110 14.1.1).

import type { SeededRandom } from './random.ts';

const BLOCK = 2 ** 20;
const JUNK = ['-', ',', '=', ' ', '\t', '0', '7', 'x', ';', '"', '+', '.', '\xa0', '\xb2', '%'];

export function rangeValue(random: SeededRandom, length: number): string {
  return random.weighted<() => string>([
    [40, () => `bytes=${spec(random, length)}`],
    [22, () => `bytes=${list(random, length, 2 + random.below(4))}`],
    [2, () => `bytes=${scattered(random, length)}`],
    [3, () => `bytes=${overlapping(random)}`],
    [10, () => malformed(random, length)],
    [8, () => mutated(random, `bytes=${list(random, length, 1 + random.below(2))}`)],
    [
      3,
      () =>
        `${random.pick(['Bytes', 'BYTES', 'bytes', 'byte', 'seconds', 'x-bytes', 'none', ''])}=${spec(random, length)}`,
    ],
  ])();
}

function spec(random: SeededRandom, length: number): string {
  return random.weighted<() => string>([
    [50, () => pair(random, length)],
    [20, () => `${position(random, length)}-`],
    [20, () => `-${position(random, length)}`],
    [3, () => `${position(random, length)}-${huge(random)}`],
    [1, () => `${huge(random)}-`],
    [1, () => `-${huge(random)}`],
    [2, () => `000${position(random, length)}-0${length}`],
  ])();
}

function pair(random: SeededRandom, length: number): string {
  const ends = [position(random, length), position(random, length)].toSorted((a, b) => a - b);
  if (random.percent(6)) ends.reverse();
  return ends.join('-');
}

/** A position at a boundary of the asset or of a block, or anywhere. */
function position(random: SeededRandom, length: number): number {
  const inside = random.below(length + 1);
  const special = [
    0,
    1,
    length - 1,
    length,
    length + 1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    inside,
    random.below(20),
  ];
  return Math.max(0, random.percent(60) ? random.pick(special) : inside);
}

const huge = (random: SeededRandom): string =>
  random.pick([
    '4294967296',
    '9007199254740993',
    '9223372036854775807',
    '9223372036854775808',
    '99999999999999999999999',
  ]);

const list = (random: SeededRandom, length: number, count: number): string =>
  random.times(count, () => spec(random, length)).join(random.pick([',', ', ', ',', ' , ', ',\t', ',,']));

/** Ranges of one byte that lie apart, around the maximum of 32. */
function scattered(random: SeededRandom, length: number): string {
  const count = random.pick([31, 32, 33, 60]);
  const step = Math.max(2, Math.floor(length / (count + 1)));
  return Array.from({ length: count }, (_, at) => `${at * step}-${at * step}`).join(',');
}

function overlapping(random: SeededRandom): string {
  const from = random.below(30);
  const step = random.pick([0, 1, 5, 10]);
  return Array.from({ length: 2 + random.below(6) }, (_, at) => `${from + at * step}-${from + at * step + 9}`).join(
    ',',
  );
}

function malformed(random: SeededRandom, length: number): string {
  return random.pick([
    ...['bytes=', 'bytes=-', 'bytes=,', 'bytes', '', '=', '=0-1', 'bytes 0-1', 'bytes=0', 'bytes=a-b', 'bytes=--1'],
    ...['bytes=1-2-3', 'bytes=+1-2', 'bytes=0x1-2', 'bytes=1.5-2', 'bytes=1-2;3-4', 'bytes=1-2 3-4', 'bytes=1 - 2'],
    ...['bytes=1- 2', 'bytes =1-2', 'bytes= 1-2', 'bytes=1-2 ', 'bytes=\t1-2', 'bytes=1-2\t,\t4-5', 'bytes=,,1-2,,'],
    ...['bytes=1-2,', 'bytes=,1-2', 'bytes=-0', 'bytes=-0,0-0', 'bytes=5-2', 'bytes=5-2,0-0', 'bytes=0-0,5-2'],
    ...['bytes=0-0,x', 'bytes=1-2, bytes=3-4', '"bytes=0-1"', 'bytes=1-2\xa0', 'bytes=\xa01-2', 'bytes==0-1'],
    ...[`bytes=${length}-,0-0`, `bytes=0-0,${length}-`, `bytes=${length}-,${length + 1}-`, 'bytes=0-0,0-,0-'],
  ]);
}

function mutated(random: SeededRandom, value: string): string {
  const at = 5 + random.below(value.length - 4);
  const cut = random.below(2);
  return value.slice(0, at) + (random.percent(75) ? random.pick(JUNK) : '') + value.slice(at + cut);
}
