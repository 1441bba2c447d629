// What a process tree takes of the machine, as Linux says it.

import { readdirSync, readFileSync } from 'node:fs';

export interface Usage {
  readonly cpuMs: number;
  /** What the tree keeps in memory: pages of one process alone, and once those that its processes share. */
  readonly residentBytes: number;
  readonly processes: number;
}

/** Of the process and all that descend from it. */
export function usageOf(root: number): Usage {
  const rows = tree(root);
  return {
    cpuMs: rows.reduce((sum, row) => sum + row.cpuMs, 0),
    residentBytes: residentBytesOf(rows.map(({ pid }) => pid)),
    processes: rows.length,
  };
}

/** Process ids of the tree. */
export const pidsOf = (root: number): number[] => tree(root).map(({ pid }) => pid);

interface Row {
  readonly pid: number;
  readonly parent: number;
  readonly cpuMs: number;
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

/** Shared are above all the pages of the program itself; the process that has most of them stands for all. */
function residentBytesOf(pids: readonly number[]): number {
  const rows = pids.map((pid) => {
    const text = textOf(`/proc/${pid}/smaps_rollup`);
    const sum = (name: string): number =>
      [...text.matchAll(new RegExp(`^${name}_(?:Clean|Dirty): +(\\d+) kB$`, 'gm'))].reduce(
        (bytes, [, kilobytes]) => bytes + Number(kilobytes) * 1_024,
        0,
      );
    return { own: sum('Private'), shared: sum('Shared') };
  });
  return rows.reduce((bytes, { own }) => bytes + own, 0) + Math.max(0, ...rows.map(({ shared }) => shared));
}

/** Empty where the process ended meanwhile. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
