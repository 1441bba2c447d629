// `larder steer explain`: where a client would be sent for a title, and why, appliance by appliance.

import type { Command } from 'commander';
import { explanation, type Explanation } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../runtime/command.ts';
import { option } from '../runtime/config.ts';
import { isIP } from 'node:net';
import { say, servicesOf } from './ask.ts';
import { instantFlag } from './instant.ts';
import { formatTable } from './table.ts';
import { paint, type Look } from './terminal.ts';

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
    option.custom<number>({ doc: 'As it was then (default: now)', placeholder: 'TIME', parse: instantFlag }),
  ),
  ...CLIENT_TABLE,
} as const;

/** An answer for another minute is no answer to the question. */
const NEAR_MS = 60_000;

const EXAMPLES = `
Examples:
  larder steer explain --client 192.0.2.7 --title harbor
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
  const answer = await servicesOf(values).steering(`/v1/explain?${query.toString()}`, explanation);
  if (values.at !== null && Math.abs(Date.parse(answer.at) - values.at) > NEAR_MS)
    throw new Fault(
      'state_conflict',
      `steering keeps no record of that time: it answered for ${answer.at}; leave --at out`,
    );
  say(values, answer, (look) => describe(answer, look));
}

function describe(answer: Explanation, look: Look): string {
  const pathways = answer.pathways.map((pathway, at) => ({ ...pathway, rank: at + 1 }));
  const chosen = formatTable(
    pathways,
    [
      { head: '', cell: (row) => String(row.rank), align: 'right' },
      { head: 'pathway', cell: (row) => row.id, tone: () => 'strong' },
      { head: 'site', cell: (row) => row.site ?? '' },
      { head: 'holds', cell: (row) => share(row.held), align: 'right' },
      { head: 'why', cell: (row) => row.reason },
    ],
    look,
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
            { head: 'holds', cell: (row) => share(row.held), align: 'right' },
            { head: 'km', cell: (row) => (row.distanceKm === null ? '' : row.distanceKm.toFixed(0)), align: 'right' },
            { head: 'why not', cell: (row) => row.reason },
          ],
          look,
        )}`;
  return `${paint(look, 'strong', answer.client.address)} ${footing(answer)}, asks for ${paint(look, 'strong', answer.title)}\n\n${chosen}${left}`;
}

function footing({ client }: Explanation): string {
  const site = client.site ?? 'no site';
  return {
    prefix: `belongs to ${client.prefix}, site ${site}`,
    position: `is in no prefix; nearest by position is site ${site}`,
    default: `is in no prefix; the default is site ${site}`,
    none: 'is in no prefix and there is no default site',
  }[client.by];
}

export const share = (held: number): string => (held === 0 ? '0 %' : `${Math.max(1, Math.floor(held * 100))} %`);
