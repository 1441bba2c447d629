// Header fields on their way through: which of them end here, which are stored, which go with a fetch. Pure.

import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';
import { STORED_HEADERS_BYTES_MAX } from './block-file.ts';

type Headers = Readonly<Record<string, string>>;

/** RFC 9110 7.6.1. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
]);

/** Of one answer, or made anew by us. */
const OF_ONE_ANSWER = ['content-length', 'content-range', 'accept-ranges', 'age', 'set-cookie', 'cache-status'];
/** Of the origin's own listener: not true of an appliance, which has a name, a certificate and CORS rules of its own. */
const OF_THE_LISTENER = [
  'server',
  'alt-svc',
  'timing-allow-origin',
  'strict-transport-security',
  'server-timing',
  'report-to',
  'nel',
];

/** Stored headers always have room for these; others are left out when the page of a block head is full. */
const KEPT_FIRST = [
  'etag',
  'last-modified',
  'content-type',
  'cache-control',
  'cdn-cache-control',
  'date',
  'expires',
  'vary',
  'content-encoding',
  'content-language',
  'content-disposition',
];

/** Request fields that are ours to set, or belong to one request alone. */
const NOT_FETCHED_WITH = new Set([
  'host',
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'accept-encoding',
  'cache-control',
  'pragma',
  'content-length',
  'content-type',
  'expect',
  'via',
]);

/** `proxy`: the appliance stands for the origin and keeps what its listener says. */
export function storedFields(headers: Headers, standsFor: boolean): Record<string, string> {
  const candidates = Object.entries(endToEnd(headers)).filter(
    ([name]) =>
      !OF_ONE_ANSWER.includes(name) &&
      (standsFor || (!OF_THE_LISTENER.includes(name) && !name.startsWith('access-control-'))),
  );
  const rank = (name: string): number => (KEPT_FIRST.includes(name) ? KEPT_FIRST.indexOf(name) : KEPT_FIRST.length);
  const kept: Record<string, string> = {};
  let bytes = 0;
  for (const [name, value] of candidates.sort((a, b) => rank(a[0]) - rank(b[0]))) {
    bytes += JSON.stringify(name).length + JSON.stringify(value).length + 2;
    if (bytes > STORED_HEADERS_BYTES_MAX) break;
    kept[name] = value;
  }
  return kept;
}

/** RFC 9111 3.2: a 304 or a HEAD says nothing new about the content itself. */
export function updatedFields(stored: Headers, news: Headers, standsFor: boolean): Record<string, string> {
  const { etag: _etag, ...updates } = storedFields(news, standsFor);
  for (const name of ['content-encoding', 'content-type', 'content-language']) delete updates[name];
  return storedFields({ ...stored, ...updates }, standsFor);
}

/** What of a request goes with a fetch that others may share. */
export function fetchFields(headers: IncomingHttpHeaders): Record<string, string> {
  const fields = endToEnd(singleHeaders(headers));
  for (const name of NOT_FETCHED_WITH) delete fields[name];
  return fields;
}

/** Without what is for the next hop alone: the known fields and those that `Connection` names. */
export function endToEnd(headers: Headers): Record<string, string> {
  const named = new Set((headers['connection'] ?? '').split(',').map((token) => token.trim().toLowerCase()));
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)));
}

export function singleHeaders(
  headers: Dispatcher.ResponseData['headers'] | IncomingHttpHeaders,
): Record<string, string> {
  const single: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) single[name] = Array.isArray(value) ? value.join(', ') : value;
  return single;
}
