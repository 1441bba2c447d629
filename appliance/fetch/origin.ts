// Asking the origin. Every field of its answer is checked before a byte is believed: origins lie about ranges, lengths
// and versions, and a wrong byte in the cache is served for ever.

import type { Readable } from 'node:stream';
import type { Dispatcher, Pool } from 'undici';
import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { undici } from '../../runtime/undici.ts';
import { appendVia } from '../http/response-headers.ts';
import { setCookieHeaders, endToEndHeaders, joinedHeaders, storableHeaders } from '../http/headers.ts';
import { generatedAtMsOf, unstorableReason } from '../http/freshness.ts';
import type { Counters } from '../metrics.ts';
import { isStrong } from '../http/precondition.ts';
import { primaryKeyOf } from '../http/vary.ts';

/** Bulkheads: viewers' misses and fills have pools of their own. */
export type PoolName = 'miss' | 'fill' | 'bypass';
const CONNECTIONS: Readonly<Record<PoolName, number>> = { miss: 64, fill: 8, bypass: 64 };
const CONNECT_MS = 5_000;
const HEADERS_MS = 15_000;
const BODY_IDLE_MS = 15_000;

export interface RangeRequest {
  readonly key: string;
  readonly first: number;
  /** Inclusive; null asks for all from `first`. */
  readonly last: number | null;
  /** Strong entity tag that the answer must bear; null on first contact. */
  readonly ifMatch: string | null;
  /** Fields of the request that the fetch is for. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Validators of what is stored: a 304 says that it still holds. */
  readonly conditional?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | null;
}

/** A checked answer with bytes. */
export interface OriginBytes {
  readonly kind: 'bytes';
  /** Length of the whole asset; null where the origin does not say. */
  readonly total: number | null;
  /** What the body covers; `last` is null where the length is unknown. */
  readonly first: number;
  readonly last: number | null;
  readonly etag: string | null;
  readonly status: number;
  /** Those that are stored. */
  readonly headers: Readonly<Record<string, string>>;
  /** Those of the whole body, for an answer that goes on as it is. */
  readonly fullHeaders: Readonly<Record<string, string>>;
  readonly cookies: readonly string[];
  /** The end of the body is told from a break. */
  readonly framed: boolean;
  readonly generatedAtMs: number;
  /** Null: may be stored by a shared cache; else why not. */
  readonly unstorable: string | null;
  readonly body: Readable;
}

/** An answer for the player as it is: an error, a redirect. */
export interface OriginRelay {
  readonly kind: 'relay';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Set-Cookie fields, which must not be joined (RFC 9110 5.3). */
  readonly cookies: readonly string[];
  readonly generatedAtMs: number;
  readonly body: Readable;
}

export interface OutgoingRequest {
  readonly method: string;
  readonly headers: Record<string, string | string[]>;
  readonly body?: Readable | null;
  readonly signal: AbortSignal | null;
  /** Told of interim answers (RFC 9110 15.2). */
  readonly onInterim?: (status: number, headers: Record<string, string>) => void;
}

export interface OriginDeps {
  readonly url: string;
  /** `--reverse-proxy`: what the origin's listener says of itself is kept. */
  readonly reverseProxy: boolean;
  /** The name in Via. */
  readonly via: string;
  readonly clock: Clock;
  readonly counters: Counters;
}

export class Origin {
  readonly #deps: OriginDeps;
  readonly #base: string;
  readonly #at: string;
  readonly #pools = new Map<PoolName, Pool>();

  constructor(deps: OriginDeps) {
    this.#deps = deps;
    const url = new URL(deps.url);
    this.#base = url.pathname.replace(/\/$/, '');
    this.#at = url.origin;
  }

  /** Throws `origin_unreachable`, `origin_timeout`, `origin_protocol_error`, `version_gone`. */
  async fetch(pool: PoolName, ask: RangeRequest): Promise<OriginBytes | OriginRelay> {
    const askedMs = this.#deps.clock.now();
    const response = await this.send(pool, ask.key, {
      method: 'GET',
      headers: {
        ...ask.headers,
        via: appendVia(ask.headers?.['via'], this.#deps.via),
        'accept-encoding': 'identity',
        range: `bytes=${ask.first}-${ask.last ?? ''}`,
        ...(ask.ifMatch === null ? {} : { 'if-match': ask.ifMatch }),
        ...ask.conditional,
      },
      signal: ask.signal,
    });
    const answeredMs = this.#deps.clock.now();
    // RFC 9110 6.6.1: who receives an answer without a date gives it one.
    const headers = { date: new Date(answeredMs).toUTCString(), ...joinedHeaders(response.headers) };
    const generatedAtMs = generatedAtMsOf(headers, { askedMs, answeredMs });
    if (response.statusCode === 200 || response.statusCode === 206) {
      try {
        return { ...this.#check(ask, response, headers), generatedAtMs };
      } catch (error) {
        discardBody(response.body);
        throw error;
      }
    }
    if (response.statusCode === 412 && ask.ifMatch !== null) {
      discardBody(response.body);
      throw new Fault('version_gone', `${ask.key} changed at the origin`);
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

  /** The answer as it comes, for requests that no cache may keep. */
  async send(pool: PoolName, key: string, outgoing: OutgoingRequest): Promise<Dispatcher.ResponseData> {
    this.#deps.counters.add('larder_origin_requests_total', 1, { pool });
    const { onInterim } = outgoing;
    try {
      const response = await this.#poolOf(pool).request({
        method: outgoing.method,
        path: this.#base + primaryKeyOf(key),
        headers: { 'user-agent': 'larder', ...outgoing.headers },
        body: outgoing.body ?? null,
        signal: outgoing.signal,
        ...(onInterim === undefined
          ? {}
          : {
              onInfo: (info: { readonly statusCode: number; readonly headers: Record<string, string | string[]> }) =>
                onInterim(info.statusCode, endToEndHeaders(joinedHeaders(info.headers))),
            }),
      });
      return response;
    } catch (error) {
      throw originFault(error, key);
    }
  }

  #poolOf(name: PoolName): Pool {
    let pool = this.#pools.get(name);
    if (pool === undefined) {
      pool = new (undici().Pool)(this.#at, {
        connections: CONNECTIONS[name],
        connect: { timeout: CONNECT_MS },
        headersTimeout: HEADERS_MS,
        bodyTimeout: BODY_IDLE_MS,
        allowH2: false,
      });
      this.#pools.set(name, pool);
    }
    return pool;
  }

