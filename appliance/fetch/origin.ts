// Requests to the origin. Every field of a response is checked before a byte of it is used: origins send wrong ranges, lengths and
// versions, and a wrong byte in the cache would be served for ever.

import type { Readable } from 'node:stream';
import type { Dispatcher, Pool } from 'undici';
import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import { undici } from '../../runtime/undici.ts';
import { appendVia } from '../http/response-headers.ts';
import { setCookieHeaders, endToEndHeaders, joinedHeaders, storableHeaders } from '../http/headers.ts';
import { generatedAtMsOf, unstorableReason } from '../http/freshness.ts';
import type { Counters } from '../metrics.ts';
import { isStrong } from '../http/precondition.ts';
import { LIMITS } from '../limits.ts';
import { primaryKeyOf } from '../http/vary.ts';

/** Bulkheads: misses of viewers, fills, and requests that bypass the cache have connections of their own. */
export type PoolName = 'miss' | 'fill' | 'bypass';
const CONNECTIONS: Readonly<Record<PoolName, number>> = { miss: 64, fill: 8, bypass: 64 };
const CONNECT_MS = 5_000;
const HEADERS_MS = 15_000;
const BODY_IDLE_MS = 15_000;
/** RFC 9110 9.2.2, without those that may have a body. */
const REPEATABLE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);

export interface RangeRequest {
  readonly key: string;
  readonly first: number;
  /** Inclusive; null asks for all from `first`. */
  readonly last: number | null;
  /** Strong entity tag that the response must bear; null on first contact. */
  readonly ifMatch: string | null;
  /** Fields of the client's request that go with it. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Conditions on the stored response: a 304 says that it still holds. */
  readonly conditional?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | null;
}

/** A checked response with bytes. */
export interface OriginBytes {
  readonly kind: 'bytes';
  /** Length of the whole asset; null when the origin does not say. */
  readonly total: number | null;
  /** What the body covers; `last` is null when the length is unknown. */
  readonly first: number;
  readonly last: number | null;
  readonly etag: string | null;
  readonly status: number;
  /** The fields that are stored. */
  readonly headers: Readonly<Record<string, string>>;
  /** The fields of a 200 with the whole body, for a response that is passed on unstored. */
  readonly fullHeaders: Readonly<Record<string, string>>;
  readonly cookies: readonly string[];
  /** The end of the body can be told from a break. */
  readonly framed: boolean;
  readonly generatedAtMs: number;
  /** Why a shared cache may not store it; null when it may. */
  readonly unstorable: string | null;
  readonly body: Readable;
}

/** A response for the client as it is: an error, a redirect. */
export interface OriginRelay {
  readonly kind: 'relay';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Set-Cookie fields, which must not be joined into one (RFC 9110 5.3). */
  readonly cookies: readonly string[];
  readonly generatedAtMs: number;
  readonly body: Readable;
}

export interface OutgoingRequest {
  readonly method: string;
  readonly headers: Record<string, string | string[]>;
  readonly body?: Readable | null;
  readonly signal: AbortSignal | null;
  /** Called for interim responses (RFC 9110 15.2). */
  readonly onInterim?: (status: number, headers: Record<string, string>) => void;
}

export interface OriginDeps {
  readonly url: string;
  /** `--reverse-proxy`: fields that the origin's listener sets about itself are kept. */
  readonly reverseProxy: boolean;
  /** The appliance's name in Via. */
  readonly via: string;
  readonly clock: Clock;
  readonly counters: Counters;
}

