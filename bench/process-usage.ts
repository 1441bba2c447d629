// CPU time and memory of a process tree, from /proc.

import { readdirSync, readFileSync } from 'node:fs';

interface ResourceUsage {
  readonly cpuMs: number;
  /** Private pages of every process, plus the pages that they share, counted once. */
  readonly residentBytes: number;
  readonly processes: number;
}

/** The usage of a process and its descendants. */
export function processTreeUsage(root: number): ResourceUsage {
  const rows = readProcessTree(root);
  return {
    cpuMs: rows.reduce((sum, row) => sum + row.cpuMs, 0),
    residentBytes: readResidentBytes(rows.map(({ pid }) => pid)),
    processes: rows.length,
  };
}

/** The process ids of a process and its descendants. */
export const processTreePids = (root: number): number[] => readProcessTree(root).map(({ pid }) => pid);

/** CPU time of the kernel threads that write dirty pages and journals to disk. */
export function writebackCpuMs(): number {
  return processIds()
    .filter((pid) => /^(kworker|jbd2|xfsaild|btrfs)/.test(readIfRunning(`/proc/${pid}/comm`)))
    .reduce((sum, pid) => sum + readCpuMs(pid), 0);
}

interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  readonly cpuMs: number;
}

function readProcessTree(root: number): ProcessEntry[] {
  const all = processIds().flatMap((pid) => readProcess(pid) ?? []);
  const found = all.filter(({ pid }) => pid === root);
  for (const row of found) found.push(...all.filter(({ parent }) => parent === row.pid));
  return found;
}

const processIds = (): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);

/** Null if the process has ended meanwhile. */
function readProcess(pid: number): ProcessEntry | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name in parentheses may contain anything, so fields are counted after it, beginning with the third.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const field = (number: number): number => Number(fields[number - 3]);
    return {
      pid,
      parent: field(4),
      cpuMs: readCpuMs(pid),
    };
  } catch {
    return null;
  }
}

/** CPU time of all threads, from the scheduler's nanoseconds: the ticks of `stat` are too coarse for runs of a second. */
function readCpuMs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => {
    const [onCpuNs] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ');
    return sum + Number(onCpuNs) / 1e6;
  }, 0);
}

/** Shared pages are mostly those of the program itself. They are counted once, for the process that has most of them. */
function readResidentBytes(pids: readonly number[]): number {
  const rows = pids.map((pid) => {
    const text = readIfRunning(`/proc/${pid}/smaps_rollup`);
    const sum = (name: string): number =>
      [...text.matchAll(new RegExp(`^${name}_(?:Clean|Dirty): +(\\d+) kB$`, 'gm'))].reduce(
        (bytes, [, kilobytes]) => bytes + Number(kilobytes) * 1_024,
        0,
      );
    return { own: sum('Private'), shared: sum('Shared') };
  });
  return rows.reduce((bytes, { own }) => bytes + own, 0) + Math.max(0, ...rows.map(({ shared }) => shared));
}

/** Empty if the process has ended meanwhile. */
function readIfRunning(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
