// What the machine lets a process have.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';

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