export class Origin {
  readonly #deps: OriginDeps;
  readonly #basePath: string;
  readonly #url: URL;
  readonly #pools = new Map<PoolName, Pool>();
  readonly #freshPools = new Map<PoolName, Pool>();
  /** undici's queue is unbounded. Misses and fills are bounded by those who wait for them, requests of clients only here. */
  readonly #bypasses = new Semaphore({
    permits: LIMITS.bypassesMax,
    waitingMax: LIMITS.bypassesWaitingMax,
    waitMs: LIMITS.bypassWaitMs,
    what: 'requests forwarded to the origin',
  });

  constructor(deps: OriginDeps) {
    this.#deps = deps;
    this.#url = new URL(deps.url);
    this.#basePath = this.#url.pathname.replace(/\/$/, '');
  }

  /** Throws `origin_unreachable`, `origin_timeout`, `origin_protocol_error`, `version_gone`; of the bypass pool `overloaded`. */
  async fetch(pool: PoolName, range: RangeRequest): Promise<OriginBytes | OriginRelay> {
    const askedMs = this.#deps.clock.now();
    const response = await this.send(pool, range.key, {
      method: 'GET',
      headers: {
        ...range.headers,
        via: appendVia(range.headers?.['via'], this.#deps.via),
        'accept-encoding': 'identity',
        range: `bytes=${range.first}-${range.last ?? ''}`,
        ...(range.ifMatch === null ? {} : { 'if-match': range.ifMatch }),
        ...range.conditional,
      },
      signal: range.signal,
    });
    const answeredMs = this.#deps.clock.now();
    // RFC 9110 6.6.1: the recipient of a response without a date adds one.
    const headers = { date: new Date(answeredMs).toUTCString(), ...joinedHeaders(response.headers) };
    const generatedAtMs = generatedAtMsOf(headers, { askedMs, answeredMs });
    if (response.statusCode === 200 || response.statusCode === 206) {
      try {
        return { ...this.#check(range, response, headers), generatedAtMs };
      } catch (error) {
        discardBody(response.body);
        throw error;
      }
    }
    if (response.statusCode === 304 && range.conditional === undefined) {
      discardBody(response.body);
      throw violation(range.key, 'a 304 to a request without conditions');
    }
    if (response.statusCode === 412 && range.ifMatch !== null) {
      discardBody(response.body);
      throw new Fault('version_gone', `${range.key} changed at the origin`);
    }
    return {
      kind: 'relay',
      status: response.statusCode,
      headers: this.localizedHeaders(endToEndHeaders(headers)),
      cookies: setCookieHeaders(response.headers),
      generatedAtMs,
      body: response.body,
    };
  }

  /** The response as it comes, unchecked. A request of the bypass pool holds its permit until the body has ended. */
  async send(pool: PoolName, key: string, outgoing: OutgoingRequest): Promise<Dispatcher.ResponseData> {
    if (pool !== 'bypass') return this.#request(pool, key, outgoing);
    await this.#bypasses.acquire();
    try {
      const response = await this.#request(pool, key, outgoing);
      response.body.once('close', () => this.#bypasses.release());
      return response;
    } catch (error) {
      this.#bypasses.release();
      throw error;
    }
  }

  async #request(pool: PoolName, key: string, outgoing: OutgoingRequest): Promise<Dispatcher.ResponseData> {
    this.#deps.counters.add('larder_origin_requests_total', 1, { pool });
    const { method, headers, body = null, signal, onInterim } = outgoing;
    const onInfo = (info: { readonly statusCode: number; readonly headers: Record<string, string | string[]> }): void =>
      onInterim!(info.statusCode, endToEndHeaders(joinedHeaders(info.headers)));
    const request = (to: Pool): Promise<Dispatcher.ResponseData> =>
      to.request({
        method,
        path: this.#basePath + primaryKeyOf(key),
        headers: { 'user-agent': 'larder', ...headers },
        body,
        signal,
        ...(onInterim === undefined ? {} : { onInfo }),
      });
    try {
      return await request(this.#poolOf(pool)).catch((error: unknown) => {
        // RFC 9112 9.3.1: the origin may close a connection that was kept for the next request just when that is sent.
        const mayRepeat = REPEATABLE_METHODS.has(method) && body === null && signal?.aborted !== true;
        if (!mayRepeat || !isBrokenConnection(error)) throw error;
        this.#deps.counters.add('larder_fallback_total', 1, { name: 'kept_connection_closed_retry' });
        return request(this.#freshPoolOf(pool));
      });
    } catch (error) {
      throw originFault(error, key);
    }
  }

  #poolOf(name: PoolName): Pool {
    return getOrSet(this.#pools, name, () => this.#newPool({ connections: CONNECTIONS[name] }));
  }

  /** Its connections carry one request each. */
  #freshPoolOf(name: PoolName): Pool {
    return getOrSet(this.#freshPools, name, () => this.#newPool({ connections: CONNECTIONS[name], pipelining: 0 }));
  }

  #newPool(options: { readonly connections: number; readonly pipelining?: number }): Pool {
    return new (undici().Pool)(this.#url.origin, {
      ...options,
      connect: { timeout: CONNECT_MS },
      headersTimeout: HEADERS_MS,
      bodyTimeout: BODY_IDLE_MS,
      allowH2: false,
    });
  }

  /** Makes a redirect within the origin relative: clients must neither leave the cache nor learn the origin's address. */
  localizedHeaders(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
    const { location } = headers;
    if (location === undefined || !URL.canParse(location)) return headers;
    const target = new URL(location);
    const base = this.#basePath;
    if (target.origin !== this.#url.origin || !target.pathname.startsWith(`${base}/`)) return headers;
    return { ...headers, location: target.pathname.slice(base.length) + target.search + target.hash };
  }

  /** Throws `version_gone` or `origin_protocol_error`. */
  #check(
    range: RangeRequest,
    response: Dispatcher.ResponseData,
    headers: Readonly<Record<string, string>>,
  ): Omit<OriginBytes, 'generatedAtMs'> {
    const etag = isStrong(headers['etag'] ?? null) ? headers['etag']! : null;
    if (range.ifMatch !== null && etag !== range.ifMatch)
      throw new Fault(
        'version_gone',
        `${range.key} is now version ${headers['etag'] ?? 'without ETag'}, not ${range.ifMatch}`,
      );
    const length = contentLength(headers, range.key);
    const common = {
      kind: 'bytes' as const,
      etag,
      status: response.statusCode,
      headers: storableHeaders(headers, this.#deps.reverseProxy),
      fullHeaders: this.#fullHeaders(headers),
      cookies: setCookieHeaders(response.headers),
      framed: length !== null || headers['transfer-encoding'] !== undefined,
      unstorable: unstorableReason(headers, {
        authorization: range.headers?.['authorization'] !== undefined,
        cookie: range.headers?.['cookie'] !== undefined,
      }),
      body: response.body,
    };
    if (response.statusCode === 200)
      return { ...common, first: 0, total: length, last: length === null ? null : length - 1 };

    const contentRange = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i.exec(headers['content-range'] ?? '');
    if (contentRange === null)
      throw violation(range.key, `a 206 with Content-Range "${headers['content-range'] ?? ''}"`);
    const [first, last] = [Number(contentRange[1]), Number(contentRange[2])];
    const total = contentRange[3] === '*' ? null : Number(contentRange[3]);
    if (
      first !== range.first ||
      last < first ||
      (range.last !== null && last > range.last) ||
      (total !== null && last >= total)
    ) {
      throw violation(
        range.key,
        `Content-Range "${headers['content-range']}" for bytes ${range.first}-${range.last ?? ''}`,
      );
    }
    if (length !== null && length !== last - first + 1)
      throw violation(range.key, `Content-Length ${length} with Content-Range "${headers['content-range']}"`);
    // RFC 9110 15.3.7: a range may end early, and the rest is asked for. Pieces of a few bytes would be as many requests. What is asked for by
    // a tag is known to exist.
    const end = total === null && range.ifMatch === null ? null : range.last;
    const isShort = end !== null && last < Math.min(end, (total ?? Infinity) - 1);
    if (isShort && last - first + 1 < LIMITS.shortRangeBytesMin)
      throw violation(range.key, `only "${headers['content-range']}" of bytes ${range.first}-${range.last ?? ''}`);
    return { ...common, first, last, total };
  }

  /** The fields as a 200 with the whole body has them. */
  #fullHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
    const {
      'content-range': range,
      'set-cookie': _cookies,
      ...fields
    } = this.localizedHeaders(endToEndHeaders(headers));
    return range === undefined ? fields : { ...fields, 'content-length': range.slice(range.lastIndexOf('/') + 1) };
  }

  countBytes(pool: PoolName, bytes: number): void {
    this.#deps.counters.add('larder_origin_bytes_total', bytes, { pool });
  }
}

