// Header fields on their way through: which of them end here, which are stored, which go with a fetch. Pure.

import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';

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
  'proxy-authentication-info',
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
]);

/**
 * What a request says of where it comes from or how it is to be read. Origins make links, redirects and routes of these, and
 * no cache keys by them: in a fetch that others share they would be one client's words in everybody's answer.
 */
const UNKEYED =
  /^(?:forwarded$|x-forwarded|x-original|x-rewrite|x-http-method|x-method|x-host|x-real|x-client|x-cluster|x-scheme|x-url-scheme|x-arr-|true-client|cf-|cloudfront-|fastly-|client-ip|front-end-https)/;

/** `standsFor`: the appliance keeps what the origin's listener says. */
export function storableHeaders(headers: Headers, reverseProxy: boolean): Record<string, string> {
  return Object.fromEntries(
    Object.entries(endToEndHeaders(headers)).filter(
      ([name]) =>
        !OF_ONE_ANSWER.includes(name) &&
        (reverseProxy || (!OF_THE_LISTENER.includes(name) && !name.startsWith('access-control-'))),
    ),
  );
}

/** RFC 9111 3.2: a 304 or a HEAD replaces fields, but not those by which the stored bytes are read and named. */
export function updatedHeaders(stored: Headers, news: Headers, reverseProxy: boolean): Record<string, string> {
  const { etag: _etag, ...updates } = storableHeaders(news, reverseProxy);
  delete updates['content-encoding'];
  return { ...stored, ...updates };
}

/** What of a request goes with a fetch that others may share. */
export function fetchHeaders(headers: IncomingHttpHeaders): Record<string, string> {
  const fields = endToEndHeaders(joinedHeaders(headers));
  for (const name of Object.keys(fields)) if (NOT_FETCHED_WITH.has(name) || UNKEYED.test(name)) delete fields[name];
  return fields;
}

/** Without what is for the next hop alone: the known fields and those that `Connection` names. */
export function endToEndHeaders(headers: Headers): Record<string, string> {
  const named = new Set((headers['connection'] ?? '').split(',').map((token) => token.trim().toLowerCase()));
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)));
}

export function joinedHeaders(
  headers: Dispatcher.ResponseData['headers'] | IncomingHttpHeaders,
): Record<string, string> {
  const single: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) single[name] = Array.isArray(value) ? value.join(', ') : value;
  return single;
}

/** Several Set-Cookie fields must not be joined by commas (RFC 9110 5.3). */
export function setCookieHeaders(headers: Dispatcher.ResponseData['headers']): readonly string[] {
  const cookies = headers['set-cookie'];
  return cookies === undefined ? [] : Array.isArray(cookies) ? cookies : [cookies];
}
