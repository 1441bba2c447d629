// What a process tree takes of the machine, as Linux says it.

import { readdirSync, readFileSync } from 'node:fs';

const PAGE_BYTES = 4_096;

export interface Usage {
  readonly cpuMs: number;
  /** Resident bytes, the sum over processes: pages that they share count in each. */
  readonly residentBytes: number;
  readonly processes: number;
}

/** Of the process and all that descend from it. */
export function usageOf(root: number): Usage {
  const rows = tree(root);
  return {
    cpuMs: rows.reduce((sum, row) => sum + row.cpuMs, 0),
    residentBytes: rows.reduce((sum, row) => sum + row.residentBytes, 0),
    processes: rows.length,
  };
}

/** Process ids of the tree. */
export const pidsOf = (root: number): number[] => tree(root).map(({ pid }) => pid);

interface Row {
  readonly pid: number;
  readonly parent: number;
  readonly cpuMs: number;
  readonly residentBytes: number;
}

function tree(root: number): Row[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => rowOf(Number(name)) ?? []);
  const found = all.filter(({ pid }) => pid === root);
  for (const row of found) found.push(...all.filter(({ parent }) => parent === row.pid));
  return found;
}

/** Null where it ended meanwhile. */
function rowOf(pid: number): Row | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may hold anything; fields are counted after it, from the third.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const field = (number: number): number => Number(fields[number - 3]);
    return {
      pid,
      parent: field(4),
      cpuMs: cpuMsOf(pid),
      residentBytes: field(24) * PAGE_BYTES,
    };
  } catch {
    return null;
  }
}

/** Of all threads, in nanoseconds as the scheduler counts them: the ticks of `stat` are too coarse for a second. */
function cpuMsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => {
    const [onCpuNs] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ');
    return sum + Number(onCpuNs) / 1e6;
  }, 0);
}
