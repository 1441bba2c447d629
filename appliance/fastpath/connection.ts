// One client connection: each request takes the fast path or, byte for byte, the slow path through node:http. This file also
// decides how long a connection may be idle and how it is closed.

import type { Server as HttpServer } from 'node:http';
import type { Socket } from 'node:net';
import type { KeyMode } from '../http/asset-key.ts';
import { clientOf, type LoggedRequest } from '../serve/access-log.ts';
import { HttpBridge, type BridgeEvents } from './bridge.ts';
import { LIMITS } from '../limits.ts';
import type { QueuedRequest, RequestQueue } from './queue.ts';
import { FAST_HEAD_BYTES_MAX, fastKey, type RequestHead } from './request-head.ts';
import { ResponseSender, type ResponseSenderDeps, type ResponseSenderEvents } from './send.ts';
import { DirectSocket } from './socket.ts';

/** As in node:http, a connection is closed this long after the keep-alive time that was announced. */
const KEEP_ALIVE_GRACE_MS = 1_000;
const REQUEST_TIMEOUT = 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n';

export interface FastConnectionDeps extends ResponseSenderDeps {
  readonly mode: KeyMode;
  readonly http: HttpServer;
  /** The parser, shared by all connections of the process. */
  readonly head: RequestHead;
  readonly queue: RequestQueue;
  readonly draining: () => boolean;
  readonly firstRequestMs: number;
  readonly keepAliveMs: number;
}

/**
 * `queued`: bytes were received and wait in the queue. `sending`: a fast response is under way. `bridged`: node:http has the
 * connection, until everything it has read is answered.
 */
type State = 'idle' | 'queued' | 'sending' | 'bridged' | 'closed';

export class FastConnection implements BridgeEvents, ResponseSenderEvents, QueuedRequest {
  readonly socket: Socket;
  readonly #deps: FastConnectionDeps;
  readonly #directSocket: DirectSocket;
  readonly #sender: ResponseSender;
  /** The client's address in the access log, computed at the first request. */
  #client: string | null = null;
  /** Kept after its last response for the next slow request, until `LIMITS.parserIdleMs`. */
  #bridge: HttpBridge | null = null;
  #state: State = 'idle';
  /** When the state was entered, monotonic. */
  #stateSinceMs: number;
  #hasAnswered = false;
  /** Received and not yet answered, one character per byte. The socket is paused before this grows large. */
  #received = '';
  /** The client has closed its side. It may still be owed a response. */
  #inputEnded = false;

