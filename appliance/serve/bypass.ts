// Requests that bypass the cache: they are forwarded to the origin and its response to the client, bodies streaming both ways. How
// many may be under way is bounded by the bypass pool of `fetch/origin.ts`.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { waitWritableWithin, withIdleTimeout } from '../../runtime/backpressure.ts';
import type { Clock } from '../../runtime/clock.ts';
import { originFault, type Origin } from '../fetch/origin.ts';
import { endToEndHeaders, fetchHeaders, joinedHeaders, setCookieHeaders } from '../http/headers.ts';
import { bypassOutcome, forwardOutcome, hitOutcome, type CacheOutcome } from '../http/cache-status.ts';
import { appendVia, relayHeaders, type ProxyIdentity } from '../http/response-headers.ts';
import { copiesOfSlices } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import type { CacheUpdate, ReplyHead } from '../link/messages.ts';
import { accountFor, type AccountingDeps } from './accounting.ts';
import { hasBody } from './request.ts';

/** A storekeeper that is being restarted is told of an update when it is back. */
const UPDATE_RETRY_MS = 200;
const UPDATE_RETRIES_MS_MAX = 30_000;
/** RFC 9110 9.2.1. */
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

export interface BypassDeps extends AccountingDeps {
  readonly origin: Origin;
  readonly storekeeper: Pick<StorekeeperClient, 'update'>;
  readonly identity: ProxyIdentity;
  readonly clock: Clock;
}

export interface BypassRequest {
  readonly key: string;
  /** The reason, in the words of RFC 9211. */
  readonly forward: 'bypass' | 'stale' | 'request' | 'method';
  readonly detail: string;
}

interface Transfer {
  readonly status: number;
  readonly outcome: 'bypass' | 'hit';
  readonly body: AsyncIterable<Buffer> | readonly Buffer[];
  /** Content-Length; null when the response has none. */
  readonly length: number | null;
}

export class Bypass {
  readonly #deps: BypassDeps;

  constructor(deps: BypassDeps) {
    this.#deps = deps;
  }

  /** Throws `overloaded` beyond the bounds of the bypass pool, else the origin's fault. */
  async forward(request: IncomingMessage, response: ServerResponse, bypass: BypassRequest): Promise<void> {
    const { origin, clock, identity, counters } = this.#deps;
    const clientGone = new AbortController();
    response.on('close', () => clientGone.abort());
    const method = request.method!;
    const askedMs = clock.now();
    try {
      const answer = await origin.send('bypass', bypass.key, {
        method,
        headers: this.#requestHeaders(request, bypass),
        body: hasBody(request) ? Readable.from(withIdleTimeout(request, LIMITS.requestBodyIdleMs)) : null,
        signal: clientGone.signal,
        onInterim: (status, headers) => sendInterim(response, status, headers),
      });
      const { statusCode: status } = answer;
      const headers = origin.localizedHeaders(endToEndHeaders(joinedHeaders(answer.headers)));
      await this.#updateCache(request, bypass, { status, headers, askedMs });
      response.writeHead(status, {
        ...relayHeaders(headers, outcomeOf(bypass, status), identity),
        ...cookieFields(setCookieHeaders(answer.headers)),
      });
      const body = answer.body as AsyncIterable<Buffer>;
      await this.#transfer(request, response, { status, outcome: 'bypass', body, length: lengthOf(headers) });
    } catch (error) {
      if (clientGone.signal.aborted) counters.add('larder_aborted_total');
      else throw originFault(error, bypass.key);
    }
  }

  /** Sends the origin's error or redirect that the storekeeper has received. */
  async relay(
    request: IncomingMessage,
    response: ServerResponse,
    { head, reply }: { readonly head: ReplyHead & { kind: 'relay' }; readonly reply: FetchReply },
  ): Promise<void> {
    const { 'content-range': _range, ...headers } = head.headers;
    const { status, leftMs } = head;
    const outcome = leftMs === null ? forwardOutcome(head.forward) : hitOutcome(leftMs);
    try {
      response.writeHead(status, {
        ...relayHeaders(headers, outcome, this.#deps.identity),
        ...cookieFields(head.cookies),
      });
    } catch (error) {
      reply.body.close();
      throw error;
    }
    if (request.method === 'HEAD') reply.body.close();
    const body = request.method === 'HEAD' ? [] : copiesOfSlices(reply.body);
    const counted = leftMs === null ? 'bypass' : 'hit';
    await this.#transfer(request, response, { status, outcome: counted, body, length: lengthOf(headers) });
  }

  #requestHeaders(request: IncomingMessage, { forward }: BypassRequest): Record<string, string> {
    const { identity } = this.#deps;
    // The response to this HEAD updates the stored one, so it is asked for with the same fields.
    if (forward === 'stale')
      return {
        ...fetchHeaders(request.headers),
        'accept-encoding': 'identity',
        via: appendVia(request.headers.via, identity.via),
      };
    const { host: _host, expect: _expect, via, ...fields } = endToEndHeaders(joinedHeaders(request.headers));
    const forwarded = identity.reverseProxy ? forwardedHeaders(request, fields['x-forwarded-for']) : {};
    return { ...fields, via: appendVia(via, identity.via), ...forwarded };
  }

