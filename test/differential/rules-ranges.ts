// Differences in what a Range asks for.

import { field } from '../../appliance/test/wire.ts';
import { about, covered, turns, type Rule, type View } from './view.ts';

const range = (view: View): string => view.value('range');

export const RANGE_RULES: readonly Rule[] = [
  {
    asked: '`HEAD` with `Range`',
    nginx: '206 or 416',
    larder: '200: a range is defined for GET alone',
    rfc: '14.2',
    right: 'Larder',
    explains: (view) => view.method === 'HEAD' && view.has('range') && turns(view, [206, 416], [200]),
  },
  {
    asked: 'ranges that touch or overlap',
    nginx: 'a part for each, bytes twice',
    larder: 'one part for all that touch, each byte once',
    rfc: '14.2, 15.3.7.2, 17.15',
    right: 'both',
    explains: (view) =>
      view.ofNginx &&
      range(view).includes(',') &&
      (view.facet === 'parts' || about(view, 'content-type', 'content-length', 'content-range')) &&
      [view.from, view.to].every((status) => status === 206) &&
      covered(view.they!) === covered(view.we!),
  },
  {
    asked: 'a list of ranges with empty members',
    nginx: '416',
    larder: 'skips them',
    rfc: '5.6.1.2',
    right: 'Larder',
    explains: (view) => /=[\t ]*,|,[\t ]*,|,[\t ]*$/.test(range(view)) && turns(view, [416], [200, 206]),
  },
  {
    asked: 'a list of ranges with tabs',
    nginx: '416',
    larder: 'white space like any other',
    rfc: '5.6.3',
    right: 'Larder',
    explains: (view) => range(view).includes('\t') && turns(view, [416], [200, 206]),
  },
  {
    asked: 'a position of 2^63 or more',
    nginx: '416',
    larder: 'a position like any other',
    rfc: '14.1.1',
    right: 'Larder',
    explains: (view) => /\d{19}/.test(range(view)) && turns(view, [416], [200, 206]),
  },
  {
    asked: 'blanks inside a range',
    nginx: 'skips them',
    larder: '416: malformed',
    rfc: '14.1.1, 14.2',
    right: 'both',
    explains: (view) => /\d +-|- +\d/.test(range(view)) && turns(view, [200, 206], [416]),
  },
  {
    asked: 'a list with a range that ends before it starts',
    nginx: 'skips that one',
    larder: '416: the list is malformed',
    rfc: '14.1.1, 14.2',
    right: 'both',
    explains: (view) =>
      [...range(view).matchAll(/(\d+) *- *(\d+)/g)].some(([, first, last]) => Number(first) > Number(last)) &&
      turns(view, [200, 206], [416]),
  },
  {
    asked: '`Range` without a unit, or without a set',
    nginx: '200',
    larder: '416: malformed',
    rfc: '14.2',
    right: 'both',
    explains: (view) => !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+=./.test(range(view)) && turns(view, [200], [416]),
  },
  {
    asked: 'more than 32 ranges that lie apart',
    nginx: 'as many parts',
    larder: '416',
    rfc: '14.2, 17.15',
    right: 'both',
    explains: (view) => range(view).split(',').length > 32 && turns(view, [206], [416]),
  },
  {
    asked: '`If-Range` with a date of change that is not of the past',
    nginx: 'the range',
    larder: '200: such a date is a weak validator',
    rfc: '8.8.2.2, 13.1.5',
    right: 'Larder',
    explains: (view) => view.has('if-range') && modifiedMs(view) > Date.now() && turns(view, [206, 416], [200]),
  },
];

const modifiedMs = ({ we }: View): number => Date.parse((we !== null && field(we, 'last-modified')) || '');
