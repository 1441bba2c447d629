// `larder origin`: serves the files below a directory to appliances, for the demo and for tests.

import type { Command } from 'commander';
import { Fault } from '../../protocol/faults.ts';
import { addFlags, readFlags, type Verb } from '../../runtime/command.ts';
import { formatHostPort, option } from '../../runtime/config.ts';
import { createLog } from '../../runtime/log.ts';
import { untilStopped } from '../../runtime/process.ts';
import { createOrigin } from '../origin-server.ts';

const DRAIN_MS = 5_000;

const TABLE = {
  root: option.path({ doc: 'Directory whose files are served', placeholder: 'DIR' }),
  listen: option.hostPort({ doc: 'Address to listen on', fallback: '127.0.0.1:8600' }),
} as const;

const EXAMPLES = `
Examples:
  larder origin --root ./films
  larder origin --root ./films --listen 127.0.0.1:8600
  curl -s http://127.0.0.1:8600/-/stats         how often it was asked, and for how many bytes
  curl -s http://127.0.0.1:8600/-/stats?paths=1 the same by path`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(serve);
  },
};

async function serve(_flags: unknown, command: Command): Promise<void> {
  const { root, listen } = readFlags(command, TABLE);
  const log = createLog('origin');
  const stopped = untilStopped(log, DRAIN_MS);
  const server = await createOrigin(root).catch((error: unknown) => {
    throw new Fault('config_invalid', `--root is "${root}": ${(error as Error).message}`, { cause: error });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new Fault('config_invalid', `--listen is "${formatHostPort(listen)}": ${error.message}`, { cause: error }),
      ),
    );
    server.listen(listen.port, listen.host, resolve);
  });
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : listen.port;
  log.info({ listen: formatHostPort({ host: listen.host, port }), root }, 'listening');
  const signal = await stopped;
  log.info({ signal }, 'stopping');
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  await closed;
}
