// V8 flags of the processes of an appliance, each with the measurement that justifies it.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Buffers in flight lie outside the heap, but the collector counts them: by default a few blocks cause a full collection of a
 * small heap, which took half the time of a miss. With this flag the heap may grow to six times its size first; short-lived
 * buffers are freed long before.
 */
export function growHeapBeforeCollecting(): void {
  setFlagsFromString('--heap-growing-percent=500');
}

/** For the supervisor, which is started without `--max-semi-space-size`: keeps its young generation at its present size under load. */
export function capYoungGeneration(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}

/** Collects garbage now that V8 would otherwise keep until it needs the memory. */
export function collectNow(): void {
  collect ??= exposeGc();
  collect();
}

let collect: (() => void) | null = null;

/** Only a context created after the flag was set has `gc`. */
function exposeGc(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}
