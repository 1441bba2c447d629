// `larder demo`: a whole CDN on this machine. With --check it runs unattended and checks what matters.

import type { Command } from 'commander';
import { addFlags, readFlags, type Verb } from '../../runtime/command.ts';
import { option } from '../../runtime/config.ts';
import { usageError } from '../output.ts';

const TABLE = {
  check: option.flag({ doc: 'Go through the journeys unattended, say what was measured, leave nothing running' }),
  port: option.optional(
    option.integer({ doc: 'Port of steering and the page (default: 8400, or any that is free)', min: 1, max: 65_535 }),
  ),
  keep: option.flag({ doc: 'Leave state and logs behind in the temporary directory' }),
  json: option.flag({ doc: 'With --check: print JSON alone on stdout' }),
} as const;

const EXAMPLES = `
Examples:
  larder demo                      then open the URL that it prints; Ctrl-C ends everything
  larder demo --port 9000
  larder demo --check              exit status 1 if a check fails
  larder demo --check --json | jq '.checks[] | select(.ok | not)'`;

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, TABLE, 'no file').addHelpText('after', EXAMPLES).action(start);
  },
};

async function start(_flags: unknown, command: Command): Promise<void> {
  const { check, port, keep, json } = readFlags(command, TABLE);
  if (json && !check) throw usageError('--json needs --check: the demo itself is for people');
  const status = check
    ? await (await import('../demo/run-checks.ts')).runChecks({ port, keep, json })
    : await (await import('../demo/run-demo.ts')).runDemo({ port, keep });
  // Requests that were under way at an interruption would keep this process alive until they time out.
  process.exit(status);
}
