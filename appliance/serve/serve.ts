// The life of a request, readable in `serve`: parse the key → admit → locate the asset version → preconditions → select
// ranges → send the bytes with back-pressure → account.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { AccessLog } from './access-log.ts';
import {
  ALLOW,
  ALLOW_ALL,
  assetHeaders,
  faultHeaders,
  notModifiedHeaders,
  preflightHeaders,
  type ResponseHeaders,
  type ProxyIdentity,
} from '../http/response-headers.ts';
import { parseTarget, type KeyMode } from '../http/asset-key.ts';
import { forwardOutcome, PARTIAL_MISS, type CacheOutcome } from '../http/cache-status.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import { parseDirectives, requestDirectives } from '../http/cache-control.ts';
import { fetchHeaders } from '../http/headers.ts';
import { waitWritable } from '../../runtime/backpressure.ts';
import {
  hitOutcomeOf,
  MetadataCache,
  closeBody,
  type CacheRequest,
  type CacheLookup,
  type CachedAsset,
} from './metadata-cache.ts';
import type { AssetView } from '../http/asset.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import { frameMultipart, newBoundary } from '../http/multipart.ts';
import type { Origin } from '../fetch/origin.ts';
import { hasBody, type Bypass } from './bypass.ts';
import { evaluatePreconditions, ifRangeMatches, type Validators } from '../http/precondition.ts';
import { selectRanges, type ByteRange, type RangeSelection } from '../http/range.ts';
import type { BlockReader } from './block-reader.ts';
import { RangeBody } from './range-body.ts';
import type { WorkerCounters } from './counters.ts';

/** Blocks of a range that are looked up here to say whether it is a hit; of more the storekeeper knows. */
const LOOKED_UP_MAX = 16;

export interface AssetServerDeps {
  readonly appliance: string;
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly reader: BlockReader;
  readonly storekeeper: StorekeeperClient;
  readonly origin: Origin;
  readonly pass: Bypass;
  readonly counters: WorkerCounters;
  readonly access: AccessLog | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly draining: () => boolean;
}

interface Exchange {
  readonly asked: CacheRequest;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

export class AssetServer {
  readonly #deps: AssetServerDeps;
  readonly #known: MetadataCache;

  constructor(deps: AssetServerDeps) {
    this.#deps = deps;
    this.#known = new MetadataCache(deps);
  }

  invalidate(keys: readonly string[]): void {
    this.#known.invalidate(keys);
  }

  invalidateAll(): void {
    this.#known.invalidateAll();
  }

  /** What any plain request for a key may have without asking anybody. */
  freshHit(key: string): CachedAsset | null {
    return this.#known.freshHit(key);
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const { mode, identity, pass, access } = this.#deps;
    access?.begin(request);
    try {
      checkMessage(request, identity);
      if (this.#deps.draining() || (hasBody(request) && !identity.reverseProxy))
        response.setHeader('connection', 'close');
      if (request.method === 'OPTIONS' && !identity.reverseProxy) return this.#preflight(request, response);
      const { key } = parseTarget(request.url ?? '', mode);
      const asked = cacheable(request, key, this.#deps);
      if (asked !== null) await this.#serveLatest(asked, request, response);
      else if (identity.reverseProxy) await pass.forward(request, response, { key, forward: 'method', detail: '' });
      else throw new Fault('method_not_allowed', `${request.method} is not one of ${ALLOW}`);
    } catch (error) {
      this.#fail(error, request, response);
    }
  }

  /** A version that turns out to be gone before a byte of it is sent gives way, once, to the one that took its place. */
  async #serveLatest(asked: CacheRequest, request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#serveAsset(asked, request, response);
    } catch (error) {
      if (!isFault(error) || error.code !== 'version_gone' || response.headersSent) throw error;
      this.#known.invalidateVariant(asked);
      await this.#serveAsset(asked, request, response);
    }
  }

  async #serveAsset(asked: CacheRequest, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const found = await this.#known.lookUp(asked);
    if (found.kind === 'not-cached')
      throw new Fault('not_stored', `${asked.key.slice(0, 200)} is not stored, or stale`);
    if (found.kind === 'bypass') return this.#pass(found, { asked, request, response });
    if (found.kind === 'relay') return this.#deps.pass.relay(request, response, found.head, found.answer);

