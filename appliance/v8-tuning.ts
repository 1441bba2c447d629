// V8 flags of the processes of an appliance, each with the measurement that it earns its place by.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Bytes on their way lie outside the heap, but the collector counts them: by its own rule a few blocks make it go through all
 * of a small heap, which cost half the time of a miss. The heap may grow to six times first; short-lived buffers go long before.
 */
export function growHeapBeforeCollecting(): void {
  setFlagsFromString('--heap-growing-percent=500');
}

/**
 * V8 optimises a function after so many bytes of its code have run: by its own rule a miss, of which there are a few dozen a
 * second, runs for minutes in code that was compiled in haste. And a young heap of a mebibyte is gone through before other threads
 * have woken to help.
 */
export function optimizeEarly(): void {
  setFlagsFromString('--interrupt-budget=10000');
  setFlagsFromString('--no-parallel-scavenge');
}

/** For a process that was started without such a flag: its young heap stays as small as it is now, whatever crowd comes. */
export function capYoungGeneration(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}

/** Collects what is left of things that a process had many of, and that V8 would leave lying until it needs the room. */
export function collectNow(): void {
  collect ??= exposed();
  collect();
}

let collect: (() => void) | null = null;

/** Only a context made after the flag was set has the collector in it. */
function exposed(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}
