// What a worker knows of stored answers, and where it learns the rest: the worker's half of RFC 9111. A known answer that
// is fresh enough for the request is served without asking anybody.

import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { hitOutcome, type CacheOutcome } from '../http/cache-status.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { parseDirectives, type Directives } from '../http/cache-control.ts';
import { freshnessOf, judgeFreshness, mayServeStaleOnError, type Freshness } from '../http/freshness.ts';
import type { AssetView } from '../http/asset.ts';
import type { Forward, ReplyHead, Validation } from '../link/messages.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import { isUnconditional, type Preconditions } from '../http/precondition.ts';
import { firstByteHint } from '../http/range.ts';
import type { WorkerCounters } from './counters.ts';
import { primaryKeyOf, VariantIndex } from '../http/vary.ts';

const KNOWN_MAX = 50_000;
/** An answer that ages while it is looked at, over and over. */
const LOOKS_MAX = 4;

/** A GET or HEAD as far as it matters here. */
export interface CacheRequest {
  readonly method: 'GET' | 'HEAD';
  readonly key: string;
  readonly range: string | null;
  readonly conditions: Preconditions;
  /** Empty in a fleet, where nothing ages. */
  readonly directives: Directives;
  readonly headers: Readonly<Record<string, string>>;
}

export interface CachedAsset {
  readonly asset: AssetView;
  readonly freshness: Freshness;
}

/** Bytes of the asset from `from`, on their way already. */
export interface OpenBody {
  readonly answer: FetchReply;
  readonly from: number;
}

export type CacheLookup =
  | (CachedAsset & {
      readonly kind: 'asset';
      readonly opening: OpenBody | null;
      readonly forward: (Omit<Forward, 'reason'> & { readonly reason: string }) | null;
    })
  | { readonly kind: 'relay'; readonly head: ReplyHead & { kind: 'relay' }; readonly answer: FetchReply }
  /** The request is the origin's; `forward` is why, in the words of RFC 9211. */
  | {
      readonly kind: 'bypass';
      readonly forward: 'bypass' | 'stale' | 'request';
      readonly detail: string;
      /** May be served where the origin is away. */
      readonly instead?: CachedAsset;
    }
  | { readonly kind: 'not-cached' };

export interface MetadataCacheDeps {
  readonly storekeeper: StorekeeperClient;
  readonly mode: KeyMode;
  readonly counters: WorkerCounters;
  readonly clock: Clock;
  readonly log: Log;
}

const NOTHING_ASKED = parseDirectives(undefined);

export class MetadataCache {
  readonly #deps: MetadataCacheDeps;
  readonly #stored = new LRUCache<string, CachedAsset>({ max: KNOWN_MAX });
  readonly #variants = new VariantIndex();
  /** The last ask about each key that is being located: one that is forgotten meanwhile must not be learnt. */
  readonly #asking = new Map<string, symbol>();
  readonly #revalidating = new Set<string>();

  constructor(deps: MetadataCacheDeps) {
    this.#deps = deps;
  }

