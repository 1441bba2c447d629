// Requests that no cache may answer: they go to the origin and its answer to the player, bodies streaming both ways,
// bounded in number. Also the way on for misses while the storekeeper is down.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import type { Clock } from '../../runtime/clock.ts';
import type { AccessLog } from './access-log.ts';
import { bypassOutcome, forwardOutcome, hitOutcome, type CacheOutcome } from '../http/cache-status.ts';
import { relayHeaders, appendVia, type ProxyIdentity } from '../http/response-headers.ts';
import { setCookieHeaders, endToEndHeaders, fetchHeaders, joinedHeaders } from '../http/headers.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import { waitWritableWithin, withIdleTimeout } from '../../runtime/backpressure.ts';
import type { ReplyHead, CacheUpdate } from '../link/messages.ts';
import type { StorekeeperClient } from '../link/client.ts';
import type { FetchReply } from '../link/connection.ts';
import { originFault, type Origin } from '../fetch/origin.ts';
import { copiesOfSlices } from '../io/byte-stream.ts';
import type { WorkerCounters } from './counters.ts';

export const PASSES_MAX = 64;
const WAITING_MAX = 1_024;
const WAIT_MS = 15_000;
/** A body that pauses, and a reader that takes nothing, are let go. */
const BODY_PAUSE_MS = 15_000;
const STALLED_MS = 30_000;
/** A storekeeper that is being restarted hears of a change when it is back. */
const TELL_EVERY_MS = 200;
const TELL_MS_MAX = 30_000;
/** RFC 9110 9.2.1. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

export interface BypassDeps {
  readonly origin: Origin;
  readonly storekeeper: Pick<StorekeeperClient, 'update'>;
  readonly identity: ProxyIdentity;
  readonly counters: WorkerCounters;
  readonly access: AccessLog | null;
  readonly clock: Clock;
}

export interface BypassRequest {
  readonly key: string;
  /** Why, in the words of RFC 9211. */
  readonly forward: 'bypass' | 'stale' | 'request' | 'method';
  readonly detail: string;
}

