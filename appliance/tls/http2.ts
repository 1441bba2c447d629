// HTTP/2 in front of the same `server.ts`: a request and a response of a stream that look as node:http's do. There is no short
// way here; a stream's bytes are framed one by one whichever way they come.

import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  createServer,
  Http2ServerRequest,
  Http2ServerResponse,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Counters } from '../metrics.ts';

/** Of one connection, under way at once: players ask for a few segments. */
const STREAMS_MAX = 32;
const HEADER_PAIRS_MAX = 100;
const HEADER_BYTES_MAX = 16 * 1024;
/** Room for a reader on a long line without a round trip per frame. */
const WINDOW_BYTES = 2 ** 20;

export interface Http2AcceptorDeps {
  /** Of all connections together: a stream holds as much as a connection of HTTP/1.1 does. */
  readonly streamsMax: number;
  readonly counters: Counters;
  readonly serve: (request: IncomingMessage, response: ServerResponse) => void;
  readonly keepAliveMs: number;
  readonly draining: () => boolean;
}

export class Http2Acceptor {
  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #deps: Http2AcceptorDeps;
  #running = 0;

  constructor(deps: Http2AcceptorDeps) {
    this.#deps = deps;
    this.#server = createServer(
      {
        Http2ServerRequest: StreamRequest,
        Http2ServerResponse: StreamResponse,
        maxHeaderListPairs: HEADER_PAIRS_MAX,
        settings: {
          maxConcurrentStreams: STREAMS_MAX,
          maxHeaderListSize: HEADER_BYTES_MAX,
          initialWindowSize: WINDOW_BYTES,
          enablePush: false,
        },
      },
      (request, response) => this.#serve(request, response),
    );
    this.#server.on('session', (session) => this.#keep(session));
    this.#server.on('sessionError', () => undefined);
  }

  accept(socket: TLSSocket): void {
    this.#server.emit('connection', socket);
  }

  /** Asks every client to go; streams under way end first. */
  drain(): void {
    for (const session of this.#sessions) if (!session.closed) session.close();
  }

  #serve(request: Http2ServerRequest, response: Http2ServerResponse): void {
    if (this.#running >= this.#deps.streamsMax) {
      this.#deps.counters.add('larder_faults_total', 1, { code: 'overloaded' });
      response.writeHead(503, { 'retry-after': '1', 'content-length': 0 }).end();
      return;
    }
    this.#running += 1;
    response.once('close', () => (this.#running -= 1));
    // A client that resets without an error leaves a stream that has bytes to send waiting for ever.
    request.once('aborted', () => request.stream.destroy());
    this.#deps.serve(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  }

  #keep(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.on('close', () => this.#sessions.delete(session));
    session.setTimeout(this.#deps.keepAliveMs, () => session.close());
    if (this.#deps.draining()) session.close();
  }
}

class StreamRequest extends Http2ServerRequest {
  constructor(...of: ConstructorParameters<typeof Http2ServerRequest>) {
    super(...of);
    const [stream, headers, , rawHeaders] = of;
    const fields = Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':')));
    // RFC 9113 8.3.1: the authority stands for Host.
    fields['host'] ??= headers[':authority'];
    // What HTTP/1.1 would say of a body of unknown length.
    if (!stream.endAfterHeaders && fields['content-length'] === undefined) fields['transfer-encoding'] = 'chunked';
    Object.defineProperties(this, {
      headers: { value: fields },
      rawHeaders: { value: rawHeaders.filter((_, at) => !rawHeaders[at - (at % 2)]!.startsWith(':')) },
      // What the request means is the same; what differs is framing, which is not `server.ts`'s matter.
      httpVersionMajor: { value: 1 },
    });
  }
}

/** With what is asked of a response to know when its reader has room. */
class StreamResponse extends Http2ServerResponse {
  constructor(stream: ServerHttp2Stream) {
    super(stream);
    Object.defineProperties(this, {
      destroyed: { get: () => stream.destroyed },
      writableNeedDrain: { get: () => stream.writableNeedDrain },
    });
  }
}
