// A fill run as text: its summary in one line, the table of its appliances, and their faults.

import type { Run } from '../protocol/plan.ts';
import { formatBytes, formatDuration } from '../protocol/units.ts';
import { formatInstant } from './instant.ts';
import { formatTable } from './table.ts';
import type { TerminalStyle, Tone } from './terminal.ts';

const FAULT_LINES_MAX = 10;

export function formatRun(shown: Run, style: TerminalStyle): string {
  const scope = [shown.site === null ? 'every site' : `site ${shown.site}`, shown.title ?? 'every title'].join(', ');
  const trigger = shown.trigger === 'now' ? 'by hand' : 'for the window';
  const head = `${summarizeRun(shown)}\n${scope}; begun ${formatInstant(shown.createdAt)} ${trigger}`;
  if (shown.appliances.length === 0) return `${head}\nNo appliance has taken part yet.`;
  const table = formatTable(
    shown.appliances,
    [
      { head: 'appliance', cell: (row) => row.appliance },
      { head: 'state', cell: (row) => row.state, tone: (row) => runTone(row.state) },
      { head: 'renditions', cell: (row) => `${row.renditionsDone} of ${row.renditionsTotal}`, align: 'right' },
      { head: 'verified', cell: (row) => formatBytes(row.bytesDone), align: 'right' },
      { head: 'of', cell: (row) => formatBytes(row.bytesTotal), align: 'right' },
      { head: 'resumed', cell: (row) => formatBytes(row.bytesResumed), align: 'right' },
      { head: 'faults', cell: (row) => String(row.faults.length), align: 'right' },
    ],
    style,
  );
  const faults = formatRunFaults(shown);
  return [head, '', table, ...(faults.length === 0 ? [] : ['', ...faults])].join('\n');
}

export function summarizeRun(shown: Run): string {
  const tookMs = shown.endedAt === null ? null : Date.parse(shown.endedAt) - Date.parse(shown.createdAt);
  const fetched = shown.appliances.reduce((sum, part) => sum + part.bytesDone - part.bytesResumed, 0);
  const appliances = `${shown.appliances.length} appliance${shown.appliances.length === 1 ? '' : 's'}`;
  const states = { running: 'is running', done: 'is done', failed: 'failed', closed: 'ended with its window' };
  return `Run ${shown.id} ${states[shown.state]}: ${formatBytes(fetched)} fetched and verified on ${appliances}${tookMs === null ? '' : ` in ${formatDuration(tookMs)}`}.`;
}

/** One line per fault, up to a maximum. */
export function formatRunFaults(shown: Run): string[] {
  const all = shown.appliances.flatMap((part) =>
    part.faults.map((fault) => `${part.appliance}: ${fault.asset}: ${fault.message}`),
  );
  return all.length <= FAULT_LINES_MAX
    ? all
    : [...all.slice(0, FAULT_LINES_MAX), `… and ${all.length - FAULT_LINES_MAX} more (--json has all)`];
}

export function runTone(state: string): Tone {
  if (state === 'failed') return 'bad';
  return state === 'done' ? 'good' : 'plain';
}
