// `larder appliance check`: runs the turn-up checks on this machine and prints each failure with its remedy.

import type { Command } from 'commander';
import { addFlags, readFlags, type Verb } from '../runtime/command.ts';
import { option } from '../runtime/config.ts';
import { EXIT } from '../runtime/process.ts';
import { CHECKS, runChecks, type CheckResult } from './turn-up-checks.ts';
import { APPLIANCE_TABLE } from './config.ts';

const CHECK_TABLE = { ...APPLIANCE_TABLE, json: option.flag({ doc: 'Print JSON alone on stdout' }) } as const;

const NAMES = CHECKS.map((check) => check.name);

export const verb: Verb = {
  build(command: Command): void {
    addFlags(command, CHECK_TABLE, 'file').addHelpText(
      'after',
      `
Takes the settings of "appliance run" and checks, in this order:
  ${NAMES.slice(0, 5).join(', ')},
  ${NAMES.slice(5).join(', ')}

Examples:
  $ larder appliance check -c /etc/larder/appliance.yaml
  $ larder appliance check --origin http://origin.example --store /disk1 --store-bytes 20TB --json`,
    );
    command.action(async () => {
      const config = readFlags(command, CHECK_TABLE);
      const results = await runChecks(config);
      process.stdout.write(
        config.json ? `${JSON.stringify({ ok: allPassed(results), checks: results }, null, 2)}\n` : render(results),
      );
      process.exitCode = allPassed(results) ? EXIT.done : EXIT.failed;
    });
  },
};

const allPassed = (results: readonly CheckResult[]): boolean => results.every((result) => result.outcome !== 'failed');

const MARKS = { passed: '✓', failed: '✗', skipped: '–' } as const;

function render(results: readonly CheckResult[]): string {
  const width = Math.max(...results.map((result) => result.name.length));
  const lines = results.flatMap((result) => [
    `${MARKS[result.outcome]} ${result.name.padEnd(width)}  ${result.detail}`,
    ...(result.remedy === null ? [] : [`  ${''.padEnd(width)}  → ${result.remedy}`]),
  ]);
  const failed = results.filter((result) => result.outcome === 'failed').length;
  const verdict = failed === 0 ? 'This appliance is ready.' : `${failed} of ${results.length} checks failed.`;
  return `${lines.join('\n')}\n\n${verdict}\n`;
}
