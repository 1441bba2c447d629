// Differences in what counts as a request: its target, its method, its version, its fields, its body.

import { about, byNode, READ, turns, type Rule, type View } from './view.ts';

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+:/;
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=-]+)(?::\d*)?$/;
const METHODS = 'GET HEAD OPTIONS POST PUT PATCH DELETE TRACE CONNECT PROPFIND PURGE'.split(' ');
const LINE_BYTES_MAX = 8_000;

const local = ({ target }: View): string => target.replace(/^https?:\/\/[^/?#]*/i, '');
const path = (view: View): string => local(view).split(/[?#]/)[0]!.replaceAll(/%2e/gi, '.').replaceAll(/%2f/gi, '/');
const refused = (view: View): boolean => turns(view, READ, [400]);

export const TARGET_RULES: readonly Rule[] = [
  {
    asked: 'a path with `.` or `..`, however it is written',
    nginx: 'resolves it',
    larder: '400: two readers might go two ways',
    rfc: '3986 5.2.4, 9110 17.3',
    right: 'both',
    explains: (view) => /(?:^|\/)\.{1,2}(?:\/|$)/.test(path(view)) && refused(view),
  },
  {
    asked: 'a target with `#`',
    nginx: 'leaves away what follows',
    larder: '400: a target has no fragment',
    rfc: '7.1, 9112 3.2',
    right: 'Larder',
    explains: (view) => local(view).includes('#') && refused(view),
  },
  {
    asked: 'a target with a backslash, a control character or bytes beyond ASCII, plain or escaped',
    nginx: 'part of a name, mostly',
    larder: '400',
    rfc: '3986 2, 9112 3.2',
    right: 'Larder',
    explains: (view) => /[^!-~]|\\|%5c|%[01].|%7f/i.test(local(view)) && refused(view),
  },
  {
    asked: 'a scheme that is not of HTTP',
    nginx: 'does not look at it',
    larder: '400',
    rfc: '4.2, 7.4',
    right: 'both',
    explains: (view) => /^(?!https?:)[a-z]+:/i.test(view.target) && refused(view),
  },
  {
    asked: 'an absolute target whose host is escaped',
    nginx: '400',
    larder: 'a name like any other',
    rfc: '3986 3.2.2',
    right: 'Larder',
    explains: (view) => /^https?:\/\/[^/?#]*%/i.test(view.target) && turns(view, [400], READ),
  },
  {
    asked: '`Host` that names no host',
    nginx: '400',
    larder: 'does not look at it',
    rfc: '9112 3.2',
    right: 'nginx',
    explains: (view) => view.all('host').some((value) => !HOST.test(value)) && turns(view, [400], READ),
  },
];

export const MESSAGE_RULES: readonly Rule[] = [
  {
    asked: '`OPTIONS`',
    nginx: '405',
    larder: '204 and what is allowed, unless it is a reverse proxy',
    rfc: '9.3.7',
    right: 'Larder',
    explains: (view) => view.method === 'OPTIONS' && view.plain && turns(view, [...READ, 400, 501], [204]),
  },
  {
    asked: 'a method that only changes things',
    nginx: 'looks for the path first',
    larder: '405, unless it is a reverse proxy',
    rfc: '15.5.6',
    right: 'both',
    explains: (view) =>
      !['GET', 'HEAD', 'OPTIONS'].includes(view.method) && view.plain && turns(view, [301, 403, 404], [405]),
  },
  {
    asked: 'a method that nobody knows',
    nginx: '405',
    larder: '400, by Node’s parser',
    rfc: '9.1, 15.6.2',
    right: 'neither',
    explains: (view) => !METHODS.includes(view.method) && turns(view, [405], [400]),
  },
  {
    asked: '`CONNECT` or `TRACE`, and something else is wrong',
    nginx: '400',
    larder: '405',
    rfc: '9.3.6, 9.3.8',
    right: 'both',
    explains: (view) => ['CONNECT', 'TRACE'].includes(view.method) && turns(view, [400, 414, 501, 505], [405]),
  },
  {
    asked: 'HTTP/1.2 to 1.9',
    nginx: 'as 1.1',
    larder: '400, by Node’s parser',
    rfc: '2.5',
    right: 'nginx',
    explains: (view) => /^HTTP\/1\.[2-9]$/.test(view.request.version) && refused(view),
  },
  {
    asked: 'HTTP/2.0 or later',
    nginx: '505',
    larder: '400',
    rfc: '15.6.6',
    right: 'nginx',
    explains: (view) => /^HTTP\/[2-9]/.test(view.request.version) && turns(view, [505], [400]),
  },
  {
    asked: 'a version that is none',
    nginx: 'reads what it can',
    larder: '400',
    rfc: '9112 2.3',
    right: 'Larder',
    explains: (view) => !/^HTTP\/\d\.\d$/.test(view.request.version) && refused(view),
  },
  {
    asked: 'lines that end in LF alone',
    nginx: 'takes them',
    larder: '400, by Node’s parser',
    rfc: '9112 2.2',
    right: 'both',
    explains: (view) => view.request.eol === '\n' && refused(view),
  },
  {
    asked: 'a field name that is none',
    nginx: 'skips the line',
    larder: '400, by Node’s parser',
    rfc: '5.1, 9112 5.1',
    right: 'both',
    explains: (view) => view.request.lines.some((line) => !NAME.test(line)) && refused(view),
  },
  {
    asked: 'a field value with a control character',
    nginx: 'takes it',
    larder: '400, by Node’s parser',
    rfc: '5.5',
    right: 'both',
    explains: (view) => /[\x01-\x08\x0b-\x1f\x7f]/.test(view.request.lines.join('')) && refused(view),
  },
  {
    asked: 'a value between tabs',
    nginx: 'the tabs are part of it',
    larder: 'they are white space',
    rfc: '5.5, 5.6.3',
    right: 'Larder',
    explains: (view) =>
      view.request.lines.some((line) => /: *\t|\t *$/.test(line)) && turns(view, [...READ, 400, 501], [...READ, 400]),
  },
  {
    asked: '`Range` or `If-Range` twice',
    nginx: 'one of them counts',
    larder: '400',
    rfc: '5.3',
    right: 'both',
    explains: (view) => ['range', 'if-range'].some((name) => view.all(name).length > 1) && refused(view),
  },
  {
    asked: 'a condition, `Expect` or `Authorization` twice',
    nginx: '400',
    larder: 'lists are joined; of others one counts',
    rfc: '5.3',
    right: 'both',
    explains: (view) => TWICE.some((name) => view.all(name).length > 1) && turns(view, [400], READ),
  },
  {
    asked: 'a target or a line of more than 8 KB',
    nginx: '414 for the one, 400 for the other',
    larder: '400 for the target; lines up to 16 KB in all, then 431',
    rfc: '15.5.15, 6585 5',
    right: 'nginx',
    explains: (view) =>
      [view.target, ...view.request.lines].some((text) => text.length >= LINE_BYTES_MAX) &&
      (turns(view, [...READ, 400, 414], [...READ, 400, 431]) || refusedByOrigin(view)),
  },
  {
    asked: '`Expect` other than 100-continue',
    nginx: 'does not look at it',
    larder: '417, by Node',
    rfc: '10.1.1',
    right: 'both',
    explains: (view) => view.has('expect') && byNode(view) && turns(view, [...READ, 400, 501], [417]),
  },
  {
    asked: '`Transfer-Encoding` that is not chunked, or in HTTP/1.0',
    nginx: '501, or 400',
    larder: '400, or an answer and then the end',
    rfc: '9112 6.1, 6.3',
    right: 'both',
    explains: (view) => view.has('transfer-encoding') && turns(view, [400, 501], [...READ, 400]),
  },
  {
    asked: '`Cache-Control: only-if-cached`',
    nginx: 'is the origin, and answers',
    larder: '504 for what is not stored fresh',
    rfc: '9111 5.2.1.7',
    right: 'Larder',
    explains: (view) =>
      view.all('cache-control').includes('only-if-cached') &&
      view.facet === 'status' &&
      [view.from, view.to].includes(504),
  },
];

/** As long as it is not stored, the one who refuses is nginx as the origin, and says so in its words. */
const refusedByOrigin = (view: View): boolean =>
  view.ofNginx
    ? view.to === 400 && (view.facet === 'body' || about(view, 'content-length'))
    : view.facet === 'status' && [view.from, view.to].includes(400);

const TWICE = ['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'expect', 'authorization'];
