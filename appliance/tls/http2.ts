// HTTP/2 in front of the same request listener as HTTP/1.1: the request and response of a stream look like those of node:http.
// There is no fast path here, because every byte of a stream has to be framed anyway.

import type { IncomingMessage, ServerResponse } from 'node:http';
import {
  constants,
  createServer,
  Http2ServerRequest,
  Http2ServerResponse,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { LIMITS } from '../limits.ts';
import type { Counters } from '../metrics.ts';

export interface Http2AcceptorDeps {
  /** Concurrent streams of all connections together: a stream takes as much memory as a connection of HTTP/1.1. */
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
  #openStreams = 0;

  constructor(deps: Http2AcceptorDeps) {
    this.#deps = deps;
    this.#server = createServer(
      {
        Http2ServerRequest: StreamRequest,
        Http2ServerResponse: StreamResponse,
        maxHeaderListPairs: LIMITS.headerPairsMax,
        settings: {
          maxConcurrentStreams: LIMITS.http2StreamsMax,
          maxHeaderListSize: LIMITS.requestHeadBytesMax,
          initialWindowSize: LIMITS.http2WindowBytes,
          enablePush: false,
        },
      },
      (request, response) => this.#serve(request, response),
    );
    this.#server.on('session', (session) => this.#trackSession(session));
    this.#server.on('sessionError', () => undefined);
  }

  accept(socket: TLSSocket): void {
    this.#server.emit('connection', socket);
  }

  /** Sends GOAWAY on every connection; open streams end first. */
  drain(): void {
    for (const session of this.#sessions) if (!session.closed) session.close();
  }

  #serve(request: Http2ServerRequest, response: Http2ServerResponse): void {
    if (this.#openStreams >= this.#deps.streamsMax) {
      this.#deps.counters.add('larder_faults_total', 1, { code: 'overloaded' });
      response.writeHead(503, { 'retry-after': '1', 'content-length': 0 }).end();
      return;
    }
    this.#openStreams += 1;
    response.once('close', () => (this.#openStreams -= 1));
    // After a RST_STREAM with NO_ERROR Node would keep a stream that still has bytes to send for ever.
    request.once('aborted', () => {
      if (request.stream.rstCode === constants.NGHTTP2_NO_ERROR) request.stream.destroy();
    });
    this.#deps.serve(request as unknown as IncomingMessage, response as unknown as ServerResponse);
  }

  #trackSession(session: ServerHttp2Session): void {
    this.#sessions.add(session);
    session.on('close', () => this.#sessions.delete(session));
    session.setTimeout(this.#deps.keepAliveMs, () => session.close());
    if (this.#deps.draining()) session.close();
  }
}

class StreamRequest extends Http2ServerRequest {
  constructor(...args: ConstructorParameters<typeof Http2ServerRequest>) {
    super(...args);
    const [stream, headers, , rawHeaders] = args;
    const fields = Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':')));
    // RFC 9113 8.3.1: :authority replaces Host.
    fields['host'] ??= headers[':authority'];
    // How HTTP/1.1 announces a body of unknown length.
    if (!stream.endAfterHeaders && fields['content-length'] === undefined) fields['transfer-encoding'] = 'chunked';
    Object.defineProperties(this, {
      headers: { value: fields },
      rawHeaders: { value: rawHeaders.filter((_, at) => !rawHeaders[at - (at % 2)]!.startsWith(':')) },
      // The request listener depends on semantics alone, which are those of HTTP/1.1.
      httpVersionMajor: { value: 1 },
    });
  }
}

/** Adds what the request listener needs of a node:http response: back-pressure, and an end that nobody takes for the whole body. */
class StreamResponse extends Http2ServerResponse {
  constructor(stream: ServerHttp2Stream) {
    super(stream);
    Object.defineProperties(this, {
      destroyed: { get: () => stream.destroyed },
      writableNeedDrain: { get: () => stream.writableNeedDrain },
      // RFC 9113 8.1: Node's own `destroy` ends the stream with NO_ERROR, which to a client is a complete response.
      destroy: { value: () => stream.close(constants.NGHTTP2_INTERNAL_ERROR) },
    });
  }
}
