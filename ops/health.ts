// HEALTHCHECK of the container image: queries the health endpoint of the service that this container runs. One image serves
// every role, so the role and its address are taken from where the service itself takes them: command line, environment, YAML
// file, defaults.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { request } from 'undici';
import { parse as parseYaml } from 'yaml';

const RESPONSE_TIMEOUT_MS = 3_000;

interface Role {
  readonly words: readonly string[];
  /** The setting that holds the address. */
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

export interface ContainerProcess {
  /** Command line of the container's first process. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly readFile: (path: string) => string;
}

/** URL of the health endpoint, or null if the command is not a service: it is healthy as long as it runs. */
export function healthUrl(container: ContainerProcess): string | null {
  const role = ROLES.find(({ words }) =>
    container.argv.some((_, at) => words.every((word, offset) => container.argv[at + offset] === word)),
  );
  if (role === undefined) return null;
  const given = resolveSetting(role.setting, container) ?? role.fallback;
  const host = /^(.*):\d+$/.exec(given)?.[1] ?? '';
  const port = /(\d+)$/.exec(given)?.[1] ?? '';
  // A wildcard address includes loopback.
  const at = ['', '0.0.0.0', '[::]'].includes(host) ? '127.0.0.1' : host;
  return `http://${at}:${port}${role.path}`;
}

function resolveSetting(name: Role['setting'], container: ContainerProcess): string | null {
  const { argv, env, readFile } = container;
  const file = flagValue(argv, '--config') ?? flagValue(argv, '-c') ?? env['LARDER_CONFIG'] ?? null;
  const inFile = file === null ? {} : ((parseYaml(readFile(file)) ?? {}) as Record<string, string | undefined>);
  return flagValue(argv, `--${name}`) ?? env[`LARDER_${name.toUpperCase()}`] ?? inFile[name] ?? null;
}

/** The value of `--name value` or `--name=value`. */
function flagValue(argv: readonly string[], name: string): string | undefined {
  const at = argv.findIndex((word) => word === name || word.startsWith(`${name}=`));
  if (at === -1) return undefined;
  return argv[at] === name ? argv[at + 1] : argv[at]!.slice(name.length + 1);
}

async function checkHealth(): Promise<void> {
  const url = healthUrl({
    argv: readFileSync('/proc/1/cmdline', 'utf8').split('\0'),
    env: process.env,
    readFile: (path) => readFileSync(path, 'utf8'),
  });
  if (url === null) return;
  const response = await request(url, { headersTimeout: RESPONSE_TIMEOUT_MS, bodyTimeout: RESPONSE_TIMEOUT_MS });
  await response.body.dump();
  if (response.statusCode !== 200) throw new Error(`${url} answered ${response.statusCode}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await checkHealth().catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  });
}
