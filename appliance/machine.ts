// What the machine lets a process have.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Files open at once; Node has raised it to the hard limit. Null where the system does not tell. */
export function filesMax(): number | null {
  try {
    const lines = readFileSync('/proc/self/limits', 'utf8').split('\n');
    const line = lines.find((text) => text.startsWith('Max open files'));
    const limit = Number(line?.split(/\s{2,}/)[1] ?? Number.NaN);
    return Number.isNaN(limit) ? null : limit;
  } catch {
    return null;
  }
}

/** Of the machine, or less where a control group says so. */
export function memoryBytes(): number {
  const constrained = process.constrainedMemory() ?? 0;
  return constrained > 0 ? Math.min(totalmem(), constrained) : totalmem();
}

/**
 * Bytes on their way lie outside the heap, but the collector counts them: by its own rule a few blocks make it go through all
 * of a small heap, which cost half the time of a miss. The heap may grow to six times first; short-lived buffers go long before.
 */
export function collectSeldom(): void {
  setFlagsFromString('--heap-growing-percent=500');
}

/**
 * V8 optimises a function after so many bytes of its code have run: by its own rule a miss, of which there are a few dozen a
 * second, runs for minutes in code that was compiled in haste. And a young heap of a mebibyte is gone through before other threads
 * have woken to help.
 */
export function optimiseEarly(): void {
  setFlagsFromString('--interrupt-budget=10000');
  setFlagsFromString('--no-parallel-scavenge');
}

/** For a process that was started without such a flag: its young heap stays as small as it is now, whatever crowd comes. */
export function stayYoung(): void {
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
