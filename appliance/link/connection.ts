// A worker's connection to the storekeeper: one question at a time, and the answer in frames. Its bytes are read into one
// buffer that all connections share and copied into pieces of the pool: a buffer for each read was most of what a miss left
// to the collector.

import { createConnection, type Socket } from 'node:net';
import { FRAME_HEAD_BYTES, readFrameHead } from './framing.ts';
import { READ_SOCKET, type ReplyHead, type LinkRequest } from './messages.ts';
import { HEAD_ROOM_BYTES, SLOW_PIECE_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice, ByteStream } from '../io/byte-stream.ts';

const READ_BYTES = 65_536;
/** The storekeeper lets go of who stalls, and its origins have less time than this. */
const SILENCE_MS = 60_000;
/** Of a reader that takes nothing, by when the storekeeper has hung up; a socket that is not read does not hear it. */
const STALLED_MS = 15_000;
/** Slabs of one answer that wait for their reader; then the storekeeper waits. */
const FILLED_MAX = 2;

let shared: Buffer | null = null;

export interface FetchReply {
  readonly head: ReplyHead;
  readonly body: ByteStream;
}

export interface LinkConnectionEvents {
  /** The answer has come to its end: the connection may be asked again. */
  idle(connection: LinkConnection): void;
  closed(connection: LinkConnection): void;
}

interface PendingRequest {
  readonly resolve: (answer: FetchReply) => void;
  readonly reject: (error: Error) => void;
}

export class LinkConnection {
  readonly #socket: Socket;
  readonly #pool: BufferPool;
  readonly #events: LinkConnectionEvents;
  /** Who waits for a head. */
  #asker: PendingRequest | null = null;
  #body: Body | null = null;
  readonly #frameHead = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
  #frameHeadBytes = 0;
  /** Of the frame under way. */
  #left = 0;
  #last = false;
  #headParts: Buffer[] = [];
  #error: Error | null = null;

  constructor(pool: BufferPool, events: LinkConnectionEvents) {
    this.#pool = pool;
    this.#events = events;
    shared ??= Buffer.allocUnsafeSlow(READ_BYTES);
    const onread = {
      buffer: shared,
      callback: (bytes: number, buffer: Uint8Array): boolean => this.#hear(buffer as Buffer, bytes),
    };
    this.#socket = createConnection({ path: READ_SOCKET, onread });
    this.#socket.on('timeout', () => this.#socket.destroy(new Error(`silent for ${SILENCE_MS / 1_000} s`)));
    this.#socket.on('error', (error) => {
      this.#error = error;
    });
    this.#socket.on('close', () => this.#closed());
  }

  /** Rejects where the storekeeper is away. */
  request(question: LinkRequest): Promise<FetchReply> {
    return new Promise((resolve, reject) => {
      this.#asker = { resolve, reject };
      this.#socket.setTimeout(SILENCE_MS);
      this.#socket.write(`${JSON.stringify(question)}\n`);
    });
  }

  /** False where the reader has enough for now. */
  #hear(buffer: Buffer, bytes: number): boolean {
    for (let at = 0; at < bytes;) {
      if (this.#frameHeadBytes < FRAME_HEAD_BYTES) {
        this.#frameHead[this.#frameHeadBytes] = buffer[at]!;
        this.#frameHeadBytes += 1;
        at += 1;
        if (this.#frameHeadBytes < FRAME_HEAD_BYTES) continue;
        ({ bytes: this.#left, last: this.#last } = readFrameHead(this.#frameHead));
      } else {
        const to = Math.min(bytes, at + this.#left);
        if (this.#body === null) this.#headParts.push(Buffer.from(buffer.subarray(at, to)));
        else this.#body.append(buffer.subarray(at, to));
        this.#left -= to - at;
        at = to;
      }
      if (this.#left === 0) this.#frameEnded();
    }
    if (this.#body?.full !== true) return true;
    this.#socket.setTimeout(STALLED_MS);
    return false;
  }

  #frameEnded(): void {
    this.#frameHeadBytes = 0;
    if (this.#body === null) {
      const head = JSON.parse(Buffer.concat(this.#headParts).toString()) as ReplyHead;
      this.#headParts = [];
      this.#body = new Body(this.#pool, {
        more: () => this.#socket.setTimeout(SILENCE_MS).resume(),
        left: () => this.#socket.destroy(),
      });
      this.#asker!.resolve({ head, body: this.#body });
      this.#asker = null;
    }
    if (!this.#last) return;
    this.#body.end(null);
    this.#body = null;
    // One that nobody needs any more goes the same way.
    this.#socket.setTimeout(SILENCE_MS);
    this.#events.idle(this);
  }

  #closed(): void {
    const error = this.#error ?? new Error('the storekeeper hung up');
    this.#asker?.reject(error);
    this.#body?.end(error);
    this.#asker = null;
    this.#body = null;
    this.#events.closed(this);
  }
}

interface Filled {
  readonly slab: PooledBuffer;
  bytes: number;
}

class Body implements ByteStream {
  readonly #pool: BufferPool;
  readonly #events: { readonly more: () => void; readonly left: () => void };
  readonly #filled: Filled[] = [];
  #wake: (() => void) | null = null;
  #ended = false;
  #error: Error | null = null;

  constructor(pool: BufferPool, events: { readonly more: () => void; readonly left: () => void }) {
    this.#pool = pool;
    this.#events = events;
  }

  get full(): boolean {
    return this.#filled.length >= FILLED_MAX;
  }

  append(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      let into = this.#filled.at(-1);
      if (into === undefined || into.bytes === into.slab.room) {
        into = { slab: this.#pool.acquire(SLOW_PIECE_BYTES), bytes: 0 };
        this.#filled.push(into);
      }
      const taken = bytes.copy(into.slab.buffer, HEAD_ROOM_BYTES + into.bytes, at, at + into.slab.room - into.bytes);
      into.bytes += taken;
      at += taken;
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
    const was = this.full;
    const filled = this.#filled.shift();
    if (filled !== undefined) {
      if (was && !this.#ended) this.#events.more();
      const { slab, bytes } = filled;
      return {
        bytes: slab.buffer.subarray(HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + bytes),
        release: () => this.#pool.release(slab),
      };
    }
    if (this.#error !== null) throw this.#error;
    return null;
  }

  close(): void {
    for (const { slab } of this.#filled.splice(0)) this.#pool.release(slab);
    if (this.#ended) return;
    this.end(null);
    this.#events.left();
  }
}
