// The life of a request. `serve` and the methods below it, in this order, are all of it:
//
//   1. validate and parse          request.ts, http/asset-key.ts
//   2. admit                       what the cache may answer, what is forwarded, what is refused: `serve`
//   3. look up the asset version   metadata-cache.ts, by the rules of http/freshness.ts; the storekeeper's half is fetch/lookup.ts
//   4. preconditions, then ranges  response-plan.ts, http/precondition.ts, http/range.ts
//   5. send the bytes              range-body.ts: block files by block-reader.ts, misses from the storekeeper
//   6. account                     accounting.ts, counters.ts, access-log.ts
//
// What the cache does not answer goes through bypass.ts. Most requests never come here: plain hits are answered by fastpath/, which
// takes keys, freshness, fields and accounts from the same files. The door of this room is AssetServer, with its dependencies
// MetadataCache's CachedAsset, RangeBody, BlockReader, Bypass, AccessLog, WorkerCounters and PipelineQueue.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Origin } from '../fetch/origin.ts';
import type { AssetView } from '../http/asset.ts';
import { parseTarget, type KeyMode } from '../http/asset-key.ts';
import type { ByteRange } from '../http/range.ts';
import { forwardOutcome, PARTIAL_MISS, type CacheOutcome } from '../http/cache-status.ts';
import {
  ALLOW,
  assetHeaders,
  faultHeaders,
  notModifiedHeaders,
  preflightHeaders,
  type ProxyIdentity,
  type ResponseHeaders,
} from '../http/response-headers.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { AccessLog } from './access-log.ts';
import { accountFor } from './accounting.ts';
import type { BlockReader } from './block-reader.ts';
import { sendBody } from './body-writer.ts';
import type { Bypass } from './bypass.ts';
import type { WorkerCounters } from './counters.ts';
import {
  closeBody,
  hitOutcomeOf,
  MetadataCache,
  type BypassLookup,
  type CachedAsset,
  type CacheLookup,
} from './metadata-cache.ts';
import { RangeBody } from './range-body.ts';
import { cacheRequestOf, hasBody, validateMessage, type CacheRequest } from './request.ts';
import { planResponse, type ResponsePlan } from './response-plan.ts';

/** Blocks of a response that are looked for here to tell whether it is a hit. The storekeeper is asked about more. */
const PRESENCE_BLOCKS_MAX = 16;

export interface AssetServerDeps {
  readonly appliance: string;
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly reader: BlockReader;
  readonly storekeeper: StorekeeperClient;
  readonly origin: Origin;
  readonly bypass: Bypass;
  readonly counters: WorkerCounters;
  readonly access: AccessLog | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly draining: () => boolean;
}

