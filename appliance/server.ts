// The life of a request, readable in `serve`: parse the key → admit → locate the asset version → preconditions → select
// ranges → send the bytes with back-pressure → account.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import {
  ALLOW,
  assetFields,
  faultFields,
  notModifiedFields,
  preflightFields,
  type CacheOutcome,
  type Fields,
} from './answer.ts';
import { parseTarget, type KeyMode } from './asset-key.ts';
import { BLOCK_BYTES } from './block-file.ts';
import { room } from './flow.ts';
import type { AssetView, Head } from './link.ts';
import type { Answer, ReadClient } from './link-client.ts';
import { frame, newBoundary } from './multipart.ts';
import type { Origin } from './origin.ts';
import type { Pass } from './pass.ts';
import { evaluate, ifRangeHolds, type Conditions, type Validators } from './precondition.ts';
import { firstByteHint, selectRanges, type ByteRange, type Selection } from './range.ts';
import type { BlockReader } from './reader.ts';
import { Source } from './source.ts';
import type { WorkerTally } from './tally.ts';

const LOCATED_MAX = 50_000;
/** Blocks of a range that are looked up to say whether it is a hit. */
const HIT_BLOCKS_MAX = 16;

export interface ServerDeps {
  readonly appliance: string;
  readonly mode: KeyMode;
  readonly reader: BlockReader;
  readonly keeper: ReadClient;
  readonly origin: Origin;
  readonly pass: Pass;
  readonly tally: WorkerTally;
  readonly clock: Clock;
  readonly log: Log;
  readonly draining: () => boolean;
}

interface Asked {
  readonly method: 'GET' | 'HEAD';
  readonly key: string;
  readonly range: string | null;
  readonly conditions: Conditions;
}

export class Server {
  readonly #deps: ServerDeps;
  readonly #located = new LRUCache<string, AssetView>({ max: LOCATED_MAX });
  /** The last ask about each key that is being located: one that is forgotten meanwhile must not be learnt. */
  readonly #asking = new Map<string, symbol>();

  constructor(deps: ServerDeps) {
    this.#deps = deps;
  }

  forget(keys: readonly string[]): void {
    for (const key of keys) {
      this.#located.delete(key);
      this.#asking.delete(key);
    }
  }

  forgetAll(): void {
    this.#located.clear();
    this.#asking.clear();
  }

  /** What is known of a key without asking anybody; null where an answer may take more than the asset's bytes. */
  hot(key: string): AssetView | null {
    return this.#located.get(key) ?? null;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    if (this.#deps.draining() || hasBody(request)) response.setHeader('connection', 'close');
    try {
      if (request.method === 'OPTIONS')
        return this.#end(
          request,
          response,
          204,
          preflightFields(request.headers['access-control-request-headers'], this.#deps.appliance),
        );
      const asked = parse(request, this.#deps.mode);
      // In a fleet assets are public and catalogued: credentials must not be a way around the catalog to the origin.
      if (request.headers.authorization !== undefined && this.#deps.mode === 'alone')
        return await this.#deps.pass.send(request, response, { key: asked.key, detail: '' });
      await this.#serveLatest(asked, request, response);
    } catch (error) {
      this.#fail(error, request, response);
    }
  }

  /** A version that turns out to be gone before a byte of it is sent gives way, once, to the one that took its place. */
  async #serveLatest(asked: Asked, request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await this.#serveAsset(asked, request, response);
    } catch (error) {
      if (!isFault(error) || error.code !== 'version_gone' || response.headersSent) throw error;
      this.#located.delete(asked.key);
      await this.#serveAsset(asked, request, response);
    }
  }

  async #serveAsset(asked: Asked, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const located = await this.#locate(asked);
    if (located.kind === 'pass')
      return this.#deps.pass.send(request, response, { key: asked.key, detail: located.detail });
    if (located.kind === 'relay') return this.#deps.pass.relay(request, response, located.head, located.answer);

    const { asset, opening } = located;
    const known: CacheOutcome = opening === null && !located.fresh ? 'hit' : 'miss';
    const validators = validatorsOf(asset);
    const verdict = evaluate(asked.conditions, validators);
    const selection = verdict === 'proceed' ? select(asked, asset, validators) : null;
    const bytes = selection?.kind === 'ranges' ? selection.ranges : [{ first: 0, last: asset.bytes - 1 }];
    const usable =
      opening !== null &&
      asked.method === 'GET' &&
      verdict === 'proceed' &&
      selection?.kind !== 'unsatisfiable' &&
      bytes[0]!.first === opening.from;
    if (opening !== null && !usable) opening.answer.body.on('error', () => undefined).destroy();

