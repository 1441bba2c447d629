// Time as a dependency: code takes instants and timers from the clock that it is given, so that tests can control them. test/tidy
// rejects `Date.now`, `performance.now`, `setTimeout` and `setInterval` outside this file.

import { setTimeout as sleep } from 'node:timers/promises';

/** A pending timeout or interval. It keeps the process alive unless `unref` is called. */
export interface Timer {
  unref(): unknown;
}

export interface Clock {
  /** Milliseconds since the epoch. The value jumps when the time of the machine is set. */
  now(): number;
  /** Milliseconds since an arbitrary start. The value never decreases; used for leases, timeouts and rates. */
  monotonic(): number;
  /** Calls `run` once, after `ms`. */
  setTimeout(run: () => void, ms: number): Timer;
  /** Calls `run` every `ms` until the timer is cleared. */
  setInterval(run: () => void, ms: number): Timer;
  /** Cancels a timeout or an interval. Null and timers that have fired are ignored. */
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
    // In Node clearTimeout clears intervals, too.
    if (timer !== null) clearTimeout(timer as NodeJS.Timeout);
  },
  sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
};
