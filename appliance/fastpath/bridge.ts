// A connection as node:http sees it while the long way has it: what the player sends is fed in, what is answered goes out
// to the real socket. The real socket stays ours, so that the next request may take the short way again.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

const CR = 0x0d;
const LF = 0x0a;

type Done = (error?: Error | null) => void;
interface WritevChunk {
  readonly chunk: Buffer;
  readonly encoding: BufferEncoding;
}

export interface BridgeEvents {
  /** Everything asked was answered, and nothing is half said. */
  quiet(): void;
  /** node:http is done with the connection. */
  down(): void;
}

export class HttpBridge extends Duplex {
  /** There where the player's connection has it. */
  declare readonly encrypted?: true;
  readonly #socket: Socket;
  readonly #events: BridgeEvents;
  #running = 0;
  /** Every request so far had all its bytes; one that has not leaves the parser inside a message. */
  #complete = true;
  /** Last four bytes fed in, as a number: a head without a body ends in CR LF CR LF. */
  #tail = 0;

  constructor(socket: Socket, events: BridgeEvents) {
    super();
    if ('encrypted' in socket) Object.assign(this, { encrypted: true });
    this.#socket = socket;
    this.#events = events;
    // node:http takes its own listener away when it hands a connection over.
    this.on('error', () => undefined);
  }

  get running(): number {
    return this.#running;
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  feed(chunk: Buffer): void {
    for (let at = Math.max(0, chunk.length - 4); at < chunk.length; at += 1)
      this.#tail = (this.#tail << 8) | chunk[at]!;
    if (!this.push(chunk)) this.#socket.pause();
  }

  /** Told of each request that node:http read. */
  watch(request: IncomingMessage, response: ServerResponse): void {
    this.#running += 1;
    response.once('close', () => {
      this.#running -= 1;
      this.#complete &&= request.complete;
      if (this.#isQuiet()) this.#events.quiet();
    });
  }

  /** As `net.Socket` has it; node:http calls it after an answer that is the last. */
  destroySoon(): void {
    if (this.writable) this.end();
    if (this.writableFinished) this.destroy();
    else this.once('finish', () => this.destroy());
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: Done): void {
    this.#send([{ chunk, encoding }], done);
  }

  override _writev(chunks: readonly WritevChunk[], done: Done): void {
    this.#send(chunks, done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#events.down();
    done(error);
  }

  /**
   * Done as soon as the system has the bytes, not a turn later: node:http refuses a broken request by a write and a destroy,
   * and what still waits here then is lost.
   */
  #send(pieces: readonly WritevChunk[], done: Done): void {
    let left = false;
    const leave: Done = (error) => {
      if (left) return;
      left = true;
      done(error);
    };
    this.#socket.cork();
    for (const [at, { chunk, encoding }] of pieces.entries())
      this.#socket.write(chunk, encoding, at === pieces.length - 1 ? leave : undefined);
    this.#socket.uncork();
    if (this.#socket.writableLength === 0 && this.#socket.writable) leave();
  }

  #isQuiet(): boolean {
    return (
      this.#running === 0 &&
      this.#complete &&
      this.#tail === ((CR << 24) | (LF << 16) | (CR << 8) | LF) &&
      this.readableLength === 0 &&
      this.writable &&
      !this.destroyed
    );
  }
}
