// Revalidation (RFC 9111 4.3): the origin is asked whether a stored response still holds, and for the bytes wanted when it does not.
// Whether a stale response is served instead of an error is decided here and nowhere else, from what the origin actually answered, by
// the rule `mayServeStaleOnError` of http/freshness.ts.

import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import { withResponseTimeout } from '../../runtime/backpressure.ts';
import type { Clock } from '../../runtime/clock.ts';
import { freshnessOf, mayServeStaleOnError, unstorableReason, varyNames } from '../http/freshness.ts';
import { updatedHeaders } from '../http/headers.ts';
import { primaryKeyOf } from '../http/vary.ts';
import type { FetchRequest, Revalidation } from '../link/messages.ts';
import { BLOCK_BYTES, fitsHead } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import type { Entry } from '../store/volume.ts';
import type { FirstResponses, OriginLookup } from './first-response.ts';
import type { InvalidationEpochs } from './invalidations.ts';
import { forwardOf, relayResult, staleResult, type LookupResult } from './lookup-result.ts';
import {
  conditionalHeaders,
  credentialsOf,
  directivesOf,
  opaqueTag,
  REQUEST_DEPENDENT,
  requestedBlocks,
  setCookieOf,
} from './origin-request.ts';
import { discardBody, type Origin, type OriginBytes, type OriginRelay } from './origin.ts';

/** An origin that failed is not asked again for this long while the stored response may be served instead. */
const FAILING_MS = 5_000;
const FAILING_MAX = 10_000;
/** How long the origin may take to begin its response when the stored one may be served instead. */
const PATIENCE_MS = 3_000;

export interface RevalidationsDeps {
  readonly cache: Cache;
  readonly origin: Origin;
  readonly first: FirstResponses;
  readonly epochs: InvalidationEpochs;
  readonly reverseProxy: boolean;
  readonly clock: Clock;
}

/** What the origin says of a stored response. */
interface Confirmation {
  readonly headers: Readonly<Record<string, string>>;
  readonly generatedAtMs: number;
}

export class Revalidations {
  readonly #deps: RevalidationsDeps;
  /** Assets whose last revalidation failed, with the origin's status; null when it could not be reached. */
  readonly #failing = new LRUCache<string, { readonly status: number | null }>({ max: FAILING_MAX, ttl: FAILING_MS });

  constructor(deps: RevalidationsDeps) {
    this.#deps = deps;
  }

