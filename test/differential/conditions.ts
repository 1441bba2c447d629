// Values of the conditional fields (RFC 9110 13): tags and dates that match, that nearly match, and that are malformed.

import type { Asset } from './assets.ts';
import type { SeededRandom } from './random.ts';

export function conditionLines(random: SeededRandom, asset: Asset): string[] {
  const lines: string[] = [];
  const share = random.pick([30, 50]);
  if (random.percent(share)) lines.push(`If-None-Match: ${tags(random, asset)}`);
  if (random.percent(share)) lines.push(`If-Modified-Since: ${date(random, asset.modifiedMs)}`);
  if (random.percent(share / 2)) lines.push(`If-Match: ${tags(random, asset)}`);
  if (random.percent(share / 2)) lines.push(`If-Unmodified-Since: ${date(random, asset.modifiedMs)}`);
  return lines;
}

export function ifRangeValue(random: SeededRandom, asset: Asset): string {
  const tag = asset.etag ?? '"none"';
  return random.weighted<() => string>([
    [35, () => tag],
    [5, () => `W/${tag}`],
    [5, () => '"other"'],
    [3, () => tag.slice(1, -1)],
    [3, () => `${tag}, "x"`],
    [3, () => random.pick(['*', '""', '', '"', 'W/', `x${tag}`, `${tag}x`])],
    [35, () => date(random, asset.modifiedMs)],
  ])();
}

function tags(random: SeededRandom, asset: Asset): string {
  const tag = asset.etag ?? '"none"';
  return random.weighted<() => string>([
    [30, () => tag],
    [8, () => `W/${tag}`],
    [12, () => '"other"'],
    [8, () => '*'],
    [12, () => several(random, tag)],
    [4, () => tag.slice(1, -1)],
    [6, () => random.pick(['"*"', '*, "x"', '"x", *', '* ', '""', ',', '', '"', 'W/""'])],
    [8, () => random.pick([`x${tag}`, `${tag}x`, `"a"${tag}`, `${tag}"a"`, `${tag} x`, `"a,${tag}`, `"a, ${tag}, b"`])],
    [
      4,
      () => random.pick([`w/${tag}`, `W/ ${tag}`, `W/W/${tag}`, `,, ${tag} ,`, `\t${tag}\t`, `"a" ${tag}`, `'${tag}'`]),
    ],
  ])();
}

const several = (random: SeededRandom, tag: string): string =>
  random
    .shuffled(['"a"', 'W/"b"', '"c,d"', tag].slice(random.below(3)))
    .join(random.pick([',', ', ', ' , ', ',,', '\t,']));

function date(random: SeededRandom, modifiedMs: number): string {
  const ms =
    modifiedMs +
    1000 *
      random.weighted([
        [50, 0],
        [10, 1],
        [10, -1],
        [5, 86_400],
        [5, -86_400],
        [3, 40 * 365 * 86_400],
      ]);
  const imf = new Date(ms).toUTCString();
  const [dayName, day, month, year, time] = imf.replace(',', '').split(' ') as [string, string, string, string, string];
  const long = `${DAYS[new Date(ms).getUTCDay()]}day`;
  return random.weighted<() => string>([
    [60, () => imf],
    [8, () => `${long}, ${day}-${month}-${year.slice(2)} ${time} GMT`],
    [8, () => `${dayName} ${month} ${day.replace(/^0/, ' ')} ${time} ${year}`],
    [3, () => imf.replace('GMT', random.pick(['UTC', '+0000', 'gmt', 'CET', 'EST', '', 'Z', '+0200', '(x)']))],
    [2, () => imf.replace(/^.../, random.pick(['Xyz', 'Mon', 'mon', 'Mo']))],
    [2, () => imf.replace(/^....../, '')],
    [2, () => imf.replace(/, 0?/, ', ')],
    [2, () => imf.replace(',', '')],
    [2, () => imf.replaceAll(' ', '  ')],
    [2, () => imf.replace(month, random.pick([month.toUpperCase(), month.toLowerCase(), 'Foo', '02', 'February']))],
    [2, () => imf.replace(time, random.pick(['24:00:00', '12:60:00', '23:59:60', '12:34', '1:2:3', '12.34.56']))],
    [
      3,
      () =>
        random.pick([
          'Thu, 01 Jan 1970 00:00:00 GMT',
          'Wed, 31 Dec 1969 23:59:59 GMT',
          'Mon, 01 Jan 0001 00:00:00 GMT',
        ]),
    ],
    [
      3,
      () =>
        random.pick([
          'Tue, 19 Jan 2038 03:14:08 GMT',
          'Fri, 31 Dec 9999 23:59:59 GMT',
          'Tue, 30 Feb 2024 12:34:56 GMT',
        ]),
    ],
    [
      4,
      () =>
        random.pick([
          '0',
          '-1',
          'x',
          '',
          'yesterday',
          '2024-02-29T12:34:56Z',
          String(ms / 1000),
          '2024',
          'Thu, 29 Feb',
        ]),
    ],
  ])();
}

const DAYS = ['Sun', 'Mon', 'Tues', 'Wednes', 'Thurs', 'Fri', 'Satur'];
