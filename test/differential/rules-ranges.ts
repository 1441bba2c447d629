// Differences in how Range is evaluated (RFC 9110 14).

import { field } from '../../appliance/test/http-client.ts';
import { systemClock } from '../../runtime/clock.ts';
import { concernsField, coveredRanges, statusChanges, type Rule, type View } from './view.ts';

const rangeOf = (view: View): string => view.value('range');

export const RANGE_RULES: readonly Rule[] = [
  {
    request: '`HEAD` with `Range`',
    nginx: '206 or 416',
    larder: '200: Range is defined for GET only',
    rfc: '14.2',
    right: 'Larder',
    explains: (view) => view.method === 'HEAD' && view.has('range') && statusChanges(view, [206, 416], [200]),
  },
  {
    request: 'ranges that touch or overlap',
    nginx: 'one part per range, overlapping bytes twice',
    larder: 'one part for ranges that touch, each byte once',
    rfc: '14.2, 15.3.7.2, 17.15',
    right: 'both',
    explains: (view) =>
      view.againstNginx &&
      rangeOf(view).includes(',') &&
      (view.aspect === 'parts' || concernsField(view, 'content-type', 'content-length', 'content-range')) &&
      [view.expectedStatus, view.actualStatus].every((status) => status === 206) &&
      coveredRanges(view.expectedResponse!) === coveredRanges(view.actualResponse!),
  },
  {
    request: 'a list of ranges with empty members',
    nginx: '416',
    larder: 'ignores them',
    rfc: '5.6.1.2',
    right: 'Larder',
    explains: (view) => /=[\t ]*,|,[\t ]*,|,[\t ]*$/.test(rangeOf(view)) && statusChanges(view, [416], [200, 206]),
  },
  {
    request: 'a list of ranges with tabs',
    nginx: '416',
    larder: 'tabs are white space',
    rfc: '5.6.3',
    right: 'Larder',
    explains: (view) => rangeOf(view).includes('\t') && statusChanges(view, [416], [200, 206]),
  },
  {
    request: 'a position of 2^63 or more',
    nginx: '416',
    larder: 'clamps it to the length',
    rfc: '14.1.1',
    right: 'Larder',
    explains: (view) => /\d{19}/.test(rangeOf(view)) && statusChanges(view, [416], [200, 206]),
  },
  {
    request: 'spaces inside a range',
    nginx: 'ignores them',
    larder: '416: malformed',
    rfc: '14.1.1, 14.2',
    right: 'both',
    explains: (view) => /\d +-|- +\d/.test(rangeOf(view)) && statusChanges(view, [200, 206], [416]),
  },
  {
    request: 'a list with a range whose last position precedes its first',
    nginx: 'ignores that range',
    larder: '416: the list is malformed',
    rfc: '14.1.1, 14.2',
    right: 'both',
    explains: (view) =>
      [...rangeOf(view).matchAll(/(\d+) *- *(\d+)/g)].some(([, first, last]) => Number(first) > Number(last)) &&
      statusChanges(view, [200, 206], [416]),
  },
  {
    request: '`Range` without a unit or without a range set',
    nginx: '200',
    larder: '416: malformed',
    rfc: '14.2',
    right: 'both',
    explains: (view) => !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+=./.test(rangeOf(view)) && statusChanges(view, [200], [416]),
  },
  {
    request: 'more than 32 separate ranges',
    nginx: 'a part for each',
    larder: '416',
    rfc: '14.2, 17.15',
    right: 'both',
    explains: (view) => rangeOf(view).split(',').length > 32 && statusChanges(view, [206], [416]),
  },
  {
    request: '`If-Range` with a Last-Modified that is not in the past',
    nginx: 'sends the range',
    larder: '200: such a date is a weak validator',
    rfc: '8.8.2.2, 13.1.5',
    right: 'Larder',
    explains: (view) =>
      view.has('if-range') && modifiedMs(view) > systemClock.now() && statusChanges(view, [206, 416], [200]),
  },
];

const modifiedMs = ({ actualResponse }: View): number =>
  Date.parse((actualResponse !== null && field(actualResponse, 'last-modified')) || '');
