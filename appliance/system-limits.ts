// Limits that the system sets to this process.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';

/** Maximum number of open files, which Node has raised to the hard limit. Null if the system does not say. */
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

/** Memory of the machine, or of the control group if that has less. */
export function memoryBytes(): number {
  const constrained = process.constrainedMemory() ?? 0;
  return constrained > 0 ? Math.min(totalmem(), constrained) : totalmem();
}
