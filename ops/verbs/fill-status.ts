// `larder fill status [RUN]`: the runs and their progress, or one run by appliance.

import type { Command } from 'commander';
import { runList } from '../../protocol/answers.ts';
import { run, type Run } from '../../protocol/plan.ts';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { EXIT } from '../../runtime/process.ts';
import { createControlClient } from '../control-client.ts';
import { printNote, printResult, usageError } from '../output.ts';
import { followRun, printRunResult } from '../follow-run.ts';
import { formatInstant } from '../instant.ts';
import { withInterruptSignal } from '../interrupt.ts';
import { createProgress } from '../progress.ts';
import { formatRun, runTone } from '../run-table.ts';
import { formatTable } from '../table.ts';
import type { TerminalStyle } from '../terminal.ts';

const TABLE = {
  follow: option.flag({ doc: 'Watch the run until it ends' }),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder fill status
  larder fill status RUN --follow          exit status 1 if it fails
  larder fill status --json | jq '.runs[0].bytesDone'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('[run]', 'run (default: a list of them)'), TABLE, 'no file')
      .addHelpText('after', EXAMPLES)
      .action(show);
  },
};

async function show(id: string | undefined, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  const client = createControlClient(values);
  if (id === undefined) {
    if (values.follow) throw usageError('--follow needs the run: larder fill status RUN --follow');
    const answer = await client.fill('/v1/runs', runList);
    return printResult(values, answer, (style) => formatRuns(answer.runs, style));
  }
  if (!values.follow) {
    const shown = await client.fill(`/v1/runs/${encodeURIComponent(id)}`, run);
    return printResult(values, shown, (style) => formatRun(shown, style));
  }
  const ended = await withInterruptSignal((signal) => followRun(client, id, createProgress(), signal));
  if (ended === null) {
    printNote(`Run ${id} goes on. Watch it: larder fill status ${id} --follow`);
    process.exitCode = EXIT.interrupted;
    return;
  }
  printRunResult(values, ended);
}

function formatRuns(runs: readonly Run[], style: TerminalStyle): string {
  if (runs.length === 0) return 'No run yet. Start one with: larder fill run --now';
  return formatTable(
    runs,
    [
      { head: 'run', cell: (row) => row.id },
      { head: 'state', cell: (row) => row.state, tone: (row) => runTone(row.state) },
      { head: 'begun', cell: (row) => formatInstant(row.createdAt) },
      { head: 'by', cell: (row) => (row.trigger === 'now' ? 'hand' : 'window') },
      { head: 'site', cell: (row) => row.site ?? 'all' },
      { head: 'title', cell: (row) => row.title ?? 'all' },
      { head: 'verified', cell: (row) => formatBytes(row.bytesDone), align: 'right' },
      { head: 'of', cell: (row) => formatBytes(row.bytesTotal), align: 'right' },
    ],
    style,
  );
}
