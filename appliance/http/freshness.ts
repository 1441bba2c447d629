// Whether a response may be stored, how old it is, how long it stays fresh and whether it may be served stale: RFC 9111 for a
// shared cache, with RFC 5861 (stale-while-revalidate, stale-if-error) and RFC 9213 (CDN-Cache-Control). Pure: header fields
// and instants in, a decision out.

import { responseDirectives, secondsOf, type Directives } from './cache-control.ts';
import { parseHttpDate } from './http-date.ts';

type Headers = Readonly<Record<string, string>>;

/** RFC 9111 4.2.2: without an explicit lifetime, a tenth of the time since Last-Modified, at most a day. */
const HEURISTIC_FRACTION = 0.1;
const HEURISTIC_MS_MAX = 86_400_000;

export interface RequestCredentials {
  readonly authorization: boolean;
  readonly cookie: boolean;
}

/** Why a shared cache may not store a 200 or 206 (RFC 9111 3); null if it may. */
export function unstorableReason(headers: Headers, credentials: RequestCredentials): string | null {
  const { directives } = responseDirectives(headers);
  if (directives.has('no-store')) return 'no-store';
  if (directives.has('private')) return 'private';
  if (headers['set-cookie'] !== undefined) return 'set-cookie';
  if (varyNames(headers) === null) return 'vary';
  // RFC 9111 3.5: a response to a request with Authorization needs explicit permission.
  const sharable = directives.has('public') || directives.has('s-maxage') || directives.has('must-revalidate');
  if (credentials.authorization && !sharable) return 'authorization';
  // Fetches ask for identity, so an encoded response belongs to another request.
  if (!isIdentity(headers['content-encoding'])) return 'content-encoding';
  // A response to a request with Cookie may be personal, unless the origin states a lifetime.
  const hasLifetime = explicitLifetimeMs(headers) !== null;
  if (credentials.cookie && !hasLifetime) return 'cookie';
  const hasValidator = headers['etag'] !== undefined || parseHttpDate(headers['last-modified']) !== null;
  return hasLifetime || hasValidator ? null : 'no freshness';
}

/** RFC 9110 8.4.1: names of codings are case-insensitive. */
export const isIdentity = (contentEncoding: string | undefined): boolean =>
  contentEncoding === undefined || contentEncoding.trim().toLowerCase() === 'identity';

/**
 * The names in Vary, sorted; null for `*`. Accept-Encoding is left out: every fetch asks the origin for identity, so all
 * clients get the same representation.
 */
export function varyNames(headers: Headers): readonly string[] | null {
  const names = (headers['vary'] ?? '')
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '' && name !== 'accept-encoding');
  if (names.includes('*')) return null;
  return [...new Set(names)].sort();
}

/** RFC 9111 4.2.3: when the origin generated the response, as the time it arrived less its age on arrival. */
export function generatedAtMsOf(
  headers: Headers,
  times: { readonly askedMs: number; readonly answeredMs: number },
): number {
  const { askedMs, answeredMs } = times;
  const dateMs = parseHttpDate(headers['date']) ?? answeredMs;
  const apparentMs = Math.max(0, answeredMs - dateMs);
  const age = /^\s*(\d{1,10})\s*(?:,|$)/.exec(headers['age'] ?? '');
  const correctedMs = Number(age?.[1] ?? 0) * 1000 + Math.max(0, answeredMs - askedMs);
  return answeredMs - Math.max(apparentMs, correctedMs);
}

/** What the header fields of a stored response say about its reuse. Computed once per stored response. */
export interface Freshness {
  readonly generatedAtMs: number;
  readonly lifetimeMs: number;
  /** `no-cache`: the response is validated before every use. */
  readonly noCache: boolean;
  /** `must-revalidate`, `proxy-revalidate` or `s-maxage`: never served stale, not even if the origin is unreachable. */
  readonly mustRevalidate: boolean;
  readonly staleWhileRevalidateMs: number;
  readonly staleIfErrorMs: number;
}

/** The freshness of catalogued assets, which never change. */
export const IMMUTABLE: Freshness = {
  generatedAtMs: 0,
  lifetimeMs: Number.POSITIVE_INFINITY,
  ...{ noCache: false, mustRevalidate: false, staleWhileRevalidateMs: 0, staleIfErrorMs: 0 },
};

