// Answers that no cache may keep: the request goes to the origin and its answer to the player, bounded in number. Also the
// way on for misses while the storekeeper is down.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { Fault } from '../protocol/faults.ts';
import { relayFields } from './answer.ts';
import { room } from './flow.ts';
import type { Head } from './link.ts';
import type { Answer } from './link-client.ts';
import { endToEnd, originFault, singleHeaders, type Origin } from './origin.ts';
import type { WorkerTally } from './tally.ts';

export const PASSES_MAX = 64;
const FORWARDED = [
  'accept',
  'accept-encoding',
  'accept-language',
  'authorization',
  'cookie',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'range',
  'referer',
] as const;

export interface PassDeps {
  readonly origin: Origin;
  readonly tally: WorkerTally;
}

export class Pass {
  readonly #deps: PassDeps;
  #under = 0;

  constructor(deps: PassDeps) {
    this.#deps = deps;
  }

  /** Throws `overloaded` beyond the cap, else the origin's fault. */
  async send(
    request: IncomingMessage,
    response: ServerResponse,
    spec: { readonly key: string; readonly detail: string },
  ): Promise<void> {
    if (this.#under >= PASSES_MAX)
      throw new Fault('overloaded', `${PASSES_MAX} requests already pass through to the origin`);
    this.#under += 1;
    const hungUp = new AbortController();
    response.on('close', () => hungUp.abort());
    try {
      const headers: Record<string, string> = {};
      for (const name of FORWARDED)
        if (request.headers[name] !== undefined) headers[name] = String(request.headers[name]);
      const answer = await this.#deps.origin.send('pass', spec.key, {
        method: request.method === 'HEAD' ? 'HEAD' : 'GET',
        headers,
        signal: hungUp.signal,
      });
      response.writeHead(answer.statusCode, {
        ...relayFields(this.#deps.origin.localised(endToEnd(singleHeaders(answer.headers))), 'pass', spec.detail),
        ...cookiesOf(answer.headers['set-cookie']),
      });
      await this.#copy(request, response, answer.statusCode, answer.body as AsyncIterable<Buffer>);
    } catch (error) {
      if (hungUp.signal.aborted) this.#deps.tally.add('larder_aborted_total');
      else throw originFault(error, spec.key);
    } finally {
      this.#under -= 1;
    }
  }

  /** What the origin told the storekeeper, error or redirect, told again. */
  async relay(
    request: IncomingMessage,
    response: ServerResponse,
    head: Head & { kind: 'relay' },
    answer: Answer,
  ): Promise<void> {
    const body = Buffer.from(await answer.body.arrayBuffer());
    const { 'content-length': _length, 'content-range': _range, ...headers } = head.headers;
    response.writeHead(head.status, {
      ...relayFields(headers, 'relay', `; fwd-status=${head.status}`),
      // RFC 9110 8.6: never with a 204.
      ...(head.status === 204 ? {} : { 'content-length': body.length }),
    });
    await this.#copy(request, response, head.status, request.method === 'HEAD' ? [] : [body]);
  }

  async #copy(
    request: IncomingMessage,
    response: ServerResponse,
    status: number,
    body: AsyncIterable<Buffer> | readonly Buffer[],
  ): Promise<void> {
    let sent = 0;
    for await (const chunk of body) {
      sent += chunk.length;
      response.write(chunk);
      if (!(await room(response))) break;
    }
    response.end();
    const { tally } = this.#deps;
    tally.add('larder_cache_total', 1, { outcome: 'pass' });
    tally.add('larder_requests_total', 1, { method: request.method ?? 'GET', status: String(status) });
    tally.add('larder_served_bytes_total', sent, { source: 'origin' });
    tally.served(null, sent);
  }
}

/** Several Set-Cookie fields must not be joined by commas (RFC 9110 5.3). */
const cookiesOf = (cookies: string | string[] | undefined): Record<string, string[]> =>
  cookies === undefined ? {} : { 'set-cookie': Array.isArray(cookies) ? cookies : [cookies] };
