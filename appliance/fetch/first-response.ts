// A miss: the origin is asked for an asset of which nothing fitting is stored. Its response starts an entry, with a fetch that goes on
// reading it, or is passed on unstored.

import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { varyNames } from '../http/freshness.ts';
import { primaryKeyOf, variantKey, type VariantIndex } from '../http/vary.ts';
import type { Forward } from '../http/cache-status.ts';
import { LIMITS } from '../limits.ts';
import type { FetchRequest } from '../link/messages.ts';
import { BLOCK_BYTES, fitsHead } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import type { Inflight } from './inflight.ts';
import type { InvalidationEpochs } from './invalidations.ts';
import { forwardOf, fullBodyRelay, relayResult, type LookupResult } from './lookup-result.ts';
import { bypassKey, readUpTo, requestedBlocks, teeUpTo } from './origin-request.ts';
import { discardBody, originFault, type Origin, type OriginBytes, type OriginRelay } from './origin.ts';

/** A response without a strong entity tag, or without a length, is stored only as a whole, and waits in memory until it is. */
export const WHOLE_BYTES_MAX = 64 * 2 ** 20;
/** For this long the next request for a response that may not be stored bypasses the cache at once. */
const UNSTORABLE_MS = 60_000;
const UNSTORABLE_MAX = 10_000;

/** A request that goes to the origin. */
export interface OriginLookup {
  readonly request: FetchRequest;
  /** What is fetched may be stored. */
  readonly admitted: boolean;
  /** The invalidation epoch in which it began. */
  readonly epoch: number;
}

/** The origin's response, and why it was asked. */
export interface FirstResponse {
  readonly response: OriginBytes;
  readonly reason: Forward['reason'];
}

export interface FirstResponsesDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  readonly variants: VariantIndex;
  readonly epochs: InvalidationEpochs;
}

export class FirstResponses {
  readonly #deps: FirstResponsesDeps;
  readonly #unstorable = new LRUCache<string, string>({ max: UNSTORABLE_MAX, ttl: UNSTORABLE_MS });

  constructor(deps: FirstResponsesDeps) {
    this.#deps = deps;
  }

  /** Why the last response to such a request could not be stored; null when it could, or nobody knows. */
  whyUnstorable(request: FetchRequest): string | null {
    return this.#unstorable.get(bypassKey(request)) ?? null;
  }

  async fetch(lookup: OriginLookup, reason: Forward['reason']): Promise<LookupResult> {
    const { request } = lookup;
    const { first, last } = requestedBlocks(request);
    const response = await this.#fetchBlocks(request, first, last);
    if (response.kind === 'bytes') return this.accept(lookup, { response, reason });
    if (response.status !== 416) return relayResult(request, response, reason);
    discardBody(response.body);
    // The range lies beyond the end: block 0 tells the length of the asset. An empty asset has no satisfiable range at all.
    const start = first === 0 ? null : await this.#fetchBlocks(request, 0, 0);
    if (start?.kind === 'bytes') return this.accept(lookup, { response: start, reason });
    if (start !== null && start.status !== 416) return relayResult(request, start, reason);
    if (start !== null) discardBody(start.body);
    return { kind: 'bypass', reason: 'empty' };
  }

  /** Starts an entry with the response if a cache may store it. */
  async accept(lookup: OriginLookup, first: FirstResponse): Promise<LookupResult> {
    const { response } = first;
    try {
      const { total, etag } = response;
      if (response.unstorable !== null) return this.#pass(lookup, first, response.unstorable);
      if (this.#isOutdated(lookup)) return this.#pass(lookup, first, null);
      if (total === 0) return this.#pass(lookup, first, 'empty');
      if (total !== null && total > LIMITS.assetBytesMax) return this.#pass(lookup, first, 'too large');
      if (total === null || response.last === null) return await this.#acceptUnmeasured(lookup, first);
      if (etag !== null) return await this.#startEntry(lookup, { ...first, bytes: total, version: etag });
      return await this.#acceptWhole(lookup, first, total);
    } catch (error) {
      discardBody(response.body);
      throw error;
    }
  }

  #fetchBlocks(request: FetchRequest, first: number, last: number): Promise<OriginBytes | OriginRelay> {
    const { key, headers } = request;
    const range = { first: first * BLOCK_BYTES, last: (last + 1) * BLOCK_BYTES - 1 };
    return this.#deps.origin.fetch('miss', { key, ...range, ifMatch: null, headers, signal: null });
  }

