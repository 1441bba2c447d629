// A cap on bytes per second: whoever takes bytes waits until the ones taken before are paid for.

import type { Clock } from '../../runtime/clock.ts';

export class RateLimit {
  readonly #bytesPerMs: number | null;
  readonly #clock: Clock;
  /** When all that was taken so far is paid for. */
  #paidAt = 0;

  constructor(bitsPerSecond: number | null, clock: Clock) {
    this.#bytesPerMs = bitsPerSecond === null ? null : bitsPerSecond / 8 / 1000;
    this.#clock = clock;
  }

  async acquire(bytes: number): Promise<void> {
    if (this.#bytesPerMs === null) return;
    const now = this.#clock.monotonic();
    const wait = this.#paidAt - now;
    this.#paidAt = Math.max(this.#paidAt, now) + bytes / this.#bytesPerMs;
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