    const { asset, opening } = found;
    const validators = validatorsOf(asset);
    const verdict = evaluatePreconditions(asked.conditions, validators);
    const selection = verdict === 'proceed' ? select(asked, asset, validators) : null;
    const bytes = selection?.kind === 'ranges' ? selection.ranges : [{ first: 0, last: asset.bytes - 1 }];
    const usable =
      opening !== null &&
      asked.method === 'GET' &&
      verdict === 'proceed' &&
      selection?.kind !== 'unsatisfiable' &&
      bytes[0]!.first === opening.from;
    if (!usable) closeBody(opening);

    if (verdict === 'failed') {
      // RFC 9111 4.3.2: no condition for a cache; stand-alone the origin may know better what holds.
      if (this.#deps.mode === 'alone')
        return this.#deps.pass.forward(request, response, { key: asked.key, forward: 'request', detail: '' });
      throw new Fault('precondition_failed', 'a precondition of the request does not hold');
    }
    const known = this.#outcomeOf(found);
    const spec = { ...this.#deps.identity, nowMs: this.#deps.clock.now() };
    if (verdict === 'not_modified')
      return this.#end(request, response, {
        ...{ status: 304, outcome: known.metric },
        fields: notModifiedHeaders(asset, known, spec),
      });
    if (selection?.kind === 'unsatisfiable') {
      response.setHeader('content-range', `bytes */${asset.bytes}`);
      throw new Fault('range_unsatisfiable', `Range "${asked.range?.slice(0, 100)}" fits no byte of ${asset.bytes}`);
    }
    if (asked.method === 'HEAD') return this.#end(request, response, headOf(asset, known, spec));
    const whole = found.forward !== null || (await this.#present(asset, bytes));
    if (!whole && asked.directives.has('only-if-cached'))
      throw new Fault('not_stored', `${asked.key.slice(0, 200)} is not stored whole`);
    await this.#send({
      request,
      response,
      asset,
      headers: asked.headers,
      selection: selection!,
      ranges: bytes,
      opening: usable ? opening.answer : null,
      outcome: whole ? known : PARTIAL_MISS,
    });
  }

  async #pass(found: CacheLookup & { kind: 'bypass' }, on: Exchange): Promise<void> {
    const { asked, request, response } = on;
    try {
      await this.#deps.pass.forward(request, response, { ...found, key: asked.key });
    } catch (error) {
      const away = isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');
      if (!away || found.instead === undefined || response.headersSent) throw error;
      const { asset } = found.instead;
      const outcome = hitOutcomeOf(found.instead, this.#deps.clock.now());
      const spec = { ...this.#deps.identity, nowMs: this.#deps.clock.now() };
      this.#end(request, response, headOf(asset, outcome, spec));
    }
  }

  #outcomeOf(found: CacheLookup & { kind: 'asset' }): CacheOutcome {
    return found.forward !== null ? forwardOutcome(found.forward) : hitOutcomeOf(found, this.#deps.clock.now());
  }

  /** Whether all of these bytes are on disk. */
  async #present(asset: AssetView, ranges: readonly ByteRange[]): Promise<boolean> {
    const { reader, storekeeper } = this.#deps;
    let looked = 0;
    for (const { first, last } of ranges) {
      const blocks = [Math.floor(first / BLOCK_BYTES), Math.floor(last / BLOCK_BYTES)] as const;
      looked += blocks[1] - blocks[0] + 1;
      if (looked > LOOKED_UP_MAX) {
        if (!(await storekeeper.arePresent(asset, blocks))) return false;
        continue;
      }
      for (let number = blocks[0]; number <= blocks[1]; number += 1)
        if (!(await reader.has(asset, number))) return false;
    }
    return true;
  }

  async #send(sending: {
    readonly request: IncomingMessage;
    readonly response: ServerResponse;
    readonly asset: AssetView;
    readonly headers: CacheRequest['headers'];
    readonly selection: RangeSelection;
    readonly ranges: readonly ByteRange[];
    readonly opening: FetchReply | null;
    readonly outcome: CacheOutcome;
  }): Promise<void> {
    const { request, response, asset, ranges, selection } = sending;
    const sources = ranges.map(
      (range, at) =>
        new RangeBody(this.#deps, asset, {
          at: range.first,
          end: range.last + 1,
          headers: sending.headers,
          opening: at === 0 ? sending.opening : null,
        }),
    );
    // The first bytes come before the head, so that a fault can still choose the status.
    const first = await sources[0]!.next();
    const { forward } = sources[0]!;
    const outcome = sending.outcome === PARTIAL_MISS && forward !== null ? forwardOutcome(forward) : sending.outcome;
    const fields = assetHeaders(asset, outcome, { ...this.#deps.identity, nowMs: this.#deps.clock.now() });
    const multipart =
      ranges.length > 1
        ? frameMultipart(ranges, asset.bytes, asset.headers['content-type'] ?? null, newBoundary())
        : null;
    if (multipart !== null) {
      fields['content-type'] = multipart.contentType;
      fields['content-length'] = multipart.contentLength;
    } else {
      fields['content-length'] = ranges[0]!.last - ranges[0]!.first + 1;
      if (selection.kind === 'ranges')
        fields['content-range'] = `bytes ${ranges[0]!.first}-${ranges[0]!.last}/${asset.bytes}`;
    }
    const status = selection.kind === 'ranges' ? 206 : 200;
    response.cork();
    response.writeHead(status, fields);
    const { metric } = outcome.metric === 'revalidated' && sources[0]!.fetchedBytes > 0 ? PARTIAL_MISS : outcome;
    this.#deps.counters.add('larder_cache_total', 1, { outcome: metric });

    let sent = 0;
    let alive = true;
    try {
      for (const [at, source] of sources.entries()) {
        if (multipart !== null) response.write(multipart.heads[at]!);
        let piece = at === 0 ? first : await source.next();
        while (piece !== null && alive) {
          sent += piece.bytes.length;
          response.write(piece.bytes, piece.release);
          if (response.writableCorked > 0) response.uncork();
          const free = waitWritable(response);
          alive = free === true || (free !== false && (await free));
          if (alive) piece = await source.next();
        }
        if (!alive) {
          source.close();
          break;
        }
      }
    } finally {
      const fetched = sources.reduce((sum, source) => sum + source.fetchedBytes, 0);
      this.#account(request, { status, asset, sent, fetched, outcome: metric });
    }
    if (!alive) {
      this.#deps.counters.add('larder_aborted_total');
      return;
    }
    response.end(multipart?.tail);
  }

  #account(
    request: IncomingMessage,
    answer: {
      readonly status: number;
      readonly asset: AssetView | null;
      readonly sent: number;
      readonly fetched: number;
      readonly outcome: string;
    },
  ): void {
    const { counters, access } = this.#deps;
    const { status, asset, sent, fetched, outcome } = answer;
    counters.add('larder_requests_total', 1, { method: request.method ?? 'GET', status: String(status) });
    if (sent - fetched > 0) counters.add('larder_served_bytes_total', sent - fetched, { source: 'store' });
    if (fetched > 0) counters.add('larder_served_bytes_total', fetched, { source: 'origin' });
    if (asset !== null) counters.served(asset.holding, sent);
    access?.end(request, { status, bytes: sent, outcome });
  }

  #preflight(request: IncomingMessage, response: ServerResponse): void {
    const asked = request.headers['access-control-request-headers'];
    this.#end(request, response, { status: 204, outcome: '-', fields: preflightHeaders(asked, this.#deps.appliance) });
  }

  #end(
    request: IncomingMessage,
    response: ServerResponse,
    {
      status,
      outcome,
      fields,
    }: { readonly status: number; readonly outcome: string; readonly fields: ResponseHeaders },
  ): void {
    response.writeHead(status, fields).end();
    this.#account(request, { status, asset: null, sent: 0, fetched: 0, outcome });
  }

  #fail(error: unknown, request: IncomingMessage, response: ServerResponse): void {
    const fault = isFault(error) ? error : new Fault('internal', 'the request failed inside Larder', { cause: error });
    if (!isFault(error)) this.#deps.log.error({ err: error, url: request.url?.slice(0, 200) }, 'request failed');
    this.#deps.counters.add('larder_faults_total', 1, { code: fault.code });
    if (response.headersSent) {
      // A short read is the only honest answer left: the length was promised.
      response.destroy();
      return;
    }
    if (fault.code === 'version_gone' || fault.code === 'disk_failed') this.#known.invalidateAll();
    const body = Buffer.from(`${fault.code}: ${fault.message}\n`);
    response.writeHead(fault.spec.status, faultHeaders(fault, body.length, this.#deps.identity));
    response.end(request.method === 'HEAD' ? undefined : body);
    const { status } = fault.spec;
    this.#account(request, { status, asset: null, sent: 0, fetched: 0, outcome: fault.code });
  }
}

