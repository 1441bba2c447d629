// The processes of an appliance: measurements from /proc, and pauses.

import { readFileSync } from 'node:fs';
import { systemClock } from '../../runtime/clock.ts';

/** Long enough for others to be served meanwhile, and to evict or purge what the stopped process knows. */
const PAUSE_MS = 300;

/** Resident bytes of these processes together. */
export function residentBytes(pids: readonly number[]): number {
  return pids.reduce(
    (sum, pid) => sum + Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024,
    0,
  );
}

/** Stops a process and lets it go on. One that is being replaced has no id, and 0 would be this process and all around it. */
export async function pause(pid: number | undefined): Promise<void> {
  if (pid === undefined || pid <= 0) return;
  try {
    process.kill(pid, 'SIGSTOP');
    await systemClock.sleep(PAUSE_MS);
    process.kill(pid, 'SIGCONT');
  } catch {
    // It has just been replaced.
  }
}
