// Turns a verb into a commander command: flags from its configuration table, with their values resolved from every source. Loaded
// by verbs only, so that serving workers do not load commander.

import type { Command } from 'commander';
import { Option as CommanderOption } from 'commander';
import { defaultFleetKeyFile, issueToken, readFleetKey } from './auth.ts';
import { kebab, option, resolveConfig, type Table, type Values } from './config.ts';

/** The export of a verb's module. It adds flags and an action to the command of that name. */
export interface Verb {
  build(command: Command): void;
}

/** Adds one flag per option of the table, and `-c, --config FILE` if the role reads a configuration file. */
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

/** Resolves the options of a verb from flags, environment, file and defaults. Throws `config_invalid` with every problem. */
export function readFlags<T extends Table>(command: Command, table: T): Values<T> {
  const flags = command.opts<Record<string, string | string[] | boolean | undefined>>();
  const file = flags['config'] ?? process.env['LARDER_CONFIG'] ?? null;
  return resolveConfig(table, { file: file === null ? null : String(file), env: process.env, flags });
}

/** Options of every verb that calls a service. */
export const CLIENT_TABLE = {
  steering: option.url({ doc: 'Base URL of steering', fallback: 'http://127.0.0.1:8400' }),
  fill: option.url({ doc: 'Base URL of fill', fallback: 'http://127.0.0.1:8500' }),
  token: option.optional(
    option.text({ doc: 'Operator token; by default made from the fleet key file', placeholder: 'TOKEN' }),
  ),
  fleetKey: option.path({ doc: 'File of the fleet key', fallback: defaultFleetKeyFile() }),
  json: option.flag({ doc: 'Print JSON alone on stdout' }),
} as const;

/** The operator token: as given, or derived from the fleet key. Null if neither exists, and then the service refuses the call. */
export function operatorToken(values: { readonly token: string | null; readonly fleetKey: string }): string | null {
  if (values.token !== null) return values.token;
  const key = readFleetKey(values.fleetKey);
  return key === null ? null : issueToken(key, { role: 'operator', id: 'operator' });
}
