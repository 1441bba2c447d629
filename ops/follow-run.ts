// Following a fill run to its end: the run first, then each appliance under it. Used by `fill run`, `fill status` and the
// demo.

import { Fault } from '../protocol/faults.ts';
import { run, type Run } from '../protocol/plan.ts';
import { formatBytes, formatDuration } from '../protocol/units.ts';
import { describeError, exitCodeOf } from '../runtime/process.ts';
import { poll, remark, say, type Services } from './ask.ts';
import { formatInstant } from './instant.ts';
import { RateMeter, type Progress, type ProgressRow } from './progress.ts';
import { formatTable } from './table.ts';
import type { Look, Tone } from './terminal.ts';

const LOOK_MS = 250;

/** Null where the signal came before the end. */
export async function followRun(
  services: Services,
  id: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<Run | null> {
  const meter = new RateMeter();
  try {
    return await poll(
      async () => {
        const now = await services.fill(`/v1/runs/${encodeURIComponent(id)}`, run);
        progress.show(rowsOf(now, meter.note(performance.now(), now.bytesDone)));
        return now.state === 'running' ? null : now;
      },
      { everyMs: LOOK_MS, signal },
    );
  } finally {
    progress.stop();
  }
}

function rowsOf(now: Run, bytesPerSecond: number | null): ProgressRow[] {
  const total: ProgressRow = {
    name: 'fill',
    done: now.bytesDone,
    total: now.bytesTotal,
    bytesPerSecond,
    ...noteOf(now),
  };
  const parts = now.appliances.map((part) => ({
    name: part.appliance,
    done: part.bytesDone,
    total: part.bytesTotal,
    bytesPerSecond: part.bytesPerSecond,
    ...(part.state === 'filling' ? {} : { note: part.state }),
  }));
  return [total, ...parts];
}

/** None where rate and time left say more. */
function noteOf(now: Run): { note?: string } {
  if (now.state !== 'running') return { note: now.state };
  if (now.appliances.length > 0 && now.appliances.every((part) => part.state === 'waiting')) return { note: 'waiting' };
  return now.bytesTotal === 0 ? { note: 'nothing to fetch' } : {};
}

export function runSummary(ended: Run): string {
  const tookMs = ended.endedAt === null ? null : Date.parse(ended.endedAt) - Date.parse(ended.createdAt);
  const fetched = ended.appliances.reduce((sum, part) => sum + part.bytesDone - part.bytesResumed, 0);
  const appliances = `${ended.appliances.length} appliance${ended.appliances.length === 1 ? '' : 's'}`;
  const words = { running: 'is running', done: 'is done', failed: 'failed', closed: 'ended with its window' };
  return `Run ${ended.id} ${words[ended.state]}: ${formatBytes(fetched)} fetched and verified on ${appliances}${tookMs === null ? '' : ` in ${formatDuration(tookMs)}`}.`;
}

export function formatRun(shown: Run, look: Look): string {
  const scope = [shown.site === null ? 'every site' : `site ${shown.site}`, shown.title ?? 'every title'].join(', ');
  const head = `${runSummary(shown)}\n${scope}; begun ${formatInstant(shown.createdAt)} ${shown.trigger === 'now' ? 'by hand' : 'for the window'}`;
  if (shown.appliances.length === 0) return `${head}\nNo appliance has taken part yet.`;
  const table = formatTable(
    shown.appliances,
    [
      { head: 'appliance', cell: (row) => row.appliance },
      { head: 'state', cell: (row) => row.state, tone: (row) => toneOf(row.state) },
      { head: 'renditions', cell: (row) => `${row.renditionsDone} of ${row.renditionsTotal}`, align: 'right' },
      { head: 'verified', cell: (row) => formatBytes(row.bytesDone), align: 'right' },
      { head: 'of', cell: (row) => formatBytes(row.bytesTotal), align: 'right' },
      { head: 'resumed', cell: (row) => formatBytes(row.bytesResumed), align: 'right' },
      { head: 'faults', cell: (row) => String(row.faults.length), align: 'right' },
    ],
    look,
  );
  const faults = faultLines(shown);
  return [head, '', table, ...(faults.length === 0 ? [] : ['', ...faults])].join('\n');
}

/** The run is the answer, also where it failed: one document on stdout; the fault is for people and the exit status. */
export function sayRun(values: { readonly json: boolean }, ended: Run): void {
  say(values, ended, (look) => formatRun(ended, look));
  const fault = faultOf(ended);
  if (fault === null) return;
  remark(describeError(fault));
  process.exitCode = exitCodeOf(fault);
}

/** Throws for a run that did not do what it was asked. */
export function assertRunWell(ended: Run): void {
  const fault = faultOf(ended);
  if (fault !== null) throw fault;
}

/** A closed window is no failure: the next one resumes. */
function faultOf(ended: Run): Fault | null {
  if (ended.state !== 'failed') return null;
  const faults = faultLines(ended);
  return new Fault(
    'state_conflict',
    `run ${ended.id} failed${faults.length === 0 ? '' : `:\n  ${faults.join('\n  ')}`}`,
    { help: 'What is verified is kept; try again with: larder fill run --now' },
  );
}

const FAULT_LINES_MAX = 10;

function faultLines(shown: Run): string[] {
  const all = shown.appliances.flatMap((part) =>
    part.faults.map((fault) => `${part.appliance}: ${fault.asset}: ${fault.message}`),
  );
  return all.length <= FAULT_LINES_MAX
    ? all
    : [...all.slice(0, FAULT_LINES_MAX), `… and ${all.length - FAULT_LINES_MAX} more (--json has all)`];
}

export function toneOf(state: string): Tone {
  if (state === 'failed') return 'bad';
  return state === 'done' ? 'good' : 'plain';
}
