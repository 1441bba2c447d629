// `larder appliance resume ID`: ends the drain of an appliance, so that it receives plays again.

import type { Command } from 'commander';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { setApplianceState } from '../appliance-state.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';

const EXAMPLES = `
Examples:
  larder appliance resume north-1`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<id>', 'appliance'), CLIENT_TABLE, 'no file')
      .addHelpText('after', EXAMPLES)
      .action(resume);
  },
};

async function resume(id: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  const appliance = await setApplianceState(createControlClient(values), id, {
    state: 'serving',
    at: null,
    forMs: null,
  });
  printResult(values, appliance, () =>
    appliance.liveness === 'alive'
      ? `${id} takes plays again.`
      : `${id} may take plays again, but it is not heard of at the moment; see: larder appliance show ${id}`,
  );
}
