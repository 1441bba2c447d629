// The contestants: Larder and its peers, each a real process tree pinned to one core, before the same origin. Peers get the
// best configuration we know for them; what it is stands here and nowhere else.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { packageRoot } from '../runtime/paths.ts';

const READY_MS = 20_000;
const STOP_MS = 5_000;
const LOOK_MS = 50;

export interface Contestant {
  readonly name: string;
  readonly url: string;
  /** Told in the results: what somebody would need to get the same figures. */
  readonly configuration: string;
}

/** Everything a bench starts lies in one directory and is ended with it. */
export class Ring {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-bench-'));
  readonly #children: ChildProcess[] = [];

  /** Static files by nginx, `sendfile off`, large output buffers: the fastest origin and the bar for no cache at all. */
  async startNginxStatic(root: string, core: number): Promise<Contestant> {
    const port = await freePort();
    const server = `server { listen 127.0.0.1:${port} reuseport; root ${root}; etag on; }`;
    await this.#startNginx('static', { port, core, server });
    return { name: 'nginx static', url: `http://127.0.0.1:${port}`, configuration: NGINX_COMMON };
  }

  async startNginxCache(origin: string, core: number): Promise<Contestant> {
    const port = await freePort();
    const cache = join(this.directory, 'nginx-cache-store');
    const slice = `slice 1m; proxy_cache c; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache_valid 200 206 10d; proxy_cache_lock on; proxy_buffering on`;
    const server = `proxy_cache_path ${cache} levels=2:2 keys_zone=c:64m max_size=20g inactive=10d use_temp_path=off;
    upstream origin { server ${new URL(origin).host}; keepalive 64; }
    server { listen 127.0.0.1:${port} reuseport; location / { ${slice}; proxy_pass http://origin; } }`;
    await this.#startNginx('cache', { port, core, server });
    return {
      name: 'nginx proxy_cache slice 1m',
      url: `http://127.0.0.1:${port}`,
      configuration: `${NGINX_COMMON}; ${slice}`,
    };
  }

  async startLarder(origin: string, core: number, flags: readonly string[] = []): Promise<Contestant> {
    const [port, admin] = [await freePort(), await freePort()];
    const home = join(this.directory, 'larder');
    mkdirSync(home);
    const args = [
      'appliance',
      'run',
      '--listen',
      `127.0.0.1:${port}`,
      '--admin',
      `127.0.0.1:${admin}`,
      '--origin',
      origin,
    ];
    const state = [
      '--store',
      join(home, 'store'),
      '--state',
      join(home, 'state'),
      '--fleet-key',
      join(home, 'fleet.key'),
    ];
    const command = [
      process.execPath,
      join(packageRoot, 'dist', 'larder.js'),
      ...args,
      ...state,
      '--store-bytes',
      '20GB',
      '--workers',
      '1',
      ...flags,
    ];
    this.#spawn('larder', core, command);
    await untilAnswered(`http://127.0.0.1:${admin}/readyz`, this.#log('larder'));
    return { name: 'larder', url: `http://127.0.0.1:${port}`, configuration: `--workers 1 ${flags.join(' ')}`.trim() };
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.map(stop));
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  async #startNginx(
    name: string,
    spec: { readonly port: number; readonly core: number; readonly server: string },
  ): Promise<void> {
    const prefix = join(this.directory, `nginx-${name}`);
    mkdirSync(prefix);
    writeFileSync(join(prefix, 'nginx.conf'), nginxConf(prefix, spec.server));
    this.#spawn(`nginx-${name}`, spec.core, [
      'nginx',
      '-p',
      prefix,
      '-c',
      join(prefix, 'nginx.conf'),
      '-g',
      'daemon off;',
    ]);
    await untilAnswered(`http://127.0.0.1:${spec.port}/`, this.#log(`nginx-${name}`));
  }

  #spawn(name: string, core: number, command: readonly string[]): void {
    const log = openSync(this.#log(name), 'a');
    const child = spawn('taskset', ['-c', String(core), ...command], {
      stdio: ['ignore', log, log],
      detached: true,
      env: { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` },
    });
    closeSync(log);
    this.#children.push(child);
  }

  #log(name: string): string {
    return join(this.directory, `${name}.log`);
  }
}

const NGINX_COMMON =
  'worker_processes 1; sendfile off; output_buffers 2 512k; open_file_cache max=10000 inactive=1h; keepalive_requests 1000000; access_log off';

function nginxConf(prefix: string, server: string): string {
  // As root nginx would drop to a user that cannot enter our directory.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  return `${user}worker_processes 1;
pid ${prefix}/pid;
error_log ${prefix}/error.log warn;
events { worker_connections 8192; }
http {
    access_log off; sendfile off; output_buffers 2 512k; tcp_nodelay on;
    open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h;
    keepalive_requests 1000000; keepalive_timeout 60s; max_ranges 32;
    client_body_temp_path ${prefix}/body; proxy_temp_path ${prefix}/proxy; fastcgi_temp_path ${prefix}/f; uwsgi_temp_path ${prefix}/u; scgi_temp_path ${prefix}/s;
    ${server}
}
`;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function untilAnswered(url: string, logFile: string): Promise<void> {
  const end = performance.now() + READY_MS;
  while (performance.now() < end) {
    const response = await fetch(url).catch(() => null);
    if (response !== null && response.status < 500) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  throw new Fault(
    'internal',
    `${url} did not answer within ${READY_MS / 1000} s:\n${readFileSync(logFile, 'utf8').slice(-2_000)}`,
  );
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  signalGroup(child, 'SIGTERM');
  const timer = setTimeout(() => signalGroup(child, 'SIGKILL'), STOP_MS);
  await exited;
  clearTimeout(timer);
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, signal);
  } catch {
    // Gone already.
  }
}
