// Differences in how conditions are read (RFC 9110 13).

import { THERE, turns, type Rule, type View } from './view.ts';

export const CONDITION_RULES: readonly Rule[] = [
  {
    asked: '`If-None-Match` and `If-Modified-Since`',
    nginx: '304 only where both hold',
    larder: 'If-None-Match decides alone',
    rfc: '13.2.2',
    right: 'Larder',
    explains: (view) =>
      view.has('if-none-match') && view.has('if-modified-since') && turns(view, [200, 206, 416], [304]),
  },
  {
    asked: '`If-Match` and `If-Unmodified-Since`',
    nginx: '412 where either fails',
    larder: 'If-Match decides alone',
    rfc: '13.2.2',
    right: 'Larder',
    explains: (view) => view.has('if-match') && view.has('if-unmodified-since') && turns(view, [412], SERVED),
  },
  {
    asked: '`If-Unmodified-Since` that is no date',
    nginx: '412',
    larder: 'as if it were not there',
    rfc: '13.1.4',
    right: 'Larder',
    explains: (view) => oddDate(view, 'if-unmodified-since') && turns(view, [412], SERVED),
  },
  {
    asked: '`If-Modified-Since` that is nearly a date',
    nginx: 'reads what it can, and says 304',
    larder: 'as if it were not there',
    rfc: '13.1.3',
    right: 'Larder',
    explains: (view) => oddDate(view, 'if-modified-since') && turns(view, [304], [200, 206, 416]),
  },
  {
    asked: '`If-Range` that is nearly a date',
    nginx: 'reads what it can, and sends the range',
    larder: '200: no match',
    rfc: '13.1.5',
    right: 'Larder',
    explains: (view) => oddDate(view, 'if-range') && turns(view, [206, 416], [200]),
  },
  {
    asked: 'a list of tags with a member that is none',
    nginx: 'skips to the next comma, inside quotes too',
    larder: 'nothing in it matches',
    rfc: '13.1.1, 13.1.2',
    right: 'both',
    explains: (view) =>
      ['if-match', 'if-none-match'].some((name) => view.all(name).some(oddList)) && turns(view, THERE, THERE),
  },
];

const SERVED = THERE.filter((status) => status !== 412);

const TAG = /^(?:W\/)?"[!#-~\x80-\xff]*"$/;
const oddDate = (view: View, name: string): boolean =>
  view.all(name).some((value) => !TAG.test(value) && !isHttpDate(value));

/** 5.6.7: the instant that it seems to name, written in the three forms, is one of them; the weekday is not looked at. */
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

const oddList = (value: string): boolean =>
  value !== '*' && !/^(?:[\t ,]*(?:W\/)?"[!#-~\x80-\xff]*"[\t ]*(?=,|$))+[\t ,]*$/.test(value);
