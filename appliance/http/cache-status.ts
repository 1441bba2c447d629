// Cache-Status (RFC 9211) and Proxy-Status (RFC 9209): what the cache did with a request, and which error a proxy met. Both
// are lists of structured fields (RFC 9651), each with one member for every cache on the way; ours is named `larder`. Pure.

import { serializeBareItem, Token } from 'structured-headers';
import { appendMember } from './headers.ts';

/** What the storekeeper did at the origin for a request, in the terms of RFC 9211. */
export interface Forward {
  readonly reason: 'uri-miss' | 'vary-miss' | 'stale' | 'partial';
  /** Status of the origin's response; null if this request caused none. */
  readonly status: number | null;
  readonly stored: boolean;
  /** Whether the request was answered by the fetch of another one. */
  readonly collapsed: boolean;
}

/** What the cache did for a response: the label of the metric, and our member of Cache-Status. */
export interface CacheOutcome {
  readonly metric: 'hit' | 'miss' | 'partial' | 'bypass' | 'revalidated' | 'stale';
  readonly status: string;
}

const NAME = serializeBareItem(new Token('larder'));
const PLAIN_HIT: CacheOutcome = { metric: 'hit', status: member({ hit: true }) };

/** Details that are tokens, as fault codes are. Every other detail is a string. */
const TOKEN_DETAILS: ReadonlySet<string> = new Set(['storekeeper-down']);

/** Part of the range is missing, and the origin has not been asked for it yet. */
export const PARTIAL_MISS: CacheOutcome = { metric: 'partial', status: member({ fwd: new Token('partial') }) };

/** Served without the origin. `remainingMs` is the rest of its freshness lifetime; null if the asset does not age. */
export function hitOutcome(remainingMs: number | null): CacheOutcome {
  if (remainingMs === null || !Number.isFinite(remainingMs)) return PLAIN_HIT;
  const ttl = Math.floor(remainingMs / 1000);
  return { metric: remainingMs < 0 ? 'stale' : 'hit', status: member({ hit: true, ttl }) };
}

/** Served after the origin was asked. */
export function forwardOutcome(forward: Omit<Forward, 'reason'> & { readonly reason: string }): CacheOutcome {
  const { reason, status, stored, collapsed } = forward;
  return {
    metric: metricOf(reason, status),
    status: member({ fwd: new Token(reason), 'fwd-status': status, stored, collapsed }),
  };
}

function metricOf(reason: string, status: number | null): CacheOutcome['metric'] {
  if (reason === 'partial') return 'partial';
  // The origin confirmed the stored response, or was unavailable and a stale one was served.
  if (status === 304) return 'revalidated';
  return reason === 'stale' && (status === null || status >= 500) ? 'stale' : 'miss';
}

/** Forwarded without the cache. `detail` says why, and is left out if it is empty. */
export function bypassOutcome(reason: 'bypass' | 'method' | 'request', status: number, detail = ''): CacheOutcome {
  return {
    metric: 'bypass',
    status: member({ fwd: new Token(reason), 'fwd-status': status, detail: detailItem(detail) }),
  };
}

/** Cache-Status of an error that we generate. */
export const faultCacheStatus = (code: string): string => member({ detail: new Token(code) });

/** Proxy-Status of an error that we generate; null if RFC 9209 has no type for it. It does not name the origin. */
export function faultProxyStatus(code: string): string | null {
  const type = PROXY_ERROR_TYPES[code];
  return type === undefined ? null : member({ error: new Token(type), details: code });
}

/** Our member goes behind those of upstream caches (RFC 9211 2). */
export const appendCacheStatus = (upstream: string | undefined, { status }: CacheOutcome): string =>
  appendMember(upstream, status);

/** RFC 9209 2.3, by fault code. */
const PROXY_ERROR_TYPES: Readonly<Record<string, string>> = {
  origin_unreachable: 'destination_unavailable',
  origin_timeout: 'connection_read_timeout',
  origin_protocol_error: 'http_protocol_error',
  origin_refused: 'http_request_error',
  validation_failed: 'destination_unavailable',
  version_gone: 'http_response_incomplete',
  digest_mismatch: 'http_protocol_error',
  overloaded: 'connection_limit_reached',
  proxy_loop: 'proxy_loop_detected',
  disk_failed: 'proxy_internal_error',
  internal: 'proxy_internal_error',
};

function detailItem(detail: string): ParameterValue {
  if (detail === '') return null;
  return TOKEN_DETAILS.has(detail) ? new Token(detail) : detail;
}

type ParameterValue = Token | string | number | boolean | null;

/** Our list member. Parameters that are null or false are left out; their names are constants of this file. */
function member(parameters: Readonly<Record<string, ParameterValue>>): string {
  let text = NAME;
  for (const name in parameters) {
    const value = parameters[name] ?? null;
    if (value === null || value === false) continue;
    // RFC 9651 4.2.3.2: parsers skip spaces behind a semicolon. Serializers write none, but people read it better.
    text += value === true ? `; ${name}` : `; ${name}=${serializeBareItem(value)}`;
  }
  return text;
}
