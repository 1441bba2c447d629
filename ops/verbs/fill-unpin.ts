// `larder fill unpin TITLE`: popularity decides again whether a title is held.

import type { Command } from 'commander';
import { z } from 'zod';
import { addFlags, CLIENT_TABLE, readFlags, type Verb } from '../../runtime/command.ts';
import { createControlClient } from '../control-client.ts';
import { printResult } from '../output.ts';

const EXAMPLES = `
Examples:
  larder fill unpin harbor`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command.argument('<title>', 'title'), CLIENT_TABLE, 'no file').addHelpText('after', EXAMPLES).action(run);
  },
};

async function run(title: string, _flags: unknown, command: Command): Promise<void> {
  const values = readFlags(command, CLIENT_TABLE);
  await createControlClient(values).fill(`/v1/pins/${encodeURIComponent(title)}`, z.unknown(), { method: 'DELETE' });
  printResult(
    values,
    { title, pinned: false },
    () => `${title} is no longer pinned; the next run lets popularity decide.`,
  );
}
