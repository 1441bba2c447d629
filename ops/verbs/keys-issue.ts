// `larder keys issue`: derives a token from the fleet key of steering and fill and prints it. Nothing is sent.

import type { Command } from 'commander';
import { defaultFleetKeyFile, issueToken, readFleetKey, type Caller } from '../../runtime/auth.ts';
import { addFlags, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { printResult, usageError } from '../output.ts';

const TABLE = {
  appliance: option.optional(option.id({ doc: 'A token that speaks for this appliance alone' })),
  operator: option.flag({ doc: 'A token that may do everything' }),
  fleetKey: option.path({ doc: 'File of the fleet key', fallback: defaultFleetKeyFile() }),
  json: option.flag({ doc: 'Print JSON alone on stdout' }),
} as const;

const EXAMPLES = `
Examples:
  larder keys issue --appliance north-1 > north-1.token
  export LARDER_TOKEN=$(larder keys issue --operator)
  larder appliance ls --steering https://steering.example`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(issue);
  },
};

async function issue(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  if ((values.appliance !== null) === values.operator)
    throw usageError('say for whom: either --appliance ID or --operator');
  const key = readFleetKey(values.fleetKey);
  if (key === null)
    throw usageError(
      `there is no fleet key at ${values.fleetKey}; steering and fill make it at their first start, or name it with --fleet-key FILE`,
    );
  const caller: Caller =
    values.appliance === null ? { role: 'operator', id: 'operator' } : { role: 'appliance', id: values.appliance };
  const token = issueToken(key, caller);
  printResult(values, { ...caller, token }, () => token);
}
