// Measurements of the processes of an appliance, from /proc.

import { readFileSync } from 'node:fs';

/** Resident bytes of these processes together. */
export function residentBytes(pids: readonly number[]): number {
  return pids.reduce(
    (sum, pid) => sum + Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024,
    0,
  );
}
