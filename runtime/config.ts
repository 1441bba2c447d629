// Configuration: one table of options per role defines the flags, the YAML keys, the environment variables, the defaults, the error
// messages and the table in REFERENCE.md. Flags override the environment, which overrides the YAML file, which overrides the
// defaults. All problems are reported at once.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as Yaml from 'yaml';
import { Fault } from '../protocol/faults.ts';
import { parseDuration, parseRate, parseSize } from '../protocol/units.ts';

/** Loaded only if there is a file: the parser is a tenth of the memory of a process that runs without one. */
const yaml = (): typeof Yaml => createRequire(import.meta.url)('yaml') as typeof Yaml;

export interface Option<T> {
  /** Shown in help: `SIZE`, `H:P`, `DIR`. */
  readonly placeholder: string;
  readonly doc: string;
  /** The default as a person would write it. Without one the option is required, unless it is `optional` or a list. */
  readonly fallback: string | undefined;
  /** What help and docs print instead of a default that depends on the machine. */
  readonly shown: string | undefined;
  readonly optional: boolean;
  readonly list: boolean;
  readonly flag: boolean;
  /** Parses one value. Throws an Error whose message completes "… must be". */
  readonly parse: (text: string) => unknown;
  /** Carries the type of the resolved value; it is never set. */
  readonly value?: T;
}

export type Table = Readonly<Record<string, Option<unknown>>>;
export type Values<T extends Table> = { readonly [K in keyof T]: T[K] extends Option<infer V> ? V : never };

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

type Spec = { readonly doc: string; readonly fallback?: string; readonly shown?: string };

/** Constructors of options. `optional` and `list` wrap another option. */
export const option = {
  text: (spec: Spec & { placeholder?: string; pattern?: RegExp; must?: string }): Option<string> =>
    make(spec, spec.placeholder ?? 'TEXT', (text) => {
      if (spec.pattern !== undefined && !spec.pattern.test(text))
        throw new Error(spec.must ?? `text that matches ${spec.pattern.source}`);
      return text;
    }),
  id: (spec: Spec): Option<string> =>
    make(spec, 'ID', (text) => {
      if (!/^[a-z0-9][a-z0-9._-]{0,62}$/.test(text))
        throw new Error('1 to 63 of a-z 0-9 . _ - with a letter or digit first');
      return text;
    }),
  path: (spec: Spec & { placeholder?: string }): Option<string> =>
    make(spec, spec.placeholder ?? 'FILE', (text) => {
      if (text === '' || text.includes('\0')) throw new Error('a path');
      return text;
    }),
  url: (spec: Spec): Option<string> => make(spec, 'URL', parseUrl),
  hostPort: (spec: Spec): Option<HostPort> => make(spec, 'H:P', parseHostPort),
  size: (spec: Spec): Option<number> =>
    make(spec, 'SIZE', (text) => required(parseSize(text), 'a size such as 500MB or 10GiB')),
  duration: (spec: Spec): Option<number> =>
    make(spec, 'TIME', (text) => required(parseDuration(text), 'a duration such as 250ms, 30s or 4h')),
  rate: (spec: Spec): Option<number> =>
    make(spec, 'RATE', (text) => required(parseRate(text), 'a rate such as 400Mb/s or 1.2Gb/s')),
  number: (spec: Spec & { min: number; max: number; placeholder?: string }): Option<number> =>
    make(spec, spec.placeholder ?? 'N', (text) => {
      const value = Number(text);
      if (text.trim() === '' || !Number.isFinite(value) || value < spec.min || value > spec.max)
        throw new Error(`a number from ${spec.min} to ${spec.max}`);
      return value;
    }),
  integer: (spec: Spec & { min: number; max: number; placeholder?: string }): Option<number> =>
    make(spec, spec.placeholder ?? 'N', (text) => {
      if (!/^-?\d{1,15}$/.test(text) || Number(text) < spec.min || Number(text) > spec.max)
        throw new Error(`a whole number from ${spec.min} to ${spec.max}`);
      return Number(text);
    }),
  /** A switch without a value on the command line; `true` or `false` in YAML and environment. */
  flag: (spec: { doc: string }): Option<boolean> => ({
    ...make<boolean>({ ...spec, fallback: 'false' }, '', (text) => {
      if (text !== 'true' && text !== 'false') throw new Error('true or false');
      return text === 'true';
    }),
    flag: true,
  }),
  /** A value of another type. `parse` throws an Error whose message completes "must be". */
  custom: <T>(spec: Spec & { placeholder: string; parse: (text: string) => T }): Option<T> =>
    make(spec, spec.placeholder, spec.parse),
  optional: <T>(inner: Option<T>): Option<T | null> => ({ ...inner, optional: true }),
  /** A flag that may be repeated, a list in YAML, separated by commas in the environment. */
  list: <T>(inner: Option<T>): Option<readonly T[]> => ({ ...inner, list: true }) as unknown as Option<readonly T[]>,
} as const;

