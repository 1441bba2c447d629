// The slow path of a connection: a socket in memory that node:http reads and writes. Received bytes are fed in, and what
// node:http writes goes to the client's socket, which stays ours, so that the next request may take the fast path again.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

const CR = 0x0d;
const LF = 0x0a;
const END_OF_HEAD = (CR << 24) | (LF << 16) | (CR << 8) | LF;

type WriteCallback = (error?: Error | null) => void;
interface WritevChunk {
  readonly chunk: Buffer;
  readonly encoding: BufferEncoding;
}

export interface BridgeEvents {
  /** Every request that was fed in has been answered, and no partial request is left in the parser. */
  bridgeIdle(): void;
  /** node:http has closed the connection. `cutShort`: a response has begun and will not be completed. */
  bridgeClosed(cutShort: boolean): void;
}

export class HttpBridge extends Duplex {
  /** Present on a TLS connection, as on its socket. */
  declare readonly encrypted?: true;
  readonly #socket: Socket;
  readonly #events: BridgeEvents;
  readonly #responses = new Set<ServerResponse>();
  /** Whether every request so far was read to its end. After one that was not, the parser is inside a message. */
  #requestsComplete = true;
  /** The last four bytes that were fed in, as a number. A head without a body ends in CR LF CR LF. */
  #lastBytes = 0;

  constructor(socket: Socket, events: BridgeEvents) {
    super();
    if ('encrypted' in socket) Object.assign(this, { encrypted: true });
    this.#socket = socket;
    this.#events = events;
    // node:http removes its own error listener when it hands a connection over on CONNECT.
    this.on('error', () => undefined);
  }

  get pendingResponses(): number {
    return this.#responses.size;
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  feed(chunk: Buffer): void {
    for (let at = Math.max(0, chunk.length - 4); at < chunk.length; at += 1)
      this.#lastBytes = (this.#lastBytes << 8) | chunk[at]!;
    if (!this.push(chunk)) this.#socket.pause();
  }

  /** To be called for each request that node:http reads from this bridge. */
  track(request: IncomingMessage, response: ServerResponse): void {
    this.#responses.add(response);
    response.once('close', () => {
      this.#responses.delete(response);
      this.#requestsComplete &&= request.complete;
      if (this.#isIdle()) this.#events.bridgeIdle();
    });
  }

  /** As on `net.Socket`. node:http calls it after the last response of a connection. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, callback: WriteCallback): void {
    this.#writeToSocket([{ chunk, encoding }], callback);
  }

  override _writev(chunks: readonly WritevChunk[], callback: WriteCallback): void {
    this.#writeToSocket(chunks, callback);
  }

  override _final(callback: () => void): void {
    this.#socket.end(callback);
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    // Bytes that the kernel has will arrive, also those of a response whose end node:http has not reported yet.
    let cutShort = this.#responses.size > 0 && this.writableLength > 0;
    // A response behind one that ends the connection gets no socket, and none of it is ever sent.
    for (const { socket, headersSent, writableEnded } of this.#responses)
      cutShort ||= socket !== null && headersSent && !writableEnded;
    this.#events.bridgeClosed(cutShort);
    callback(error);
  }

  /**
   * Calls back as soon as the kernel has the bytes, in the same turn if possible: node:http refuses a malformed request by a
   * write and a destroy, and bytes that are still buffered here at the destroy are lost.
   */
  #writeToSocket(chunks: readonly WritevChunk[], callback: WriteCallback): void {
    let finished = false;
    const finish: WriteCallback = (error) => {
      if (finished) return;
      finished = true;
      callback(error);
    };
    this.#socket.cork();
    for (const [index, { chunk, encoding }] of chunks.entries())
      this.#socket.write(chunk, encoding, index === chunks.length - 1 ? finish : undefined);
    this.#socket.uncork();
    if (this.#socket.writableLength === 0 && this.#socket.writable) finish();
  }

  #isIdle(): boolean {
    return (
      this.#responses.size === 0 &&
      this.#requestsComplete &&
      this.#lastBytes === END_OF_HEAD &&
      this.readableLength === 0 &&
      this.writable &&
      !this.destroyed
    );
  }
}