    if (verdict === 'failed') throw new Fault('precondition_failed', 'a precondition of the request does not hold');
    if (verdict === 'not_modified')
      return this.#end(request, response, 304, notModifiedFields(asset, known, this.#deps.clock.now()));
    if (selection?.kind === 'unsatisfiable') {
      response.setHeader('content-range', `bytes */${asset.bytes}`);
      throw new Fault('range_unsatisfiable', `Range "${asked.range?.slice(0, 100)}" fits no byte of ${asset.bytes}`);
    }
    if (asked.method === 'HEAD')
      return this.#end(request, response, 200, {
        ...assetFields(asset, known, this.#deps.clock.now()),
        'content-length': asset.bytes,
      });
    await this.#send({
      request,
      response,
      asset,
      selection: selection!,
      ranges: bytes,
      opening: usable ? opening.answer : null,
      outcome: known === 'hit' ? await this.#outcome(asset, bytes) : known,
    });
  }

  async #locate(asked: Asked): Promise<Located> {
    const known = this.#located.get(asked.key);
    if (known !== undefined) return { kind: 'asset', asset: known, fresh: false, opening: null };
    const hint = firstByteHint(asked.range);
    const to = asked.method === 'HEAD' ? 1 : lastByteHint(asked.range);
    const ask = Symbol(asked.key);
    this.#asking.set(asked.key, ask);
    let answer: Answer;
    let current = false;
    try {
      answer = await this.#deps.keeper.read({
        key: asked.key,
        known: null,
        from: asked.method === 'HEAD' ? 0 : hint,
        to,
      });
    } catch (error) {
      if (!isFault(error) || error.code !== 'unreachable') throw error;
      this.#deps.tally.add('larder_fallback_total', 1, { name: 'storekeeper_down_origin' });
      return { kind: 'pass', detail: '; detail=storekeeper-down' };
    } finally {
      current = this.#asking.get(asked.key) === ask;
      if (current) this.#asking.delete(asked.key);
    }
    const { head } = answer;
    if (head.kind === 'relay') return { kind: 'relay', head, answer };
    if (head.kind !== 'asset') {
      await answer.body.dump();
      return { kind: 'pass', detail: head.kind === 'pass' ? `; detail="${head.reason}"` : '' };
    }
    if (current) this.#located.set(asked.key, head.asset);
    const { asset, fresh } = head;
    if (head.body) return { kind: 'asset', asset, fresh, opening: { answer, from: hint === 'suffix' ? 0 : hint } };
    await answer.body.dump();
    return { kind: 'asset', asset, fresh, opening: null };
  }

  async #outcome(asset: AssetView, ranges: readonly ByteRange[]): Promise<CacheOutcome> {
    let looked = 0;
    for (const range of ranges) {
      for (
        let number = Math.floor(range.first / BLOCK_BYTES);
        number * BLOCK_BYTES <= range.last && looked < HIT_BLOCKS_MAX;
        number += 1
      ) {
        looked += 1;
        if (!(await this.#deps.reader.has(asset, number))) return 'partial';
      }
    }
    return 'hit';
  }

  async #send(sending: {
    readonly request: IncomingMessage;
    readonly response: ServerResponse;
    readonly asset: AssetView;
    readonly selection: Selection;
    readonly ranges: readonly ByteRange[];
    readonly opening: Answer | null;
    readonly outcome: CacheOutcome;
  }): Promise<void> {
    const { request, response, asset, ranges, selection } = sending;
    const sources = ranges.map(
      (range, at) =>
        new Source(this.#deps, asset, {
          at: range.first,
          end: range.last + 1,
          opening: at === 0 ? sending.opening : null,
        }),
    );
    // The first bytes come before the head, so that a fault can still choose the status.
    const first = await sources[0]!.next();
    const fields = assetFields(asset, sending.outcome, this.#deps.clock.now());
    const multipart =
      ranges.length > 1 ? frame(ranges, asset.bytes, asset.headers['content-type'] ?? null, newBoundary()) : null;
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
    this.#deps.tally.add('larder_cache_total', 1, { outcome: sending.outcome });

    let sent = 0;
    let alive = true;
    for (const [at, source] of sources.entries()) {
      if (multipart !== null) response.write(multipart.heads[at]!);
      let piece = at === 0 ? first : await source.next();
      while (piece !== null && alive) {
        sent += piece.bytes.length;
        response.write(piece.bytes, piece.release);
        if (response.writableCorked > 0) response.uncork();
        const free = room(response);
        alive = free === true || (free !== false && (await free));
        if (alive) piece = await source.next();
      }
      if (!alive) {
        source.cancel();
        break;
      }
    }
    const fetched = sources.reduce((sum, source) => sum + source.fetchedBytes, 0);
    this.#account(request, status, { asset, sent, fetched });
    if (!alive) {
      this.#deps.tally.add('larder_aborted_total');
      return;
    }
    response.end(multipart?.tail);
  }

  #account(
    request: IncomingMessage,
    status: number,
    spec: { readonly asset: AssetView | null; readonly sent: number; readonly fetched: number },
  ): void {
    const { tally } = this.#deps;
    tally.add('larder_requests_total', 1, { method: request.method ?? 'GET', status: String(status) });
    if (spec.sent - spec.fetched > 0)
      tally.add('larder_served_bytes_total', spec.sent - spec.fetched, { source: 'store' });
    if (spec.fetched > 0) tally.add('larder_served_bytes_total', spec.fetched, { source: 'origin' });
    if (spec.asset !== null) tally.served(spec.asset.holding, spec.sent);
  }

  #end(request: IncomingMessage, response: ServerResponse, status: number, fields: Fields): void {
    response.writeHead(status, fields).end();
    this.#account(request, status, { asset: null, sent: 0, fetched: 0 });
  }

  #fail(error: unknown, request: IncomingMessage, response: ServerResponse): void {
    const fault = isFault(error) ? error : new Fault('internal', 'the request failed inside Larder', { cause: error });
    if (!isFault(error)) this.#deps.log.error({ err: error, url: request.url?.slice(0, 200) }, 'request failed');
    this.#deps.tally.add('larder_faults_total', 1, { code: fault.code });
    if (response.headersSent) {
      // A short read is the only honest answer left: the length was promised.
      response.destroy();
      return;
    }
    if (fault.code === 'version_gone' || fault.code === 'disk_failed') this.#located.clear();
    const body = Buffer.from(`${fault.code}: ${fault.message}\n`);
    response.writeHead(fault.spec.status, faultFields(fault, body.length));
    response.end(request.method === 'HEAD' ? undefined : body);
    this.#account(request, fault.spec.status, { asset: null, sent: 0, fetched: 0 });
  }
}

