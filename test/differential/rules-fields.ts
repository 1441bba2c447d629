// Differences in the fields and bodies of responses with the same status.

import { field, type HttpResponse } from '../../appliance/test/http-client.ts';
import { concernsField, addedByAppliance, rejectedByNode, cacheStatusIncludes, type Rule, type View } from './view.ts';

/** How long the exchange itself may take on a busy machine. */
const DATES_APART_MS = 15_000;

export const FIELD_RULES: readonly Rule[] = [
  {
    request: 'any',
    nginx: 'names itself in `Server`',
    larder: 'forwards it as a reverse proxy and for bypassed responses, otherwise not',
    rfc: '10.2.4',
    right: 'both',
    explains: (view) => concernsField(view, 'server'),
  },
  {
    request: 'any',
    nginx: '',
    larder: 'adds `Via`, `Cache-Status` and `Age`, as caches do',
    rfc: '7.6.3, 9111 5.1, 9211',
    right: 'both',
    explains: (view) =>
      concernsField(view, 'via', 'cache-status', 'age') && (!view.againstNginx || addedByAppliance(view)),
  },
  {
    request: 'any',
    nginx: '',
    larder: 'adds CORS fields, unless it is a reverse proxy',
    rfc: 'Fetch 3.3',
    right: 'both',
    explains: (view) => view.plain && /^(access-control|timing-allow)-/.test(view.aspect) && addedByAppliance(view),
  },
  {
    request: 'any',
    nginx: 'sends its own connection fields',
    larder: 'sends its own; persistence is compared separately',
    rfc: '7.6.1',
    right: 'both',
    explains: (view) => concernsField(view, 'connection', 'keep-alive'),
  },
  {
    request: 'a stored asset',
    nginx: 'sends the current `Date`',
    larder: 'sends the `Date` of the origin’s response; with `Age` it means the same',
    rfc: '9111 4.2.3, 5.1',
    right: 'both',
    explains: (view) => concernsField(view, 'date') && datesAgree(view),
  },
  {
    request: 'a range, or a condition that gets a 304',
    nginx: 'sends `Accept-Ranges` on a 200 only',
    larder: 'sends it on 206 and 304 as well',
    rfc: '14.3, 15.3.7',
    right: 'both',
    explains: (view) => concernsField(view, 'accept-ranges') && [206, 304].includes(view.actualStatus),
  },
  {
    request: 'a request that gets an error',
    nginx: 'sends HTML',
    larder: 'sends a line of text with no-store; errors of the origin are forwarded unchanged',
    rfc: '15.5',
    right: 'both',
    explains: (view) =>
      view.actualStatus >= 400 &&
      (rejectedByNode(view) || cacheStatusIncludes(view.actualResponse, 'larder; detail=')) &&
      (view.aspect === 'body' ||
        concernsField(view, 'allow', 'cache-control', 'content-length', 'content-type', 'date', 'transfer-encoding')),
  },
  {
    request: 'a directory without its final `/`',
    nginx: 'redirects to an absolute URL made from `Host`',
    larder: 'redirects to the path, so that clients do not leave for the origin',
    rfc: '10.2.2',
    right: 'both',
    explains: (view) =>
      concernsField(view, 'location') &&
      (field(view.expectedResponse!, 'location') ?? '').endsWith(field(view.actualResponse!, 'location') ?? '?'),
  },
  {
    request: 'the first request for an asset that may not be stored',
    nginx: '',
    larder: 'sends no `Accept-Ranges`',
    rfc: '14.3',
    right: 'both',
    explains: (view) =>
      concernsField(view, 'accept-ranges') &&
      [view.expectedResponse, view.actualResponse].some((answer) => cacheStatusIncludes(answer, 'fwd=uri-miss')),
  },
  {
    request: '`Cookie`, `Authorization` or `no-store`, so that nothing is stored',
    nginx: '',
    larder: 'forwards the response of the origin until another request has stored the asset',
    rfc: '9111 3.5',
    right: 'both',
    explains: (view) => !view.againstNginx && bypassed(view.expectedResponse) !== bypassed(view.actualResponse),
  },
];

const bypassed = (response: HttpResponse | null): boolean =>
  cacheStatusIncludes(response, 'fwd=bypass') || cacheStatusIncludes(response, 'fwd=request');

/** Date and Age together give the instant of the response. */
function datesAgree({ expectedResponse, actualResponse }: View): boolean {
  const instant = (response: HttpResponse | null): number =>
    Date.parse(field(response!, 'date') ?? '') + Number(field(response!, 'age') ?? 0) * 1000;
  return Math.abs(instant(expectedResponse) - instant(actualResponse)) <= DATES_APART_MS;
}
