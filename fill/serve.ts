// `larder fill serve`: runs the fill service until SIGTERM or Ctrl-C.

import type { Command } from 'commander';
import { addFlags, readFlags, type Verb } from '../runtime/command.ts';
import { createLog } from '../runtime/log.ts';
import { dieOnDefect, ignoreReload, untilStopped } from '../runtime/process.ts';
import { FILL_TABLE } from './config.ts';

const EXAMPLES = `
Examples:
  larder fill serve --origin http://127.0.0.1:8600
  larder fill serve -c fill.yaml --state /var/lib/larder/fill --half-life 7d`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, FILL_TABLE, 'file').addHelpText('after', EXAMPLES).action(serve);
  },
};

async function serve(_flags: unknown, command: Command): Promise<void> {
  const config = readFlags(command, FILL_TABLE);
  const log = createLog('fill');
  dieOnDefect(log);
  ignoreReload(log);
  const { startFill } = await import('./main.ts');
  const fill = await startFill(config, log);
  await untilStopped(log, config.drainTimeout);
  await fill.close();
  log.info('stopped');
}