const headOf = (asset: AssetView, outcome: CacheOutcome, spec: Parameters<typeof assetHeaders>[2]) => ({
  status: 200,
  outcome: outcome.metric,
  fields: { ...assetHeaders(asset, outcome, spec), 'content-length': asset.bytes },
});

/** Throws `request_malformed`, `method_not_allowed`, `proxy_loop`. */
function checkMessage(request: IncomingMessage, identity: ProxyIdentity): void {
  // The parser lets HTTP/0.9 and 2.0 by; neither frames an answer as 1.x does.
  if (request.httpVersionMajor !== 1)
    throw new Fault('request_malformed', `HTTP/${request.httpVersion} is not spoken here; use HTTP/1.1`);
  checkFields(request.rawHeaders);
  const coding = request.headers['transfer-encoding'];
  if (coding !== undefined && coding.trim().toLowerCase() !== 'chunked')
    throw new Fault('request_malformed', `Transfer-Encoding "${coding.slice(0, 40)}" is not chunked`);
  if (request.method === 'TRACE' || request.method === 'CONNECT')
    throw new Fault(
      'method_not_allowed',
      `${request.method} is not one of ${identity.reverseProxy ? ALLOW_ALL : ALLOW}`,
    );
  if (request.headers.via?.includes(identity.via) === true)
    throw new Fault('proxy_loop', `Via names this appliance: "${request.headers.via.slice(0, 200)}"`);
}

