// `larder catalog ls`: every title of the catalog.

import type { Command } from 'commander';
import { titleList } from '../../protocol/answers.ts';
import { formatBytes, formatDuration } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatTable } from '../table.ts';

const EXAMPLES = `
Examples:
  larder catalog ls
  larder catalog ls --json | jq -r '.titles[].id'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, CLIENT_TABLE, 'no file').addHelpText('after', EXAMPLES).action(list);
  },
};

async function list(_flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  const answer = await createControlClient(values).fill('/v1/titles', titleList);
  printResult(values, answer, (style) =>
    answer.titles.length === 0
      ? 'The catalog is empty. Import a title with: larder catalog import URL'
      : formatTable(
          answer.titles,
          [
            { head: 'title', cell: (row) => row.id },
            { head: 'name', cell: (row) => row.name },
            { head: 'as', cell: (row) => row.dialects.join(' ') },
            { head: 'runs', cell: (row) => formatDuration(row.durationS * 1000), align: 'right' },
            { head: 'renditions', cell: (row) => String(row.renditions), align: 'right' },
            { head: 'assets', cell: (row) => String(row.assets), align: 'right' },
            { head: 'size', cell: (row) => formatBytes(row.bytes), align: 'right' },
          ],
          style,
        ),
  );
}
