// `larder appliance show ID`: one appliance in full, with its inventory.

import type { Command } from 'commander';
import type { FleetAppliance } from '../../protocol/decision.ts';
import { splitHolding } from '../../protocol/ids.ts';
import { formatBytes, formatDuration, formatRate } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { displayState, findAppliance, stateTone } from '../appliance-state.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatInstant } from '../instant.ts';
import { formatFields } from '../table.ts';
import { paint, type TerminalStyle } from '../terminal.ts';

const EXAMPLES = `
Examples:
  larder appliance show north-1
  larder appliance show north-1 --json | jq -r '.inventory[]'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<id>', 'appliance'), CLIENT_TABLE, 'no file')
      .addHelpText('after', EXAMPLES)
      .action(show);
  },
};

async function show(id: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  const { appliance, at } = await findAppliance(createControlClient(values), id);
  printResult(values, appliance, (style) => describe(appliance, Date.parse(at), style));
}

function describe(row: FleetAppliance, nowMs: number, style: TerminalStyle): string {
  const leaseMs = Date.parse(row.leaseEndsAt) - nowMs;
  const fields: [string, string][] = [
    [
      'site',
      `${row.site}, ${row.timeZone}${row.position === null ? '' : `, ${row.position.lat}, ${row.position.lon}`}`,
    ],
    ['reached at', row.advertise.join(' ')],
    [
      'health',
      row.health.causes.length === 0 ? row.health.level : `${row.health.level}: ${row.health.causes.join('; ')}`,
    ],
    [
      'lease',
      leaseMs > 0 ? `ends in ${formatDuration(leaseMs)} unless renewed` : `ended ${formatDuration(-leaseMs)} ago`,
    ],
    ['store', `${formatBytes(row.usedBytes)} used of ${formatBytes(row.storeBytes)}`],
    ['pinned', `${formatBytes(row.pinnedBytes)} of the ${formatBytes(row.planBytes)} that a plan may pin`],
    ['clients', `${row.connections} of at most ${row.connectionsMax}`],
    ['served', `${formatBytes(row.servedBytes)} in ${row.servedRequests} answers since it started`],
    [
      'fill window',
      row.fillWindows.length === 0
        ? 'none: only with --now'
        : row.fillWindows.map((window) => `${window.start}–${window.end}`).join(', '),
    ],
    ['fill rate', row.fillRateBitsPerSecond === null ? 'uncapped' : `at most ${formatRate(row.fillRateBitsPerSecond)}`],
    ['version', row.version],
    ['holds', holdingsByTitle(row.inventory ?? [])],
  ];
  const heading = `${paint(style, 'strong', row.id)}  ${paint(style, stateTone(row, nowMs), displayState(row, nowMs))}${drainNote(row, nowMs)}`;
  return `${heading}\n${formatFields(fields, style)}`;
}

function drainNote({ draining }: FleetAppliance, nowMs: number): string {
  if (draining === null) return '';
  const until = draining.until === null ? 'until it is resumed' : `until ${formatInstant(draining.until)}`;
  return Date.parse(draining.since) <= nowMs ? ` ${until}` : `; drains from ${formatInstant(draining.since)} ${until}`;
}

function holdingsByTitle(inventory: readonly string[]): string {
  const byTitle = new Map<string, string[]>();
  for (const holding of inventory) {
    const { title, rendition } = splitHolding(holding);
    byTitle.set(title, [...(byTitle.get(title) ?? []), rendition]);
  }
  if (byTitle.size === 0) return 'nothing whole yet';
  return [...byTitle].map(([title, renditions]) => `${title}: ${renditions.join(' ')}`).join('\n');
}
