// Differences in which messages are accepted: targets, methods, versions, fields, framing.

import { concernsField, rejectedByNode, PARSED, statusChanges, type Rule, type View } from './view.ts';

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+:/;
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=-]+)(?::\d*)?$/;
const METHODS = 'GET HEAD OPTIONS POST PUT PATCH DELETE TRACE CONNECT PROPFIND PURGE'.split(' ');
const LINE_BYTES_MAX = 8_000;

const localTarget = ({ target }: View): string => target.replace(/^https?:\/\/[^/?#]*/i, '');
const path = (view: View): string =>
  localTarget(view).split(/[?#]/)[0]!.replaceAll(/%2e/gi, '.').replaceAll(/%2f/gi, '/');
const refused = (view: View): boolean => statusChanges(view, PARSED, [400]);

export const TARGET_RULES: readonly Rule[] = [
  {
    request: 'a path with `.` or `..`, escaped or not',
    nginx: 'resolves it',
    larder: '400: two parsers might resolve it differently',
    rfc: '3986 5.2.4, 9110 17.3',
    right: 'both',
    explains: (view) => /(?:^|\/)\.{1,2}(?:\/|$)/.test(path(view)) && refused(view),
  },
  {
    request: 'a target with `#`',
    nginx: 'ignores what follows',
    larder: '400: a target has no fragment',
    rfc: '7.1, 9112 3.2',
    right: 'Larder',
    explains: (view) => localTarget(view).includes('#') && refused(view),
  },
  {
    request: 'a target with a backslash, a control character or bytes beyond ASCII, escaped or not',
    nginx: 'mostly accepts it as part of the name',
    larder: '400',
    rfc: '3986 2, 9112 3.2',
    right: 'Larder',
    explains: (view) => /[^!-~]|\\|%5c|%[01].|%7f/i.test(localTarget(view)) && refused(view),
  },
  {
    request: 'a scheme other than http and https',
    nginx: 'ignores it',
    larder: '400',
    rfc: '4.2, 7.4',
    right: 'both',
    explains: (view) => /^(?!https?:)[a-z]+:/i.test(view.target) && refused(view),
  },
  {
    request: 'an absolute target with a percent-encoded host',
    nginx: '400',
    larder: 'accepts it',
    rfc: '3986 3.2.2',
    right: 'Larder',
    explains: (view) => /^https?:\/\/[^/?#]*%/i.test(view.target) && statusChanges(view, [400], PARSED),
  },
  {
    request: 'a malformed `Host`',
    nginx: '400',
    larder: 'ignores it',
    rfc: '9112 3.2',
    right: 'nginx',
    explains: (view) => view.all('host').some((value) => !HOST.test(value)) && statusChanges(view, [400], PARSED),
  },
];

export const MESSAGE_RULES: readonly Rule[] = [
  {
    request: '`OPTIONS`',
    nginx: '405',
    larder: '204 with the allowed methods, unless it is a reverse proxy',
    rfc: '9.3.7',
    right: 'Larder',
    explains: (view) => view.method === 'OPTIONS' && view.plain && statusChanges(view, [...PARSED, 400, 501], [204]),
  },
  {
    request: 'an unsafe method',
    nginx: 'checks the path first',
    larder: '405, unless it is a reverse proxy',
    rfc: '15.5.6',
    right: 'both',
    explains: (view) =>
      !['GET', 'HEAD', 'OPTIONS'].includes(view.method) && view.plain && statusChanges(view, [301, 403, 404], [405]),
  },
  {
    request: 'an unknown method',
    nginx: '405',
    larder: '400 by the parser of Node',
    rfc: '9.1, 15.6.2',
    right: 'neither',
    explains: (view) => !METHODS.includes(view.method) && statusChanges(view, [405], [400]),
  },
  {
    request: '`CONNECT` or `TRACE` in a request that is also malformed',
    nginx: '400',
    larder: '405',
    rfc: '9.3.6, 9.3.8',
    right: 'both',
    explains: (view) => ['CONNECT', 'TRACE'].includes(view.method) && statusChanges(view, [400, 414, 501, 505], [405]),
  },
  {
    request: 'HTTP/1.2 to 1.9',
    nginx: 'treats it as 1.1',
    larder: '400 by the parser of Node',
    rfc: '2.5',
    right: 'nginx',
    explains: (view) => /^HTTP\/1\.[2-9]$/.test(view.request.version) && refused(view),
  },
  {
    request: 'HTTP/2.0 or later',
    nginx: '505',
    larder: '400',
    rfc: '15.6.6',
    right: 'nginx',
    explains: (view) => /^HTTP\/[2-9]/.test(view.request.version) && statusChanges(view, [505], [400]),
  },
  {
    request: 'a malformed version',
    nginx: 'parses what it can',
    larder: '400',
    rfc: '9112 2.3',
    right: 'Larder',
    explains: (view) => !/^HTTP\/\d\.\d$/.test(view.request.version) && refused(view),
  },
  {
    request: 'lines that end with LF only',
    nginx: 'accepts them',
    larder: '400 by the parser of Node',
    rfc: '9112 2.2',
    right: 'both',
    explains: (view) => view.request.eol === '\n' && refused(view),
  },
  {
    request: 'a malformed field name',
    nginx: 'ignores the line',
    larder: '400 by the parser of Node',
    rfc: '5.1, 9112 5.1',
    right: 'both',
    explains: (view) => view.request.lines.some((line) => !NAME.test(line)) && refused(view),
  },
  {
    request: 'a field value with a control character',
    nginx: 'accepts it',
    larder: '400 by the parser of Node',
    rfc: '5.5',
    right: 'both',
    explains: (view) => /[\x01-\x08\x0b-\x1f\x7f]/.test(view.request.lines.join('')) && refused(view),
  },
  {
    request: 'a field value between tabs',
    nginx: 'the tabs are part of the value',
    larder: 'tabs are white space',
    rfc: '5.5, 5.6.3',
    right: 'Larder',
    explains: (view) =>
      view.request.lines.some((line) => /: *\t|\t *$/.test(line)) &&
      statusChanges(view, [...PARSED, 400, 501], [...PARSED, 400]),
  },
  {
    request: '`Range` or `If-Range` twice',
    nginx: 'uses one of them',
    larder: '400',
    rfc: '5.3',
    right: 'both',
    explains: (view) => ['range', 'if-range'].some((name) => view.all(name).length > 1) && refused(view),
  },
  {
    request: 'a condition, `Expect` or `Authorization` twice',
    nginx: '400',
    larder: 'joins lists, and uses one of other fields',
    rfc: '5.3',
    right: 'both',
    explains: (view) => SINGLE_IN_NGINX.some((name) => view.all(name).length > 1) && statusChanges(view, [400], PARSED),
  },
  {
    request: 'a target or a field line of more than 8 KB',
    nginx: '414 for the target, 400 for the line',
    larder: '400 for the target; 431 for lines of more than 16 KB in all',
    rfc: '15.5.15, 6585 5',
    right: 'nginx',
    explains: (view) =>
      [view.target, ...view.request.lines].some((text) => text.length >= LINE_BYTES_MAX) &&
      (statusChanges(view, [...PARSED, 400, 414], [...PARSED, 400, 431]) || refusedByOrigin(view)),
  },
  {
    request: '`Expect` other than 100-continue',
    nginx: 'ignores it',
    larder: '417 by Node',
    rfc: '10.1.1',
    right: 'both',
    explains: (view) => view.has('expect') && rejectedByNode(view) && statusChanges(view, [...PARSED, 400, 501], [417]),
  },
  {
    request: '`Transfer-Encoding` that is not chunked, or in HTTP/1.0',
    nginx: '501 or 400',
    larder: '400, or a response and then a close',
    rfc: '9112 6.1, 6.3',
    right: 'both',
    explains: (view) => view.has('transfer-encoding') && statusChanges(view, [400, 501], [...PARSED, 400]),
  },
  {
    request: '`Cache-Control: only-if-cached`',
    nginx: 'serves it: it is the origin',
    larder: '504 unless a fresh response is stored',
    rfc: '9111 5.2.1.7',
    right: 'Larder',
    explains: (view) =>
      view.all('cache-control').includes('only-if-cached') &&
      view.aspect === 'status' &&
      [view.expectedStatus, view.actualStatus].includes(504),
  },
];

/** Before the asset is stored, the request is refused by nginx as the origin, with nginx's body. */
const refusedByOrigin = (view: View): boolean =>
  view.againstNginx
    ? view.actualStatus === 400 && (view.aspect === 'body' || concernsField(view, 'content-length'))
    : view.aspect === 'status' && [view.expectedStatus, view.actualStatus].includes(400);

const SINGLE_IN_NGINX = [
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'expect',
  'authorization',
];
