// Polling with an interval, bounded by an abort signal.

import { systemClock } from '../runtime/clock.ts';

/** Calls `attempt` until it resolves to a value other than null. Resolves to null once `signal` aborts. */
export async function poll<T>(
  attempt: () => Promise<T | null>,
  options: { readonly everyMs: number; readonly signal: AbortSignal },
): Promise<T | null> {
  const { everyMs, signal } = options;
  while (!signal.aborted) {
    const result = await attempt();
    if (result !== null) return result;
    await systemClock.sleep(everyMs, signal).catch(() => undefined);
  }
  return null;
}