/** Null where only the origin can answer. */
function cacheable(request: IncomingMessage, key: string, deps: AssetServerDeps): CacheRequest | null {
  const { method, headers } = request;
  if (method !== 'GET' && method !== 'HEAD') return null;
  if (deps.identity.reverseProxy && hasBody(request)) return null;
  const alone = deps.mode === 'alone';
  return {
    method,
    key,
    // RFC 9110 14.2: Range is defined for GET alone.
    range: method === 'GET' ? (headers.range ?? null) : null,
    conditions: {
      ifMatch: headers['if-match'] ?? null,
      ifUnmodifiedSince: headers['if-unmodified-since'] ?? null,
      ifNoneMatch: headers['if-none-match'] ?? null,
      ifModifiedSince: headers['if-modified-since'] ?? null,
      ifRange: headers['if-range'] === undefined ? null : String(headers['if-range']),
    },
    // In a fleet assets are public, catalogued and do not age: a request can neither demand nor smuggle anything.
    directives: alone ? requestDirectives(headers['cache-control'], headers['pragma']) : NO_DIRECTIVES,
    headers: alone ? fetchHeaders(headers) : NO_FIELDS,
  };
}

const NO_DIRECTIVES = parseDirectives(undefined);
const NO_FIELDS: Readonly<Record<string, string>> = {};

/** RFC 9112 3.2 and 9110 13.1.5, 14.2: two of one of these are two requests in one. Lists may be split over fields. */
const SINGLE = new Set(['host', 'range', 'if-range']);

/** The fields as they came: Node joins or drops what came twice, and its older parsers let broken names by. */
function checkFields(rawHeaders: readonly string[]): void {
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase();
    // RFC 9112 5.1: space before the colon must be refused.
    if (name === '' || /\s/.test(name)) throw new Fault('request_malformed', `"${name.slice(0, 40)}" is no field name`);
    if (!SINGLE.has(name)) continue;
    if (seen.has(name)) throw new Fault('request_malformed', `the request has more than one ${name} field`);
    seen.add(name);
  }
}

function select(asked: CacheRequest, asset: AssetView, validators: Validators): RangeSelection {
  const applies = asked.conditions.ifRange === null || ifRangeMatches(asked.conditions.ifRange, validators);
  return selectRanges(applies ? asked.range : null, asset.bytes);
}

const validatorsOf = (asset: AssetView): Validators => ({
  etag: asset.headers['etag'] ?? null,
  lastModified: asset.headers['last-modified'] ?? null,
  date: asset.headers['date'] ?? null,
});