export class Bypass {
  readonly #deps: BypassDeps;
  readonly #permits = new Semaphore({
    permits: PASSES_MAX,
    waitingMax: WAITING_MAX,
    waitMs: WAIT_MS,
    what: 'requests forwarded to the origin',
  });

  constructor(deps: BypassDeps) {
    this.#deps = deps;
  }

  /** Throws `overloaded` beyond the cap, else the origin's fault. */
  async forward(request: IncomingMessage, response: ServerResponse, passing: BypassRequest): Promise<void> {
    await this.#permits.acquire();
    const hungUp = new AbortController();
    response.on('close', () => hungUp.abort());
    const { origin, clock, identity, counters } = this.#deps;
    const method = request.method!;
    const askedMs = clock.now();
    try {
      const answer = await origin.send('bypass', passing.key, {
        method,
        headers: this.#requestFields(request, passing),
        body: hasBody(request) ? Readable.from(withIdleTimeout(request, BODY_PAUSE_MS)) : null,
        signal: hungUp.signal,
        onInterim: (status, headers) => interim(response, status, headers),
      });
      const headers = origin.localizedHeaders(endToEndHeaders(joinedHeaders(answer.headers)));
      if (method === 'HEAD' && answer.statusCode === 200 && passing.forward !== 'bypass')
        await this.#tell({
          ...{ kind: 'head', key: passing.key, headers: fetchHeaders(request.headers), answer: headers },
          ...{ askedMs, answeredMs: clock.now() },
        });
      if (!SAFE.has(method) && answer.statusCode < 400)
        await this.#tell({ kind: 'changed', keys: changedKeys(request, passing.key, headers) });
      const { forward, detail } = passing;
      const outcome: CacheOutcome =
        forward === 'stale'
          ? forwardOutcome({ reason: 'stale', status: answer.statusCode, stored: false, collapsed: false })
          : bypassOutcome(forward, answer.statusCode, detail);
      response.writeHead(answer.statusCode, {
        ...relayHeaders(headers, outcome, identity),
        ...withCookies(setCookieHeaders(answer.headers)),
      });
      const body = answer.body as AsyncIterable<Buffer>;
      const length = lengthOf(headers);
      await this.#copy(request, response, { status: answer.statusCode, outcome: 'bypass', body, length });
    } catch (error) {
      if (hungUp.signal.aborted) counters.add('larder_aborted_total');
      else throw originFault(error, passing.key);
    } finally {
      this.#permits.release();
    }
  }

  /** What the origin told the storekeeper, error or redirect, told again. */
  async relay(
    request: IncomingMessage,
    response: ServerResponse,
    head: ReplyHead & { kind: 'relay' },
    answer: FetchReply,
  ): Promise<void> {
    const { 'content-range': _range, ...headers } = head.headers;
    const outcome = head.leftMs === null ? forwardOutcome(head.forward) : hitOutcome(head.leftMs);
    try {
      response.writeHead(head.status, {
        ...relayHeaders(headers, outcome, this.#deps.identity),
        ...withCookies(head.cookies),
      });
    } catch (error) {
      answer.body.close();
      throw error;
    }
    if (request.method === 'HEAD') answer.body.close();
    const { status, leftMs } = head;
    const body = request.method === 'HEAD' ? [] : copiesOfSlices(answer.body);
    const known = leftMs === null ? 'bypass' : 'hit';
    await this.#copy(request, response, { status, outcome: known, body, length: lengthOf(headers) });
  }

  #requestFields(request: IncomingMessage, { forward }: BypassRequest): Record<string, string> {
    const { identity } = this.#deps;
    // What its answer says is taken for what is stored, so it must be asked for as that was.
    if (forward === 'stale')
      return {
        ...fetchHeaders(request.headers),
        'accept-encoding': 'identity',
        via: appendVia(request.headers.via, identity.via),
      };
    const { host: _host, expect: _expect, via, ...fields } = endToEndHeaders(joinedHeaders(request.headers));
    const host = hostOf(request);
    const address = request.socket.remoteAddress ?? 'unknown';
    const before = fields['x-forwarded-for'];
    const proxied: Record<string, string> = {
      'x-forwarded-for': before === undefined ? address : `${before}, ${address}`,
      'x-forwarded-proto': 'encrypted' in request.socket ? 'https' : 'http',
      ...(host === undefined ? {} : { 'x-forwarded-host': host }),
    };
    return { ...fields, via: appendVia(via, identity.via), ...(identity.reverseProxy ? proxied : {}) };
  }

  async #tell(told: CacheUpdate): Promise<void> {
    const end = this.#deps.clock.monotonic() + TELL_MS_MAX;
    for (;;) {
      try {
        return await this.#deps.storekeeper.update(told);
      } catch (error) {
        if (this.#deps.clock.monotonic() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, TELL_EVERY_MS));
      }
    }
  }

  async #copy(
    request: IncomingMessage,
    response: ServerResponse,
    {
      status,
      outcome,
      body,
      length,
    }: {
      readonly status: number;
      readonly outcome: 'bypass' | 'hit';
      readonly body: AsyncIterable<Buffer> | readonly Buffer[];
      readonly length: number | null;
    },
  ): Promise<void> {
    let sent = 0;
    try {
      for await (const chunk of body) {
        sent += chunk.length;
        // Its last byte ends it: who has it may say something new before the origin's end is known.
        if (sent === length) response.end(chunk);
        else response.write(chunk);
        if (!response.writableEnded && !(await waitWritableWithin(response, STALLED_MS))) break;
      }
      if (!response.writableEnded) response.end();
    } finally {
      this.#account(request, { status, outcome, sent });
    }
  }

  #account(
    request: IncomingMessage,
    { status, outcome, sent }: { readonly status: number; readonly outcome: 'bypass' | 'hit'; readonly sent: number },
  ): void {
    const { counters, access } = this.#deps;
    counters.add('larder_cache_total', 1, { outcome });
    counters.add('larder_requests_total', 1, { method: request.method ?? 'GET', status: String(status) });
    counters.add('larder_served_bytes_total', sent, { source: outcome === 'hit' ? 'store' : 'origin' });
    counters.served(null, sent);
    access?.end(request, { status, bytes: sent, outcome });
  }
}

const lengthOf = (headers: Readonly<Record<string, string>>): number | null =>
  headers['content-length'] === undefined ? null : Number(headers['content-length']);

export const hasBody = (request: IncomingMessage): boolean =>
  request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;

/** RFC 9112 3.2.2: of an absolute target its own. */
const hostOf = ({ url, headers }: IncomingMessage): string | undefined =>
  /^https?:\/\/([^/?#]*)/i.exec(url ?? '')?.[1] ?? headers.host;

/** RFC 9111 4.4: the target, and what Location and Content-Location name on the same origin. */
function changedKeys(request: IncomingMessage, key: string, headers: Readonly<Record<string, string>>): string[] {
  const base = `http://${hostOf(request) ?? 'origin'}${key}`;
  const others = [headers['location'], headers['content-location']].flatMap((text) => {
    if (text === undefined || !URL.canParse(text, base)) return [];
    const url = new URL(text, base);
    return url.host === new URL(base).host ? [url.pathname + url.search] : [];
  });
  return [...new Set([key, ...others])];
}

/** RFC 9110 15.2: passed on to those who speak HTTP/1.1. 100 is Node's own matter, 101 is never asked for. */
function interim(response: ServerResponse, status: number, headers: Readonly<Record<string, string>>): void {
  if (response.headersSent || response.req.httpVersionMinor === 0) return;
  if (status === 102) response.writeProcessing();
  if (status !== 103 || headers['link'] === undefined) return;
  const links = headers['link'].split(/,\s*(?=<)/);
  try {
    response.writeEarlyHints({ ...headers, link: links });
  } catch {
    // Node takes only links of a plain shape; hints may be left out.
  }
}

const withCookies = (cookies: readonly string[]): Record<string, string[]> =>
  cookies.length === 0 ? {} : { 'set-cookie': [...cookies] };