/** A request and the response to it. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

type LocatedAsset = CacheLookup & { readonly kind: 'asset' };

export class AssetServer {
  readonly #deps: AssetServerDeps;
  readonly #metadata: MetadataCache;

  constructor(deps: AssetServerDeps) {
    this.#deps = deps;
    this.#metadata = new MetadataCache(deps);
  }

  invalidate(keys: readonly string[]): void {
    this.#metadata.invalidate(keys);
  }

  invalidateAll(): void {
    this.#metadata.invalidateAll();
  }

  /** What any plain request for a key may have without asking anybody. */
  freshHit(key: string): CachedAsset | null {
    return this.#metadata.freshHit(key);
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { mode, identity, bypass, access, draining } = this.#deps;
    const exchange = { request, response };
    response.on('error', () => undefined);
    access?.begin(request);
    try {
      validateMessage(request, identity);
      if (draining() || (hasBody(request) && !identity.reverseProxy)) response.setHeader('connection', 'close');
      if (request.method === 'OPTIONS' && !identity.reverseProxy) return this.#preflight(exchange);
      const { key } = parseTarget(request.url ?? '', mode);
      const cacheRequest = cacheRequestOf(request, key, this.#deps);
      if (cacheRequest !== null) return await this.#serveCurrent(cacheRequest, exchange);
      if (!identity.reverseProxy) throw new Fault('method_not_allowed', `${request.method} is not one of ${ALLOW}`);
      await bypass.forward(request, response, { key, forward: 'method', detail: '' });
    } catch (error) {
      this.#fail(error, exchange);
    }
  }

  /** Looks up again, once, when the version found is gone before a byte of it was sent: its successor is served. */
  async #serveCurrent(cacheRequest: CacheRequest, exchange: Exchange): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#serveCached(cacheRequest, exchange);
      } catch (error) {
        const code = isFault(error) ? error.code : null;
        // What is known of this asset is out of date; what is known of others is not affected.
        if (code === 'version_gone' || code === 'disk_failed') this.#metadata.invalidateVariant(cacheRequest);
        if (code !== 'version_gone' || exchange.response.headersSent || attempt > 1) throw error;
      }
    }
  }

  async #serveCached(cacheRequest: CacheRequest, exchange: Exchange): Promise<void> {
    const found = await this.#metadata.lookUp(cacheRequest);
    switch (found.kind) {
      case 'not-cached':
        throw new Fault('not_stored', `${cacheRequest.key.slice(0, 200)} is not stored, or stale`);
      case 'bypass':
        return this.#forward(cacheRequest, exchange, found);
      case 'relay':
        return this.#deps.bypass.relay(exchange.request, exchange.response, found);
      case 'asset':
        return this.#respond(cacheRequest, exchange, found);
    }
  }

  async #forward(cacheRequest: CacheRequest, exchange: Exchange, found: BypassLookup): Promise<void> {
    const { request, response } = exchange;
    const { forward, detail, revalidates } = found;
    try {
      await this.#deps.bypass.forward(request, response, { key: cacheRequest.key, forward, detail });
    } catch (error) {
      const isUnreachable = isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');
      if (!isUnreachable || revalidates === undefined || response.headersSent) throw error;
      const stale = await this.#metadata.staleAfterFailure(cacheRequest, revalidates).catch(() => null);
      if (stale === null) throw error;
      this.#sendHead(exchange, stale.asset, hitOutcomeOf(stale, this.#deps.clock.now()));
    }
  }

  async #respond(cacheRequest: CacheRequest, exchange: Exchange, found: LocatedAsset): Promise<void> {
    const { asset, openBody } = found;
    const outcome =
      found.forward === null ? hitOutcomeOf(found, this.#deps.clock.now()) : forwardOutcome(found.forward);
    const plan = planResponse(cacheRequest, asset);
    const opensHere = plan.kind === 'body' && openBody !== null && plan.ranges[0]!.first === openBody.from;
    if (!opensHere) closeBody(openBody);
    switch (plan.kind) {
      case 'precondition-failed':
        return this.#failPrecondition(cacheRequest, exchange);
      case 'not-modified':
        return this.#end(exchange, 304, outcome.metric, notModifiedHeaders(asset, outcome, this.#headerSpec()));
      case 'unsatisfiable':
        exchange.response.setHeader('content-range', `bytes */${asset.bytes}`);
        throw new Fault(
          'range_unsatisfiable',
          `Range "${cacheRequest.range?.slice(0, 100)}" fits no byte of ${asset.bytes}`,
        );
      case 'head':
        return this.#sendHead(exchange, asset, outcome);
      case 'body': {
        const isHit = found.forward !== null || (await this.#arePresent(asset, plan.ranges));
        if (!isHit && cacheRequest.directives.has('only-if-cached'))
          throw new Fault('not_stored', `${cacheRequest.key.slice(0, 200)} is not stored whole`);
        const open = opensHere ? openBody.reply : null;
        const { headers } = cacheRequest;
        return this.#sendRanges(exchange, asset, { plan, headers, open, outcome: isHit ? outcome : PARTIAL_MISS });
      }
    }
  }

  /** RFC 9111 4.3.2: If-Match is not for a cache to judge. Stand-alone the origin may know better whether it holds. */
  async #failPrecondition({ key }: CacheRequest, { request, response }: Exchange): Promise<void> {
    const { mode, bypass } = this.#deps;
    if (mode === 'alone') return bypass.forward(request, response, { key, forward: 'request', detail: '' });
    throw new Fault('precondition_failed', 'a precondition of the request does not hold');
  }

  /** Whether all of these bytes are on disk. */
  async #arePresent(asset: AssetView, ranges: readonly ByteRange[]): Promise<boolean> {
    const { reader, storekeeper } = this.#deps;
    let blocks = 0;
    for (const range of ranges) {
      const [first, last] = [Math.floor(range.first / BLOCK_BYTES), Math.floor(range.last / BLOCK_BYTES)] as const;
      blocks += last - first + 1;
      if (blocks > PRESENCE_BLOCKS_MAX) {
        if (!(await storekeeper.arePresent(asset, [first, last]))) return false;
        continue;
      }
      for (let number = first; number <= last; number += 1) if (!(await reader.has(asset, number))) return false;
    }
    return true;
  }

  async #sendRanges(
    { request, response }: Exchange,
    asset: AssetView,
    spec: {
      readonly plan: ResponsePlan & { readonly kind: 'body' };
      readonly headers: CacheRequest['headers'];
      readonly open: FetchReply | null;
      readonly outcome: CacheOutcome;
    },
  ): Promise<void> {
    const { plan, headers, open } = spec;
    const bodies = plan.ranges.map(({ first, last }, at) => {
      const range = { at: first, end: last + 1 };
      return new RangeBody(this.#deps, asset, { ...range, headers, open: at === 0 ? open : null });
    });
    // The first bytes come before the head, so that a fault can still choose the status.
    const firstSlice = await bodies[0]!.next();
    const { forward, fetchedBytes } = bodies[0]!;
    const outcome = spec.outcome === PARTIAL_MISS && forward !== null ? forwardOutcome(forward) : spec.outcome;
    const { metric } = outcome.metric === 'revalidated' && fetchedBytes > 0 ? PARTIAL_MISS : outcome;
    this.#deps.counters.add('larder_cache_total', 1, { outcome: metric });
    const sent = { bodyBytes: 0 };
    let isComplete = false;
    try {
      const fields = assetHeaders(asset, outcome, this.#headerSpec());
      isComplete = await sendBody(response, { asset, plan, fields, bodies, firstSlice }, sent);
    } finally {
      accountFor(this.#deps, request, {
        status: plan.status,
        outcome: metric,
        bodyBytes: sent.bodyBytes,
        fetchedBytes: bodies.reduce((sum, body) => sum + body.fetchedBytes, 0),
        holding: asset.holding,
      });
    }
    if (!isComplete) this.#deps.counters.add('larder_aborted_total');
  }

  #sendHead(exchange: Exchange, asset: AssetView, outcome: CacheOutcome): void {
    const headers = { ...assetHeaders(asset, outcome, this.#headerSpec()), 'content-length': asset.bytes };
    this.#end(exchange, 200, outcome.metric, headers);
  }

  #preflight(exchange: Exchange): void {
    const requested = exchange.request.headers['access-control-request-headers'];
    this.#end(exchange, 204, '-', preflightHeaders(requested, this.#deps.appliance));
  }

  #end({ request, response }: Exchange, status: number, outcome: string, headers: ResponseHeaders): void {
    response.writeHead(status, headers).end();
    accountFor(this.#deps, request, { status, outcome, bodyBytes: 0, fetchedBytes: 0 });
  }

  #fail(error: unknown, { request, response }: Exchange): void {
    const { log, counters, identity } = this.#deps;
    const fault = isFault(error) ? error : new Fault('internal', 'the request failed inside Larder', { cause: error });
    if (!isFault(error)) log.error({ err: error, url: request.url?.slice(0, 200) }, 'request failed');
    counters.add('larder_faults_total', 1, { code: fault.code });
    if (response.headersSent) {
      // The length has been promised: only a short read tells the client that something is missing.
      response.destroy();
      return;
    }
    const { status } = fault.spec;
    const body = Buffer.from(`${fault.code}: ${fault.message}\n`);
    response.writeHead(status, faultHeaders(fault, body.length, identity));
    response.end(request.method === 'HEAD' ? undefined : body);
    accountFor(this.#deps, request, { status, outcome: fault.code, bodyBytes: 0, fetchedBytes: 0 });
  }

  #headerSpec(): ProxyIdentity & { readonly nowMs: number } {
    return { ...this.#deps.identity, nowMs: this.#deps.clock.now() };
  }
}
