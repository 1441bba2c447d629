// How a verb becomes a command: flags from its configuration table, values resolved once, `--json` alone on stdout,
// exit codes as the product promises. Loaded by verbs only; a serving worker never sees commander.

import type { Command } from 'commander';
import { Option as CommanderOption } from 'commander';
import { defaultFleetKeyFile, issueToken, readFleetKey } from './auth.ts';
import { kebab, option, resolveConfig, type Table, type Values } from './config.ts';

/** What a verb's module exports: it adds its flags and its action to the command that bears its name. */
export interface Verb {
  build(command: Command): void;
}

/** Adds a flag per row of the table, and `-c, --config FILE` where the role reads a file. */
export function addFlags(command: Command, table: Table, withFile: 'file' | 'no file'): Command {
  if (withFile === 'file')
    command.option('-c, --config <FILE>', 'YAML file of settings, named as the flags without --');
  for (const [key, spec] of Object.entries(table)) {
    const doc =
      spec.fallback === undefined || spec.flag ? spec.doc : `${spec.doc} (default: ${spec.shown ?? spec.fallback})`;
    const flags = spec.flag ? `--${kebab(key)}` : `--${kebab(key)} <${spec.placeholder}>`;
    const commanderOption = new CommanderOption(flags, doc);
    if (spec.list)
      commanderOption.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
    command.addOption(commanderOption);
  }
  return command;
}

/** Defaults < file < environment < flags. Throws `config_invalid` with every problem. */
export function readFlags<T extends Table>(command: Command, table: T): Values<T> {
  const flags = command.opts<Record<string, string | string[] | boolean | undefined>>();
  const file = flags['config'] ?? process.env['LARDER_CONFIG'] ?? null;
  return resolveConfig(table, { file: file === null ? null : String(file), env: process.env, flags });
}

/** What every verb that asks a service takes. */
export const CLIENT_TABLE = {
  steering: option.url({ doc: 'Base URL of steering', fallback: 'http://127.0.0.1:8400' }),
  fill: option.url({ doc: 'Base URL of fill', fallback: 'http://127.0.0.1:8500' }),
  token: option.optional(
    option.text({ doc: 'Operator token; by default made from the fleet key file', placeholder: 'TOKEN' }),
  ),
  fleetKey: option.path({ doc: 'File of the fleet key', fallback: defaultFleetKeyFile() }),
  json: option.flag({ doc: 'Print JSON alone on stdout' }),
} as const;

/** The operator's token: as given, or made from the fleet key where this machine has it; null lets the service refuse. */
export function operatorToken(values: { readonly token: string | null; readonly fleetKey: string }): string | null {
  if (values.token !== null) return values.token;
  const key = readFleetKey(values.fleetKey);
  return key === null ? null : issueToken(key, { role: 'operator', id: 'operator' });
}
