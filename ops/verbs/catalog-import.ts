// `larder catalog import URL`: fill reads a manifest at the origin, lists every asset that it references and computes their digests.

import type { Command } from 'commander';
import { formatBytes } from '../../protocol/units.ts';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { EXIT } from '../../runtime/process.ts';
import { createControlClient } from '../control-client.ts';
import { importTitle } from '../follow-import.ts';
import { printNote, printResult, usageError } from '../output.ts';
import { createProgress } from '../progress.ts';
import { withInterruptSignal } from '../interrupt.ts';

const TABLE = {
  title: option.optional(option.id({ doc: 'Id of the title (default: from the URL)' })),
  ...CLIENT_TABLE,
} as const;

const EXAMPLES = `
Examples:
  larder catalog import http://127.0.0.1:8600/harbor/master.m3u8
  larder catalog import http://127.0.0.1:8600/harbor/manifest.mpd --title harbor

The second is another manifest of the same files: it joins the title.`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(
      command.argument('<url>', 'HLS multivariant playlist (.m3u8) or DASH MPD (.mpd) at the origin'),
      TABLE,
      'no file',
    )
      .addHelpText('after', EXAMPLES)
      .action(run);
  },
};

async function run(url: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, TABLE);
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw usageError(`URL is "${url}", but must be an http:// or https:// URL of a manifest`);
  const imported = await withInterruptSignal((signal) =>
    importTitle(createControlClient(values), { url, title: values.title }, createProgress(), signal),
  );
  if (imported === null) {
    printNote('Interrupted; fill goes on with the import. See it with: larder catalog ls');
    process.exitCode = EXIT.interrupted;
    return;
  }
  printResult(
    values,
    imported,
    () => `Imported ${imported.title}: ${imported.assetsTotal} assets, ${formatBytes(imported.bytesTotal)}.`,
  );
}
