// Whether a stored answer may be served now: the rules of RFC 9111 for a shared cache, with 5861 (stale-while-revalidate,
// stale-if-error) and 9213 (CDN-Cache-Control). Pure: headers and instants in, a verdict out.

import { responseDirectives, secondsOf, type Directives } from './cache-control.ts';
import { httpMs } from './http-date.ts';

type Headers = Readonly<Record<string, string>>;

/** RFC 9111 4.2.2: a tenth of the time since the last change, where the origin says nothing; never more than a day. */
const HEURISTIC_SHARE = 0.1;
const HEURISTIC_MS_MAX = 86_400_000;

export interface RequestCredentials {
  readonly authorization: boolean;
  readonly cookie: boolean;
}

/** Null where a shared cache may keep the answer, else why not. The status is 200 or 206. */
export function unstorableReason(headers: Headers, asker: RequestCredentials): string | null {
  const { directives } = responseDirectives(headers);
  if (directives.has('no-store')) return 'no-store';
  if (directives.has('private')) return 'private';
  if (headers['set-cookie'] !== undefined) return 'set-cookie';
  if (varyNames(headers) === null) return 'vary';
  // RFC 9111 3.5.
  const shared = directives.has('public') || directives.has('s-maxage') || directives.has('must-revalidate');
  if (asker.authorization && !shared) return 'authorization';
  // We ask for none: an origin that encodes all the same made it for somebody else.
  if ((headers['content-encoding'] ?? 'identity') !== 'identity') return 'content-encoding';
  // What was made for somebody known is kept only where the origin says for how long.
  const said = explicitLifetimeMs(headers) !== null;
  if (asker.cookie && !said) return 'cookie';
  const validator = headers['etag'] !== undefined || httpMs(headers['last-modified']) !== null;
  return said || validator ? null : 'no freshness';
}

/**
 * Fields by which an answer varies, sorted; null for `*`. Accept-Encoding is none of them: the origin is asked for
 * identity whoever asks us, so that every asker gets the same representation.
 */
export function varyNames(headers: Headers): readonly string[] | null {
  const names = (headers['vary'] ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '' && name !== 'accept-encoding');
  if (names.includes('*')) return null;
  return [...new Set(names)].sort();
}

/** RFC 9111 4.2.3: the instant at which the answer, with the age it came with, was made. */
export function generatedAtMsOf(
  headers: Headers,
  times: { readonly askedMs: number; readonly answeredMs: number },
): number {
  const { askedMs, answeredMs } = times;
  const dateMs = httpMs(headers['date']) ?? answeredMs;
  const apparentMs = Math.max(0, answeredMs - dateMs);
  const age = /^\s*(\d{1,10})\s*(?:,|$)/.exec(headers['age'] ?? '');
  const correctedMs = Number(age?.[1] ?? 0) * 1000 + Math.max(0, answeredMs - askedMs);
  return answeredMs - Math.max(apparentMs, correctedMs);
}

/** What an answer's headers say about its reuse; made once for each stored answer. */
export interface Freshness {
  readonly generatedAtMs: number;
  readonly lifetimeMs: number;
  /** `no-cache`: never without asking. */
  readonly noCache: boolean;
  /** `must-revalidate` and its like: never stale, not even with the origin away. */
  readonly mustRevalidate: boolean;
  readonly staleWhileRevalidateMs: number;
  readonly staleIfErrorMs: number;
}

/** Catalogued assets: nothing to ask, ever. */
export const IMMUTABLE: Freshness = {
  generatedAtMs: 0,
  lifetimeMs: Number.POSITIVE_INFINITY,
  ...{ noCache: false, mustRevalidate: false, staleWhileRevalidateMs: 0, staleIfErrorMs: 0 },
};

