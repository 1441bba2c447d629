// Heads of answers: which fields a player gets with what status. Pure.

import type { Fault } from '../protocol/faults.ts';
import type { AssetView } from './link.ts';

export type Fields = Record<string, string | number>;

const CORS: Fields = {
  'access-control-allow-origin': '*',
  'access-control-expose-headers':
    'Accept-Ranges, Age, Cache-Status, Content-Length, Content-Range, Date, ETag, Retry-After, Server-Timing',
  'timing-allow-origin': '*',
};

export const ALLOW = 'GET, HEAD, OPTIONS';
const RETRY_AFTER_S = 1;

/** RFC 9211. */
export type CacheOutcome = 'hit' | 'miss' | 'partial' | 'pass' | 'relay';
const CACHE_STATUS: Readonly<Record<CacheOutcome, string>> = {
  hit: 'larder; hit',
  miss: 'larder; fwd=uri-miss; stored',
  partial: 'larder; fwd=partial; stored',
  pass: 'larder; fwd=bypass',
  relay: 'larder; fwd=uri-miss',
};

/** Fields of an asset that every 200, 206 and 304 carries alike (RFC 9110 15.3.7, 15.4.5). */
export function assetFields(asset: AssetView, outcome: CacheOutcome, nowMs: number): Fields {
  const { 'content-encoding': encoding, ...kept } = asset.headers;
  const fields: Fields = { ...kept, ...CORS, 'accept-ranges': 'bytes', 'cache-status': CACHE_STATUS[outcome] };
  if (encoding !== undefined && encoding !== 'identity') fields['content-encoding'] = encoding;
  const date = asset.headers['date'] === undefined ? Number.NaN : Date.parse(asset.headers['date']);
  // RFC 9111 5.1: a stored answer says how old it is.
  if (!Number.isNaN(date)) fields['age'] = Math.max(0, Math.floor((nowMs - date) / 1000));
  return fields;
}

/** Of a 304 only what may differ from what the client has (RFC 9110 15.4.5). */
export function notModifiedFields(asset: AssetView, outcome: CacheOutcome, nowMs: number): Fields {
  const fields = assetFields(asset, outcome, nowMs);
  delete fields['content-type'];
  delete fields['content-language'];
  return fields;
}

export function faultFields(fault: Fault, bodyBytes: number): Fields {
  return {
    ...CORS,
    'content-type': 'text/plain; charset=utf-8',
    'content-length': bodyBytes,
    'cache-control': 'no-store',
    'cache-status': `larder; detail=${fault.code}`,
    ...(fault.spec.status === 503 ? { 'retry-after': RETRY_AFTER_S } : {}),
    ...(fault.spec.status === 405 ? { allow: ALLOW } : {}),
  };
}

/** Someone else's answer on its way through. */
export function relayFields(
  headers: Readonly<Record<string, string>>,
  outcome: 'relay' | 'pass',
  detail: string,
): Fields {
  const kept = Object.fromEntries(
    Object.entries(headers).filter(([name]) => !name.startsWith('access-control-') && name !== 'timing-allow-origin'),
  );
  return { ...kept, ...CORS, 'cache-status': `${CACHE_STATUS[outcome]}${detail}` };
}

/** Names the appliance: steering's probe and the turn-up check ask by OPTIONS who is there. */
export function preflightFields(requestHeaders: string | undefined, appliance: string): Fields {
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
