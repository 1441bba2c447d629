// One connection of a worker to the storekeeper: one request at a time, and its reply in frames. All connections read into one
// shared buffer, and bytes are copied from there into pooled ones: a buffer per read was most of what a miss left to the
// garbage collector.

import { createConnection, type Socket } from 'node:net';
import { HEAD_ROOM_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice, ByteStream } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import { FRAME_HEAD_BYTES, readFrameHead } from './framing.ts';
import { READ_SOCKET, type LinkRequest, type ReplyHead } from './messages.ts';

const READ_BYTES = 65_536;

let sharedBuffer: Buffer | null = null;

export interface FetchReply {
  readonly head: ReplyHead;
  readonly body: ByteStream;
}

export interface LinkConnectionEvents {
  /** The reply is complete: the connection may be used again. */
  onIdle(connection: LinkConnection): void;
  onClose(connection: LinkConnection): void;
}

interface PendingRequest {
  readonly resolve: (reply: FetchReply) => void;
  readonly reject: (error: Error) => void;
}

export class LinkConnection {
  readonly #socket: Socket;
  readonly #pool: BufferPool;
  readonly #events: LinkConnectionEvents;
  /** The request whose reply head has not arrived. */
  #pending: PendingRequest | null = null;
  #body: ReplyBody | null = null;
  readonly #frameHead = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  #frameHeadBytes = 0;
  /** Bytes of the current frame that have not arrived. */
  #frameLeft = 0;
  #isLastFrame = false;
  #headParts: Buffer[] = [];
  #error: Error | null = null;

  constructor(pool: BufferPool, events: LinkConnectionEvents) {
    this.#pool = pool;
    this.#events = events;
    sharedBuffer ??= Buffer.allocUnsafeSlow(READ_BYTES);
    const onread = {
      buffer: sharedBuffer,
      callback: (bytes: number, buffer: Uint8Array): boolean => this.#receive(buffer as Buffer, bytes),
    };
    this.#socket = createConnection({ path: READ_SOCKET, onread });
    this.#socket.on('timeout', () => this.#socket.destroy(new Error(`silent for ${LIMITS.linkSilenceMs / 1_000} s`)));
    this.#socket.on('error', (error) => {
      this.#error = error;
    });
    this.#socket.on('close', () => this.#close());
  }

  /** Rejects when the storekeeper cannot be reached. */
  request(request: LinkRequest): Promise<FetchReply> {
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#socket.setTimeout(LIMITS.linkSilenceMs);
      this.#socket.write(`${JSON.stringify(request)}\n`);
    });
  }

  /** False pauses the socket: the client has enough for now. */
  #receive(buffer: Buffer, bytes: number): boolean {
    for (let at = 0; at < bytes;) {
      if (this.#frameHeadBytes < FRAME_HEAD_BYTES) {
        this.#frameHead[this.#frameHeadBytes] = buffer[at]!;
        this.#frameHeadBytes += 1;
        at += 1;
        if (this.#frameHeadBytes < FRAME_HEAD_BYTES) continue;
        ({ bytes: this.#frameLeft, last: this.#isLastFrame } = readFrameHead(this.#frameHead));
      } else {
        const to = Math.min(bytes, at + this.#frameLeft);
        if (this.#body === null) this.#headParts.push(Buffer.from(buffer.subarray(at, to)));
        else this.#body.append(buffer.subarray(at, to));
        this.#frameLeft -= to - at;
        at = to;
      }
      if (this.#frameLeft === 0) this.#endFrame();
    }
    if (this.#body?.isFull !== true) return true;
    this.#socket.setTimeout(LIMITS.linkPausedMs);
    return false;
  }

  #endFrame(): void {
    this.#frameHeadBytes = 0;
    if (this.#body === null) {
      const head = JSON.parse(Buffer.concat(this.#headParts).toString()) as ReplyHead;
      this.#headParts = [];
      this.#body = new ReplyBody(this.#pool, {
        onDrain: () => this.#socket.setTimeout(LIMITS.linkSilenceMs).resume(),
        onAbandon: () => this.#socket.destroy(),
      });
      this.#pending!.resolve({ head, body: this.#body });
      this.#pending = null;
    }
    if (!this.#isLastFrame) return;
    this.#body.end(null);
    this.#body = null;
    // An idle connection that nobody needs closes after the same time.
    this.#socket.setTimeout(LIMITS.linkSilenceMs);
    this.#events.onIdle(this);
  }

  #close(): void {
    const error = this.#error ?? new Error('the storekeeper closed the connection');
    this.#pending?.reject(error);
    this.#body?.end(error);
    this.#pending = null;
    this.#body = null;
    this.#events.onClose(this);
  }
}

interface FilledBuffer {
  readonly pooled: PooledBuffer;
  bytes: number;
}

interface ReplyBodyEvents {
  /** The body has room again. */
  readonly onDrain: () => void;
  /** The client wants no more of it. */
  readonly onAbandon: () => void;
}

class ReplyBody implements ByteStream {
  readonly #pool: BufferPool;
  readonly #events: ReplyBodyEvents;
  readonly #filled: FilledBuffer[] = [];
  #wake: (() => void) | null = null;
  #ended = false;
  #error: Error | null = null;

  constructor(pool: BufferPool, events: ReplyBodyEvents) {
    this.#pool = pool;
    this.#events = events;
  }

  get isFull(): boolean {
    return this.#filled.length >= LIMITS.linkBuffersMax;
  }

  append(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      let into = this.#filled.at(-1);
      if (into === undefined || into.bytes === into.pooled.room) {
        into = { pooled: this.#pool.acquire(LIMITS.mediumBufferBytes), bytes: 0 };
        this.#filled.push(into);
      }
      const { buffer, room } = into.pooled;
      const copied = bytes.copy(buffer, HEAD_ROOM_BYTES + into.bytes, at, at + room - into.bytes);
      into.bytes += copied;
      at += copied;
    }
    this.#wake?.();
  }

  end(error: Error | null): void {
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  async next(): Promise<ByteSlice | null> {
    while (this.#filled.length === 0 && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.#wake = null;
    const wasFull = this.isFull;
    const filled = this.#filled.shift();
    if (filled !== undefined) {
      if (wasFull && !this.#ended) this.#events.onDrain();
      const { pooled, bytes } = filled;
      return {
        bytes: pooled.buffer.subarray(HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + bytes),
        release: () => this.#pool.release(pooled),
      };
    }
    if (this.#error !== null) throw this.#error;
    return null;
  }

  close(): void {
    for (const { pooled } of this.#filled.splice(0)) this.#pool.release(pooled);
    if (this.#ended) return;
    this.end(null);
    this.#events.onAbandon();
  }
}
