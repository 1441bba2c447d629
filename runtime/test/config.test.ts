// The sources of a setting and their order, and the messages for settings that are wrong.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { envName, flagName, option, resolveConfig, type ConfigSources } from '../config.ts';

const TABLE = {
  storeBytes: option.size({ doc: 'Bytes of the store', fallback: '1GB' }),
  origin: option.url({ doc: 'Base URL of the origin' }),
  store: option.list(option.path({ doc: 'Directories' })),
  beat: option.duration({ doc: 'Time between beats', fallback: '3s' }),
  listen: option.hostPort({ doc: 'Address', fallback: ':8080' }),
  fill: option.optional(option.url({ doc: 'Base URL of fill' })),
  verbose: option.flag({ doc: 'Say more' }),
  workers: option.integer({ doc: 'Processes', fallback: '2', min: 1, max: 64 }),
} as const;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'larder-config-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function yaml(text: string): string {
  const path = join(directory, 'role.yaml');
  writeFileSync(path, text);
  return path;
}

const resolve = (sources: Partial<ConfigSources>): ReturnType<typeof resolveConfig<typeof TABLE>> =>
  resolveConfig(TABLE, { file: null, env: {}, flags: {}, ...sources });

function problemsOf(sources: Partial<ConfigSources>): string {
  try {
    resolve(sources);
  } catch (error) {
    expect(error).toMatchObject({ code: 'config_invalid' });
    return (error as Error).message;
  }
  throw new Error('the settings were taken');
}

test('a flag overrides the environment, which overrides the file, which overrides the default', () => {
  const file = yaml('origin: http://file.example\nstore-bytes: 2GB\nbeat: 4s\nworkers: 8\n');
  const values = resolve({
    file,
    env: { LARDER_STORE_BYTES: '3GB', LARDER_BEAT: '5s' },
    flags: { storeBytes: '4GB' },
  });
  expect(values).toMatchObject({
    storeBytes: 4e9,
    beat: 5_000,
    workers: 8,
    origin: 'http://file.example',
    verbose: false,
    fill: null,
  });
  expect(values.listen).toEqual({ host: '::', port: 8080 });
});

test('lists come from repeated flags, YAML lists and commas in the environment', () => {
  const base = { origin: 'http://o.example' };
  expect(resolve({ flags: { ...base, store: ['/a', '/b'] } }).store).toEqual(['/a', '/b']);
  expect(resolve({ file: yaml('store: [/a, /b]\norigin: http://o.example\n') }).store).toEqual(['/a', '/b']);
  expect(resolve({ flags: base, env: { LARDER_STORE: '/a, /b' } }).store).toEqual(['/a', '/b']);
});

test('every problem is listed at once, with the source of the setting, its value and what it must be', () => {
  const file = yaml('store-bytes: ten\nstoer: /typo\nlisten: [a, b]\n');
  const message = problemsOf({ file, env: { LARDER_BEAT: '5' }, flags: { workers: '0' } });
  expect(message).toMatch(/store-bytes in .*role\.yaml is "ten", but must be a size such as/);
  expect(message).toMatch(/"stoer" is not a setting; known are store-bytes, origin/);
  expect(message).toMatch(/listen must be one value/);
  expect(message).toMatch(/LARDER_BEAT is "5", but must be a duration such as/);
  expect(message).toMatch(/--workers is "0", but must be a whole number from 1 to 64/);
  expect(message).toMatch(/--origin is required/);
});

test.each([
  ['not YAML', 'a: [1', /role\.yaml/],
  ['a list', '- a\n', /must be a YAML mapping/],
  ['a mapping as a value', 'origin: {a: 1}\n', /origin must be one value/],
  ['a mapping that breaks text', 'store-bytes: {toString: false}\n', /store-bytes must be one value/],
])('a file that is %s is refused by name', (_, text, expected) => {
  expect(problemsOf({ file: yaml(text), flags: { origin: 'http://o.example' } })).toMatch(expected);
});

test('a file that does not exist is refused by name', () => {
  expect(problemsOf({ file: join(directory, 'none.yaml'), flags: { origin: 'http://o.example' } })).toMatch(
    /none\.yaml/,
  );
});

test.each(['ftp://o.example', 'o.example', 'http://u:p@o.example', 'http://o.example/?q=1', ''])(
  '%j is rejected as a base URL',
  (origin) => {
    expect(problemsOf({ flags: { origin } })).toMatch(/must be an http/);
  },
);

test.each([':0', '127.0.0.1:80', '[::1]:65535', 'localhost:1'])(
  '%s is accepted as an address to listen on',
  (listen) => {
    expect(resolve({ flags: { origin: 'http://o.example', listen } }).listen.port).toBe(
      Number(listen.split(':').at(-1)),
    );
  },
);

test.each(['80', '::1:80', 'host:65536', 'host:-1', 'a b:1'])('%s is rejected as an address to listen on', (listen) => {
  expect(problemsOf({ flags: { origin: 'http://o.example', listen } })).toMatch(/host:port/);
});

test('property: any file yields either values or a list of problems, and no other error', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.constantFrom('store-bytes', 'origin', 'store', 'beat', 'x'), fc.jsonValue({ maxDepth: 1 })),
      (settings) => {
        try {
          resolve({ file: yaml(JSON.stringify(settings)) });
        } catch (error) {
          expect(error).toMatchObject({ code: 'config_invalid' });
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('the names of flag and environment variable are derived from the key', () => {
  expect([flagName('storeBytes'), envName('storeBytes')]).toEqual(['--store-bytes', 'LARDER_STORE_BYTES']);
});
