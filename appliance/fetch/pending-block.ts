// One block on its way, in a buffer that any number of readers follow. Buffers of blocks that are on disk are used again:
// a collector that has to find each of them takes more time than everything else about a miss.

import type { Fault } from '../../protocol/faults.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';

const FREE_BUFFERS_MAX = 32;
/** Handed to a reader at once. */
export const PIECE_BYTES_MAX = 128 * 1024;
/** So much of a block that is on disk by now a reader fetches from there. */
const LEFT_BYTES_MIN = 2 * PIECE_BYTES_MAX;
/** A shorter block has a buffer of its own. */
const POOLED_BYTES_MIN = BLOCK_BYTES / 4;

const freeBuffers: Buffer[] = [];

export class PendingBlock {
  readonly number: number;
  readonly bytes: number;
  #next: PendingBlock | null = null;
  #isChained = false;
  received = 0;
  fault: Fault | null = null;
  /** Whether the volume is to have it: settled when `taken` resolves, before the first byte lands. */
  storable = false;
  readonly decided: Promise<void>;
  #take!: () => void;
  /** Landed, verified and, where there was room, on disk. */
  readonly done: Promise<void>;
  #settle!: () => void;
  #waiting: (() => void)[] = [];
  #waking = false;
  /** Readers that may have bytes of the buffer in their hands. */
  #holders = 0;
  #stored = false;
  #buffer: Buffer | null = null;

  constructor(number: number, bytes: number) {
    this.number = number;
    this.bytes = bytes;
    this.done = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.decided = new Promise((resolve) => {
      this.#take = resolve;
    });
  }

  /** The block behind it in a flight that is not stored: who reads this one holds on to what follows. */
  get next(): PendingBlock | null {
    return this.#next;
  }

  chain(next: PendingBlock): void {
    this.#next = next;
    next.#isChained = true;
  }

  /** All of it, once it has landed and until it is finished. */
  get payload(): Buffer {
    return this.#buffer!.subarray(0, this.bytes);
  }

  decide(kept: boolean): void {
    this.storable = kept;
    this.#take();
  }

  append(chunk: Buffer): void {
    this.#buffer ??= (this.#isPooled ? freeBuffers.pop() : undefined) ?? this.#newBuffer();
    chunk.copy(this.#buffer, this.received);
    this.received += chunk.length;
    this.#wake();
  }

  /** What landed is not what it should be: none of it is handed out any more. */
  reject(fault: Fault): void {
    this.received = 0;
    this.fail(fault);
  }

  fail(fault: Fault): void {
    this.fault ??= fault;
    this.#take();
    this.#wake();
    this.#settle();
  }

  /** `stored`: whoever comes from now on finds it on disk. */
  finish(stored: boolean): void {
    this.#settle();
    this.#stored = stored;
    this.#recycle();
  }

  /**
   * Bytes [from, to) of the block as they land; each piece is the reader's until it asks for the next. Ends early for one
   * who is slower than the disk: the rest is there. Throws the fault of the flight.
   */
  follow(from: number, to: number): AsyncGenerator<Buffer> {
    this.#holders += 1;
    return this.#follow(from, to);
  }

  async *#follow(from: number, to: number): AsyncGenerator<Buffer> {
    let at = from;
    while (at < to && !(this.#stored && at > from && to - at >= LEFT_BYTES_MIN)) {
      if (this.received > at) {
        const upTo = Math.min(this.received, to, at + PIECE_BYTES_MAX);
        yield this.#buffer!.subarray(at, upTo);
        at = upTo;
      } else if (this.fault !== null) throw this.fault;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    // Who leaves before the end may still have a piece under way: then the buffer is left to the collector.
    this.#holders -= 1;
    this.#recycle();
  }

  get #isPooled(): boolean {
    return this.bytes >= POOLED_BYTES_MIN;
  }

  #newBuffer(): Buffer {
    return Buffer.allocUnsafeSlow(this.#isPooled ? BLOCK_BYTES : this.bytes);
  }

  #recycle(): void {
    if (!this.#stored || this.#isChained || this.#holders > 0 || this.#buffer === null) return;
    if (this.#isPooled && freeBuffers.length < FREE_BUFFERS_MAX) freeBuffers.push(this.#buffer);
    this.#buffer = null;
  }

  /** Once for all that the socket had to give in this turn: each waking costs a write to every reader. */
  #wake(): void {
    if (this.#waking || this.#waiting.length === 0) return;
    this.#waking = true;
    setImmediate(() => {
      this.#waking = false;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    });
  }
}
