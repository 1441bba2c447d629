// Header fields of the responses that a client gets: of a stored asset, of a 304, of an error, of a response relayed from
// the origin, and of a CORS preflight. Pure.

import type { Fault } from '../../protocol/faults.ts';
import type { AssetView } from './asset.ts';
import { appendCacheStatus, faultCacheStatus, faultProxyStatus, type CacheOutcome } from './cache-status.ts';
import { ageSeconds, isIdentity } from './freshness.ts';
import { appendMember } from './headers.ts';
import { parseHttpDate } from './http-date.ts';

export type ResponseHeaders = Record<string, string | number>;

/** How this appliance presents itself. */
export interface ProxyIdentity {
  /** `--reverse-proxy`: the origin's CORS fields are passed through instead of ours. */
  readonly reverseProxy: boolean;
  /** The pseudonym of this appliance in Via. */
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
/** A longer Access-Control-Request-Headers is not echoed. */
const PREFLIGHT_CHARS_MAX = 1_000;
const PREFLIGHT_MAX_AGE_S = 86_400;

/** The fields that a 200, a 206 and a 304 of one asset have in common (RFC 9110 15.3.7, 15.4.5). */
export function assetHeaders(
  asset: AssetView,
  outcome: CacheOutcome,
  spec: ProxyIdentity & { readonly nowMs: number },
): ResponseHeaders {
  const { 'content-encoding': encoding, via, ...stored } = asset.headers;
  const fields: ResponseHeaders = {
    ...stored,
    ...(spec.reverseProxy ? {} : CORS),
    'accept-ranges': 'bytes',
    'cache-status': outcome.status,
    via: appendVia(via, spec.via),
  };
  if (encoding !== undefined && !isIdentity(encoding)) fields['content-encoding'] = encoding;
  // RFC 9111 5.1: a response from the cache carries Age.
  const generatedAtMs = asset.generatedAtMs ?? parseHttpDate(asset.headers['date']);
  if (generatedAtMs !== null) fields['age'] = ageSeconds(generatedAtMs, spec.nowMs);
  return fields;
}

/** A 304 leaves out the fields that describe a body (RFC 9110 15.4.5). */
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

/** Fields of an error that we generate. Its body is plain text of `bodyBytes`. */
export function faultHeaders(fault: Fault, bodyBytes: number, identity: ProxyIdentity): ResponseHeaders {
  const proxyStatus = faultProxyStatus(fault.code);
  return {
    ...(identity.reverseProxy ? {} : CORS),
    'content-type': 'text/plain; charset=utf-8',
    'content-length': bodyBytes,
    'cache-control': 'no-store',
    'cache-status': faultCacheStatus(fault.code),
    ...(proxyStatus === null ? {} : { 'proxy-status': proxyStatus }),
    ...(fault.spec.status === 503 ? { 'retry-after': RETRY_AFTER_S } : {}),
    ...(fault.spec.status === 405 ? { allow: identity.reverseProxy ? ALLOW_ALL : ALLOW } : {}),
  };
}

/** Fields of a response from the origin that is passed on. As a reverse proxy its own CORS fields are kept. */
export function relayHeaders(
  headers: Readonly<Record<string, string>>,
  outcome: CacheOutcome,
  identity: ProxyIdentity,
): ResponseHeaders {
  const { via, 'cache-status': upstreamStatus, ...fields } = headers;
  return {
    ...(identity.reverseProxy ? fields : { ...withoutCors(fields), ...CORS }),
    'cache-status': appendCacheStatus(upstreamStatus, outcome),
    via: appendVia(via, identity.via),
  };
}

const withoutCors = (fields: Readonly<Record<string, string>>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(fields).filter(([name]) => !name.startsWith('access-control-') && name !== 'timing-allow-origin'),
  );

/** RFC 9110 7.6.3: each proxy adds itself behind those before it. */
export const appendVia = (upstream: string | undefined, pseudonym: string): string =>
  appendMember(upstream, `1.1 ${pseudonym}`);

/** The answer to OPTIONS. `larder-appliance` lets the probe of steering and the turn-up check see which appliance answers. */
export function preflightHeaders(requestHeaders: string | undefined, appliance: string): ResponseHeaders {
  const echoed =
    requestHeaders !== undefined &&
    requestHeaders.length <= PREFLIGHT_CHARS_MAX &&
    /^[A-Za-z0-9!#$%&'*+.^_`|~, -]+$/.test(requestHeaders)
      ? requestHeaders
      : 'Range';
  return {
    ...CORS,
    'larder-appliance': appliance,
    allow: ALLOW,
    'access-control-allow-methods': ALLOW,
    'access-control-allow-headers': echoed,
    'access-control-max-age': PREFLIGHT_MAX_AGE_S,
    'content-length': 0,
  };
}
