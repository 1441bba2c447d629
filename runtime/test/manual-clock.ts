// A clock that a test advances. Due timers run inside `advance`, in the order of their instants.

import type { Clock, Timer } from '../clock.ts';

interface Pending {
  readonly run: () => void;
  readonly everyMs: number | null;
  atMs: number;
}

export class ManualClock implements Clock {
  #nowMs: number;
  #monotonicMs = 0;
  readonly #pending = new Set<Pending>();

  constructor(nowMs = Date.UTC(2026, 0, 1)) {
    this.#nowMs = nowMs;
  }

  now(): number {
    return this.#nowMs;
  }

  monotonic(): number {
    return this.#monotonicMs;
  }

  setTimeout(run: () => void, ms: number): Timer {
    return this.#add(run, ms, null);
  }

  setInterval(run: () => void, ms: number): Timer {
    return this.#add(run, ms, ms);
  }

  clear(timer: Timer | null): void {
    this.#pending.delete(timer as unknown as Pending);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const timer = this.#add(resolve, ms, null);
      signal?.addEventListener('abort', () => {
        this.clear(timer);
        reject(signal.reason as Error);
      });
    });
  }

  /** Number of pending timers. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Advances `now` and `monotonic`, and runs the timers that become due. Promises settle after it returns. */
  advance(ms: number): void {
    const endMs = this.#monotonicMs + ms;
    for (let next = this.#nextDue(endMs); next !== null; next = this.#nextDue(endMs)) {
      this.#moveTo(Math.max(this.#monotonicMs, next.atMs));
      if (next.everyMs === null) this.#pending.delete(next);
      else next.atMs += next.everyMs;
      next.run();
    }
    this.#moveTo(endMs);
  }

  /** Sets `now` alone, as when the time of the machine is set. Timers and `monotonic` are not affected. */
  setNow(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  #moveTo(monotonicMs: number): void {
    this.#nowMs += monotonicMs - this.#monotonicMs;
    this.#monotonicMs = monotonicMs;
  }

  #nextDue(endMs: number): Pending | null {
    let next: Pending | null = null;
    for (const each of this.#pending) if (each.atMs <= endMs && (next === null || each.atMs < next.atMs)) next = each;
    return next;
  }

  #add(run: () => void, ms: number, everyMs: number | null): Timer {
    const pending: Pending & Timer = { run, everyMs, atMs: this.#monotonicMs + ms, unref: () => undefined };
    this.#pending.add(pending);
    return pending;
  }
}