/** `generatedAtMs` is null for a catalogued asset. */
export function freshnessOf(headers: Headers, generatedAtMs: number | null): Freshness {
  if (generatedAtMs === null) return IMMUTABLE;
  const { directives } = responseDirectives(headers);
  const directiveMs = (name: string): number => (secondsOf(directives, name) ?? 0) * 1000;
  return {
    generatedAtMs,
    lifetimeMs: explicitLifetimeMs(headers) ?? heuristicLifetimeMs(headers),
    noCache: directives.has('no-cache'),
    // RFC 9111 5.2.2.10: s-maxage implies proxy-revalidate.
    mustRevalidate: ['must-revalidate', 'proxy-revalidate', 's-maxage'].some((name) => directives.has(name)),
    staleWhileRevalidateMs: directiveMs('stale-while-revalidate'),
    staleIfErrorMs: directiveMs('stale-if-error'),
  };
}

/**
 * `fresh` and `stale` (permitted by max-stale) are served from the cache. `revalidate` is served as well, and revalidated in
 * the background. `validate` waits for the origin.
 */
export type FreshnessVerdict = 'fresh' | 'stale' | 'revalidate' | 'validate';

export function judgeFreshness(freshness: Freshness, request: Directives, nowMs: number): FreshnessVerdict {
  if (freshness === IMMUTABLE) return 'fresh';
  const { lifetimeMs } = freshness;
  const ageMs = nowMs - freshness.generatedAtMs;
  if (freshness.noCache || request.has('no-cache')) return 'validate';
  const maxAge = secondsOf(request, 'max-age');
  if (maxAge !== null && ageMs > maxAge * 1000) return 'validate';
  const minFresh = secondsOf(request, 'min-fresh');
  if (minFresh !== null && lifetimeMs - ageMs < minFresh * 1000) return 'validate';
  if (ageMs < lifetimeMs) return 'fresh';
  if (freshness.mustRevalidate) return 'validate';
  const staleMs = ageMs - lifetimeMs;
  if (staleMs <= maxStaleMs(request)) return 'stale';
  // RFC 9111 5.2.1.1: a request with max-age but no max-stale accepts no stale response.
  return staleMs <= freshness.staleWhileRevalidateMs && maxAge === null ? 'revalidate' : 'validate';
}

/** Whether a stale response may be served instead of an error: the origin's `status`, or null if it is unreachable. */
export function mayServeStaleOnError(
  freshness: Freshness,
  request: Directives,
  spec: { readonly nowMs: number; readonly status: number | null },
): boolean {
  if (freshness.noCache || freshness.mustRevalidate || request.has('no-cache')) return false;
  const staleMs = spec.nowMs - freshness.generatedAtMs - freshness.lifetimeMs;
  const allowedMs = Math.max(freshness.staleIfErrorMs, (secondsOf(request, 'stale-if-error') ?? 0) * 1000);
  if (staleMs <= allowedMs) return spec.status === null || [500, 502, 503, 504].includes(spec.status);
  // RFC 9111 4.2.4: a disconnected cache may serve stale responses, unless a stale-if-error of theirs sets a limit.
  return spec.status === null && freshness.staleIfErrorMs === 0;
}

/** The value of Age. */
export const ageSeconds = (generatedAtMs: number, nowMs: number): number =>
  Math.max(0, Math.floor((nowMs - generatedAtMs) / 1000));

/** How stale a response the request accepts; -1 for none. max-stale without an argument accepts any (RFC 9111 5.2.1.2). */
function maxStaleMs(request: Directives): number {
  const argument = request.get('max-stale');
  if (argument === undefined) return -1;
  return argument === '' ? Number.POSITIVE_INFINITY : (secondsOf(request, 'max-stale') ?? 0) * 1000;
}

/** RFC 9111 4.2.1, in order of precedence; null where the origin states no lifetime. */
export function explicitLifetimeMs(headers: Headers): number | null {
  const { directives, targeted } = responseDirectives(headers);
  const seconds = secondsOf(directives, 's-maxage') ?? secondsOf(directives, 'max-age');
  if (seconds !== null) return seconds * 1000;
  if (targeted || headers['expires'] === undefined) return null;
  const expiresMs = parseHttpDate(headers['expires']);
  // RFC 9111 5.3: an invalid date, in particular "0", counts as expired.
  return expiresMs === null ? 0 : Math.max(0, expiresMs - (parseHttpDate(headers['date']) ?? expiresMs));
}

/** RFC 9111 4.2.2. */
function heuristicLifetimeMs(headers: Headers): number {
  const modifiedMs = parseHttpDate(headers['last-modified']);
  const dateMs = parseHttpDate(headers['date']);
  if (modifiedMs === null || dateMs === null) return 0;
  return Math.min(Math.max(0, dateMs - modifiedMs) * HEURISTIC_FRACTION, HEURISTIC_MS_MAX);
}
