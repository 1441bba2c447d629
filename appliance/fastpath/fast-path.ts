// fastpath/ answers the common request without node:http: a plain GET or HEAD for an asset that is fresh in this worker's
// metadata cache and whose blocks are open here. Head and first bytes leave in one write. Every other request goes, byte for
// byte, to node:http and serve/serve.ts, the slow path. Once that has answered, the next request of the connection may be
// fast again. The fast path may decline any request, and must answer exactly as the slow path would; the tests compare both.
//
// In the order in which a request meets them:
//
//   fast-path.ts      all client connections of a worker (this file)
//   socket.ts         the socket of a connection, without a buffer and a write request per operation
//   queue.ts          the order in which requests are answered
//   connection.ts     the state machine of a connection: which path a request takes, idle timeouts
//   request-head.ts   the strict parser of plain requests, and their cache keys
//   send.ts           writes a response, with back-pressure
//   response-head.ts  the bytes of its head
//   bridge.ts         the slow path: the connection as node:http sees it
//
// worker.ts uses FastPath, watchBridge and refuseTunnel; nobody uses anything else. The room imports serve/, http/, io/, store/.

import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { KeyMode } from '../http/asset-key.ts';
import type { ProxyIdentity } from '../http/response-headers.ts';
import { HttpBridge } from './bridge.ts';
import { FastConnection, type FastConnectionDeps } from './connection.ts';
import { RequestQueue } from './queue.ts';
import { RequestHead } from './request-head.ts';
import { ResponseHeads } from './response-head.ts';
import type { ResponseSenderDeps } from './send.ts';

export interface FastPathDeps extends Omit<ResponseSenderDeps, 'heads' | 'hotCounters'> {
  readonly mode: KeyMode;
  readonly identity: ProxyIdentity;
  readonly http: HttpServer;
  readonly draining: () => boolean;
  /** From the accept to the first request. */
  readonly firstRequestMs: number;
  readonly keepAliveMs: number;
}

/** The client connections of a worker. */
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
      hotCounters: {
        partial: counters.counter('larder_requests_total', { method: 'GET', status: '206' }),
        full: counters.counter('larder_requests_total', { method: 'GET', status: '200' }),
        head: counters.counter('larder_requests_total', { method: 'HEAD', status: '200' }),
        hit: counters.counter('larder_cache_total', { outcome: 'hit' }),
        storedBytes: counters.counter('larder_served_bytes_total', { source: 'store' }),
        fetchedBytes: counters.counter('larder_served_bytes_total', { source: 'origin' }),
        fast: counters.counter('larder_fast_path_total', {}),
        aborted: counters.counter('larder_aborted_total', {}),
      },
    };
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Returns the socket that replaces the accepted one. */
  accept(accepted: Socket): Socket {
    const connection = new FastConnection(accepted, this.#deps);
    this.#connections.add(connection);
    return connection.socket.on('close', () => this.#connections.delete(connection));
  }

  /** Closes connections that have been idle for too long. To be called about once a second. */
  sweep(): void {
    const nowMs = this.#deps.clock.monotonic();
    for (const connection of this.#connections) connection.expire(nowMs);
  }

  closeIdle(): void {
    for (const connection of this.#connections) connection.closeIdle();
  }
}

/** To be called for every request that node:http reads, because it may have come over a bridge. */
export function watchBridge(request: IncomingMessage, response: ServerResponse): void {
  const socket: unknown = request.socket;
  if (socket instanceof HttpBridge) socket.track(request, response);
}

/**
 * Refuses a CONNECT. node:http hands the connection over at once and drops the responses that are still pending on it, so the
 * refusal could be taken for one of them: in that case the connection is destroyed. Nor may a refusal follow a response that
 * closes the connection, which happens in this turn of the event loop; hence the wait.
 */
export function refuseTunnel(socket: Duplex, refusal: string): void {
  setImmediate(() => {
    if (socket instanceof HttpBridge && socket.pendingResponses > 0) socket.destroy();
    else if (!socket.writableEnded) socket.end(refusal);
  });
}
