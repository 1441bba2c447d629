// From an HTTP message to a request of the cache: what is malformed is refused, what only the origin can answer is told apart. Pure.

import type { IncomingMessage } from 'node:http';
import { Fault } from '../../protocol/faults.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { parseDirectives, requestDirectives, type Directives } from '../http/cache-control.ts';
import { fetchHeaders } from '../http/headers.ts';
import type { Preconditions } from '../http/precondition.ts';
import { ALLOW, ALLOW_ALL, type ProxyIdentity } from '../http/response-headers.ts';

/** A GET or HEAD that the cache may answer. */
export interface CacheRequest {
  readonly method: 'GET' | 'HEAD';
  readonly key: string;
  readonly range: string | null;
  readonly preconditions: Preconditions;
  /** Empty in a fleet, where assets do not age. */
  readonly directives: Directives;
  /** Fields that go with a fetch from the origin and by which responses may vary. Empty in a fleet. */
  readonly headers: Readonly<Record<string, string>>;
}

const NO_DIRECTIVES = parseDirectives(undefined);
const NO_HEADERS: Readonly<Record<string, string>> = {};

/** RFC 9112 3.2, RFC 9110 13.1.5 and 14.2: these fields must not occur twice. Fields with lists may be split. */
const SINGLE_FIELDS = new Set(['host', 'range', 'if-range']);

/** Throws `request_malformed`, `method_not_allowed`, `proxy_loop`. */
export function validateMessage(request: IncomingMessage, identity: ProxyIdentity): void {
  // Node's parser accepts HTTP/0.9 and 2.0 preambles; neither frames a response as 1.x does.
  if (request.httpVersionMajor !== 1)
    throw new Fault('request_malformed', `HTTP/${request.httpVersion} is not spoken here; use HTTP/1.1`);
  validateFields(request.rawHeaders);
  const coding = request.headers['transfer-encoding'];
  if (coding !== undefined && coding.trim().toLowerCase() !== 'chunked')
    throw new Fault('request_malformed', `Transfer-Encoding "${coding.slice(0, 40)}" is not chunked`);
  if (request.method === 'TRACE' || request.method === 'CONNECT') {
    const allowed = identity.reverseProxy ? ALLOW_ALL : ALLOW;
    throw new Fault('method_not_allowed', `${request.method} is not one of ${allowed}`);
  }
  if (request.headers.via?.includes(identity.via) === true)
    throw new Fault('proxy_loop', `Via names this appliance: "${request.headers.via.slice(0, 200)}"`);
}

/** Looks at the raw fields: Node joins or drops repeated ones, and its older parsers accept malformed names. */
function validateFields(rawHeaders: readonly string[]): void {
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    // RFC 9112 5.1: a space before the colon must be refused.
    if (name === '' || /\s/.test(name)) throw new Fault('request_malformed', `"${name.slice(0, 40)}" is no field name`);
    if (!SINGLE_FIELDS.has(name)) continue;
    if (seen.has(name)) throw new Fault('request_malformed', `the request has more than one ${name} field`);
    seen.add(name);
  }
}

/** Null when only the origin can answer. */
export function cacheRequestOf(
  request: IncomingMessage,
  key: string,
  { mode, identity }: { readonly mode: KeyMode; readonly identity: ProxyIdentity },
): CacheRequest | null {
  const { method, headers } = request;
  if (method !== 'GET' && method !== 'HEAD') return null;
  if (identity.reverseProxy && hasBody(request)) return null;
  const alone = mode === 'alone';
  return {
    method,
    key,
    // RFC 9110 14.2: Range is defined for GET only.
    range: method === 'GET' ? (headers.range ?? null) : null,
    preconditions: {
      ifMatch: headers['if-match'] ?? null,
      ifUnmodifiedSince: headers['if-unmodified-since'] ?? null,
      ifNoneMatch: headers['if-none-match'] ?? null,
      ifModifiedSince: headers['if-modified-since'] ?? null,
      ifRange: headers['if-range'] === undefined ? null : String(headers['if-range']),
    },
    // In a fleet assets are public, catalogued and do not age: no field of a request can change what is served.
    directives: alone ? requestDirectives(headers['cache-control'], headers['pragma']) : NO_DIRECTIVES,
    headers: alone ? fetchHeaders(headers) : NO_HEADERS,
  };
}

export const hasBody = (request: IncomingMessage): boolean =>
  request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
