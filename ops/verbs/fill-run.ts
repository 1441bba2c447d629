// `larder fill run`: starts a fill now, or as soon as the window of each site opens, and follows it.

import type { Command } from 'commander';
import { run } from '../../protocol/plan.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { EXIT } from '../../runtime/process.ts';
import { createControlClient } from '../control-client.ts';
import { printNote, printResult, usageError } from '../output.ts';
import { followRun, printRunResult } from '../follow-run.ts';
import { withInterruptSignal } from '../interrupt.ts';
import { createProgress } from '../progress.ts';

const TABLE = {
  now: option.flag({ doc: 'Fill now, outside the windows too' }),
  wait: option.flag({ doc: 'Fill when the window of each site opens' }),
  site: option.optional(option.id({ doc: 'Only appliances of this site' })),
  title: option.optional(option.id({ doc: 'Only this title, whatever its popularity' })),
  detach: option.flag({ doc: 'Start the run and do not watch it' }),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder fill run --now
  larder fill run --now --site north --title harbor
  larder fill run --wait --detach          tonight; look with: larder fill status

Ctrl-C stops watching, not the run.`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(start);
  },
};

async function start(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  if (values.now === values.wait)
    throw usageError('say when: either --now, or --wait for the fill windows of the sites');
  const client = createControlClient(values);
  const started = await client.fill('/v1/runs', run, {
    method: 'POST',
    body: { site: values.site, title: values.title, now: values.now },
  });
  if (values.detach)
    return printResult(
      values,
      started,
      () => `Run ${started.id} began. Watch it: larder fill status ${started.id} --follow`,
    );
  const ended = await withInterruptSignal((signal) => followRun(client, started.id, createProgress(), signal));
  if (ended === null) {
    printNote(`Run ${started.id} goes on. Watch it: larder fill status ${started.id} --follow`);
    process.exitCode = EXIT.interrupted;
    return;
  }
  printRunResult(values, ended);
}