  /** RFC 9111 4.3.5 and 4.4: the response to a HEAD updates the stored one, a successful unsafe request invalidates it. */
  async #updateCache(
    request: IncomingMessage,
    { key, forward }: BypassRequest,
    answer: { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly askedMs: number },
  ): Promise<void> {
    const { status, headers, askedMs } = answer;
    if (request.method === 'HEAD' && status === 200 && forward !== 'bypass')
      await this.#update({
        ...{ kind: 'head', key, headers: fetchHeaders(request.headers), answer: headers },
        ...{ askedMs, answeredMs: this.#deps.clock.now() },
      });
    if (!SAFE_METHODS.has(request.method!) && status < 400)
      await this.#update({ kind: 'invalidate', keys: invalidatedKeys(request, key, headers) });
  }

  async #update(update: CacheUpdate): Promise<void> {
    const { clock, storekeeper } = this.#deps;
    const endMs = clock.monotonic() + UPDATE_RETRIES_MS_MAX;
    for (;;) {
      try {
        return await storekeeper.update(update);
      } catch (error) {
        if (clock.monotonic() > endMs) throw error;
        await clock.sleep(UPDATE_RETRY_MS);
      }
    }
  }

  async #transfer(request: IncomingMessage, response: ServerResponse, transfer: Transfer): Promise<void> {
    const { status, outcome, body, length } = transfer;
    let bodyBytes = 0;
    try {
      for await (const chunk of body) {
        bodyBytes += chunk.length;
        // The last byte ends the response: its client may send the next request before the end of the origin's is known.
        if (bodyBytes === length) response.end(chunk);
        else response.write(chunk);
        if (!response.writableEnded && !(await waitWritableWithin(response, LIMITS.clientStallMs))) break;
      }
      if (!response.writableEnded) response.end();
    } finally {
      this.#deps.counters.add('larder_cache_total', 1, { outcome });
      const fetchedBytes = outcome === 'hit' ? 0 : bodyBytes;
      accountFor(this.#deps, request, { status, outcome, bodyBytes, fetchedBytes, holding: null });
    }
  }
}

function outcomeOf({ forward, detail }: BypassRequest, status: number): CacheOutcome {
  if (forward === 'stale') return forwardOutcome({ reason: 'stale', status, stored: false, collapsed: false });
  return bypassOutcome(forward, status, detail);
}

const lengthOf = (headers: Readonly<Record<string, string>>): number | null =>
  headers['content-length'] === undefined ? null : Number(headers['content-length']);

/** RFC 9112 3.2.2: the host of an absolute target counts, not the Host field. */
const hostOf = ({ url, headers }: IncomingMessage): string | undefined =>
  /^https?:\/\/([^/?#]*)/i.exec(url ?? '')?.[1] ?? headers.host;

function forwardedHeaders(request: IncomingMessage, before: string | undefined): Record<string, string> {
  const host = hostOf(request);
  const address = request.socket.remoteAddress ?? 'unknown';
  return {
    'x-forwarded-for': before === undefined ? address : `${before}, ${address}`,
    'x-forwarded-proto': 'encrypted' in request.socket ? 'https' : 'http',
    ...(host === undefined ? {} : { 'x-forwarded-host': host }),
  };
}

/** RFC 9111 4.4: the target, and what Location and Content-Location name on the same origin. */
function invalidatedKeys(
  request: IncomingMessage,
  key: string,
  headers: Readonly<Record<string, string>>,
): readonly string[] {
  const base = `http://${hostOf(request) ?? 'origin'}${key}`;
  const others = [headers['location'], headers['content-location']].flatMap((text) => {
    if (text === undefined || !URL.canParse(text, base)) return [];
    const url = new URL(text, base);
    return url.host === new URL(base).host ? [url.pathname + url.search] : [];
  });
  return [...new Set([key, ...others])];
}

/** RFC 9110 15.2: interim responses go to HTTP/1.1 clients. Node itself answers 100, and 101 is never asked for. */
function sendInterim(response: ServerResponse, status: number, headers: Readonly<Record<string, string>>): void {
  if (response.headersSent || response.req.httpVersionMinor === 0) return;
  if (status === 102) response.writeProcessing();
  if (status !== 103 || headers['link'] === undefined) return;
  const links = headers['link'].split(/,\s*(?=<)/);
  try {
    response.writeEarlyHints({ ...headers, link: links });
  } catch {
    // Node accepts only links of a plain shape. Hints may be left out.
  }
}

const cookieFields = (cookies: readonly string[]): Record<string, string[]> =>
  cookies.length === 0 ? {} : { 'set-cookie': [...cookies] };