export function freshnessOf(headers: Headers, generatedAtMs: number | null): Freshness {
  if (generatedAtMs === null) return IMMUTABLE;
  const { directives } = responseDirectives(headers);
  const seconds = (name: string): number => (secondsOf(directives, name) ?? 0) * 1000;
  return {
    generatedAtMs,
    lifetimeMs: explicitLifetimeMs(headers) ?? heuristicMs(headers),
    noCache: directives.has('no-cache'),
    // RFC 9111 5.2.2.10: s-maxage implies proxy-revalidate.
    mustRevalidate: ['must-revalidate', 'proxy-revalidate', 's-maxage'].some((name) => directives.has(name)),
    staleWhileRevalidateMs: seconds('stale-while-revalidate'),
    staleIfErrorMs: seconds('stale-if-error'),
  };
}

/**
 * `fresh` and `stale` are served at once; `revalidate` too, while somebody asks behind the reader's back; `validate`
 * waits for the origin's word.
 */
export type FreshnessVerdict = 'fresh' | 'stale' | 'revalidate' | 'validate';

export function judgeFreshness(freshness: Freshness, request: Directives, nowMs: number): FreshnessVerdict {
  if (freshness === IMMUTABLE) return 'fresh';
  const { lifetimeMs, noCache: always, mustRevalidate: strict, staleWhileRevalidateMs: whileRevalidateMs } = freshness;
  const ageMs = nowMs - freshness.generatedAtMs;
  if (always || request.has('no-cache')) return 'validate';
  const maxAge = secondsOf(request, 'max-age');
  if (maxAge !== null && ageMs > maxAge * 1000) return 'validate';
  const minFresh = secondsOf(request, 'min-fresh');
  if (minFresh !== null && lifetimeMs - ageMs < minFresh * 1000) return 'validate';
  if (ageMs < lifetimeMs) return 'fresh';
  if (strict) return 'validate';
  const staleMs = ageMs - lifetimeMs;
  if (staleMs <= maxStaleMs(request)) return 'stale';
  // RFC 9111 5.2.1.1: max-age without max-stale asks for nothing stale.
  return staleMs <= whileRevalidateMs && maxAge === null ? 'revalidate' : 'validate';
}

/** With the origin away (`null`) or failing with a status: whether the stored answer is better than an error. */
export function mayServeStaleOnError(
  freshness: Freshness,
  request: Directives,
  spec: { readonly nowMs: number; readonly status: number | null },
): boolean {
  if (freshness.noCache || freshness.mustRevalidate || request.has('no-cache')) return false;
  const staleMs = spec.nowMs - freshness.generatedAtMs - freshness.lifetimeMs;
  const allowedMs = Math.max(freshness.staleIfErrorMs, (secondsOf(request, 'stale-if-error') ?? 0) * 1000);
  if (staleMs <= allowedMs) return spec.status === null || [500, 502, 503, 504].includes(spec.status);
  // RFC 9111 4.2.4: disconnected, and nobody forbade it.
  return spec.status === null && freshness.staleIfErrorMs === 0;
}

export const ageSeconds = (generatedAtMs: number, nowMs: number): number =>
  Math.max(0, Math.floor((nowMs - generatedAtMs) / 1000));

function maxStaleMs(request: Directives): number {
  const argument = request.get('max-stale');
  if (argument === undefined) return -1;
  return argument === '' ? Number.POSITIVE_INFINITY : (secondsOf(request, 'max-stale') ?? 0) * 1000;
}

/** RFC 9111 4.2.1, in order of precedence; null where the origin says nothing. */
export function explicitLifetimeMs(headers: Headers): number | null {
  const { directives, targeted } = responseDirectives(headers);
  const seconds = secondsOf(directives, 's-maxage') ?? secondsOf(directives, 'max-age');
  if (seconds !== null) return seconds * 1000;
  if (targeted || headers['expires'] === undefined) return null;
  const expiresMs = httpMs(headers['expires']);
  // RFC 9111 5.3: an invalid date, "0" above all, is in the past.
  return expiresMs === null ? 0 : Math.max(0, expiresMs - (httpMs(headers['date']) ?? expiresMs));
}

function heuristicMs(headers: Headers): number {
  const modifiedMs = httpMs(headers['last-modified']);
  const dateMs = httpMs(headers['date']);
  if (modifiedMs === null || dateMs === null) return 0;
  return Math.min(Math.max(0, dateMs - modifiedMs) * HEURISTIC_SHARE, HEURISTIC_MS_MAX);
}
