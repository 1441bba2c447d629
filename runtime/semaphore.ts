// A counting semaphore: a limited number of tasks hold a permit at a time, and the others wait in order of arrival. With one permit
// it is a mutex.

import { Fault } from '../protocol/faults.ts';
import { systemClock, type Clock } from './clock.ts';

interface SemaphoreSpec {
  readonly permits: number;
  /** What the tasks are, for the message of the fault: "requests forwarded to the origin". */
  readonly what?: string;
  /** Number of waiting tasks beyond which `acquire` throws; unlimited if absent, for callers that are themselves limited. */
  readonly waitingMax?: number;
  /** How long a task waits before `acquire` throws; unlimited if absent. */
  readonly waitMs?: number;
  readonly clock?: Clock;
}

export class Semaphore {
  readonly #spec: SemaphoreSpec;
  readonly #clock: Clock;
  /** Grants the permit to a waiting task, oldest first. */
  readonly #waiting = new Set<() => void>();
  #held = 0;

  constructor(spec: SemaphoreSpec) {
    this.#spec = spec;
    this.#clock = spec.clock ?? systemClock;
  }

  /** Number of tasks that hold a permit. */
  get held(): number {
    return this.#held;
  }

  /** Number of tasks that wait for one. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Resolves once the caller holds a permit, which it must release. Throws `overloaded` beyond `waitingMax` or `waitMs`. */
  async acquire(): Promise<void> {
    const { permits, waitingMax = Number.POSITIVE_INFINITY } = this.#spec;
    if (this.#held < permits) {
      this.#held += 1;
      return;
    }
    if (this.#waiting.size >= waitingMax) throw this.#overloaded(`and ${waitingMax} wait`);
    await this.#wait();
  }

  /** Passes the permit to the task that has waited longest, if any. */
  release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#held -= 1;
      return;
    }
    this.#waiting.delete(next);
    next();
  }

  /** Runs a task with a permit. */
  async run<T>(task: () => Promise<T>): Promise<T> {
    await this.acquire();
    try {
      return await task();
    } finally {
      this.release();
    }
  }

  #wait(): Promise<void> {
    const { waitMs } = this.#spec;
    return new Promise((resolve, reject) => {
      if (waitMs === undefined) {
        this.#waiting.add(resolve);
        return;
      }
      const next = (): void => {
        this.#clock.clear(timeout);
        resolve();
      };
      const timeout = this.#clock.setTimeout(() => {
        this.#waiting.delete(next);
        reject(this.#overloaded(`and none ended within ${waitMs / 1000} s`));
      }, waitMs);
      this.#waiting.add(next);
    });
  }

  #overloaded(why: string): Fault {
    const { permits, what = 'tasks' } = this.#spec;
    return new Fault('overloaded', `${permits} ${what} are under way, ${why}`);
  }
}

/** A lock for one task at a time: `const exclusively = mutex(); await exclusively(() => write())`. */
export function mutex(): <T>(task: () => Promise<T>) => Promise<T> {
  const lock = new Semaphore({ permits: 1 });
  return (task) => lock.run(task);
}

/**
 * Runs `task` for every item in order, at most `atOnce` at a time. After a failure no further task is started, and the failure is
 * thrown once the running tasks have ended.
 */
export async function forEachAtMost<T>(
  atOnce: number,
  items: Iterable<T>,
  task: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items[Symbol.iterator]();
  let failed = false;
  const lane = async (): Promise<void> => {
    while (!failed) {
      const step = rest.next();
      if (step.done === true) return;
      try {
        await task(step.value);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: atOnce }, lane));
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
}
