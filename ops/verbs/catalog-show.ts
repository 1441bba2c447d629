// `larder catalog show TITLE`: one title with its renditions. A rendition is the unit that is filled and held.

import type { Command } from 'commander';
import { title, type Rendition, type Title } from '../../protocol/catalog.ts';
import { formatBytes, formatDuration, formatRate } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';
import { formatInstant } from '../instant.ts';
import { formatFields, formatTable } from '../table.ts';
import { paint, type TerminalStyle } from '../terminal.ts';

const EXAMPLES = `
Examples:
  larder catalog show harbor
  larder catalog show harbor --json | jq '.renditions[].id'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<title>', 'title'), CLIENT_TABLE, 'no file').addHelpText('after', EXAMPLES).action(show);
  },
};

async function show(id: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  const shown = await createControlClient(values).fill(`/v1/titles/${encodeURIComponent(id)}`, title);
  printResult(values, shown, (style) => describe(shown, style));
}

function describe(shown: Title, style: TerminalStyle): string {
  const fields = formatFields(
    [
      ['runs', formatDuration(shown.durationS * 1000)],
      ['size', formatBytes(shown.bytes)],
      ['manifests', shown.manifests.map((manifest) => `${manifest.dialect} ${manifest.path}`).join('\n')],
      ['imported', `${formatInstant(shown.importedAt)}, revision ${shown.revision}`],
    ],
    style,
  );
  const renditions = formatTable(
    shown.renditions,
    [
      { head: 'rendition', cell: (row) => row.id },
      { head: 'kind', cell: (row) => row.kind },
      { head: 'picture', cell: picture },
      { head: 'language', cell: (row) => row.language ?? '' },
      { head: 'rate', cell: (row) => (row.bandwidth === null ? '' : formatRate(row.bandwidth)), align: 'right' },
      { head: 'assets', cell: (row) => String(row.assets), align: 'right' },
      { head: 'size', cell: (row) => formatBytes(row.bytes), align: 'right' },
    ],
    style,
  );
  return `${paint(style, 'strong', shown.id)}  ${shown.name}\n${fields}\n\n${renditions}`;
}

const picture = (row: Rendition): string =>
  row.width === null || row.height === null ? '' : `${row.width}×${row.height}`;
