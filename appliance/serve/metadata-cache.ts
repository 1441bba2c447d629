// The worker's metadata cache: what it knows of stored responses, and where it learns the rest. This is the worker's half of RFC 9111: a
// known response that is fresh enough for the request is served without asking anybody.

import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { entriesAtMost } from '../../runtime/lru.ts';
import type { AssetView } from '../http/asset.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { parseDirectives } from '../http/cache-control.ts';
import { freshnessOf, judgeFreshness, type Freshness } from '../http/freshness.ts';
import { isUnconditional } from '../http/precondition.ts';
import { firstByteHint } from '../http/range.ts';
import { hitOutcome, type CacheOutcome } from '../http/cache-status.ts';
import { primaryKeyOf, VariantIndex } from '../http/vary.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import type { Forward } from '../http/cache-status.ts';
import type { FetchRequest, ReplyHead, Revalidation } from '../link/messages.ts';
import type { WorkerCounters } from './counters.ts';
import type { CacheRequest } from './request.ts';
import { isStorekeeperDown, withoutLookup } from './storekeeper-down.ts';

const ENTRIES_MAX = 50_000;
/** Attempts to find a response that does not become stale while it is looked up. */
const ATTEMPTS_MAX = 4;

export interface CachedAsset {
  readonly asset: AssetView;
  readonly freshness: Freshness;
}

/** A body that is on its way already, from byte `from` of the asset. */
export interface OpenBody {
  readonly reply: FetchReply;
  readonly from: number;
}

export type CacheLookup =
  | (CachedAsset & {
      readonly kind: 'asset';
      readonly openBody: OpenBody | null;
      readonly forward: (Omit<Forward, 'reason'> & { readonly reason: string }) | null;
    })
  | { readonly kind: 'relay'; readonly head: ReplyHead & { kind: 'relay' }; readonly reply: FetchReply }
  | BypassLookup
  | { readonly kind: 'not-cached' };

/** The origin is to answer. `forward` is the reason in the words of RFC 9211. */
export interface BypassLookup {
  readonly kind: 'bypass';
  readonly forward: 'bypass' | 'stale' | 'request';
  readonly detail: string;
  /** The stored response that a HEAD is to revalidate. */
  readonly revalidates?: CachedAsset;
}

export interface MetadataCacheDeps {
  readonly storekeeper: StorekeeperClient;
  readonly mode: KeyMode;
  readonly counters: WorkerCounters;
  readonly clock: Clock;
  readonly log: Log;
}

const NO_DIRECTIVES = parseDirectives(undefined);

export class MetadataCache {
  readonly #deps: MetadataCacheDeps;
  readonly #entries = new LRUCache<string, CachedAsset>(entriesAtMost(ENTRIES_MAX));
  readonly #variants = new VariantIndex();
  /** The last lookup of each key that is under way. What it brings is not stored when the key is invalidated meanwhile. */
  readonly #lookups = new Map<string, symbol>();
  readonly #revalidating = new Set<string>();

  constructor(deps: MetadataCacheDeps) {
    this.#deps = deps;
  }

  /** A response that any plain request may have now: it does not vary and is fresh. */
  freshHit(key: string): CachedAsset | null {
    const cached = this.#entries.get(key);
    if (cached === undefined) return null;
    return judgeFreshness(cached.freshness, NO_DIRECTIVES, this.#deps.clock.now()) === 'fresh' ? cached : null;
  }

  invalidate(keys: readonly string[]): void {
    for (const key of keys) {
      this.#entries.delete(key);
      this.#lookups.delete(primaryKeyOf(key));
    }
  }

  /** Drops the response that would be served for this request. */
  invalidateVariant({ key, headers }: CacheRequest): void {
    this.#entries.delete(this.#variants.variantKeyFor(key, headers));
  }

  invalidateAll(): void {
    this.#entries.clear();
    this.#lookups.clear();
    this.#variants.clear();
  }

  /** Throws the storekeeper's fault. */
  async lookUp(cacheRequest: CacheRequest): Promise<CacheLookup> {
    const { directives, key, headers } = cacheRequest;
    let cached = this.#entries.get(this.#variants.variantKeyFor(key, headers)) ?? null;
    for (let attempt = 1; ; attempt += 1) {
      if (cached !== null) {
        const decided = this.#fromCached(cacheRequest, cached);
        if (decided !== null) return decided;
      }
      if (!directives.has('only-if-cached') && directives.has('no-store'))
        return { kind: 'bypass', forward: 'request', detail: '' };
      const revalidate = cached === null ? null : revalidationOf(cached);
      let found: CacheLookup & { readonly validated?: boolean };
      try {
        found = await this.#fetch(cacheRequest, { revalidate, directives: [...directives] });
      } catch (error) {
        if (isStorekeeperDown(error)) return withoutLookup(this.#deps, directives);
        throw error;
      }
      if (found.kind !== 'asset') return found;
      if (found.validated === true || attempt >= ATTEMPTS_MAX) return this.#withForwardReason(found, cached);
      if (this.#judge(found, cacheRequest) !== 'validate') return found;
      closeBody(found.openBody);
      cached = found;
    }
  }

  /** The stored response after a HEAD that was to revalidate it did not reach the origin. Throws `validation_failed`. */
  async staleAfterFailure(cacheRequest: CacheRequest, cached: CachedAsset): Promise<CachedAsset> {
    const revalidate = { ...revalidationOf(cached), originFailed: true };
    const found = await this.#fetch(cacheRequest, { revalidate, directives: [...cacheRequest.directives] }).catch(
      (error: unknown) => {
        if (isStorekeeperDown(error)) return null;
        throw error;
      },
    );
    if (found?.kind === 'asset') {
      closeBody(found.openBody);
      return found;
    }
    if (found?.kind === 'relay') closeBody(found);
    throw new Fault('validation_failed', `${cacheRequest.key} is stale and the origin cannot be reached`);
  }

  /** What is served of a known response; null when the storekeeper has to be asked. */
  #fromCached(cacheRequest: CacheRequest, cached: CachedAsset): CacheLookup | null {
    const verdict = this.#judge(cached, cacheRequest);
    if (verdict === 'revalidate') this.#revalidateInBackground(cached, cacheRequest);
    if (verdict !== 'validate') return { kind: 'asset', ...cached, openBody: null, forward: null };
    if (cacheRequest.directives.has('only-if-cached')) return { kind: 'not-cached' };
    // RFC 9111 4.3.5: the response to a HEAD updates the stored one. A conditional request waits for the update first.
    if (cacheRequest.method === 'HEAD' && isUnconditional(cacheRequest.preconditions))
      return { kind: 'bypass', forward: 'stale', detail: '', revalidates: cached };
    return null;
  }

  #judge({ freshness }: CachedAsset, { directives }: CacheRequest): ReturnType<typeof judgeFreshness> {
    return judgeFreshness(freshness, directives, this.#deps.clock.now());
  }

  async #fetch(
    cacheRequest: CacheRequest,
    spec: Pick<FetchRequest, 'revalidate' | 'directives'>,
  ): Promise<CacheLookup & { readonly validated?: boolean }> {
    const { key } = cacheRequest;
    const request = fetchRequestOf(cacheRequest, spec);
    const lookup = Symbol(key);
    this.#lookups.set(key, lookup);
    let isCurrent = false;
    let reply: FetchReply;
    try {
      reply = await this.#deps.storekeeper.fetch(request);
    } finally {
      isCurrent = this.#lookups.get(key) === lookup;
      if (isCurrent) this.#lookups.delete(key);
    }
    const { head } = reply;
    if (head.kind === 'relay') return { kind: 'relay', head, reply };
    if (head.kind === 'not-cached') return { kind: 'not-cached' };
    if (head.kind !== 'asset')
      return { kind: 'bypass', forward: 'bypass', detail: head.kind === 'bypass' ? head.reason : '' };
    const { asset, forward, validated } = head;
    const cached = { asset, freshness: freshnessOf(asset.headers, asset.generatedAtMs) };
    if (isCurrent) this.#store(cached);
    const openBody = head.body ? { reply, from: request.from === 'suffix' ? 0 : request.from } : null;
    return { kind: 'asset', ...cached, openBody, forward, validated };
  }

