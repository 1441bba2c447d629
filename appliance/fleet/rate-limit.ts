// A cap on bytes per second. Each acquisition waits until the bytes acquired before it are due at that rate.

import type { Clock } from '../../runtime/clock.ts';

export class RateLimit {
  readonly #bytesPerMs: number | null;
  readonly #clock: Clock;
  /** The instant at which the bytes acquired so far are due, on the monotonic clock. */
  #dueAtMs = 0;

  /** Null is uncapped. */
  constructor(bitsPerSecond: number | null, clock: Clock) {
    this.#bytesPerMs = bitsPerSecond === null ? null : bitsPerSecond / 8 / 1000;
    this.#clock = clock;
  }

  async acquire(bytes: number): Promise<void> {
    if (this.#bytesPerMs === null) return;
    const nowMs = this.#clock.monotonic();
    const waitMs = this.#dueAtMs - nowMs;
    this.#dueAtMs = Math.max(this.#dueAtMs, nowMs) + bytes / this.#bytesPerMs;
    if (waitMs > 0) await this.#clock.sleep(waitMs);
  }
}
