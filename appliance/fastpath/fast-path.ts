// The short way from a socket to bytes on disk. A plain GET or HEAD for an asset that this worker knows, all of whose blocks
// are open here, is answered on the spot: head and first piece in one write. Any other request goes, byte for byte, to
// node:http and `server.ts`; once that has answered, the connection's next request may take the short way again.
//
//   fast-head.ts        reads plain requests, and no other
//   fast-socket.ts      its socket, as directly as Node allows
//   fast-queue.ts       in which order requests are answered
//   fast-connection.ts  which way a request goes, and how long a connection may wait
//   fast-send.ts        the bytes of one answer
//   fast-answer.ts      its head
//   fast-bridge.ts      the connection as node:http sees it

import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ProxyIdentity } from '../http/response-headers.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { ResponseHeads } from './response-head.ts';
import { HttpBridge } from './bridge.ts';
import { FastConnection, type FastConnectionDeps } from './connection.ts';
import { RequestHead } from './request-head.ts';
import { RequestQueue } from './queue.ts';
import type { ResponseSenderDeps } from './send.ts';

export interface FastPathDeps extends Omit<ResponseSenderDeps, 'heads' | 'counts'> {
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly http: HttpServer;
  readonly draining: () => boolean;
  /** From the accept to the first request. */
  readonly firstRequestMs: number;
  readonly keepAliveMs: number;
}

/** The connections of a worker. */
export class FastPath {
  readonly #connections = new Set<FastConnection>();
  readonly #deps: FastConnectionDeps;

  constructor(deps: FastPathDeps) {
    const { counters } = deps;
    this.#deps = {
      ...deps,
      head: new RequestHead(),
      queue: new RequestQueue(),
      heads: new ResponseHeads(deps.identity, deps.keepAliveMs),
      counts: {
        partial: counters.counter('larder_requests_total', { method: 'GET', status: '206' }),
        whole: counters.counter('larder_requests_total', { method: 'GET', status: '200' }),
        head: counters.counter('larder_requests_total', { method: 'HEAD', status: '200' }),
        hit: counters.counter('larder_cache_total', { outcome: 'hit' }),
        stored: counters.counter('larder_served_bytes_total', { source: 'store' }),
        fetched: counters.counter('larder_served_bytes_total', { source: 'origin' }),
        fast: counters.counter('larder_fast_path_total', {}),
        aborted: counters.counter('larder_aborted_total', {}),
      },
    };
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Returns the socket that the connection goes on with. */
  accept(received: Socket): Socket {
    const connection = new FastConnection(received, this.#deps);
    this.#connections.add(connection);
    return connection.socket.on('close', () => this.#connections.delete(connection));
  }

  /** Ends what has waited too long; to be called every second or so. */
  sweep(): void {
    const now = this.#deps.clock.monotonic();
    for (const connection of this.#connections) connection.expire(now);
  }

  closeIdle(): void {
    for (const connection of this.#connections) connection.closeIdle();
  }
}

/** To be called for every request that node:http reads: it may have come over a bridge of ours. */
export function watchBridge(request: IncomingMessage, response: ServerResponse): void {
  const socket: unknown = request.socket;
  if (socket instanceof HttpBridge) socket.watch(request, response);
}

/**
 * node:http hands a connection over at a CONNECT, whatever is still to be answered on it: that is lost then, and the refusal must
 * not be taken for its answer. Nor does one follow an answer that said it was the last, which ends the connection in this turn.
 */
export function refuseTunnel(socket: Duplex, refusal: string): void {
  setImmediate(() => {
    if (socket instanceof HttpBridge && socket.running > 0) socket.destroy();
    else if (!socket.writableEnded) socket.end(refusal);
  });
}