  /** A redirect within the origin stays with us: its clients must neither leave the cache nor learn the origin's address. */
  localizedHeaders(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
    const { location } = headers;
    if (location === undefined || !URL.canParse(location)) return headers;
    const target = new URL(location);
    const own = new URL(this.#deps.url);
    if (target.origin !== own.origin || !target.pathname.startsWith(`${this.#base}/`)) return headers;
    return { ...headers, location: target.pathname.slice(this.#base.length) + target.search + target.hash };
  }

  /** Throws `version_gone` or `origin_protocol_error`. */
  #check(
    ask: RangeRequest,
    response: Dispatcher.ResponseData,
    headers: Readonly<Record<string, string>>,
  ): Omit<OriginBytes, 'generatedAtMs'> {
    const etag = isStrong(headers['etag'] ?? null) ? headers['etag']! : null;
    if (ask.ifMatch !== null && etag !== ask.ifMatch)
      throw new Fault(
        'version_gone',
        `${ask.key} is now version ${headers['etag'] ?? 'without ETag'}, not ${ask.ifMatch}`,
      );
    const length = contentLength(headers, ask.key);
    const common = {
      kind: 'bytes' as const,
      etag,
      status: response.statusCode,
      headers: storableHeaders(headers, this.#deps.reverseProxy),
      fullHeaders: this.#fullHeaders(headers),
      cookies: setCookieHeaders(response.headers),
      framed: length !== null || headers['transfer-encoding'] !== undefined,
      unstorable: unstorableReason(headers, {
        authorization: ask.headers?.['authorization'] !== undefined,
        cookie: ask.headers?.['cookie'] !== undefined,
      }),
      body: response.body,
    };
    if (response.statusCode === 200)
      return { ...common, first: 0, total: length, last: length === null ? null : length - 1 };

    const range = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(headers['content-range'] ?? '');
    if (range === null) throw lied(ask.key, `a 206 with Content-Range "${headers['content-range'] ?? ''}"`);
    const [first, last] = [Number(range[1]), Number(range[2])];
    const total = range[3] === '*' ? null : Number(range[3]);
    if (
      first !== ask.first ||
      last < first ||
      (ask.last !== null && last > ask.last) ||
      (total !== null && last >= total)
    ) {
      throw lied(ask.key, `Content-Range "${headers['content-range']}" for bytes ${ask.first}-${ask.last ?? ''}`);
    }
    if (length !== null && length !== last - first + 1)
      throw lied(ask.key, `Content-Length ${length} with Content-Range "${headers['content-range']}"`);
    // A range may stop short only at the end of the asset.
    if (total !== null && ask.last !== null && last < Math.min(ask.last, total - 1))
      throw lied(ask.key, `only "${headers['content-range']}" of bytes ${ask.first}-${ask.last}`);
    return { ...common, first, last, total };
  }

  /** Fields of a range that is all there is, as those of a 200. */
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

  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.destroy()));
  }
}

export function originFault(error: unknown, key: string): Fault {
  if (error instanceof Fault) return error;
  const code = (error as { code?: string }).code ?? '';
  const timeout = /TIMEOUT/i.test(code) || (error as Error).name === 'TimeoutError';
  return new Fault(
    timeout ? 'origin_timeout' : 'origin_unreachable',
    // Players read this: the cause, which names addresses, is for the log.
    `${key}: the origin ${timeout ? 'did not answer in time' : `broke off${code === '' ? '' : ` (${code})`}`}`,
    { cause: error },
  );
}

function contentLength(headers: Readonly<Record<string, string>>, key: string): number | null {
  const text = headers['content-length'];
  if (text === undefined) return null;
  if (!/^\d{1,15}$/.test(text)) throw lied(key, `Content-Length "${text.slice(0, 40)}"`);
  return Number(text);
}

/** A body that nobody wants: its connection is closed, or used again where all of it has come. */
export function discardBody(body: Readable): void {
  body.on('error', () => undefined).destroy();
}

const lied = (key: string, what: string): Fault =>
  new Fault('origin_protocol_error', `${key}: the origin sent ${what}`);
