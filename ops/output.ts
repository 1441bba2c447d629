// What a verb prints: its result once on stdout, as JSON or as text for this terminal, and notes for people on stderr.

import { Fault } from '../protocol/faults.ts';
import { terminalStyle, type TerminalStyle } from './terminal.ts';

/** Prints the result of a verb: JSON alone with `--json`, otherwise text laid out for this terminal. */
export function printResult(
  settings: { readonly json: boolean },
  data: unknown,
  format: (style: TerminalStyle) => string,
): void {
  process.stdout.write(
    settings.json ? `${JSON.stringify(data, null, 2)}\n` : `${format(terminalStyle(process.stdout, process.env))}\n`,
  );
}

/** Prints a line for people to stderr, so that stdout holds the result alone. */
export function printNote(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** A usage error of a verb, which ends with exit status 2. */
export const usageError = (message: string): Fault => new Fault('config_invalid', message);
