// One connection of a worker to the storekeeper: one request at a time, and its reply in frames. All connections read into one
// shared buffer, and bytes are copied from there into pooled ones: a buffer per read was most of what a miss left to the
// garbage collector. Most frames do not have the bytes but say where they are in the memory tier: they are copied when the client
// wants them.

import { createConnection, type Socket } from 'node:net';
import { Fault } from '../../protocol/faults.ts';
import { HEAD_ROOM_BYTES, type BufferPool, type PooledBuffer } from '../io/buffer-pool.ts';
import type { ByteSlice, ByteStream } from '../io/byte-stream.ts';
import type { MappedMemory, SlotSlice } from '../io/shared-memory.ts';
import { LIMITS } from '../limits.ts';
import { decodeSlices, FRAME_HEAD_BYTES, readFrameHead } from './framing.ts';
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
  #hasSlices = false;
  /** What has arrived of a head or of slices. */
  #parts: Buffer[] = [];
  #memory: MappedMemory | null = null;
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

  /** `memory` is where slots of the reply are read. Rejects when the storekeeper cannot be reached. */
  request(request: LinkRequest, memory: MappedMemory | null): Promise<FetchReply> {
    this.#memory = memory;
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
        const head = readFrameHead(this.#frameHead);
        this.#frameLeft = head.bytes;
        this.#isLastFrame = head.isLast;
        this.#hasSlices = head.hasSlices;
      } else {
        const to = Math.min(bytes, at + this.#frameLeft);
        if (this.#body === null || this.#hasSlices) this.#parts.push(Buffer.from(buffer.subarray(at, to)));
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
      const head = JSON.parse(this.#takeParts().toString()) as ReplyHead;
      this.#body = new ReplyBody(this.#pool, this.#memory, {
        onDrain: () => this.#socket.setTimeout(LIMITS.linkSilenceMs).resume(),
        onCopied: (isLast) => this.#onCopied(isLast),
        onAbandon: () => this.#socket.destroy(),
      });
      this.#pending!.resolve({ head, body: this.#body });
      this.#pending = null;
    } else if (this.#hasSlices) this.#body.appendSlices(decodeSlices(this.#takeParts()), this.#isLastFrame);
    if (!this.#isLastFrame) return;
    this.#body.end(null);
    this.#body = null;
    // While slots are still to be copied the storekeeper waits for the word that they were.
    if (!this.#hasSlices) this.#becomeIdle();
  }

  #takeParts(): Buffer {
    const whole = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
    this.#parts = [];
    return whole;
  }

  #onCopied(isLast: boolean): void {
    if (this.#socket.destroyed) return;
    this.#socket.write('\n');
    if (isLast) this.#becomeIdle();
  }

  #becomeIdle(): void {
    // An idle connection that nobody needs closes after the same time.
    this.#socket.setTimeout(LIMITS.linkSilenceMs);
    this.#events.onIdle(this);
  }

  #close(): void {
    const error = this.#error ?? new Error('the storekeeper closed the connection');
    this.#pending?.reject(error);
    // It may have broken off at the origin, too: that is no failure of this process.
    this.#body?.end(new Fault('unreachable', error.message, { cause: error }));
    this.#pending = null;
    this.#body = null;
    this.#events.onClose(this);
  }
}

/** Bytes that have arrived. */
interface FilledBuffer {
  readonly kind: 'buffer';
  readonly pooled: PooledBuffer;
  bytes: number;
}

/** Bytes that are in the memory tier. */
interface BytesInSlots {
  readonly kind: 'slices';
  /** Not copied yet, in order. */
  readonly slices: SlotSlice[];
  readonly isLast: boolean;
}

interface ReplyBodyEvents {
  /** The body has room again. */
  readonly onDrain: () => void;
  /** All bytes that a frame named have been copied; `isLast`: of the last frame. */
  readonly onCopied: (isLast: boolean) => void;
  /** The client wants no more of it. */
  readonly onAbandon: () => void;
}

class ReplyBody implements ByteStream {
  readonly #pool: BufferPool;
  readonly #memory: MappedMemory | null;
  readonly #events: ReplyBodyEvents;
  readonly #arrived: (FilledBuffer | BytesInSlots)[] = [];
  #wake: (() => void) | null = null;
  #ended = false;
  #error: Error | null = null;

  constructor(pool: BufferPool, memory: MappedMemory | null, events: ReplyBodyEvents) {
    this.#pool = pool;
    this.#memory = memory;
    this.#events = events;
  }

  get isFull(): boolean {
    return this.#arrived.length >= LIMITS.linkBuffersMax;
  }

  append(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      let into = this.#arrived.at(-1);
      if (into?.kind !== 'buffer' || into.bytes === into.pooled.room) {
        into = { kind: 'buffer', pooled: this.#pool.acquire(LIMITS.mediumBufferBytes), bytes: 0 };
        this.#arrived.push(into);
      }
      const { buffer, room } = into.pooled;
      const copied = bytes.copy(buffer, HEAD_ROOM_BYTES + into.bytes, at, at + room - into.bytes);
      into.bytes += copied;
      at += copied;
    }
    this.#wake?.();
  }

  appendSlices(slices: SlotSlice[], isLast: boolean): void {
    this.#arrived.push({ kind: 'slices', slices, isLast });
    this.#wake?.();
  }

  end(error: Error | null): void {
    this.#ended = true;
    this.#error = error;
    this.#wake?.();
  }

  async next(): Promise<ByteSlice | null> {
    while (this.#arrived.length === 0 && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.#wake = null;
    const arrived = this.#arrived[0];
    if (arrived === undefined) {
      if (this.#error !== null) throw this.#error;
      return null;
    }
    if (arrived.kind === 'slices') return this.#copy(arrived);
    const wasFull = this.isFull;
    this.#arrived.shift();
    if (wasFull && !this.#ended) this.#events.onDrain();
    return this.#sliceOf(arrived.pooled, arrived.bytes);
  }

  close(): void {
    const arrived = this.#arrived.splice(0);
    let owesCopies = false;
    for (const each of arrived) {
      if (each.kind === 'buffer') this.#pool.release(each.pooled);
      else owesCopies = true;
    }
    if (this.#ended && !owesCopies) return;
    this.end(null);
    this.#events.onAbandon();
  }

  /** Copies as many of the bytes as fit into a buffer. Throws when other bytes are there by now. */
  #copy(arrived: BytesInSlots): ByteSlice {
    const { slices, isLast } = arrived;
    const pooled = this.#pool.acquire(LIMITS.mediumBufferBytes);
    let bytes = 0;
    while (slices.length > 0 && bytes < pooled.room) {
      const slice = slices[0]!;
      const part = { ...slice, bytes: Math.min(slice.bytes, pooled.room - bytes) };
      if (this.#memory?.copySlot(part, pooled.memory, HEAD_ROOM_BYTES + bytes) !== true) {
        this.#pool.release(pooled);
        this.close();
        throw new Fault('unreachable', 'the bytes have left the memory tier');
      }
      bytes += part.bytes;
      if (part.bytes === slice.bytes) slices.shift();
      else slices[0] = { ...slice, from: slice.from + part.bytes, bytes: slice.bytes - part.bytes };
    }
    if (slices.length === 0) {
      this.#arrived.shift();
      this.#events.onCopied(isLast);
    }
    return this.#sliceOf(pooled, bytes);
  }

  #sliceOf(pooled: PooledBuffer, bytes: number): ByteSlice {
    return {
      bytes: pooled.buffer.subarray(HEAD_ROOM_BYTES, HEAD_ROOM_BYTES + bytes),
      release: () => this.#pool.release(pooled),
    };
  }
}
