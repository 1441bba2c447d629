// `larder fill pin TITLE`: keeps a title on every site, regardless of its popularity.

import type { Command } from 'commander';
import { pin } from '../../protocol/answers.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatInstant, parseUpcomingInstant } from '../instant.ts';

const TABLE = {
  until: option.optional(
    option.custom<number>({
      doc: 'Unpin by itself then: 2026-03-01',
      placeholder: 'DATE',
      parse: parseUpcomingInstant,
    }),
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
  const pinned = await createControlClient(values).fill(`/v1/pins/${encodeURIComponent(title)}`, pin, {
    method: 'PUT',
    body: { until },
  });
  printResult(values, pinned, () =>
    [
      `${title} is pinned ${pinned.until === null ? 'until it is unpinned' : `until ${formatInstant(pinned.until)}`}.`,
      'The next run brings it to every site.',
      `Now:  larder fill run --now --title ${title}`,
      `Undo: larder fill unpin ${title}`,
    ].join('\n'),
  );
}
