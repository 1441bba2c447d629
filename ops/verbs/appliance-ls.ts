// `larder appliance ls`: the fleet as steering sees it, one row per appliance.

import type { Command } from 'commander';
import { fleet } from '../../protocol/decision.ts';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { displayState, stateTone } from '../appliance-state.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatTable } from '../table.ts';

const EXAMPLES = `
Examples:
  larder appliance ls
  larder appliance ls --json | jq -r '.appliances[] | select(.liveness != "alive") | .id'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, CLIENT_TABLE, 'no file').addHelpText('after', EXAMPLES).action(list);
  },
};

async function list(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  const answer = await createControlClient(values).steering('/v1/fleet', fleet);
  const nowMs = Date.parse(answer.at);
  printResult(values, answer, (style) =>
    answer.appliances.length === 0
      ? 'No appliance has reported yet. One joins with: larder appliance run --steering URL …'
      : formatTable(
          answer.appliances,
          [
            { head: 'appliance', cell: (row) => row.id },
            { head: 'site', cell: (row) => row.site },
            { head: 'state', cell: (row) => displayState(row, nowMs), tone: (row) => stateTone(row, nowMs) },
            { head: 'health', cell: (row) => row.health.level },
            { head: 'holds', cell: (row) => String(row.holdings), align: 'right' },
            { head: 'used', cell: (row) => formatBytes(row.usedBytes), align: 'right' },
            { head: 'of', cell: (row) => formatBytes(row.storeBytes), align: 'right' },
            { head: 'clients', cell: (row) => String(row.connections), align: 'right' },
            { head: 'served', cell: (row) => formatBytes(row.servedBytes), align: 'right' },
          ],
          style,
        ),
  );
}
