// Header fields on their way through a cache: which of them end here, which are stored with an asset, and which of a
// request's go upstream with a fetch. Names are lower case. Pure.

type Headers = Readonly<Record<string, string>>;
/** As node:http and undici deliver them. */
type ReceivedHeaders = Readonly<Record<string, string | readonly string[] | undefined>>;

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

/** Fields that describe one response, or that we generate ourselves. */
const PER_RESPONSE = ['content-length', 'content-range', 'accept-ranges', 'age', 'set-cookie', 'cache-status'];
/** Fields that describe the origin's listener. An appliance has its own name, certificate and CORS rules. */
const PER_LISTENER = [
  'server',
  'alt-svc',
  'timing-allow-origin',
  'strict-transport-security',
  'server-timing',
  'report-to',
  'nel',
];

/** Request fields that we set ourselves, or that belong to one request alone. */
const NOT_FORWARDED = new Set([
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
 * Request fields that are not part of the cache key, although origins build links, redirects and routes from them. In a
 * fetch that several clients share, one client could poison the response of all others with them.
 */
const UNKEYED =
  /^(?:forwarded$|x-forwarded|x-original|x-rewrite|x-http-method|x-method|x-host|x-real|x-client|x-cluster|x-scheme|x-url-scheme|x-arr-|true-client|cf-|cloudfront-|fastly-|client-ip|front-end-https)/;

/** The fields of a response that are stored. As a reverse proxy those of the origin's listener are kept. */
export function storableHeaders(headers: Headers, reverseProxy: boolean): Record<string, string> {
  return Object.fromEntries(
    Object.entries(endToEndHeaders(headers)).filter(
      ([name]) =>
        !PER_RESPONSE.includes(name) &&
        (reverseProxy || (!PER_LISTENER.includes(name) && !name.startsWith('access-control-'))),
    ),
  );
}

/** RFC 9111 3.2: a 304 or a HEAD updates the stored fields, except for those that identify and encode the stored body. */
export function updatedHeaders(stored: Headers, update: Headers, reverseProxy: boolean): Record<string, string> {
  const { etag: _etag, ...updates } = storableHeaders(update, reverseProxy);
  delete updates['content-encoding'];
  return { ...stored, ...updates };
}

/** The fields of a request that go upstream with a fetch that other requests may share. */
export function fetchHeaders(headers: ReceivedHeaders): Record<string, string> {
  const fields = endToEndHeaders(joinedHeaders(headers));
  for (const name of Object.keys(fields)) if (NOT_FORWARDED.has(name) || UNKEYED.test(name)) delete fields[name];
  return fields;
}

/** Without hop-by-hop fields: the well-known ones and those that Connection names. */
export function endToEndHeaders(headers: Headers): Record<string, string> {
  const named = new Set((headers['connection'] ?? '').split(',').map((token) => token.trim().toLowerCase()));
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)));
}

/** RFC 9110 5.3: several lines of one field are joined by commas. */
export function joinedHeaders(headers: ReceivedHeaders): Record<string, string> {
  const joined: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) joined[name] = typeof value === 'string' ? value : value.join(', ');
  return joined;
}

/** Set-Cookie, the one field whose lines must not be joined (RFC 9110 5.3). */
export function setCookieHeaders(headers: ReceivedHeaders): readonly string[] {
  const cookies = headers['set-cookie'];
  if (cookies === undefined) return [];
  return typeof cookies === 'string' ? [cookies] : cookies;
}

/** Appends a member to a list-based field (RFC 9110 5.6.1). What is there already is kept as it is, even if malformed. */
export const appendMember = (field: string | undefined, member: string): string =>
  field === undefined || field === '' ? member : `${field}, ${member}`;
