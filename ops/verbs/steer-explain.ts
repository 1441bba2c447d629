// `larder steer explain`: the decision for a client and a title, now or at a past instant, with the reason for each appliance.

import type { Command } from 'commander';
import { explanation, type Explanation } from '../../protocol/decision.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { isIP } from 'node:net';
import { createControlClient } from '../control-client.ts';
import { printResult, usageError } from '../output.ts';
import { parsePastInstant } from '../instant.ts';
import { formatTable } from '../table.ts';
import { paint, type TerminalStyle } from '../terminal.ts';

const TABLE = {
  client: option.custom<string>({
    doc: "The viewer's address",
    placeholder: 'IP',
    parse: (text) => {
      if (isIP(text) === 0) throw new Error('an IPv4 or IPv6 address');
      return text;
    },
  }),
  title: option.id({ doc: 'Title that is asked for' }),
  at: option.optional(
    option.custom<number>({ doc: 'As it was then (default: now)', placeholder: 'TIME', parse: parsePastInstant }),
  ),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder steer explain --client 192.0.2.7 --title harbor
  larder steer explain --client 192.0.2.7 --title harbor --at 21:40
  larder steer explain --client 192.0.2.7 --title harbor --at 2026-03-01T21:40:07Z
  larder steer explain --client 2001:db8::7 --title harbor --json | jq '.pathways[].id'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(explain);
  },
};

async function explain(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  const query = new URLSearchParams({ client: values.client, title: values.title });
  if (values.at !== null) query.set('at', new Date(values.at).toISOString());
  const answer = await createControlClient(values)
    .steering(`/v1/explain?${query.toString()}`, explanation)
    .catch((error: unknown) => {
      // A time in the future is an error of the command line.
      throw isFault(error) && error.detail['field'] === 'query.at' && error.code === 'request_malformed'
        ? usageError(error.message)
        : error;
    });
  // Versions of steering without a history ignore `at` and explain the present.
  if (values.at !== null && Date.parse(answer.at) !== values.at)
    throw new Fault(
      'peer_invalid',
      `steering answered for ${answer.at}: it is of a version that cannot tell of the past`,
    );
  printResult(values, answer, (style) => describe(answer, values.at === null ? 'now' : 'then', style));
}

function describe(answer: Explanation, when: 'now' | 'then', style: TerminalStyle): string {
  const then = when === 'now' ? '' : `as it was at ${formatSecond(answer.at)}: `;
  const pathways = answer.pathways.map((pathway, at) => ({ ...pathway, rank: at + 1 }));
  const chosen = formatTable(
    pathways,
    [
      { head: '', cell: (row) => String(row.rank), align: 'right' },
      { head: 'pathway', cell: (row) => row.id, tone: () => 'strong' },
      { head: 'site', cell: (row) => row.site ?? '' },
      { head: 'holds', cell: (row) => formatShare(row.held), align: 'right' },
      { head: 'why', cell: (row) => row.reason },
    ],
    style,
  );
  const others = answer.considered.filter((row) => row.outcome !== 'chosen');
  const left =
    others.length === 0
      ? ''
      : `\n\n${formatTable(
          others,
          [
            { head: 'not sent to', cell: (row) => row.appliance },
            { head: 'site', cell: (row) => row.site },
            { head: 'holds', cell: (row) => formatShare(row.held), align: 'right' },
            { head: 'km', cell: (row) => (row.distanceKm === null ? '' : row.distanceKm.toFixed(0)), align: 'right' },
            { head: 'why not', cell: (row) => row.reason },
          ],
          style,
        )}`;
  return `${then}${paint(style, 'strong', answer.client.address)} ${describeLocation(answer)}, asks for ${paint(style, 'strong', answer.title)}\n\n${chosen}${left}`;
}

const formatSecond = (iso: string): string => `${iso.slice(0, 19).replace('T', ' ')} UTC`;

function describeLocation({ client }: Explanation): string {
  const site = client.site ?? 'no site';
  return {
    prefix: `belongs to ${client.prefix}, site ${site}`,
    position: `is in no prefix; nearest by position is site ${site}`,
    default: `is in no prefix; the default is site ${site}`,
    none: 'is in no prefix and there is no default site',
  }[client.by];
}

const formatShare = (held: number): string => (held === 0 ? '0 %' : `${Math.max(1, Math.floor(held * 100))} %`);
