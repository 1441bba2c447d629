// HEALTHCHECK of the image: asks the service that this container runs whether it is well. One image has every role, so the
// role and its address are read where the service itself reads them: its command line, environment, YAML file, defaults.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { request } from 'undici';
import { parse as parseYaml } from 'yaml';

const ANSWER_MS = 3_000;

interface Role {
  readonly words: readonly string[];
  /** Setting that holds the address, and its default. */
  readonly setting: 'admin' | 'listen' | 'port';
  readonly fallback: string;
  readonly path: string;
}

const ROLES: readonly Role[] = [
  { words: ['appliance', 'run'], setting: 'admin', fallback: '127.0.0.1:8081', path: '/readyz' },
  { words: ['steering', 'run'], setting: 'listen', fallback: ':8400', path: '/healthz' },
  { words: ['fill', 'serve'], setting: 'listen', fallback: '127.0.0.1:8500', path: '/healthz' },
  { words: ['demo'], setting: 'port', fallback: '8400', path: '/healthz' },
];

export interface Started {
  /** Command line of the container's first process. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly readFile: (path: string) => string;
}

/** Where to ask; null where the command is no service, and so is well as long as it runs. */
export function healthUrl(started: Started): string | null {
  const role = ROLES.find(({ words }) =>
    started.argv.some((_, at) => words.every((word, offset) => started.argv[at + offset] === word)),
  );
  if (role === undefined) return null;
  const given = setting(role.setting, started) ?? role.fallback;
  const host = /^(.*):\d+$/.exec(given)?.[1] ?? '';
  const port = /(\d+)$/.exec(given)?.[1] ?? '';
  // Bound to every address: loopback is one of them.
  const at = ['', '0.0.0.0', '[::]'].includes(host) ? '127.0.0.1' : host;
  return `http://${at}:${port}${role.path}`;
}

function setting(name: Role['setting'], started: Started): string | null {
  const { argv, env, readFile } = started;
  const file = flag(argv, '--config') ?? flag(argv, '-c') ?? env['LARDER_CONFIG'] ?? null;
  const inFile = file === null ? {} : ((parseYaml(readFile(file)) ?? {}) as Record<string, string | undefined>);
  return flag(argv, `--${name}`) ?? env[`LARDER_${name.toUpperCase()}`] ?? inFile[name] ?? null;
}

/** Value of `--name value` or `--name=value`. */
function flag(argv: readonly string[], name: string): string | undefined {
  const at = argv.findIndex((word) => word === name || word.startsWith(`${name}=`));
  if (at === -1) return undefined;
  return argv[at] === name ? argv[at + 1] : argv[at]!.slice(name.length + 1);
}

async function ask(): Promise<void> {
  const url = healthUrl({
    argv: readFileSync('/proc/1/cmdline', 'utf8').split('\0'),
    env: process.env,
    readFile: (path) => readFileSync(path, 'utf8'),
  });
  if (url === null) return;
  const answer = await request(url, { headersTimeout: ANSWER_MS, bodyTimeout: ANSWER_MS });
  await answer.body.dump();
  if (answer.statusCode !== 200) throw new Error(`${url} answered ${answer.statusCode}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await ask().catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  });
}
