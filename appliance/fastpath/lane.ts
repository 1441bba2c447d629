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
import type { Manner } from '../http/response-headers.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { FastHeads } from './response-head.ts';
import { Bridge } from './bridge.ts';
import { Connection, type ConnectionDeps } from './connection.ts';
import { FastHead } from './request-head.ts';
import { FastQueue } from './queue.ts';
import type { SendDeps } from './send.ts';

export interface LaneDeps extends Omit<SendDeps, 'heads' | 'counts'> {
  readonly mode: KeyMode;
  readonly manner: Manner;
  readonly http: HttpServer;
  readonly draining: () => boolean;
  /** From the accept to the first request. */
  readonly firstRequestMs: number;
  readonly keepAliveMs: number;
}

/** The connections of a worker. */
export class FastLane {
  readonly #connections = new Set<Connection>();
  readonly #deps: ConnectionDeps;

  constructor(deps: LaneDeps) {
    const { tally } = deps;
    this.#deps = {
      ...deps,
      head: new FastHead(),
      queue: new FastQueue(),
      heads: new FastHeads(deps.manner, deps.keepAliveMs),
      counts: {
        partial: tally.counter('larder_requests_total', { method: 'GET', status: '206' }),
        whole: tally.counter('larder_requests_total', { method: 'GET', status: '200' }),
        head: tally.counter('larder_requests_total', { method: 'HEAD', status: '200' }),
        hit: tally.counter('larder_cache_total', { outcome: 'hit' }),
        stored: tally.counter('larder_served_bytes_total', { source: 'store' }),
        fetched: tally.counter('larder_served_bytes_total', { source: 'origin' }),
        fast: tally.counter('larder_fast_total', {}),
        aborted: tally.counter('larder_aborted_total', {}),
      },
    };
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Returns the socket that the connection goes on with. */
  take(received: Socket): Socket {
    const connection = new Connection(received, this.#deps);
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
  if (socket instanceof Bridge) socket.watch(request, response);
}

/**
 * node:http hands a connection over at a CONNECT, whatever is still to be answered on it: that is lost then, and the refusal must
 * not be taken for its answer. Nor does one follow an answer that said it was the last, which ends the connection in this turn.
 */
export function refuseTunnel(socket: Duplex, refusal: string): void {
  setImmediate(() => {
    if (socket instanceof Bridge && socket.running > 0) socket.destroy();
    else if (!socket.writableEnded) socket.end(refusal);
  });
}
