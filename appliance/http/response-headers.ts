// Heads of answers: which fields a player gets with what status. Pure.

import type { Fault } from '../../protocol/faults.ts';
import { ageSeconds } from './freshness.ts';
import { httpMs } from './http-date.ts';
import type { AssetView } from './asset.ts';
import type { Forward } from '../link/messages.ts';

export type ResponseHeaders = Record<string, string | number>;

/** How this appliance presents itself. */
export interface ProxyIdentity {
  /** `--reverse-proxy`: CORS is the origin's matter. */
  readonly reverseProxy: boolean;
  /** Its name in Via. */
  readonly via: string;
}

const CORS: ResponseHeaders = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers':
    'Accept-Ranges, Age, Cache-Status, Content-Length, Content-Range, Date, ETag, Retry-After, Server-Timing',
  'timing-allow-origin': '*',
};

export const ALLOW = 'GET, HEAD, OPTIONS';
export const ALLOW_ALL = `${ALLOW}, POST, PUT, PATCH, DELETE`;
const RETRY_AFTER_S = 1;

/** What the cache did for an answer, for metrics and for people who read Cache-Status (RFC 9211). */
export interface CacheOutcome {
  readonly metric: 'hit' | 'miss' | 'partial' | 'bypass' | 'revalidated' | 'stale';
  readonly status: string;
}

/** Served without the origin. `leftMs` is what is left of its freshness; null where it does not age. */
export const hitOutcome = (leftMs: number | null, detail = ''): CacheOutcome => ({
  metric: leftMs !== null && leftMs < 0 ? 'stale' : 'hit',
  status: `larder; hit${leftMs === null || !Number.isFinite(leftMs) ? '' : `; ttl=${Math.floor(leftMs / 1000)}`}${detail}`,
});

export const forwardOutcome = (
  forward: Omit<Forward, 'reason'> & { readonly reason: string },
  detail = '',
): CacheOutcome => ({
  metric: metricOf(forward),
  status: [
    `larder; fwd=${forward.reason}`,
    forward.status === null ? '' : `; fwd-status=${forward.status}`,
    forward.stored ? '; stored' : '',
    forward.collapsed ? '; collapsed' : '',
    detail,
  ].join(''),
});

function metricOf({
  reason,
  status,
}: {
  readonly reason: string;
  readonly status: number | null;
}): CacheOutcome['metric'] {
  if (reason === 'partial') return 'partial';
  // The origin confirmed what is stored, or could not be asked and it was served all the same.
  if (status === 304) return 'revalidated';
  return reason === 'stale' && (status === null || status >= 500) ? 'stale' : 'miss';
}

/** Bytes of the range are missing, and nobody has asked the origin for them yet. */
export const PARTIAL_MISS: CacheOutcome = { metric: 'partial', status: 'larder; fwd=partial' };

export const bypassOutcome = (reason: 'bypass' | 'method' | 'request', status: number, detail = ''): CacheOutcome => ({
  metric: 'bypass',
  status: `larder; fwd=${reason}; fwd-status=${status}${detail}`,
});

/** Fields of an asset that every 200, 206 and 304 carries alike (RFC 9110 15.3.7, 15.4.5). */
export function assetHeaders(
  asset: AssetView,
  outcome: CacheOutcome,
  spec: ProxyIdentity & { readonly nowMs: number },
): ResponseHeaders {
  const { 'content-encoding': encoding, via, ...kept } = asset.headers;
  const fields: ResponseHeaders = {
    ...kept,
    ...(spec.reverseProxy ? {} : CORS),
    'accept-ranges': 'bytes',
    'cache-status': outcome.status,
    via: appendVia(via, spec.via),
  };
  if (encoding !== undefined && encoding !== 'identity') fields['content-encoding'] = encoding;
  // RFC 9111 5.1: a stored answer says how old it is.
  const generatedAt = asset.generatedAtMs ?? httpMs(asset.headers['date']);
  if (generatedAt !== null) fields['age'] = ageSeconds(generatedAt, spec.nowMs);
  return fields;
}

/** Of a 304 only what may differ from what the client has (RFC 9110 15.4.5). */
export function notModifiedHeaders(
  asset: AssetView,
  outcome: CacheOutcome,
  spec: ProxyIdentity & { readonly nowMs: number },
): ResponseHeaders {
  const fields = assetHeaders(asset, outcome, spec);
  delete fields['content-type'];
  delete fields['content-language'];
  return fields;
}

export function faultHeaders(fault: Fault, bodyBytes: number, identity: ProxyIdentity): ResponseHeaders {
  const error = PROXY_ERRORS[fault.code];
  return {
    ...(identity.reverseProxy ? {} : CORS),
    'content-type': 'text/plain; charset=utf-8',
    'content-length': bodyBytes,
    'cache-control': 'no-store',
    'cache-status': `larder; detail=${fault.code}`,
    ...(error === undefined ? {} : { 'proxy-status': `larder; error=${error}; details="${fault.code}"` }),
    ...(fault.spec.status === 503 ? { 'retry-after': RETRY_AFTER_S } : {}),
    ...(fault.spec.status === 405 ? { allow: identity.reverseProxy ? ALLOW_ALL : ALLOW } : {}),
  };
}

/** RFC 9209 2.3, without a word on what lies behind us. */
const PROXY_ERRORS: Readonly<Record<string, string>> = {
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

/** Someone else's answer on its way through. */
export function relayHeaders(
  headers: Readonly<Record<string, string>>,
  outcome: CacheOutcome,
  identity: ProxyIdentity,
): ResponseHeaders {
  const { via, ...fields } = headers;
  const kept = identity.reverseProxy
    ? fields
    : Object.fromEntries(
        Object.entries(fields).filter(
          ([name]) => !name.startsWith('access-control-') && name !== 'timing-allow-origin',
        ),
      );
  return {
    ...kept,
    ...(identity.reverseProxy ? {} : CORS),
    'cache-status':
      headers['cache-status'] === undefined ? outcome.status : `${headers['cache-status']}, ${outcome.status}`,
    via: appendVia(via, identity.via),
  };
}

/** RFC 9110 7.6.3. */
export const appendVia = (before: string | undefined, name: string): string =>
  `${before === undefined || before === '' ? '' : `${before}, `}1.1 ${name}`;

/** Names the appliance: steering's probe and the turn-up check ask by OPTIONS who is there. */
export function preflightHeaders(requestHeaders: string | undefined, appliance: string): ResponseHeaders {
  const asked =
    requestHeaders !== undefined &&
    requestHeaders.length <= 1_000 &&
    /^[A-Za-z0-9!#$%&'*+.^_`|~, -]+$/.test(requestHeaders)
      ? requestHeaders
      : 'Range';
  return {
    ...CORS,
    'larder-appliance': appliance,
    allow: ALLOW,
    'access-control-allow-methods': ALLOW,
    'access-control-allow-headers': asked,
    'access-control-max-age': 86_400,
    'content-length': 0,
  };
}
