// One player's connection: each request goes the short way or, byte for byte, the long one by node:http. Here too is how long
// a connection may wait, and how it ends.

import type { Server as HttpServer } from 'node:http';
import type { Socket } from 'node:net';
import { clientOf, type LoggedRequest } from '../serve/access-log.ts';
import type { KeyMode } from '../http/asset-key.ts';
import { HttpBridge, type BridgeEvents } from './bridge.ts';
import { FAST_HEAD_BYTES_MAX, fastKey, type RequestHead } from './request-head.ts';
import type { RequestQueue, QueuedRequest } from './queue.ts';
import { ResponseSender, type ResponseSenderDeps, type ResponseSenderEvents } from './send.ts';
import { DirectSocket } from './socket.ts';

/** node:http closes a connection this long after the time that it announces. */
const KEEP_ALIVE_GRACE_MS = 1_000;
/** A parser of node:http's costs more than a connection: one that waits this long is without. */
const BRIDGE_IDLE_MS = 5_000;
const TIMED_OUT = 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n';

export interface FastConnectionDeps extends ResponseSenderDeps {
  readonly mode: KeyMode;
  readonly http: HttpServer;
  readonly head: RequestHead;
  readonly queue: RequestQueue;
  readonly draining: () => boolean;
  readonly firstRequestMs: number;
  readonly keepAliveMs: number;
}

/** `queued`: a request was read. `bridged`: node:http has the connection, from an odd request until all is answered. */
type State = 'idle' | 'queued' | 'sending' | 'bridged' | 'closed';

export class FastConnection implements BridgeEvents, ResponseSenderEvents, QueuedRequest {
  readonly socket: Socket;
  readonly #deps: FastConnectionDeps;
  readonly #send: ResponseSender;
  /** For the access record. */
  #client: string | null = null;
  #bridge: HttpBridge | null = null;
  #state: State = 'idle';
  /** When the state began, for what may last only so long. */
  #since: number;
  #answered = false;
  /** What came and is not answered, a character a byte; the socket is paused before it is much. */
  #asked = '';
  /** The player has said all that it will. */
  #ended = false;

  constructor(received: Socket, deps: FastConnectionDeps) {
    const socket = new DirectSocket(received, (buffer, bytes) => this.#take(buffer, bytes));
    this.socket = socket.stream;
    this.#deps = deps;
    this.#send = new ResponseSender(socket, deps, this);
    this.#since = deps.clock.monotonic();
    this.socket.on('end', () => this.#end());
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => this.#closed());
  }

  /** `now` is monotonic. Requests that are half said are node:http's to end. */
  expire(now: number): void {
    if (this.#state === 'queued' || this.#state === 'sending' || this.#state === 'closed') return;
    if (this.#state === 'bridged' && this.#bridge!.running > 0) return;
    const waitedMs = now - this.#since;
    if (this.#state === 'idle' && waitedMs > BRIDGE_IDLE_MS) this.#bridge?.destroy();
    if (this.#answered || this.#state === 'bridged') {
      if (waitedMs > this.#deps.keepAliveMs + KEEP_ALIVE_GRACE_MS) this.socket.destroy();
    } else if (waitedMs > this.#deps.firstRequestMs) {
      this.socket.write(TIMED_OUT, 'latin1');
      this.socket.destroy();
    }
  }

  closeIdle(): void {
    if (this.#state === 'idle') this.socket.destroySoon();
  }

  /** node:http has answered everything. */
  quiet(): void {
    this.#idle();
  }

  /** A drain makes node:http let go of what it thinks idle: an answer that is going the short way goes on. */
  down(): void {
    this.#bridge = null;
    if (this.#state !== 'bridged') return;
    this.#state = 'closed';
    this.socket.destroy();
  }

  answer(): void {
    if (this.#state !== 'queued' || this.socket.destroyed) return;
    const asked = this.#asked;
    this.#asked = '';
    this.#state = 'sending';
    if (this.#serve(asked)) return;
    if (asked.length > FAST_HEAD_BYTES_MAX) this.socket.resume();
    this.#cross(Buffer.from(asked, 'latin1'));
  }

  /** The answer that went the short way has left. */
  sent(): void {
    this.#idle();
    if (this.#asked === '') return;
    this.socket.resume();
    this.#queue();
  }

  /** The buffer is not ours: the next bytes to come lie there too. */
  #take(buffer: Buffer, bytes: number): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'bridged') return this.#bridge!.feed(Buffer.from(buffer.subarray(0, bytes)));
    this.#asked += buffer.toString('latin1', 0, bytes);
    if (this.#state === 'idle') this.#queue();
    if (this.#state === 'sending' || this.#asked.length > FAST_HEAD_BYTES_MAX) this.socket.pause();
  }

  #queue(): void {
    this.#state = 'queued';
    this.#since = this.#deps.clock.monotonic();
    this.#deps.queue.add(this);
  }

  #end(): void {
    this.#ended = true;
    if (this.#state === 'bridged') this.#bridge!.push(null);
    else if (this.#state === 'idle') this.socket.end();
  }

  /** False where the request is not for this way: then nothing has happened. */
  #serve(request: string): boolean {
    const { server, clock, head, mode, draining } = this.#deps;
    if (request.length > FAST_HEAD_BYTES_MAX || draining() || !head.parse(request)) return false;
    const key = fastKey(head.target, mode);
    // Fresh, and the same for everybody who asks.
    const stored = key === null ? null : server.freshHit(key);
    if (stored === null || stored.asset.bytes === 0) return false;
    const nowMs = clock.now();
    const asked = this.#recorded();
    if (head.method === 'HEAD') return this.#send.head(stored, nowMs, asked);

    const { bytes } = stored.asset;
    if (!head.ranged) return this.#send.begin(stored, { nowMs, ranged: false, first: 0, last: bytes - 1 }, asked);
    // RFC 9110 14.1.2; what is not satisfiable is told so by the long way.
    const first = head.first === -1 ? Math.max(0, bytes - head.last) : head.first;
    const last = head.first === -1 ? bytes - 1 : Math.min(head.last, bytes - 1);
    return first < bytes && this.#send.begin(stored, { nowMs, ranged: true, first, last }, asked);
  }

  /** For the access record, if there is one. */
  #recorded(): LoggedRequest | null {
    const { access, head } = this.#deps;
    if (access === null) return null;
    return {
      client: (this.#client ??= clientOf(this.socket.remoteAddress)),
      line: head.line,
      range: head.range || '-',
      referer: head.referer || '-',
      agent: head.agent || '-',
      sinceMs: this.#since,
    };
  }

  /** The long way: node:http reads what came, and goes on until all is answered. */
  #cross(chunk: Buffer): void {
    this.#state = 'bridged';
    this.#since = this.#deps.clock.monotonic();
    if (this.#bridge === null) {
      this.#bridge = new HttpBridge(this.socket, this);
      this.#deps.http.emit('connection', this.#bridge);
    }
    // What is fed in may end it, and then it is ours no more.
    const bridge = this.#bridge;
    bridge.feed(chunk);
    if (this.#ended) bridge.push(null);
  }

  #idle(): void {
    if (this.#state === 'closed') return;
    this.#state = 'idle';
    this.#answered = true;
    this.#since = this.#deps.clock.monotonic();
    if (this.#ended && this.#asked === '') this.socket.end();
  }

  #closed(): void {
    this.#state = 'closed';
    this.#send.abort();
    this.#bridge?.destroy();
  }
}
