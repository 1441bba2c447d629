// Process groups: sending a signal to one, and finding out whether any process of it still runs. A group outlives its leader
// while a worker is left.

import { readdirSync, readFileSync } from 'node:fs';
import { systemClock } from '../../runtime/clock.ts';

const POLL_MS = 10;

/** False if the group no longer exists. */
export function signalGroup(group: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-group, signal);
    return true;
  } catch (error) {
    // macOS reports EPERM for a group that holds nothing but zombies.
    if (['ESRCH', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

/** Zombies do not count: they hold no port, and if the demo is process 1 of a container nothing reaps orphans. */
export function isGroupAlive(group: number): boolean {
  if (!signalGroup(group, 0)) return false;
  let pids: string[];
  try {
    pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return true;
  }
  return pids.some((pid) => {
    const stat = readStat(pid);
    return stat !== null && stat.group === group && stat.state !== 'Z' && stat.state !== 'X';
  });
}

/** Polls until no process of the group runs. Resolves to false if one still does after `timeoutMs`. */
export async function waitForGroupExit(group: number, timeoutMs: number): Promise<boolean> {
  const deadlineMs = systemClock.monotonic() + timeoutMs;
  while (isGroupAlive(group)) {
    if (systemClock.monotonic() > deadlineMs) return false;
    await systemClock.sleep(POLL_MS);
  }
  return true;
}

/** proc_pid_stat(5): `pid (comm) state ppid pgrp …`, where comm may contain spaces and parentheses. */
function readStat(pid: string): { readonly state: string; readonly group: number } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [state = '', , group = ''] = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { state, group: Number(group) };
  } catch {
    return null;
  }
}
