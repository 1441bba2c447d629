// Reusable buffers for bytes on their way from block files to sockets. Large buffers are fast, but a reader that stalls keeps its
// buffer, and ten thousand of them must not keep half a megabyte each. So each size is lent up to a bound, and beyond it the next
// smaller one.

import { LIMITS } from '../limits.ts';
import { allocateHugePage, NativeBuffer } from './nonblocking-io.ts';

/** Space in front of the payload for a response head, so that both leave in one write. */
export const HEAD_ROOM_BYTES = 4_096;
/**
 * Buffers that lie in the worker's one huge page. Nearly every hit goes through these. Scattered over ordinary pages, 1 MiB took
 * a twentieth longer, or a fifth where the pages happened to share sets of the CPU cache.
 */
const LARGE_IN_HUGE_PAGE = 3;
const SMALL_IN_HUGE_PAGE = 7;
/** Buffers of each size that are kept for reuse. */
const LARGE_FREE_MAX = 64;
const MEDIUM_FREE_MAX = 128;
const SMALL_FREE_MAX = 256;

export interface PooledBuffer {
  readonly memory: NativeBuffer;
  readonly buffer: Buffer;
  /** Payload bytes that fit behind the head room. */
  readonly room: number;
  /** Where the payload begins, at or behind the end of the head room. Its reader sets it. */
  payloadAt: number;
  readonly inHugePage: boolean;
}

/** Buffers of one size. Free ones in the huge page are lent before others. */
interface SizeClass {
  readonly room: number;
  readonly lentMax: number;
  readonly freeMax: number;
  readonly free: PooledBuffer[];
  readonly freeInHugePage: PooledBuffer[];
  lent: number;
}

export class BufferPool {
  readonly #large = sizeClass(LIMITS.largeBufferBytes, LIMITS.largeBuffersLentMax, LARGE_FREE_MAX);
  readonly #medium = sizeClass(LIMITS.mediumBufferBytes, LIMITS.mediumBuffersLentMax, MEDIUM_FREE_MAX);
  readonly #small = sizeClass(LIMITS.smallBufferBytes, Number.POSITIVE_INFINITY, SMALL_FREE_MAX);
  /** Corrects the count when a buffer is collected without being released, as node:http does with writes of a dead connection. */
  readonly #collected = new FinalizationRegistry<SizeClass>((size) => {
    size.lent -= 1;
  });

  constructor() {
    const page = allocateHugePage();
    let at = 0;
    for (const [size, buffers] of [
      [this.#large, LARGE_IN_HUGE_PAGE],
      [this.#small, SMALL_IN_HUGE_PAGE],
    ] as const)
      for (let count = 0; count < buffers; count += 1) {
        const bytes = HEAD_ROOM_BYTES + size.room;
        size.freeInHugePage.push(this.#wrap(size, page.subarray(at, at + bytes), true));
        at += bytes;
      }
  }

  /** A buffer for up to `bytes` of payload; a smaller one while many large ones are lent. */
  acquire(bytes: number): PooledBuffer {
    if (bytes > LIMITS.mediumBufferBytes && isAvailable(this.#large)) return this.#lend(this.#large);
    return this.#lend(bytes > LIMITS.smallBufferBytes && isAvailable(this.#medium) ? this.#medium : this.#small);
  }

  release(pooled: PooledBuffer): void {
    const size = this.#sizeOf(pooled);
    size.lent -= 1;
    if (pooled.inHugePage) size.freeInHugePage.push(pooled);
    else if (size.free.length < size.freeMax) size.free.push(pooled);
    else this.#collected.unregister(pooled);
  }

  #lend(size: SizeClass): PooledBuffer {
    size.lent += 1;
    return size.freeInHugePage.pop() ?? size.free.pop() ?? this.#allocate(size);
  }

  #allocate(size: SizeClass): PooledBuffer {
    return this.#wrap(size, Buffer.allocUnsafeSlow(HEAD_ROOM_BYTES + size.room), false);
  }

  #wrap(size: SizeClass, buffer: Buffer, inHugePage: boolean): PooledBuffer {
    const memory = new NativeBuffer(buffer);
    const pooled = { memory, buffer, room: size.room, payloadAt: HEAD_ROOM_BYTES, inHugePage };
    this.#collected.register(pooled, size, pooled);
    return pooled;
  }

  #sizeOf({ room }: PooledBuffer): SizeClass {
    if (room === LIMITS.largeBufferBytes) return this.#large;
    return room === LIMITS.mediumBufferBytes ? this.#medium : this.#small;
  }
}

const isAvailable = ({ lent, lentMax }: SizeClass): boolean => lent < lentMax;

const sizeClass = (room: number, lentMax: number, freeMax: number): SizeClass => ({
  ...{ room, lentMax, freeMax, free: [], freeInHugePage: [], lent: 0 },
});
