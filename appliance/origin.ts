// Asking the origin. Every field of its answer is checked before a byte is believed: origins lie about ranges, lengths
// and versions, and a wrong byte in the cache is served for ever.

import { Pool, type Dispatcher } from 'undici';
import { Fault } from '../protocol/faults.ts';
import { STORED_HEADERS_BYTES_MAX } from './block-file.ts';
import type { Tally } from './metrics.ts';
import { isStrong } from './precondition.ts';

/** Bulkheads: viewers' misses and fills have pools of their own. */
export type PoolName = 'miss' | 'fill' | 'pass';
const CONNECTIONS: Readonly<Record<PoolName, number>> = { miss: 64, fill: 8, pass: 64 };
const CONNECT_MS = 5_000;
const HEADERS_MS = 15_000;
const BODY_IDLE_MS = 15_000;
const RELAY_BODY_BYTES_MAX = 64 * 2 ** 10;

export interface RangeAsk {
  readonly key: string;
  readonly first: number;
  /** Inclusive; null asks for all from `first`. */
  readonly last: number | null;
  /** Strong entity tag that the answer must bear; null on first contact. */
  readonly ifMatch: string | null;
  readonly signal: AbortSignal | null;
}

/** A checked answer with bytes. */
export interface Bytes {
  readonly kind: 'bytes';
  /** Length of the whole asset; null where the origin does not say. */
  readonly total: number | null;
  /** What the body covers; `last` is null where the length is unknown. */
  readonly first: number;
  readonly last: number | null;
  readonly etag: string | null;
  readonly headers: Readonly<Record<string, string>>;
  /** Null: may be stored by a shared cache; else why not. */
  readonly unstorable: string | null;
  readonly body: Dispatcher.ResponseData['body'];
}

/** An answer for the player as it is: an error, a redirect. */
export interface Relay {
  readonly kind: 'relay';
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

export interface OriginDeps {
  readonly url: string;
  readonly tally: Tally;
}

export class Origin {
  readonly #deps: OriginDeps;
  readonly #base: string;
  readonly #pools = new Map<PoolName, Pool>();

  constructor(deps: OriginDeps) {
    this.#deps = deps;
    const url = new URL(deps.url);
    this.#base = url.pathname.replace(/\/$/, '');
    for (const name of Object.keys(CONNECTIONS) as PoolName[]) {
      this.#pools.set(
        name,
        new Pool(url.origin, {
          connections: CONNECTIONS[name],
          connect: { timeout: CONNECT_MS },
          headersTimeout: HEADERS_MS,
          bodyTimeout: BODY_IDLE_MS,
          allowH2: false,
        }),
      );
    }
  }

  /** Throws `origin_unreachable`, `origin_timeout`, `origin_lied`, `version_gone`. */
  async fetch(pool: PoolName, ask: RangeAsk): Promise<Bytes | Relay> {
    const response = await this.send(pool, ask.key, {
      method: 'GET',
      headers: {
        'accept-encoding': 'identity',
        range: `bytes=${ask.first}-${ask.last ?? ''}`,
        ...(ask.ifMatch === null ? {} : { 'if-match': ask.ifMatch }),
      },
      signal: ask.signal,
    });
    const headers = singleHeaders(response.headers);
    if (response.statusCode === 200 || response.statusCode === 206) {
      try {
        return checkAnswer(ask, response, headers);
      } catch (error) {
        response.body.on('error', () => undefined).destroy();
        throw error;
      }
    }
    const body = await readBounded(response.body);
    if (response.statusCode === 412 && ask.ifMatch !== null)
      throw new Fault('version_gone', `${ask.key} changed at the origin`);
    return { kind: 'relay', status: response.statusCode, headers: this.localised(endToEnd(headers)), body };
  }