  /** Without a strong entity tag, parts of two responses must never be combined: the asset comes whole or not at all. */
  async #acceptWhole(lookup: OriginLookup, first: FirstResponse, total: number): Promise<LookupResult> {
    if (total > WHOLE_BYTES_MAX) return this.#pass(lookup, first, 'no strong validator');
    const { response } = first;
    const isWhole = response.first === 0 && response.last === total - 1;
    const whole = isWhole ? response : await this.#refetchWhole(lookup.request, response);
    if (whole.kind === 'relay') return relayResult(lookup.request, whole, first.reason);
    const isPartial = whole.first !== 0 || whole.total === null || whole.last !== whole.total - 1;
    if (whole.unstorable !== null || isPartial)
      return this.#pass(lookup, { ...first, response: whole }, whole.unstorable ?? 'not whole');
    return this.#startEntry(lookup, { ...first, response: whole, bytes: whole.total, version: newVersion() });
  }

  #refetchWhole({ key, headers }: FetchRequest, partial: OriginBytes): Promise<OriginBytes | OriginRelay> {
    discardBody(partial.body);
    return this.#deps.origin.fetch('miss', { key, first: 0, last: null, ifMatch: null, headers, signal: null });
  }

  async #startEntry(
    lookup: OriginLookup,
    spec: FirstResponse & { readonly bytes: number; readonly version: string },
  ): Promise<LookupResult> {
    const { request, admitted } = lookup;
    const { response, bytes, version, reason } = spec;
    const { cache, inflight, variants } = this.#deps;
    const { headers, generatedAtMs } = response;
    const key = variantKey(primaryKeyOf(request.key), varyNames(headers)!, request.headers);
    if (!fitsHead({ key, version, headers, holding: null })) return this.#pass(lookup, spec, 'fields too long');
    for (const stale of variants.record(key, headers)) {
      const variant = cache.find(stale);
      if (variant !== null) await cache.removeEntry(variant);
    }
    const entry = await cache.ensureEntry({ key, version, bytes, headers, generatedAtMs, holding: null });
    // A purge that came meanwhile has given its receipt: what was requested before it is not stored.
    if (this.#isOutdated(lookup)) {
      await cache.removeEntry(entry);
      return this.#pass(lookup, spec, null);
    }
    cache.updateMetadata(entry, { headers, generatedAtMs });
    if (admitted) inflight.admit(entry);
    const number = Math.floor(response.first / BLOCK_BYTES);
    // An origin that ignores conditions sends again what is stored, or on its way.
    if (entry.blocks.has(number) || inflight.has(entry, number)) {
      discardBody(response.body);
      return { kind: 'entry', entry, validated: true, forward: forwardOf(reason, response.status) };
    }
    const lastWanted = Math.floor(response.last! / BLOCK_BYTES);
    const block = inflight.start(entry, { number, lastWanted, pool: 'miss', headers: request.headers, response });
    await block.decided;
    const forward = { reason, status: response.status, stored: block.storable, collapsed: false };
    return { kind: 'entry', entry, validated: true, forward };
  }

  /** A body whose length only its end tells. Whole, it becomes an entry; a client that wants all of it gets it while it arrives. */
  async #acceptUnmeasured(lookup: OriginLookup, first: FirstResponse): Promise<LookupResult> {
    const { response, reason } = first;
    // Without framing an end and a break look alike.
    if (response.status !== 200 || !response.framed) return this.#pass(lookup, first, 'length unknown');
    const store = (body: Buffer): Promise<LookupResult> => {
      const range = { first: 0, last: body.length - 1, total: body.length };
      const version = response.etag ?? newVersion();
      const measured = { ...response, ...range, body: Readable.from([body]) };
      return this.#startEntry(lookup, { response: measured, reason, bytes: body.length, version });
    };
    if (lookup.request.wantsFullBody) {
      const body = teeUpTo(response.body, WHOLE_BYTES_MAX, async (whole) => {
        if (!this.#isOutdated(lookup)) await store(whole);
      });
      return { ...fullBodyRelay(response), body, forward: forwardOf(reason, response.status) };
    }
    const whole = await readUpTo(response.body, WHOLE_BYTES_MAX).catch((error: unknown) => {
      throw originFault(error, lookup.request.key);
    });
    if (!Buffer.isBuffer(whole)) await whole.return(undefined);
    else if (whole.length > 0) return store(whole);
    return this.#pass(lookup, first, 'length unknown');
  }

  /** Whether the asset was invalidated after the origin was asked. */
  #isOutdated({ request, epoch }: OriginLookup): boolean {
    return this.#deps.epochs.isInvalidatedSince(primaryKeyOf(request.key), epoch);
  }

  /** The response is not stored. It is sent on when it is all that the client asked for; else the worker asks the origin itself. */
  #pass({ request }: OriginLookup, { response, reason: forward }: FirstResponse, reason: string | null): LookupResult {
    if (reason !== null) this.#unstorable.set(bypassKey(request), reason);
    const isWhole =
      response.first === 0 &&
      (response.total === null ? response.status === 200 : response.last === response.total - 1);
    if (request.wantsFullBody && isWhole)
      return { ...fullBodyRelay(response), forward: forwardOf(forward, response.status) };
    discardBody(response.body);
    return { kind: 'bypass', reason: reason ?? 'changed' };
  }
}

/** Names the version of a response that has no strong entity tag. */
const newVersion = (): string => `whole:${randomBytes(8).toString('hex')}`;
