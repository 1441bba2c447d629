// `larder fill pin TITLE`: keep a title on every site, whatever its popularity.

import type { Command } from 'commander';
import { pin } from '../../protocol/answers.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { say, servicesOf } from '../ask.ts';
import { formatInstant, instantFlag } from '../instant.ts';

const TABLE = {
  until: option.optional(
    option.custom<number>({ doc: 'Unpin by itself then: 2026-03-01', placeholder: 'DATE', parse: instantFlag }),
  ),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder fill pin harbor
  larder fill pin harbor --until 2026-03-01`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<title>', 'title'), TABLE, 'no file').addHelpText('after', EXAMPLES).action(run);
  },
};

async function run(title: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  const until = values.until === null ? null : new Date(values.until).toISOString();
  const done = await servicesOf(values).fill(`/v1/pins/${encodeURIComponent(title)}`, pin, {
    method: 'PUT',
    body: { until },
  });
  say(values, done, () =>
    [
      `${title} is pinned ${done.until === null ? 'until it is unpinned' : `until ${formatInstant(done.until)}`}.`,
      'The next run brings it to every site.',
      `Now:  larder fill run --now --title ${title}`,
      `Undo: larder fill unpin ${title}`,
    ].join('\n'),
  );
}