  /** The answer as it comes, for requests that no cache may keep. */
  async send(
    pool: PoolName,
    key: string,
    options: {
      readonly method: 'GET' | 'HEAD';
      readonly headers: Record<string, string>;
      readonly signal: AbortSignal | null;
    },
  ): Promise<Dispatcher.ResponseData> {
    this.#deps.tally.add('larder_origin_requests_total', 1, { pool });
    try {
      return await this.#pools.get(pool)!.request({
        method: options.method,
        path: this.#base + key,
        headers: { 'user-agent': 'larder', ...options.headers },
        signal: options.signal,
      });
    } catch (error) {
      throw originFault(error, key);
    }
  }

  /** A redirect within the origin stays with us: its clients must neither leave the cache nor learn the origin's address. */
  localised(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
    const { location } = headers;
    if (location === undefined || !URL.canParse(location)) return headers;
    const target = new URL(location);
    const own = new URL(this.#deps.url);
    if (target.origin !== own.origin || !target.pathname.startsWith(`${this.#base}/`)) return headers;
    return { ...headers, location: target.pathname.slice(this.#base.length) + target.search + target.hash };
  }

  countBytes(pool: PoolName, bytes: number): void {
    this.#deps.tally.add('larder_origin_bytes_total', bytes, { pool });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map((pool) => pool.destroy()));
  }
}

function checkAnswer(
  ask: RangeAsk,
  response: Dispatcher.ResponseData,
  headers: Readonly<Record<string, string>>,
): Bytes {
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
    headers: storedHeaders(headers),
    unstorable: whyUnstorable(headers),
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

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
]);
/** Of one answer, of the origin's own listener, or made anew by us. */
const NOT_STORED = new Set([
  'content-length',
  'content-range',
  'accept-ranges',
  'age',
  'set-cookie',
  'server',
  'via',
  'cache-status',
  'alt-svc',
  'timing-allow-origin',
  'strict-transport-security',
  'server-timing',
  'report-to',
  'nel',
]);

/** Stored headers always have room for these; others are left out when the page of a block head is full. */
const KEPT_FIRST = [
  'etag',
  'last-modified',
  'content-type',
  'cache-control',
  'date',
  'expires',
  'content-encoding',
  'content-language',
  'content-disposition',
];

export function endToEnd(headers: Readonly<Record<string, string>>): Record<string, string> {
  const named = new Set((headers['connection'] ?? '').split(',').map((token) => token.trim().toLowerCase()));
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !named.has(name)));
}

function storedHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const candidates = Object.entries(endToEnd(headers)).filter(
    ([name]) => !NOT_STORED.has(name) && !name.startsWith('access-control-'),
  );
  const rank = (name: string): number => (KEPT_FIRST.includes(name) ? KEPT_FIRST.indexOf(name) : KEPT_FIRST.length);
  const kept: Record<string, string> = {};
  let bytes = 0;
  for (const [name, value] of candidates.sort((a, b) => rank(a[0]) - rank(b[0]))) {
    bytes += JSON.stringify(name).length + JSON.stringify(value).length + 2;
    if (bytes > STORED_HEADERS_BYTES_MAX) break;
    kept[name] = value;
  }
  return kept;
}

/** Stand-alone rule of this version: immutable unless the origin says that it is private, not to be stored, or varies. */
function whyUnstorable(headers: Readonly<Record<string, string>>): string | null {
  const directives = (headers['cache-control'] ?? '').toLowerCase();
  const forbidding = /(?:^|[\s,])(no-store|private)(?:$|[\s,=])/.exec(directives);
  if (forbidding !== null) return forbidding[1]!;
  if (headers['set-cookie'] !== undefined) return 'set-cookie';
  if (
    headers['vary'] !== undefined &&
    headers['vary'].split(',').some((name) => !['origin', 'accept-encoding', ''].includes(name.trim().toLowerCase()))
  )
    return 'vary';
  const encoding = headers['content-encoding'] ?? 'identity';
  return encoding === 'identity' ? null : 'content-encoding';
}

export function singleHeaders(headers: Dispatcher.ResponseData['headers']): Record<string, string> {
  const single: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) single[name] = Array.isArray(value) ? value.join(', ') : value;
  return single;
}

function contentLength(headers: Readonly<Record<string, string>>, key: string): number | null {
  const text = headers['content-length'];
  if (text === undefined) return null;
  if (!/^\d{1,15}$/.test(text)) throw lied(key, `Content-Length "${text.slice(0, 40)}"`);
  return Number(text);
}

async function readBounded(body: Dispatcher.ResponseData['body']): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > RELAY_BODY_BYTES_MAX) return Buffer.alloc(0);
      chunks.push(chunk);
    }
  } catch {
    return Buffer.alloc(0);
  }
  return Buffer.concat(chunks);
}

const lied = (key: string, what: string): Fault => new Fault('origin_lied', `${key}: the origin sent ${what}`);
