// The negative cache: errors and redirects that the origin lets a shared cache store. They are short and have no bytes worth a
// file, so they are kept in memory alone, and only for as long as the origin says.

import { LRUCache } from 'lru-cache';
import type { Clock } from '../../runtime/clock.ts';
import {
  ageSeconds,
  explicitLifetimeMs,
  freshnessOf,
  unstorableReason,
  varyNames,
  type RequestCredentials,
} from '../http/freshness.ts';
import { primaryKeyOf } from '../http/vary.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { LookupResult } from './lookup-result.ts';
import { credentialsOf, limitsAge } from './origin-request.ts';

const ENTRIES_MAX = 10_000;
const BYTES_MAX = 32 * 2 ** 20;
/**
 * Statuses that RFC 9110 15.1 lets a cache store without more ado and that do not depend on the range, the conditions or the
 * credentials of one request; and the two temporary redirects.
 */
const STATUSES = new Set([204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501]);

type RelayResult = LookupResult & { readonly kind: 'relay' };
type NegativeEntry = Omit<RelayResult, 'body'> & { readonly body: Buffer };

export class NegativeCache {
  readonly #entries = new LRUCache<string, NegativeEntry>({
    max: ENTRIES_MAX,
    maxSize: BYTES_MAX,
    sizeCalculation: ({ body, headers }, key) => body.length + key.length + JSON.stringify(headers).length,
  });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Null when there is no entry, none that is fresh, or the request sets limits to age. */
  find(request: FetchRequest): RelayResult | null {
    const entry = this.#entries.get(primaryKeyOf(request.key));
    if (entry === undefined || limitsAge(request)) return null;
    const nowMs = this.#clock.now();
    const leftMs = remainingMs(entry, nowMs);
    if (leftMs <= 0) return null;
    const age = String(ageSeconds(entry.generatedAtMs, nowMs));
    return { ...entry, headers: { ...entry.headers, age }, leftMs };
  }

  /** Replaces an older entry by what came from the origin, if that may be stored. Returns the result, marked if it was. */
  store({ key, headers }: FetchRequest, result: LookupResult): LookupResult {
    const primaryKey = primaryKeyOf(key);
    const before = this.#entries.get(primaryKey);
    const isOlder = result.kind === 'relay' && before !== undefined && before.generatedAtMs > result.generatedAtMs;
    if (isOlder) return result;
    this.invalidate(primaryKey);
    if (result.kind !== 'relay') return result;
    const { body, forward } = result;
    const isFresh = remainingMs(result, this.#clock.now()) > 0;
    if (!Buffer.isBuffer(body) || !isStorable(result, credentialsOf(headers)) || !isFresh) return result;
    this.#entries.set(primaryKey, { ...result, body });
    return { ...result, forward: { ...forward, stored: true } };
  }

  /** The assets with an entry. */
  keys(): Iterable<string> {
    return this.#entries.keys();
  }

  invalidate(primaryKey: string): void {
    this.#entries.delete(primaryKey);
  }
}

/** By the lifetime that the origin gave; 0 when it gave none. */
const remainingMs = (
  { headers, generatedAtMs }: Pick<RelayResult, 'headers' | 'generatedAtMs'>,
  nowMs: number,
): number => generatedAtMs + (explicitLifetimeMs(headers) ?? 0) - nowMs;

function isStorable(
  { status, headers, cookies, generatedAtMs }: RelayResult,
  credentials: RequestCredentials,
): boolean {
  return (
    STATUSES.has(status) &&
    cookies.length === 0 &&
    unstorableReason(headers, credentials) === null &&
    !freshnessOf(headers, generatedAtMs).noCache &&
    varyNames(headers)!.length === 0
  );
}
