// `larder appliance ls`: the fleet as steering knows it, one line per appliance.

import type { Command } from 'commander';
import { fleet, type FleetAppliance } from '../../protocol/decision.ts';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { say, servicesOf } from '../ask.ts';
import { formatTable } from '../table.ts';
import type { Tone } from '../terminal.ts';

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
  const answer = await servicesOf(values).steering('/v1/fleet', fleet);
  const nowMs = Date.parse(answer.at);
  say(values, answer, (look) =>
    answer.appliances.length === 0
      ? 'No appliance has reported yet. One joins with: larder appliance run --steering URL …'
      : formatTable(
          answer.appliances,
          [
            { head: 'appliance', cell: (row) => row.id },
            { head: 'site', cell: (row) => row.site },
            { head: 'state', cell: (row) => stateOf(row, nowMs), tone: (row) => toneOf(row, nowMs) },
            { head: 'health', cell: (row) => row.health.level },
            { head: 'holds', cell: (row) => String(row.holdings), align: 'right' },
            { head: 'used', cell: (row) => formatBytes(row.usedBytes), align: 'right' },
            { head: 'of', cell: (row) => formatBytes(row.storeBytes), align: 'right' },
            { head: 'clients', cell: (row) => String(row.connections), align: 'right' },
            { head: 'served', cell: (row) => formatBytes(row.servedBytes), align: 'right' },
          ],
          look,
        ),
  );
}

/** What an operator needs first: whether players are sent there, and if not, why. */
export function stateOf(row: FleetAppliance, nowMs: number): string {
  if (row.liveness === 'refused') return 'gone';
  if (row.liveness === 'expired') return 'silent';
  return drainsAt(row, nowMs) ? 'draining' : row.state;
}

export function toneOf(row: FleetAppliance, nowMs: number): Tone {
  if (row.liveness !== 'alive' || row.health.level === 'red') return 'bad';
  if (drainsAt(row, nowMs) || row.health.level === 'yellow') return 'warn';
  return row.state === 'serving' || row.state === 'filling' ? 'good' : 'warn';
}

/** A drain may be ordered for later; until then the appliance is given plays. */
const drainsAt = ({ draining }: FleetAppliance, nowMs: number): boolean =>
  draining !== null && Date.parse(draining.since) <= nowMs;