  async revalidate(lookup: OriginLookup, stored: Entry): Promise<LookupResult> {
    const { request } = lookup;
    if (revalidationOf(request).originFailed) return this.#afterFailedHead(request, stored);
    const failing = this.#failing.get(stored.key);
    if (failing !== undefined && this.#mayServeStale(request, stored, failing.status))
      return staleResult(stored, failing.status);
    let response: OriginBytes | OriginRelay;
    try {
      response = await this.#askOrigin(request, stored);
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      this.#failing.set(stored.key, { status: null });
      if (this.#mayServeStale(request, stored, null)) return staleResult(stored, null);
      throw unvalidated(request, error);
    }
    if (response.kind === 'relay') return this.#concludeRelay(lookup, stored, response);
    // Another version takes the place of the stored one, unless it is for this client alone.
    if (response.unstorable !== null && !REQUEST_DEPENDENT.has(response.unstorable))
      await this.#deps.cache.removeEntry(stored);
    return this.#deps.first.accept(lookup, { response, reason: 'stale' });
  }

  /**
   * Updates an entry by a 304 or the response to a HEAD. `other`: the response is of another version or variant, or forbids to store
   * it. `unshared`: it is for the client alone that asked, but confirms the stored response.
   */
  updateEntry(
    stored: Entry,
    confirmation: Confirmation,
    requestHeaders: Readonly<Record<string, string>>,
  ): 'updated' | 'unshared' | 'other' {
    const etag = confirmation.headers['etag'];
    if (etag !== undefined && opaqueTag(etag) !== opaqueTag(stored.headers['etag'] ?? '')) return 'other';
    const headers = updatedHeaders(stored.headers, confirmation.headers, this.#deps.reverseProxy);
    if (varyNames(headers)?.join() !== varyNames(stored.headers)?.join()) return 'other';
    if (!fitsHead({ ...stored, headers })) return 'other';
    const unstorable = unstorableReason(
      { ...headers, ...setCookieOf(confirmation.headers) },
      credentialsOf(requestHeaders),
    );
    if (unstorable !== null) return REQUEST_DEPENDENT.has(unstorable) ? 'unshared' : 'other';
    this.#failing.delete(stored.key);
    this.#deps.cache.updateMetadata(stored, { headers, generatedAtMs: confirmation.generatedAtMs });
    return 'updated';
  }

  /** `status` is the origin's 5xx; null when it could not be reached. */
  #mayServeStale(request: FetchRequest, stored: Entry, status: number | null): boolean {
    if (stored.removed) return false;
    // Nobody is served: the stored response is kept, and asked about again later.
    if (revalidationOf(request).background) return true;
    const freshness = freshnessOf(stored.headers, stored.generatedAtMs);
    const nowMs = this.#deps.clock.now();
    return mayServeStaleOnError(freshness, directivesOf(request), { nowMs, status });
  }

  #askOrigin(request: FetchRequest, stored: Entry): Promise<OriginBytes | OriginRelay> {
    const { key, headers } = request;
    const { first, last } = requestedBlocks(request);
    const fetch = (signal: AbortSignal | null): Promise<OriginBytes | OriginRelay> =>
      this.#deps.origin.fetch('miss', {
        ...{ key, first: first * BLOCK_BYTES, last: (last + 1) * BLOCK_BYTES - 1, ifMatch: null, headers, signal },
        conditional: conditionalHeaders(stored),
      });
    return this.#mayServeStale(request, stored, null) ? withResponseTimeout(PATIENCE_MS, fetch) : fetch(null);
  }

  async #concludeRelay(lookup: OriginLookup, stored: Entry, response: OriginRelay): Promise<LookupResult> {
    const { cache, first, epochs } = this.#deps;
    const { request } = lookup;
    const { status } = response;
    if (status >= 500) this.#failing.set(stored.key, { status });
    if (status >= 500 && this.#mayServeStale(request, stored, status)) {
      discardBody(response.body);
      return staleResult(stored, status);
    }
    if (status === 404 || status === 410) await cache.removeEntry(stored);
    if (status !== 304 && status !== 416) return relayResult(request, response, 'stale');
    discardBody(response.body);
    const isCurrent =
      status === 304 && !stored.removed && !epochs.isInvalidatedSince(primaryKeyOf(request.key), lookup.epoch);
    if (isCurrent && this.updateEntry(stored, response, request.headers) !== 'other')
      return { kind: 'entry', entry: stored, validated: true, forward: forwardOf('stale', 304) };
    await cache.removeEntry(stored);
    return first.fetch(lookup, 'stale');
  }

  /** A worker forwarded a HEAD and could not reach the origin: it is not asked again. */
  #afterFailedHead(request: FetchRequest, stored: Entry): LookupResult {
    this.#failing.set(stored.key, { status: null });
    if (!this.#mayServeStale(request, stored, null)) throw unvalidated(request, null);
    return { kind: 'entry', entry: stored, validated: true, forward: null };
  }
}

/** A stored response is asked about only for a request that wants it revalidated. */
const revalidationOf = ({ revalidate }: FetchRequest): Revalidation => revalidate!;

const isUnreachable = (error: unknown): boolean =>
  isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');

const unvalidated = ({ key }: FetchRequest, cause: unknown): Fault =>
  new Fault('validation_failed', `${key} is stale and the origin cannot be reached`, { cause });
