// Differences in what answers of the same status say of themselves.

import { field, type Answer } from '../../appliance/test/wire.ts';
import { about, added, byNode, says, type Rule, type View } from './view.ts';

/** What the exchange itself may take on a busy machine. */
const DATES_APART_MS = 15_000;

export const FIELD_RULES: readonly Rule[] = [
  {
    asked: 'anything',
    nginx: 'names itself in `Server`',
    larder: 'repeats that as a reverse proxy and of what passes, else not: it is the listener’s own',
    rfc: '10.2.4',
    right: 'both',
    explains: (view) => about(view, 'server'),
  },
  {
    asked: 'anything',
    nginx: '',
    larder: 'adds `Via`, `Cache-Status` and `Age`, as a cache does',
    rfc: '7.6.3, 9111 5.1, 9211',
    right: 'both',
    explains: (view) => about(view, 'via', 'cache-status', 'age') && (!view.ofNginx || added(view)),
  },
  {
    asked: 'anything',
    nginx: '',
    larder: 'adds CORS fields, unless it is a reverse proxy',
    rfc: 'Fetch 3.3',
    right: 'both',
    explains: (view) => view.plain && /^(access-control|timing-allow)-/.test(view.facet) && added(view),
  },
  {
    asked: 'anything',
    nginx: 'tells of the connection in its way',
    larder: 'in its own; whether it goes on is compared apart',
    rfc: '7.6.1',
    right: 'both',
    explains: (view) => about(view, 'connection', 'keep-alive'),
  },
  {
    asked: 'what is stored',
    nginx: 'gives the `Date` of now',
    larder: 'that of the origin’s answer; with `Age` it comes to the same',
    rfc: '9111 4.2.3, 5.1',
    right: 'both',
    explains: (view) => about(view, 'date') && datesAgree(view),
  },
  {
    asked: 'a range, or with a condition that holds back the body',
    nginx: 'leaves `Accept-Ranges` to the 200',
    larder: 'has it on 206 and 304 too',
    rfc: '14.3, 15.3.7',
    right: 'both',
    explains: (view) => about(view, 'accept-ranges') && [206, 304].includes(view.to),
  },
  {
    asked: 'what cannot be had',
    nginx: 'says so in HTML',
    larder: 'in a line of text that nobody is to keep; what the origin says, as it says it',
    rfc: '15.5',
    right: 'both',
    explains: (view) =>
      view.to >= 400 &&
      (byNode(view) || says(view.we, 'larder; detail=')) &&
      (view.facet === 'body' ||
        about(view, 'allow', 'cache-control', 'content-length', 'content-type', 'date', 'transfer-encoding')),
  },
  {
    asked: 'a folder without its last `/`',
    nginx: 'redirects to itself, by `Host`',
    larder: 'to the path, so that nobody leaves it for the origin',
    rfc: '10.2.2',
    right: 'both',
    explains: (view) =>
      about(view, 'location') && (field(view.they!, 'location') ?? '').endsWith(field(view.we!, 'location') ?? '?'),
  },
  {
    asked: 'for the first time, what may not be kept',
    nginx: '',
    larder: 'leaves out `Accept-Ranges`',
    rfc: '14.3',
    right: 'both',
    explains: (view) =>
      about(view, 'accept-ranges') && [view.they, view.we].some((answer) => says(answer, 'fwd=uri-miss')),
  },
  {
    asked: 'with `Cookie`, `Authorization` or `no-store`, so that nothing is kept',
    nginx: '',
    larder: 'the origin’s own answer; its own once another request has it kept',
    rfc: '9111 3.5',
    right: 'both',
    explains: (view) => !view.ofNginx && passed(view.they) !== passed(view.we),
  },
];

const passed = (answer: Answer | null): boolean => says(answer, 'fwd=bypass') || says(answer, 'fwd=request');

/** Date and Age together name an instant. */
function datesAgree({ they, we }: View): boolean {
  const instant = (answer: Answer | null): number =>
    Date.parse(field(answer!, 'date') ?? '') + Number(field(answer!, 'age') ?? 0) * 1000;
  return Math.abs(instant(they) - instant(we)) <= DATES_APART_MS;
}
