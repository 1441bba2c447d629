// `larder appliance drain ID`: stops sending new plays to an appliance, for a while or until it is resumed. Running plays continue.

import type { Command } from 'commander';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { setApplianceState } from '../appliance-state.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatInstant, parseUpcomingInstant } from '../instant.ts';

const TABLE = {
  for: option.optional(option.duration({ doc: 'Resume by itself after this long' })),
  at: option.optional(
    option.custom<number>({
      doc: "Begin then: 02:00 by this machine's clock, or 2026-03-01T02:00+01:00",
      placeholder: 'TIME',
      parse: parseUpcomingInstant,
    }),
  ),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder appliance drain north-1                         until it is resumed
  larder appliance drain north-1 --for 4h
  larder appliance drain north-1 --at 02:00 --for 90m    tonight, for an hour and a half`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<id>', 'appliance'), TABLE, 'no file').addHelpText('after', EXAMPLES).action(drain);
  },
};

async function drain(id: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  const at = values.at === null ? null : new Date(values.at).toISOString();
  const appliance = await setApplianceState(createControlClient(values), id, {
    state: 'draining',
    at,
    forMs: values.for,
  });
  const until = appliance.draining?.until ?? null;
  printResult(values, appliance, () =>
    [
      at === null ? `${id} takes no new plays` : `${id} will take no new plays from ${formatInstant(at)}`,
      until === null
        ? 'until it is resumed; running plays go on.'
        : `until ${formatInstant(until)}; running plays go on.`,
      `Undo: larder appliance resume ${id}`,
    ].join('\n'),
  );
}
