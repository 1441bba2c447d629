// The semaphore: order of arrival, limits on permits and waiting, timeouts, and bounded parallel iteration.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { forEachAtMost, mutex, Semaphore } from '../semaphore.ts';
import { ManualClock } from './manual-clock.ts';

/** A task that runs until the test ends it. */
class Task {
  started = false;
  end: () => void = () => undefined;
  fail: (error: Error) => void = () => undefined;
  readonly #ended = new Promise<void>((resolve, reject) => {
    this.end = resolve;
    this.fail = reject;
  });

  readonly run = (): Promise<void> => {
    this.started = true;
    return this.#ended;
  };
}

/** Lets every promise settle that can settle without a timer. */
const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
};

describe('acquire and release', () => {
  test('a permit is granted at once while one is free, and the next task waits', async () => {
    const semaphore = new Semaphore({ permits: 2 });
    await semaphore.acquire();
    await semaphore.acquire();
    let granted = false;
    const third = semaphore.acquire().then(() => (granted = true));
    await settle();
    expect([semaphore.held, semaphore.waiting, granted]).toEqual([2, 1, false]);
    semaphore.release();
    await third;
    expect([semaphore.held, semaphore.waiting, granted]).toEqual([2, 0, true]);
  });

  test('a release passes the permit to the task that has waited longest', async () => {
    const semaphore = new Semaphore({ permits: 1 });
    await semaphore.acquire();
    const order: number[] = [];
    const waiting = [1, 2, 3].map((task) => semaphore.acquire().then(() => order.push(task)));
    for (const expected of [[1], [1, 2], [1, 2, 3]]) {
      semaphore.release();
      await settle();
      expect(order).toEqual(expected);
    }
    await Promise.all(waiting);
  });

  test('a permit that is passed on cannot be taken by a task that arrives at the same moment', async () => {
    const semaphore = new Semaphore({ permits: 1 });
    await semaphore.acquire();
    const order: string[] = [];
    void semaphore.acquire().then(() => order.push('waiting'));
    semaphore.release();
    void semaphore.acquire().then(() => order.push('late'));
    await settle();
    expect(order).toEqual(['waiting']);
    expect(semaphore.held).toBe(1);
  });

  test('a permit is free again after the last release', async () => {
    const semaphore = new Semaphore({ permits: 1 });
    await semaphore.acquire();
    semaphore.release();
    expect([semaphore.held, semaphore.waiting]).toEqual([0, 0]);
    await semaphore.acquire();
    expect(semaphore.held).toBe(1);
  });
});

describe('limits', () => {
  test('a task beyond waitingMax is refused as overloaded, and those before it still wait', async () => {
    const semaphore = new Semaphore({ permits: 1, waitingMax: 1, what: 'uploads' });
    await semaphore.acquire();
    const waiting = semaphore.acquire();
    await expect(semaphore.acquire()).rejects.toMatchObject({
      code: 'overloaded',
      message: '1 uploads are under way, and 1 wait',
    });
    semaphore.release();
    await waiting;
    expect([semaphore.held, semaphore.waiting]).toEqual([1, 0]);
  });

  test('a task that waits longer than waitMs is refused as overloaded and leaves the queue', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ permits: 1, waitMs: 5_000, what: 'uploads', clock });
    await semaphore.acquire();
    const waiting = semaphore.acquire();
    clock.advance(4_999);
    expect(semaphore.waiting).toBe(1);
    clock.advance(1);
    await expect(waiting).rejects.toMatchObject({
      code: 'overloaded',
      message: '1 uploads are under way, and none ended within 5 s',
    });
    expect(semaphore.waiting).toBe(0);
    semaphore.release();
    expect(semaphore.held).toBe(0);
  });

  test('a task that gets its permit in time is not refused later', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ permits: 1, waitMs: 5_000, clock });
    await semaphore.acquire();
    const waiting = semaphore.acquire();
    clock.advance(4_999);
    semaphore.release();
    await waiting;
    expect(clock.pending).toBe(0);
    clock.advance(10_000);
    expect([semaphore.held, semaphore.waiting]).toEqual([1, 0]);
  });

  test('property: no more tasks than permits run at a time, and every task runs', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.nat(4), { maxLength: 20 }),
        async (permits, durations) => {
          const semaphore = new Semaphore({ permits });
          let running = 0;
          let runningMax = 0;
          let ran = 0;
          await Promise.all(
            durations.map((turns) =>
              semaphore.run(async () => {
                running += 1;
                runningMax = Math.max(runningMax, running);
                for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
                running -= 1;
                ran += 1;
              }),
            ),
          );
          expect(runningMax).toBeLessThanOrEqual(permits);
          expect(ran).toBe(durations.length);
          expect([semaphore.held, semaphore.waiting]).toEqual([0, 0]);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('run and mutex', () => {
  test('run returns the result of the task and releases its permit, also after a failure', async () => {
    const semaphore = new Semaphore({ permits: 1 });
    await expect(semaphore.run(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    await expect(semaphore.run(() => Promise.resolve(7))).resolves.toBe(7);
    expect(semaphore.held).toBe(0);
  });

  test('tasks of a mutex run one after another, in order of arrival', async () => {
    const exclusively = mutex();
    const [first, second] = [new Task(), new Task()];
    const done = [exclusively(first.run), exclusively(second.run)];
    await settle();
    expect([first.started, second.started]).toEqual([true, false]);
    first.end();
    await settle();
    expect(second.started).toBe(true);
    second.end();
    await Promise.all(done);
  });
});

describe('forEachAtMost', () => {
  const tasks = (count: number): Task[] => Array.from({ length: count }, () => new Task());
  const startedOf = (all: readonly Task[]): boolean[] => all.map(({ started }) => started);

  test('starts items in order, and the next one as soon as one ends', async () => {
    const all = tasks(4);
    const done = forEachAtMost(2, all, (task) => task.run());
    await settle();
    expect(startedOf(all)).toEqual([true, true, false, false]);
    all[1]!.end();
    await settle();
    expect(startedOf(all)).toEqual([true, true, true, false]);
    for (const task of all) task.end();
    await done;
    expect(startedOf(all)).toEqual([true, true, true, true]);
  });

  test('starts no task after a failure, and throws the failure once the running tasks have ended', async () => {
    const all = tasks(4);
    let failure: unknown = null;
    const done = forEachAtMost(2, all, (task) => task.run()).catch((error: unknown) => {
      failure = error;
    });
    await settle();
    const broken = new Error('broken');
    all[0]!.fail(broken);
    await settle();
    expect(startedOf(all)).toEqual([true, true, false, false]);
    expect(failure).toBeNull();
    all[1]!.end();
    await done;
    expect(startedOf(all)).toEqual([true, true, false, false]);
    expect(failure).toBe(broken);
  });

  test('resolves at once without items', async () => {
    await expect(forEachAtMost(3, [], () => Promise.reject(new Error('never')))).resolves.toBeUndefined();
  });
});