/** Whether the connection ended before the head of the response. */
function isBrokenConnection(error: unknown): boolean {
  const { code = '' } = error as { readonly code?: string };
  return ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'].includes(code);
}

function getOrSet<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  const found = map.get(key) ?? create();
  map.set(key, found);
  return found;
}

export function originFault(error: unknown, key: string): Fault {
  if (error instanceof Fault) return error;
  const code = (error as { code?: string }).code ?? '';
  const timeout = /TIMEOUT/i.test(code) || (error as Error).name === 'TimeoutError';
  return new Fault(
    timeout ? 'origin_timeout' : 'origin_unreachable',
    // Clients read this message; the cause, which names addresses, is for the log.
    `${key}: the origin ${timeout ? 'did not answer in time' : `broke off${code === '' ? '' : ` (${code})`}`}`,
    { cause: error },
  );
}

function contentLength(headers: Readonly<Record<string, string>>, key: string): number | null {
  const text = headers['content-length'];
  if (text === undefined) return null;
  if (!/^\d{1,15}$/.test(text)) throw violation(key, `Content-Length "${text.slice(0, 40)}"`);
  return Number(text);
}

/** Drops a body that nobody wants. Its connection is closed, or reused when all of the body has arrived. */
export function discardBody(body: Readable): void {
  body.on('error', () => undefined).destroy();
}

const violation = (key: string, what: string): Fault =>
  new Fault('origin_protocol_error', `${key}: the origin sent ${what}`);