type Located =
  | {
      readonly kind: 'asset';
      readonly asset: AssetView;
      readonly fresh: boolean;
      readonly opening: { readonly answer: Answer; readonly from: number } | null;
    }
  | { readonly kind: 'relay'; readonly head: Head & { kind: 'relay' }; readonly answer: Answer }
  | { readonly kind: 'pass'; readonly detail: string };

/** Throws `method_not_allowed` or `request_malformed`. */
function parse(request: IncomingMessage, mode: KeyMode): Asked {
  const { method, headers } = request;
  // The parser lets HTTP/0.9 and 2.0 by; neither frames an answer as 1.x does.
  if (request.httpVersionMajor !== 1)
    throw new Fault('request_malformed', `HTTP/${request.httpVersion} is not spoken here; use HTTP/1.1`);
  checkFields(request.rawHeaders);
  if (method !== 'GET' && method !== 'HEAD') throw new Fault('method_not_allowed', `${method} is not one of ${ALLOW}`);
  const { key } = parseTarget(request.url ?? '', mode);
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
  };
}

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

function select(asked: Asked, asset: AssetView, validators: Validators): Selection {
  const applies = asked.conditions.ifRange === null || ifRangeHolds(asked.conditions.ifRange, validators);
  return selectRanges(applies ? asked.range : null, asset.bytes);
}

const validatorsOf = (asset: AssetView): Validators => ({
  etag: asset.headers['etag'] ?? null,
  lastModified: asset.headers['last-modified'] ?? null,
  date: asset.headers['date'] ?? null,
});

/** Exclusive end of the first range if it is bounded; null where the whole rest is wanted. */
function lastByteHint(range: string | null): number | null {
  const match = /^bytes=\s*\d{1,15}-(\d{1,15})\s*(?:,|$)/i.exec(range ?? '');
  return match === null ? null : Number(match[1]) + 1;
}

/** GET and HEAD have no use for a body; the connection ends with the answer, so that it is never read as a request. */
const hasBody = (request: IncomingMessage): boolean =>
  request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
