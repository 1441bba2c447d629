// Whether a child lives, and that it does not outlive its parent. What can die can also hang: a child beats from its event loop, and the
// supervisor kills one that was ready and does not beat any more. When the supervisor dies the kernel kills its children, also those
// that are stopped and would not notice.

import type { Clock } from '../runtime/clock.ts';
import { sendToParent } from '../runtime/process.ts';
import type { ToSupervisor } from './ipc.ts';

export const BEAT_MS = 250;
/** Beats in a row that may fail to come: two seconds. */
const MISSED_MAX = 8;

const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;

/** To be called by each child as soon as it can. */
export function beat(clock: Clock): void {
  clock.setInterval(() => sendToParent({ kind: 'beat' } satisfies ToSupervisor), BEAT_MS).unref();
}

/**
 * To be called by each child, once it has time to load a library. Elsewhere than on Linux, or without it, a child that is stopped when its parent
 * dies lives until it is continued.
 */
export async function dieWithParent(): Promise<void> {
  if (process.platform !== 'linux') return;
  try {
    const { default: koffi } = await import('koffi');
    koffi.load(null).func('int prctl(int option, unsigned long value)')(PR_SET_PDEATHSIG, SIGKILL);
  } catch {
    // `followParent` still notices.
  }
}

/**
 * The beats of one child, counted and not timed: a supervisor that was stopped itself, or had no CPU, finds what was sent meanwhile before it
 * counts again.
 */
export class Pulse {
  #missed = 0;

  onBeat(): void {
    this.#missed = 0;
  }

  /** To be called once per `BEAT_MS`. True when the child is taken for hung. */
  tick(): boolean {
    this.#missed += 1;
    return this.#missed > MISSED_MAX;
  }
}
