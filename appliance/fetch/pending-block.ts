// One block that is being fetched, in a buffer that any number of readers follow: as it arrives, or, when it has to be verified first,
// once it is whole. Buffers of blocks that are on disk are reused: a garbage collector that has to find each of them takes more time
// than everything else about a miss.

import type { Fault } from '../../protocol/faults.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';

const FREE_BUFFERS_MAX = 32;
/** Bytes that a reader gets at once. */
const SLICE_BYTES_MAX = 128 * 1024;
/** A reader that has at least this much left of a block that is on disk by now reads the rest from there. */
const REST_BYTES_MIN = 2 * SLICE_BYTES_MAX;
/** Shorter blocks have buffers of their own size. */
const POOLED_BYTES_MIN = BLOCK_BYTES / 4;

const freeBuffers: Buffer[] = [];

export class PendingBlock {
  readonly number: number;
  readonly bytes: number;
  /** Bytes that have arrived. */
  received = 0;
  /** Bytes that readers may have. */
  #readable = 0;
  #isWithheld = false;
  fault: Fault | null = null;
  /** Whether the volume is to store it; settled when `decided` resolves, before the first byte arrives. */
  storable = false;
  readonly decided: Promise<void>;
  #resolveDecided!: () => void;
  /** Received, verified and, if there was room, on disk; or failed. */
  readonly done: Promise<void>;
  #resolveDone!: () => void;
  #next: PendingBlock | null = null;
  /** A reader of the block before this one will follow it. */
  #isChained = false;
  #waiting: (() => void)[] = [];
  #isWaking = false;
  /** Readers that may hold bytes of the buffer. */
  #readers = 0;
  #stored = false;
  #buffer: Buffer | null = null;

  constructor(number: number, bytes: number) {
    this.number = number;
    this.bytes = bytes;
    this.done = new Promise((resolve) => {
      this.#resolveDone = resolve;
    });
    this.decided = new Promise((resolve) => {
      this.#resolveDecided = resolve;
    });
  }

  /** The following block of a fetch that is not stored: a reader of this block holds on to it. */
  get next(): PendingBlock | null {
    return this.#next;
  }

  chain(next: PendingBlock): void {
    this.#next = next;
    next.#isChained = true;
  }

  /** The whole block, from the moment it has been received until it is finished. */
  get payload(): Buffer {
    return this.#buffer!.subarray(0, this.bytes);
  }

  /** `withheld`: readers get nothing before `release`. */
  decide(spec: { readonly storable: boolean; readonly withheld: boolean }): void {
    this.storable = spec.storable;
    this.#isWithheld = spec.withheld;
    this.#resolveDecided();
  }

  append(chunk: Buffer): void {
    this.#buffer ??= (this.#isPooled ? freeBuffers.pop() : undefined) ?? this.#newBuffer();
    chunk.copy(this.#buffer, this.received);
    this.received += chunk.length;
    if (this.#isWithheld) return;
    this.#readable = this.received;
    this.#wake();
  }

  /** The whole block has been verified. */
  release(): void {
    this.#isWithheld = false;
    this.#readable = this.received;
    this.#wake();
  }

  /** The bytes are not what they should be: no reader gets any. */
  reject(fault: Fault): void {
    this.received = 0;
    this.fail(fault);
  }

  fail(fault: Fault): void {
    this.fault ??= fault;
    this.#resolveDecided();
    this.#wake();
    this.#resolveDone();
  }

  /** `stored`: later readers find the block on disk. */
  finish(stored: boolean): void {
    this.#resolveDone();
    this.#stored = stored;
    this.#recycle();
  }

  /**
   * Bytes [from, to) of the block as they arrive. Each slice belongs to the reader until it asks for the next. Ends early for a reader
   * that is slower than the disk: the rest is there. Throws the fault of the fetch.
   */
  follow(from: number, to: number): AsyncGenerator<Buffer> {
    this.#readers += 1;
    return this.#follow(from, to);
  }

  async *#follow(from: number, to: number): AsyncGenerator<Buffer> {
    let at = from;
    while (at < to && !(this.#stored && at > from && to - at >= REST_BYTES_MIN)) {
      if (this.#readable > at) {
        const end = Math.min(this.#readable, to, at + SLICE_BYTES_MAX);
        yield this.#buffer!.subarray(at, end);
        at = end;
      } else if (this.fault !== null) throw this.fault;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    // A reader that stops early may still be sending a slice: then the buffer is left to the garbage collector.
    this.#readers -= 1;
    this.#recycle();
  }

  get #isPooled(): boolean {
    return this.bytes >= POOLED_BYTES_MIN;
  }

  #newBuffer(): Buffer {
    return Buffer.allocUnsafeSlow(this.#isPooled ? BLOCK_BYTES : this.bytes);
  }

  #recycle(): void {
    if (!this.#stored || this.#isChained || this.#readers > 0 || this.#buffer === null) return;
    if (this.#isPooled && freeBuffers.length < FREE_BUFFERS_MAX) freeBuffers.push(this.#buffer);
    this.#buffer = null;
  }

  /** Wakes the readers once for all that the socket delivered in this turn, because each waking costs a write per reader. */
  #wake(): void {
    if (this.#isWaking || this.#waiting.length === 0) return;
    this.#isWaking = true;
    setImmediate(() => {
      this.#isWaking = false;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    });
  }
}
