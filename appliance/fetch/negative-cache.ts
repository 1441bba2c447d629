// Errors and redirects that the origin lets a shared cache keep: short answers without bytes worth a file. They are kept in
// memory alone, and only as long as the origin says.

import { LRUCache } from 'lru-cache';
import type { Clock } from '../../runtime/clock.ts';
import {
  ageSeconds,
  explicitLifetimeMs,
  freshnessOf,
  varyNames,
  unstorableReason,
  type RequestCredentials,
} from '../http/freshness.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { LookupResult } from './lookup-result.ts';
import { credentialsOf } from './origin-request.ts';
import { primaryKeyOf } from '../http/vary.ts';

const ANSWERS_MAX = 10_000;
const BYTES_MAX = 32 * 2 ** 20;
/** RFC 9110 15.1, those that say nothing of one request's range, conditions or credentials; and two that redirect for now. */
const STATUSES = new Set([204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501]);

type RelayResult = LookupResult & { readonly kind: 'relay' };
type NegativeEntry = Omit<RelayResult, 'body'> & { readonly body: Buffer };

export class NegativeCache {
  readonly #kept = new LRUCache<string, NegativeEntry>({
    max: ANSWERS_MAX,
    maxSize: BYTES_MAX,
    sizeCalculation: ({ body, headers }, key) => body.length + key.length + JSON.stringify(headers).length,
  });
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Null where there is none, or none that is fresh. */
  find({ key, skipNegativeCache: anew }: FetchRequest): RelayResult | null {
    const kept = this.#kept.get(primaryKeyOf(key));
    if (kept === undefined || anew) return null;
    const nowMs = this.#clock.now();
    const leftMs = leftOf(kept, nowMs);
    if (leftMs <= 0) return null;
    return { ...kept, headers: { ...kept.headers, age: String(ageSeconds(kept.generatedAtMs, nowMs)) }, leftMs };
  }

  /** What came from the origin takes the place of what is older. */
  store({ key, headers }: FetchRequest, result: LookupResult): LookupResult {
    const name = primaryKeyOf(key);
    const before = this.#kept.get(name);
    if (result.kind === 'relay' && before !== undefined && before.generatedAtMs > result.generatedAtMs) return result;
    this.invalidate(name);
    if (result.kind !== 'relay') return result;
    const { body, forward } = result;
    if (!Buffer.isBuffer(body) || !mayKeep(result, credentialsOf(headers)) || leftOf(result, this.#clock.now()) <= 0)
      return result;
    this.#kept.set(name, { ...result, body });
    return { ...result, forward: { ...forward, stored: true } };
  }

  invalidate(key: string): void {
    this.#kept.delete(key);
  }
}

/** Of what the origin said; nothing where it said nothing. */
const leftOf = ({ headers, generatedAtMs }: Pick<RelayResult, 'headers' | 'generatedAtMs'>, nowMs: number): number =>
  generatedAtMs + (explicitLifetimeMs(headers) ?? 0) - nowMs;

function mayKeep({ status, headers, cookies, generatedAtMs }: RelayResult, asker: RequestCredentials): boolean {
  return (
    STATUSES.has(status) &&
    cookies.length === 0 &&
    unstorableReason(headers, asker) === null &&
    !freshnessOf(headers, generatedAtMs).noCache &&
    varyNames(headers)!.length === 0
  );
}
