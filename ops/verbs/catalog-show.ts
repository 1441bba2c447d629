// `larder catalog show TITLE`: one title with its renditions, the units of fill and holding.

import type { Command } from 'commander';
import { title, type Rendition, type Title } from '../../protocol/catalog.ts';
import { formatBytes, formatDuration, formatRate } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { say, servicesOf } from '../ask.ts';
import { formatInstant } from '../instant.ts';
import { formatFacts, formatTable } from '../table.ts';
import { paint, type Look } from '../terminal.ts';

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
  const found = await servicesOf(values).fill(`/v1/titles/${encodeURIComponent(id)}`, title);
  say(values, found, (look) => describe(found, look));
}

function describe(found: Title, look: Look): string {
  const facts = formatFacts(
    [
      ['runs', formatDuration(found.durationS * 1000)],
      ['size', formatBytes(found.bytes)],
      ['manifests', found.manifests.map((manifest) => `${manifest.dialect} ${manifest.path}`).join('\n')],
      ['imported', `${formatInstant(found.importedAt)}, revision ${found.revision}`],
    ],
    look,
  );
  const renditions = formatTable(
    found.renditions,
    [
      { head: 'rendition', cell: (row) => row.id },
      { head: 'kind', cell: (row) => row.kind },
      { head: 'picture', cell: picture },
      { head: 'language', cell: (row) => row.language ?? '' },
      { head: 'rate', cell: (row) => (row.bandwidth === null ? '' : formatRate(row.bandwidth)), align: 'right' },
      { head: 'assets', cell: (row) => String(row.assets), align: 'right' },
      { head: 'size', cell: (row) => formatBytes(row.bytes), align: 'right' },
    ],
    look,
  );
  return `${paint(look, 'strong', found.id)}  ${found.name}\n${facts}\n\n${renditions}`;
}

const picture = (row: Rendition): string =>
  row.width === null || row.height === null ? '' : `${row.width}×${row.height}`;
