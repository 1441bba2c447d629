// The servers that are compared: an nginx that serves files, and two appliances in front of that nginx, one stand-alone and one
// reverse proxy. Every file has any number of paths (`/cN/film.mp4`), so an asset can be cold as often as needed.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sendRequest, field } from '../../appliance/test/http-client.ts';
import { RunningAppliance } from '../../appliance/test/rig.ts';
import { until } from '../../appliance/test/waiting.ts';
import { freePort } from '../../bench/testbed.ts';
import { ASSETS, CACHING_BY_EXTENSION, SENTINEL, writeAssets } from './assets.ts';

const STORE_BYTES = '128MB';

export type ApplianceMode = 'plain' | 'proxy';

export class Servers {
  readonly nginxPort: number;
  readonly #appliances: Readonly<Record<ApplianceMode, RunningAppliance>>;
  readonly #nginx: ChildProcess;
  readonly #directory: string;

  private constructor(parts: {
    readonly nginxPort: number;
    readonly nginx: ChildProcess;
    readonly directory: string;
    readonly appliances: Readonly<Record<ApplianceMode, RunningAppliance>>;
  }) {
    this.nginxPort = parts.nginxPort;
    this.#nginx = parts.nginx;
    this.#directory = parts.directory;
    this.#appliances = parts.appliances;
  }

  static async start(nginxPath: string): Promise<Servers> {
    const directory = mkdtempSync(join(tmpdir(), 'larder-differential-'));
    const [nginxPort, originPort] = [await freePort(), await freePort()];
    const nginx = await startNginx({ nginxPath, directory, port: nginxPort, originPort });
    const origin = `http://127.0.0.1:${originPort}`;
    const flags = ['--store-bytes', STORE_BYTES];
    const [plain, proxy] = await Promise.all([
      RunningAppliance.start({ origin, flags }),
      RunningAppliance.start({ origin, flags: [...flags, '--reverse-proxy'] }),
    ]);
    return new Servers({ nginxPort, nginx, directory, appliances: { plain, proxy } });
  }

  portOf(mode: ApplianceMode): number {
    return this.#appliances[mode].port;
  }

  /** The end of each log, for the report of a failure. */
  get logs(): string {
    const { plain, proxy } = this.#appliances;
    const nginx = readFileSync(join(this.#directory, 'error.log'), 'utf8');
    return [nginx, plain.log, proxy.log].map((text) => text.slice(-2_000)).join('\n--\n');
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.#appliances).map((appliance) => appliance.stop()));
    const ended = once(this.#nginx, 'exit');
    if (this.#nginx.kill('SIGTERM')) await ended;
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function startNginx(spec: {
  readonly nginxPath: string;
  readonly directory: string;
  readonly port: number;
  readonly originPort: number;
}): Promise<ChildProcess> {
  const { directory, port } = spec;
  const root = join(directory, 'root');
  mkdirSync(root);
  writeAssets(root);
  const file = join(directory, 'nginx.conf');
  writeFileSync(file, configuration({ ...spec, root }));
  const nginx = spawn(spec.nginxPath, ['-p', directory, '-c', file], { stdio: 'ignore' });
  const explain = (): string => readFileSync(join(directory, 'error.log'), 'utf8');
  await until(
    async () => {
      if (nginx.exitCode !== null) throw new Error(`nginx does not start:\n${explain()}`);
      const response = await sendRequest(port, { path: '/sentinel', method: 'HEAD' }).catch(() => null);
      return response !== null && field(response, 'etag') === SENTINEL.etag;
    },
    { explain },
  );
  for (const { name, etag } of ASSETS) {
    const path = `/c0/${name.split('/').map(encodeURIComponent).join('/')}`;
    const sent = field(await sendRequest(port, { path, method: 'HEAD' }), 'etag');
    if (sent !== etag) throw new Error(`nginx sends the entity tag ${sent} for ${name}, not ${etag}`);
  }
  return nginx;
}

/**
 * nginx with its defaults, except that it compares dates as RFC 9110 13.1.3 says. The origin of the appliances is that nginx
 * behind a second server block that keeps every connection open: origins that close after each 412 are not tested here.
 */
function configuration(spec: {
  readonly directory: string;
  readonly root: string;
  readonly port: number;
  readonly originPort: number;
}): string {
  const { directory, root, port, originPort } = spec;
  // Started by root, nginx would switch to a user that cannot read the directory.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  const temporaryPaths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const locations = [...Object.entries(CACHING_BY_EXTENSION), ['', ''] as const].map(([extension, directives]) => {
    const rest = extension === '' ? '/.*' : `/.*\\.${extension}`;
    return `location ~ ^/c[0-9]+(?<rest>${rest})$ { ${directives} alias ${root}$rest; }`;
  });
  const types = Object.entries(TYPES).map(([type, extension]) => `${type} ${extension};`);
  return `${user}daemon off;
worker_processes 1;
pid ${directory}/pid;
error_log ${directory}/error.log crit;
events { worker_connections 1024; }
http {
    access_log off;
    ${temporaryPaths.map((name) => `${name}_temp_path ${directory}/${name};`).join(' ')}
    types { ${types.join(' ')} }
    default_type application/octet-stream;
    if_modified_since before;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    server {
        listen 127.0.0.1:${port};
        root ${root};
        ${locations.join('\n        ')}
    }
    server {
        listen 127.0.0.1:${originPort};
        location / { proxy_pass http://127.0.0.1:${port}; proxy_set_header Host $http_host; }
    }
}
`;
}

const TYPES: Readonly<Record<string, string>> = {
  'text/html': 'html',
  'text/plain': 'txt',
  'text/vtt': 'vtt',
  'video/mp4': 'mp4',
  'video/mp2t': 'ts',
  'application/dash+xml': 'mpd',
  'application/vnd.apple.mpegurl': 'm3u8',
};
