// Time as an argument: decisions, caches and tests get a clock and take instants and timers from it alone. `test/tidy` finds
// every `Date.now`, `performance.now`, `setTimeout` and `setInterval` outside this file.

import { setTimeout as sleep } from 'node:timers/promises';

/** A pending call. It keeps the process alive unless it is unreferenced. */
export interface Timer {
  unref(): unknown;
}

export interface Clock {
  /** Milliseconds since the epoch. It may jump when the machine's time is set. */
  now(): number;
  /** Milliseconds that never go back, for leases, timeouts and rates. */
  monotonic(): number;
  /** Calls `run` once, after `ms`. */
  setTimeout(run: () => void, ms: number): Timer;
  /** Calls `run` every `ms` until the timer is cleared. */
  setInterval(run: () => void, ms: number): Timer;
  /** Cancels a timer of either kind. Null and timers that have run are ignored. */
  clear(timer: Timer | null): void;
  /** Resolves after `ms`. Rejects with an `AbortError` as soon as `signal` aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout: (run, ms) => setTimeout(run, ms),
  setInterval: (run, ms) => setInterval(run, ms),
  clear: (timer) => {
    // Node clears timeouts and intervals alike.
    if (timer !== null) clearTimeout(timer as NodeJS.Timeout);
  },
  sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
};
