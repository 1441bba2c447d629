// `larder appliance resume ID`: send an appliance plays again.

import type { Command } from 'commander';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { orderState } from './appliance-order.ts';
import { say, servicesOf } from '../ask.ts';

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
  const appliance = await orderState(servicesOf(values), id, { state: 'serving', at: null, forMs: null });
  say(values, appliance, () =>
    appliance.liveness === 'alive'
      ? `${id} takes plays again.`
      : `${id} may take plays again, but it is not heard of at the moment; see: larder appliance show ${id}`,
  );
}
