// Who is compared: an nginx that serves files, and two appliances before that same nginx, one plain and one as a reverse
// proxy. Every file is there under any number of paths (`/cN/film.mp4`), so that an asset can be cold as often as one likes.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ask, field } from '../../appliance/test/wire.ts';
import { RunningAppliance } from '../../appliance/test/rig.ts';
import { freePort } from '../../bench/testbed.ts';
import { ASSETS, HABITS, SENTINEL, writeAssets } from './assets.ts';

const START_MS = 10_000;
const STORE_BYTES = '128MB';

export type Manner = 'plain' | 'proxy';

export class Stage {
  readonly nginxPort: number;
  readonly #appliances: Readonly<Record<Manner, RunningAppliance>>;
  readonly #nginx: ChildProcess;
  readonly #directory: string;

  private constructor(parts: {
    readonly nginxPort: number;
    readonly nginx: ChildProcess;
    readonly directory: string;
    readonly appliances: Readonly<Record<Manner, RunningAppliance>>;
  }) {
    this.nginxPort = parts.nginxPort;
    this.#nginx = parts.nginx;
    this.#directory = parts.directory;
    this.#appliances = parts.appliances;
  }

  static async start(nginxPath: string): Promise<Stage> {
    const directory = mkdtempSync(join(tmpdir(), 'larder-differential-'));
    const [nginxPort, originPort] = [await freePort(), await freePort()];
    const nginx = await startNginx({ nginxPath, directory, port: nginxPort, originPort });
    const origin = `http://127.0.0.1:${originPort}`;
    const flags = ['--store-bytes', STORE_BYTES];
    const [plain, proxy] = await Promise.all([
      RunningAppliance.start({ origin, flags }),
      RunningAppliance.start({ origin, flags: [...flags, '--reverse-proxy'] }),
    ]);
    return new Stage({ nginxPort, nginx, directory, appliances: { plain, proxy } });
  }

  portOf(manner: Manner): number {
    return this.#appliances[manner].port;
  }

  /** The end of each log, for whoever has to explain a failure. */
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
  const end = performance.now() + START_MS;
  for (;;) {
    const answer = await ask(port, { path: '/sentinel', method: 'HEAD' }).catch(() => null);
    if (answer !== null && field(answer, 'etag') === SENTINEL.etag) break;
    if (nginx.exitCode !== null || performance.now() > end)
      throw new Error(`nginx does not serve the files:\n${readFileSync(join(directory, 'error.log'), 'utf8')}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  for (const { name, etag } of ASSETS) {
    const path = `/c0/${name.split('/').map(encodeURIComponent).join('/')}`;
    const said = field(await ask(port, { path, method: 'HEAD' }), 'etag');
    if (said !== etag) throw new Error(`nginx gives ${name} the entity tag ${said}, not ${etag}`);
  }
  return nginx;
}

/**
 * nginx as it comes, but for dates: told to, it compares them as RFC 9110 13.1.3 says. The appliances' origin is that nginx
 * behind another that keeps every connection: a file server that hangs up after each 412 is another test's matter.
 */
function configuration(spec: {
  readonly directory: string;
  readonly root: string;
  readonly port: number;
  readonly originPort: number;
}): string {
  const { directory, root, port, originPort } = spec;
  // As root nginx would drop to a user that cannot enter our directory.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  const rooms = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const locations = [...Object.entries(HABITS), ['', ''] as const].map(([ending, says]) => {
    const rest = ending === '' ? '/.*' : `/.*\\.${ending}`;
    return `location ~ ^/c[0-9]+(?<rest>${rest})$ { ${says} alias ${root}$rest; }`;
  });
  const types = Object.entries(TYPES).map(([type, ending]) => `${type} ${ending};`);
  return `${user}daemon off;
worker_processes 1;
pid ${directory}/pid;
error_log ${directory}/error.log crit;
events { worker_connections 1024; }
http {
    access_log off;
    ${rooms.map((name) => `${name}_temp_path ${directory}/${name};`).join(' ')}
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
