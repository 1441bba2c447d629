// Follows a fill run to its end with progress bars: the run first, then each appliance. Used by `fill run`, `fill status` and
// the demo.

import { Fault } from '../protocol/faults.ts';
import { run, type Run } from '../protocol/plan.ts';
import { systemClock } from '../runtime/clock.ts';
import { describeError, exitCodeOf } from '../runtime/process.ts';
import type { ControlClient } from './control-client.ts';
import { printNote, printResult } from './output.ts';
import { poll } from './poll.ts';
import { RateMeter, type Progress, type ProgressRow } from './progress.ts';
import { formatRun, formatRunFaults } from './run-table.ts';

const POLL_MS = 250;

/** Resolves to the run once it has ended, or to null once `signal` aborts. */
export async function followRun(
  client: ControlClient,
  id: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<Run | null> {
  const meter = new RateMeter();
  try {
    return await poll(
      async () => {
        const current = await client.fill(`/v1/runs/${encodeURIComponent(id)}`, run);
        progress.show(progressRows(current, meter.record(systemClock.monotonic(), current.bytesDone)));
        return current.state === 'running' ? null : current;
      },
      { everyMs: POLL_MS, signal },
    );
  } finally {
    progress.stop();
  }
}

function progressRows(current: Run, bytesPerSecond: number | null): ProgressRow[] {
  const total: ProgressRow = {
    name: 'fill',
    done: current.bytesDone,
    total: current.bytesTotal,
    bytesPerSecond,
    ...progressNote(current),
  };
  const appliances = current.appliances.map((part) => ({
    name: part.appliance,
    done: part.bytesDone,
    total: part.bytesTotal,
    bytesPerSecond: part.bytesPerSecond,
    ...(part.state === 'filling' ? {} : { note: part.state }),
  }));
  return [total, ...appliances];
}

/** Replaces rate and time left where there are none to show. */
function progressNote({ state, appliances, bytesTotal }: Run): { note?: string } {
  if (state !== 'running') return { note: state };
  if (appliances.length > 0 && appliances.every((part) => part.state === 'waiting')) return { note: 'waiting' };
  return bytesTotal === 0 ? { note: 'nothing to fetch' } : {};
}

/** Prints an ended run. The run is the result even if it failed: the fault goes to stderr and sets the exit status. */
export function printRunResult(settings: { readonly json: boolean }, ended: Run): void {
  printResult(settings, ended, (style) => formatRun(ended, style));
  const fault = runFault(ended);
  if (fault === null) return;
  printNote(describeError(fault));
  process.exitCode = exitCodeOf(fault);
}

/** Throws if the run failed. */
export function assertRunSucceeded(ended: Run): void {
  const fault = runFault(ended);
  if (fault !== null) throw fault;
}

/** A run that its window closed has not failed: the run of the next window resumes it. */
function runFault(ended: Run): Fault | null {
  if (ended.state !== 'failed') return null;
  const faults = formatRunFaults(ended);
  return new Fault(
    'state_conflict',
    `run ${ended.id} failed${faults.length === 0 ? '' : `:\n  ${faults.join('\n  ')}`}`,
    { help: 'What is verified is kept; try again with: larder fill run --now' },
  );
}
