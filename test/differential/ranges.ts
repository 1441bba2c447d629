// Values of Range around the ends of an asset and of its blocks, and around the ends of the grammar (RFC 9110 14.1.1).

import type { Chance } from './random.ts';

const BLOCK = 2 ** 20;
const JUNK = ['-', ',', '=', ' ', '\t', '0', '7', 'x', ';', '"', '+', '.', '\xa0', '\xb2', '%'];

export function rangeValue(chance: Chance, length: number): string {
  return chance.weighted<() => string>([
    [40, () => `bytes=${spec(chance, length)}`],
    [22, () => `bytes=${list(chance, length, 2 + chance.below(4))}`],
    [2, () => `bytes=${tiny(chance, length)}`],
    [3, () => `bytes=${overlapping(chance)}`],
    [10, () => odd(chance, length)],
    [8, () => bent(chance, `bytes=${list(chance, length, 1 + chance.below(2))}`)],
    [
      3,
      () =>
        `${chance.of(['Bytes', 'BYTES', 'bytes', 'byte', 'seconds', 'x-bytes', 'none', ''])}=${spec(chance, length)}`,
    ],
  ])();
}

function spec(chance: Chance, length: number): string {
  return chance.weighted<() => string>([
    [50, () => pair(chance, length)],
    [20, () => `${position(chance, length)}-`],
    [20, () => `-${position(chance, length)}`],
    [3, () => `${position(chance, length)}-${huge(chance)}`],
    [1, () => `${huge(chance)}-`],
    [1, () => `-${huge(chance)}`],
    [2, () => `000${position(chance, length)}-0${length}`],
  ])();
}

function pair(chance: Chance, length: number): string {
  const ends = [position(chance, length), position(chance, length)].toSorted((a, b) => a - b);
  if (chance.percent(6)) ends.reverse();
  return ends.join('-');
}

/** Where things change: at the ends of the asset, at the ends of blocks, and anywhere. */
function position(chance: Chance, length: number): number {
  const inside = chance.below(length + 1);
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
    chance.below(20),
  ];
  return Math.max(0, chance.percent(60) ? chance.of(special) : inside);
}

const huge = (chance: Chance): string =>
  chance.of([
    '4294967296',
    '9007199254740993',
    '9223372036854775807',
    '9223372036854775808',
    '99999999999999999999999',
  ]);

const list = (chance: Chance, length: number, count: number): string =>
  chance.some(count, () => spec(chance, length)).join(chance.of([',', ', ', ',', ' , ', ',\t', ',,']));

/** Many that lie apart: more than most servers like. */
function tiny(chance: Chance, length: number): string {
  const count = chance.of([31, 32, 33, 60]);
  const step = Math.max(2, Math.floor(length / (count + 1)));
  return Array.from({ length: count }, (_, at) => `${at * step}-${at * step}`).join(',');
}

function overlapping(chance: Chance): string {
  const from = chance.below(30);
  const step = chance.of([0, 1, 5, 10]);
  return Array.from({ length: 2 + chance.below(6) }, (_, at) => `${from + at * step}-${from + at * step + 9}`).join(
    ',',
  );
}

function odd(chance: Chance, length: number): string {
  return chance.of([
    ...['bytes=', 'bytes=-', 'bytes=,', 'bytes', '', '=', '=0-1', 'bytes 0-1', 'bytes=0', 'bytes=a-b', 'bytes=--1'],
    ...['bytes=1-2-3', 'bytes=+1-2', 'bytes=0x1-2', 'bytes=1.5-2', 'bytes=1-2;3-4', 'bytes=1-2 3-4', 'bytes=1 - 2'],
    ...['bytes=1- 2', 'bytes =1-2', 'bytes= 1-2', 'bytes=1-2 ', 'bytes=\t1-2', 'bytes=1-2\t,\t4-5', 'bytes=,,1-2,,'],
    ...['bytes=1-2,', 'bytes=,1-2', 'bytes=-0', 'bytes=-0,0-0', 'bytes=5-2', 'bytes=5-2,0-0', 'bytes=0-0,5-2'],
    ...['bytes=0-0,x', 'bytes=1-2, bytes=3-4', '"bytes=0-1"', 'bytes=1-2\xa0', 'bytes=\xa01-2', 'bytes==0-1'],
    ...[`bytes=${length}-,0-0`, `bytes=0-0,${length}-`, `bytes=${length}-,${length + 1}-`, 'bytes=0-0,0-,0-'],
  ]);
}

function bent(chance: Chance, value: string): string {
  const at = 5 + chance.below(value.length - 4);
  const cut = chance.below(2);
  return value.slice(0, at) + (chance.percent(75) ? chance.of(JUNK) : '') + value.slice(at + cut);
}