  constructor(accepted: Socket, deps: FastConnectionDeps) {
    this.#directSocket = new DirectSocket(accepted, (buffer, bytes) => this.#onData(buffer, bytes));
    this.socket = this.#directSocket.stream;
    this.#deps = deps;
    this.#sender = new ResponseSender(this.#directSocket, deps, this);
    this.#stateSinceMs = deps.clock.monotonic();
    this.socket.on('end', () => this.#onEnd());
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => this.#onClose());
  }

  /** Closes what has been idle for too long. `nowMs` is monotonic. Partial requests are timed out by node:http. */
  expire(nowMs: number): void {
    if (this.#state === 'queued' || this.#state === 'sending' || this.#state === 'closed') return;
    if (this.#state === 'bridged' && this.#bridge!.pendingResponses > 0) return;
    const idleMs = nowMs - this.#stateSinceMs;
    if (this.#state === 'idle' && idleMs > LIMITS.parserIdleMs) this.#bridge?.destroy();
    if (this.#hasAnswered || this.#state === 'bridged') {
      if (idleMs > this.#deps.keepAliveMs + KEEP_ALIVE_GRACE_MS) this.socket.destroy();
    } else if (idleMs > this.#deps.firstRequestMs) {
      this.socket.write(REQUEST_TIMEOUT, 'latin1');
      this.socket.destroy();
    }
  }

  closeIdle(): void {
    if (this.#state === 'idle') this.socket.destroySoon();
  }

  bridgeIdle(): void {
    this.#enterIdle();
  }

  /** While draining, node:http closes connections that it considers idle. A fast response under way is not cut off by that. */
  bridgeClosed(cutShort: boolean): void {
    this.#bridge = null;
    if (this.#state !== 'bridged') return;
    this.#state = 'closed';
    if (cutShort) this.#directSocket.reset();
    else this.socket.destroy();
  }

  /** The queue has reached this connection. */
  answer(): void {
    if (this.#state !== 'queued' || this.socket.destroyed) return;
    const received = this.#received;
    this.#received = '';
    this.#state = 'sending';
    if (this.#answerFast(received)) return;
    if (received.length > FAST_HEAD_BYTES_MAX) this.socket.resume();
    this.#answerSlowly(Buffer.from(received, 'latin1'));
  }

  /** The fast response has been written. The next request may have been received meanwhile. */
  responseSent(): void {
    this.#enterIdle();
    if (this.#received === '') return;
    this.socket.resume();
    this.#enqueue();
  }

  /** The buffer is shared: the next read overwrites it. */
  #onData(buffer: Buffer, bytes: number): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'bridged') return this.#bridge!.feed(Buffer.from(buffer.subarray(0, bytes)));
    this.#received += buffer.toString('latin1', 0, bytes);
    if (this.#state === 'idle') this.#enqueue();
    if (this.#state === 'sending' || this.#received.length > FAST_HEAD_BYTES_MAX) this.socket.pause();
  }

  #onEnd(): void {
    this.#inputEnded = true;
    if (this.#state === 'bridged') this.#bridge!.push(null);
    else if (this.#state === 'idle') this.socket.end();
  }

  #onClose(): void {
    this.#state = 'closed';
    this.#sender.abort();
    this.#bridge?.destroy();
  }

  #enqueue(): void {
    this.#state = 'queued';
    this.#stateSinceMs = this.#deps.clock.monotonic();
    this.#deps.queue.add(this);
  }

  #enterIdle(): void {
    if (this.#state === 'closed') return;
    this.#state = 'idle';
    this.#hasAnswered = true;
    this.#stateSinceMs = this.#deps.clock.monotonic();
    if (this.#inputEnded && this.#received === '') this.socket.end();
  }

  /** False if the request needs the slow path. In that case nothing has been sent or counted. */
  #answerFast(request: string): boolean {
    const { server, clock, head, mode, draining } = this.#deps;
    if (request.length > FAST_HEAD_BYTES_MAX || draining() || !head.parse(request)) return false;
    const key = fastKey(head.target, mode);
    const hit = key === null ? null : server.freshHit(key);
    if (hit === null || hit.asset.bytes === 0) return false;
    const nowMs = clock.now();
    const logged = this.#loggedRequest();
    // RFC 9110 14.2: Range applies to GET only.
    if (head.method === 'HEAD') return this.#sender.sendHead(hit, nowMs, logged);

    const { bytes } = hit.asset;
    if (!head.hasRange) return this.#sender.send(hit, { nowMs, partial: false, first: 0, last: bytes - 1 }, logged);
    // RFC 9110 14.1.2. An unsatisfiable range gets its 416 on the slow path.
    const first = head.first === -1 ? Math.max(0, bytes - head.last) : head.first;
    const last = head.first === -1 ? bytes - 1 : Math.min(head.last, bytes - 1);
    return first < bytes && this.#sender.send(hit, { nowMs, partial: true, first, last }, logged);
  }

  /** Null without an access log. */
  #loggedRequest(): LoggedRequest | null {
    const { access, head } = this.#deps;
    if (access === null) return null;
    return {
      client: (this.#client ??= clientOf(this.socket.remoteAddress)),
      line: head.requestLine,
      range: head.range || '-',
      referer: head.referer || '-',
      agent: head.userAgent || '-',
      sinceMs: this.#stateSinceMs,
    };
  }

  /** node:http reads these bytes and all that follow, until it has answered everything. */
  #answerSlowly(received: Buffer): void {
    this.#state = 'bridged';
    this.#stateSinceMs = this.#deps.clock.monotonic();
    if (this.#bridge === null) {
      this.#bridge = new HttpBridge(this.socket, this);
      this.#deps.http.emit('connection', this.#bridge);
    }
    // Feeding may close the bridge, which sets #bridge to null.
    const bridge = this.#bridge;
    bridge.feed(received);
    if (this.#inputEnded) bridge.push(null);
  }
}
