// Differences in how conditions are evaluated (RFC 9110 13).

import { FOUND, statusChanges, type Rule, type View } from './view.ts';

export const CONDITION_RULES: readonly Rule[] = [
  {
    request: '`If-None-Match` and `If-Modified-Since`',
    nginx: '304 only if both match',
    larder: 'If-None-Match decides alone',
    rfc: '13.2.2',
    right: 'Larder',
    explains: (view) =>
      view.has('if-none-match') && view.has('if-modified-since') && statusChanges(view, [200, 206, 416], [304]),
  },
  {
    request: '`If-Match` and `If-Unmodified-Since`',
    nginx: '412 if either fails',
    larder: 'If-Match decides alone',
    rfc: '13.2.2',
    right: 'Larder',
    explains: (view) => view.has('if-match') && view.has('if-unmodified-since') && statusChanges(view, [412], SERVED),
  },
  {
    request: '`If-Unmodified-Since` that is not a date',
    nginx: '412',
    larder: 'ignores it',
    rfc: '13.1.4',
    right: 'Larder',
    explains: (view) => malformedDate(view, 'if-unmodified-since') && statusChanges(view, [412], SERVED),
  },
  {
    request: '`If-Modified-Since` with a malformed date',
    nginx: 'parses what it can, and sends 304',
    larder: 'ignores it',
    rfc: '13.1.3',
    right: 'Larder',
    explains: (view) => malformedDate(view, 'if-modified-since') && statusChanges(view, [304], [200, 206, 416]),
  },
  {
    request: '`If-Range` with a malformed date',
    nginx: 'parses what it can, and sends the range',
    larder: '200: no match',
    rfc: '13.1.5',
    right: 'Larder',
    explains: (view) => malformedDate(view, 'if-range') && statusChanges(view, [206, 416], [200]),
  },
  {
    request: 'a list of entity tags with a malformed member',
    nginx: 'skips to the next comma, even inside quotes',
    larder: 'no tag of the list matches',
    rfc: '13.1.1, 13.1.2',
    right: 'both',
    explains: (view) =>
      ['if-match', 'if-none-match'].some((name) => view.all(name).some(malformedList)) &&
      statusChanges(view, FOUND, FOUND),
  },
];

const SERVED = FOUND.filter((status) => status !== 412);

const TAG = /^(?:W\/)?"[!#-~\x80-\xff]*"$/;
const malformedDate = (view: View, name: string): boolean =>
  view.all(name).some((value) => !TAG.test(value) && !isHttpDate(value));

/** The date, formatted in one of the three forms of 5.6.7, equals the text; the weekday is not compared. */
function isHttpDate(text: string): boolean {
  const ms = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  if (Number.isNaN(ms)) return false;
  const imf = new Date(ms).toUTCString();
  const [, day, month, year, time] = imf.replace(',', '').split(' ') as [string, string, string, string, string];
  const forms = [
    imf.slice(3),
    `day, ${day}-${month}-${year.slice(2)} ${time} GMT`,
    ` ${month} ${day} ${time} ${year}`,
    ` ${month} ${day.replace(/^0/, ' ')} ${time} ${year}`,
  ];
  const rest = text.replace(/^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:(?:s|nes|rs|ur)?(?=day))?/, '');
  return rest !== text && forms.includes(rest);
}

const malformedList = (value: string): boolean =>
  value !== '*' && !/^(?:[\t ,]*(?:W\/)?"[!#-~\x80-\xff]*"[\t ]*(?=,|$))+[\t ,]*$/.test(value);