export interface ConfigSources {
  /** Path of a YAML file, or null. */
  readonly file: string | null;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Command-line values by option key. */
  readonly flags: Readonly<Record<string, string | readonly string[] | boolean | undefined>>;
}

/** Throws `config_invalid` that lists every problem: where the option was set, its value, and what it must be. */
export function resolveConfig<T extends Table>(table: T, sources: ConfigSources): Values<T> {
  const problems: string[] = [];
  const file = readYaml(sources.file, table, problems);
  const values: Record<string, unknown> = {};
  for (const [key, spec] of Object.entries(table)) {
    const setting = findSetting(key, spec, sources, file);
    if (setting === null) {
      if (spec.list) values[key] = [];
      else if (spec.optional) values[key] = null;
      else problems.push(`${flagName(key)} is required: ${spec.doc}`);
      continue;
    }
    const parsed: unknown[] = [];
    for (const text of setting.texts) {
      try {
        parsed.push(spec.parse(text));
      } catch (error) {
        problems.push(`${setting.source} is "${text}", but must be ${(error as Error).message}`);
      }
    }
    values[key] = spec.list ? parsed : parsed[0];
  }
  if (problems.length > 0) {
    throw new Fault(
      'config_invalid',
      `${problems.length === 1 ? 'a setting is' : `${problems.length} settings are`} wrong:\n  ${problems.join('\n  ')}`,
    );
  }
  return values as Values<T>;
}

export const flagName = (key: string): string => `--${kebab(key)}`;
export const envName = (key: string): string => `LARDER_${kebab(key).replaceAll('-', '_').toUpperCase()}`;
export const kebab = (key: string): string => key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

interface FoundSetting {
  readonly source: string;
  readonly texts: readonly string[];
}

function findSetting(
  key: string,
  spec: Option<unknown>,
  sources: ConfigSources,
  file: Readonly<Record<string, unknown>>,
): FoundSetting | null {
  const flag = sources.flags[key];
  if (flag !== undefined)
    return { source: flagName(key), texts: Array.isArray(flag) ? flag.map(String) : [String(flag)] };
  const env = sources.env[envName(key)];
  if (env !== undefined && env !== '') return { source: envName(key), texts: spec.list ? splitList(env) : [env] };
  const inFile = file[kebab(key)];
  if (inFile !== undefined && inFile !== null) {
    return {
      source: `${kebab(key)} in ${sources.file}`,
      texts: [inFile].flat().map((value) => String(value as string | number | boolean)),
    };
  }
  if (spec.fallback === undefined) return null;
  return { source: `the default of ${flagName(key)}`, texts: spec.list ? splitList(spec.fallback) : [spec.fallback] };
}

function readYaml(path: string | null, table: Table, problems: string[]): Record<string, unknown> {
  if (path === null) return {};
  let document: unknown;
  try {
    document = yaml().parse(readFileSync(path, 'utf8'), { maxAliasCount: 10 }) ?? {};
  } catch (error) {
    problems.push(`${path}: ${(error as Error).message.split('\n')[0]}`);
    return {};
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    problems.push(`${path} must be a YAML mapping of settings`);
    return {};
  }
  const names = new Map(Object.entries(table).map(([key, spec]) => [kebab(key), spec]));
  const settings: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(document)) {
    const spec = names.get(name);
    if (spec === undefined)
      problems.push(`${path}: "${name}" is not a setting; known are ${[...names.keys()].join(', ')}`);
    else if (Array.isArray(value) ? !spec.list || value.some(isObject) : isObject(value))
      problems.push(`${path}: ${name} must be ${spec.list ? 'a list' : 'one value'}`);
    else settings[name] = value;
  }
  return settings;
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null;

const splitList = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

function make<T>(spec: Spec, placeholder: string, parse: (text: string) => unknown): Option<T> {
  const { doc, fallback, shown } = spec;
  return { placeholder, doc, fallback, shown, optional: false, list: false, flag: false, parse };
}

function required(value: number | null, must: string): number {
  if (value === null) throw new Error(must);
  return value;
}

/** Removes a trailing slash, so that a path can be appended. */
function parseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (
    url === null ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.search !== '' ||
    url.hash !== '' ||
    url.username !== ''
  ) {
    throw new Error('an http:// or https:// URL without query, fragment or user');
  }
  return url.href.replace(/\/+$/, '');
}

function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]\s]*)):(\d{1,5})$/.exec(text);
  const port = match === null ? Number.NaN : Number(match[3]);
  if (match === null || !(port >= 0 && port <= 65_535))
    throw new Error('host:port, such as 127.0.0.1:8080, [::1]:8080 or :8080');
  return { host: match[1] ?? (match[2] === '' ? '::' : match[2]!), port };
}

export const formatHostPort = (at: HostPort): string =>
  `${at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port}`;