  /** A known answer that any plain request may have now: none that varies or has aged. */
  freshHit(key: string): CachedAsset | null {
    const stored = this.#stored.get(key);
    if (stored === undefined) return null;
    return judgeFreshness(stored.freshness, NOTHING_ASKED, this.#deps.clock.now()) === 'fresh' ? stored : null;
  }

  invalidate(keys: readonly string[]): void {
    for (const key of keys) {
      this.#stored.delete(key);
      this.#asking.delete(primaryKeyOf(key));
    }
  }

  invalidateVariant({ key, headers }: CacheRequest): void {
    this.#stored.delete(this.#variants.variantKeyFor(key, headers));
  }

  invalidateAll(): void {
    this.#stored.clear();
    this.#asking.clear();
    this.#variants.clear();
  }

  /** Throws the storekeeper's fault. */
  async lookUp(asked: CacheRequest): Promise<CacheLookup> {
    const { directives } = asked;
    const onlyIfCached = directives.has('only-if-cached');
    let stored = this.#stored.get(this.#variants.variantKeyFor(asked.key, asked.headers)) ?? null;
    for (let look = 1; ; look += 1) {
      if (stored !== null) {
        const verdict = judgeFreshness(stored.freshness, directives, this.#deps.clock.now());
        if (verdict === 'revalidate') this.#revalidate(stored, asked);
        if (verdict !== 'validate') return { kind: 'asset', ...stored, opening: null, forward: null };
        if (onlyIfCached) return { kind: 'not-cached' };
        // RFC 9111 4.3.5: its own answer brings the stored one up to date. A condition is for what is brought up to date first.
        if (asked.method === 'HEAD' && isUnconditional(asked.conditions)) {
          const instead = this.#terms(stored, asked).ifUnreachable ? { instead: stored } : {};
          return { kind: 'bypass', forward: 'stale', detail: '', ...instead };
        }
      }
      if (!onlyIfCached && directives.has('no-store')) return { kind: 'bypass', forward: 'request', detail: '' };
      const found = await this.#ask(asked, {
        onlyIfCached,
        validate: stored === null ? null : this.#terms(stored, asked),
      });
      if (found.kind !== 'asset') return found;
      if (found.validated || look >= LOOKS_MAX) return this.#named(found, stored);
      const verdict = judgeFreshness(found.freshness, directives, this.#deps.clock.now());
      if (verdict !== 'validate') return found;
      closeBody(found.opening);
      stored = found;
    }
  }

  async #ask(
    asked: CacheRequest,
    spec: { readonly onlyIfCached: boolean; readonly validate: Validation | null },
  ): Promise<CacheLookup & { readonly validated?: boolean }> {
    const from = asked.method === 'HEAD' ? 0 : firstByteHint(asked.range);
    const to = asked.method === 'HEAD' ? 1 : lastByteHint(asked.range);
    const { key, headers } = asked;
    const ask = Symbol(key);
    this.#asking.set(key, ask);
    let answer: FetchReply;
    let current = false;
    try {
      const wantsFullBody = asked.method === 'GET' && asked.range === null && isUnconditional(asked.conditions);
      const skipNegativeCache = ['no-cache', 'max-age', 'min-fresh'].some((name) => asked.directives.has(name));
      const ask = {
        key,
        expected: null,
        from,
        to,
        headers,
        continuation: false,
        skipNegativeCache,
        wantsFullBody,
        ...spec,
      };
      answer = await this.#deps.storekeeper.fetch(ask);
    } catch (error) {
      if (!isFault(error) || error.code !== 'unreachable') throw error;
      // In a fleet the catalog says what may be served, and only the storekeeper knows it.
      if (this.#deps.mode === 'fleet')
        throw new Fault('overloaded', 'the storekeeper is being started again; what is not known here waits for it');
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'storekeeper_down_origin' });
      return { kind: 'bypass', forward: 'bypass', detail: 'storekeeper-down' };
    } finally {
      current = this.#asking.get(key) === ask;
      if (current) this.#asking.delete(key);
    }
    const { head } = answer;
    if (head.kind === 'relay') return { kind: 'relay', head, answer };
    if (head.kind !== 'asset') {
      if (head.kind === 'not-cached') return { kind: 'not-cached' };
      return { kind: 'bypass', forward: 'bypass', detail: head.kind === 'bypass' ? head.reason : '' };
    }
    const { asset, forward, validated } = head;
    const stored = { asset, freshness: freshnessOf(asset.headers, asset.generatedAtMs) };
    if (current) this.#learn(stored);
    const opening = head.body ? { answer, from: from === 'suffix' ? 0 : from } : null;
    return { kind: 'asset', ...stored, opening, forward, validated };
  }

  #learn(stored: CachedAsset): void {
    const { key, headers } = stored.asset;
    for (const stale of this.#variants.record(key, headers)) this.#stored.delete(stale);
    this.#stored.set(key, stored);
  }

  #terms({ freshness }: CachedAsset, { directives }: CacheRequest): Validation {
    const nowMs = this.#deps.clock.now();
    return {
      generatedAtMs: freshness.generatedAtMs,
      ifUnreachable: mayServeStaleOnError(freshness, directives, { nowMs, status: null }),
      ifFailing: mayServeStaleOnError(freshness, directives, { nowMs, status: 503 }),
    };
  }

  /** RFC 9211: what was still fresh went to the origin because the request wanted it so. */
  #named(found: CacheLookup & { kind: 'asset' }, before: CachedAsset | null): CacheLookup {
    if (found.forward?.reason !== 'stale' || before === null) return found;
    const fresh = judgeFreshness(before.freshness, NOTHING_ASKED, this.#deps.clock.now()) === 'fresh';
    return fresh ? { ...found, forward: { ...found.forward, reason: 'request' } } : found;
  }

  /** Behind the reader's back, once for all who would. */
  #revalidate(stored: CachedAsset, asked: CacheRequest): void {
    const { key } = stored.asset;
    if (this.#revalidating.has(key)) return;
    this.#revalidating.add(key);
    const terms = { ...this.#terms(stored, asked), ifUnreachable: true, ifFailing: true };
    this.#ask({ ...asked, method: 'HEAD' }, { onlyIfCached: false, validate: terms })
      .then((found) => closeBody(found.kind === 'asset' ? found.opening : found.kind === 'relay' ? found : null))
      .catch((error: unknown) => {
        if (isFault(error)) this.#deps.counters.add('larder_faults_total', 1, { code: error.code });
        else this.#deps.log.error({ err: error, key }, 'revalidation failed');
      })
      .finally(() => this.#revalidating.delete(key));
  }
}

/** What a stored answer that is served without a word from the origin is called. */
export const hitOutcomeOf = ({ asset, freshness }: CachedAsset, nowMs: number): CacheOutcome =>
  hitOutcome(asset.generatedAtMs === null ? null : freshness.generatedAtMs + freshness.lifetimeMs - nowMs);

/** A body that nobody reads is let go; the flight behind it ends what it began. */
export function closeBody(opening: { readonly answer: FetchReply } | null): void {
  opening?.answer.body.close();
}

/** Exclusive end of the first range if it is bounded; null where the whole rest is wanted. */
function lastByteHint(range: string | null): number | null {
  const match = /^bytes=\s*\d{1,15}-(\d{1,15})\s*(?:,|$)/i.exec(range ?? '');
  return match === null ? null : Number(match[1]) + 1;
}
