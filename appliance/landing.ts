// One block on its way, in a buffer that any number of readers follow.

import type { Fault } from '../protocol/faults.ts';

export class Landing {
  readonly number: number;
  readonly bytes: number;
  /** The block behind it in a flight that is not stored: who reads this one holds on to what follows. */
  next: Landing | null = null;
  buffer: Buffer | null = null;
  landed = 0;
  fault: Fault | null = null;
  /** Whether the volume is to have it: settled when `taken` resolves, before the first byte lands. */
  kept = false;
  readonly taken: Promise<void>;
  #take!: () => void;
  /** Landed, verified and, where there was room, on disk. */
  readonly done: Promise<void>;
  #settle!: () => void;
  #waiting: (() => void)[] = [];

  constructor(number: number, bytes: number) {
    this.number = number;
    this.bytes = bytes;
    this.done = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.taken = new Promise((resolve) => {
      this.#take = resolve;
    });
  }

  take(kept: boolean): void {
    this.kept = kept;
    this.#take();
  }

  append(chunk: Buffer): void {
    this.buffer ??= Buffer.allocUnsafeSlow(this.bytes);
    chunk.copy(this.buffer, this.landed);
    this.landed += chunk.length;
    this.#wake();
  }

  /** What landed is not what it should be: none of it is handed out any more. */
  reject(fault: Fault): void {
    this.landed = 0;
    this.fail(fault);
  }

  fail(fault: Fault): void {
    this.fault ??= fault;
    this.#take();
    this.#wake();
    this.#settle();
  }

  finish(): void {
    this.#settle();
  }

  /** Bytes [from, to) of the block as they land. Throws the fault of the flight. */
  async *follow(from: number, to: number): AsyncGenerator<Buffer> {
    let at = from;
    while (at < to) {
      if (this.landed > at) {
        const upTo = Math.min(this.landed, to);
        yield this.buffer!.subarray(at, upTo);
        at = upTo;
      } else if (this.fault !== null) throw this.fault;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