  #store(cached: CachedAsset): void {
    const { key, headers } = cached.asset;
    for (const stale of this.#variants.record(key, headers)) this.#entries.delete(stale);
    this.#entries.set(key, cached);
  }

  /** RFC 9211: a response that was fresh went to the origin because the request wanted it so. */
  #withForwardReason(found: CacheLookup & { kind: 'asset' }, before: CachedAsset | null): CacheLookup {
    if (found.forward?.reason !== 'stale' || before === null) return found;
    const wasFresh = judgeFreshness(before.freshness, NO_DIRECTIVES, this.#deps.clock.now()) === 'fresh';
    return wasFresh ? { ...found, forward: { ...found.forward, reason: 'request' } } : found;
  }

  /** RFC 5861 3: once for all clients that are served the stale response meanwhile. */
  #revalidateInBackground(cached: CachedAsset, cacheRequest: CacheRequest): void {
    const { key } = cached.asset;
    if (this.#revalidating.has(key)) return;
    this.#revalidating.add(key);
    const revalidate = { ...revalidationOf(cached), background: true };
    this.#fetch({ ...cacheRequest, method: 'HEAD' }, { revalidate, directives: [] })
      .then((found) => closeBody(found.kind === 'asset' ? found.openBody : found.kind === 'relay' ? found : null))
      .catch((error: unknown) => {
        if (isFault(error)) this.#deps.counters.add('larder_faults_total', 1, { code: error.code });
        else this.#deps.log.error({ err: error, key }, 'revalidation failed');
      })
      .finally(() => this.#revalidating.delete(key));
  }
}

/** The outcome of serving a stored response without asking the origin. */
export const hitOutcomeOf = ({ asset, freshness }: CachedAsset, nowMs: number): CacheOutcome =>
  hitOutcome(asset.generatedAtMs === null ? null : freshness.generatedAtMs + freshness.lifetimeMs - nowMs);

/** Closes a body that nobody reads; the fetch behind it goes on. */
export function closeBody(open: { readonly reply: FetchReply } | null): void {
  open?.reply.body.close();
}

const revalidationOf = ({ freshness }: CachedAsset): Revalidation => ({
  ...{ generatedAtMs: freshness.generatedAtMs, background: false, originFailed: false },
});

/** A HEAD needs the metadata alone: it asks for the first byte. */
function fetchRequestOf(
  { method, key, headers, range, preconditions }: CacheRequest,
  spec: Pick<FetchRequest, 'revalidate' | 'directives'>,
): FetchRequest {
  const isHead = method === 'HEAD';
  return {
    key,
    headers,
    ...spec,
    expected: null,
    from: isHead ? 0 : firstByteHint(range),
    to: isHead ? 1 : lastByteHint(range),
    wantsFullBody: !isHead && range === null && isUnconditional(preconditions),
    continuation: false,
  };
}

/** Exclusive end of the first range if it is bounded; null when the rest of the asset is wanted. */
function lastByteHint(range: string | null): number | null {
  const match = /^bytes=\s*\d{1,15}-(\d{1,15})\s*(?:,|$)/i.exec(range ?? '');
  return match === null ? null : Number(match[1]) + 1;
}
