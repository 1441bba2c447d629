// The one way in which tests wait: for a condition, polled until it holds. The deadline only catches a hang.

import { systemClock } from '../../runtime/clock.ts';

const DEADLINE_MS = 30_000;
const POLL_MS = 5;

export interface UntilOptions {
  readonly deadlineMs?: number;
  /** What the error at the deadline says beside the time; by default the source text of the condition. */
  readonly explain?: () => string;
}

export async function until(
  condition: () => boolean | Promise<boolean>,
  { deadlineMs = DEADLINE_MS, explain = () => condition.toString() }: UntilOptions = {},
): Promise<void> {
  const end = systemClock.monotonic() + deadlineMs;
  while (!(await condition())) {
    if (systemClock.monotonic() > end) throw new Error(`condition not met in ${deadlineMs} ms: ${explain()}`);
    await systemClock.sleep(POLL_MS);
  }
}

/** A promise that the test resolves: it holds a response back, for instance. */
export interface Deferred {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

export function deferred(): Deferred {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}

/** Enough rounds of the event loop for everything that needs neither disk nor network to happen. */
export async function eventLoopRounds(count = 20): Promise<void> {
  for (let round = 0; round < count; round += 1) await new Promise((resolve) => setImmediate(resolve));
}
