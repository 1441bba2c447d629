// Time as an argument: decisions and tests get a clock, never Date.now().

export interface Clock {
  /** Milliseconds since the epoch; may jump when the machine's time is set. */
  now(): number;
  /** Milliseconds that never go back; for leases, timeouts and rates. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
