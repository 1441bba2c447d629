// The contestants: Larder and its peers, each a real process tree pinned to one core, before the same origin. Peers get the
// best configuration we know for them; what it is stands here and nowhere else. All of them count and keep an access record.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../runtime/paths.ts';
import type { Peer } from './bench.ts';
import { freePort, SERVER_CORE, untilAnswered, type Ring, type Running } from './ring.ts';

export interface Contestant extends Peer {
  readonly url: string;
  /** Root of its process tree. */
  readonly running: Running;
  /** Base URL of an appliance's admin listener; null for a peer. */
  readonly admin: string | null;
  /** From its start to its first answer. */
  readonly readyMs: number;
}

export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
}

interface PeerSpec {
  readonly origin: string;
  readonly core?: number;
  readonly tls?: Certificate | undefined;
}

/** Static files by nginx: no cache at all. */
export async function startNginxStatic(
  ring: Ring,
  spec: { readonly root: string; readonly core?: number; readonly tls?: Certificate | undefined },
): Promise<Contestant> {
  return startNginx(ring, {
    ...spec,
    name: 'static',
    role: 'reference',
    // Fresh for as long as the peers are told to keep it.
    location: `root ${spec.root}; etag on; expires 10d`,
    http: '',
  });
}

export async function startNginxCache(
  ring: Ring,
  /** With `aio` it reads by threads: better where a disk makes one wait, worse where none does. */
  spec: PeerSpec & { readonly aio?: boolean },
): Promise<Contestant> {
  const store = ring.room('nginx-store');
  const location =
    (spec.aio === true ? 'aio threads=default; ' : '') +
    'slice 1m; proxy_cache c; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache_valid 200 206 10d; proxy_cache_lock on; proxy_buffering on; proxy_pass http://origin';
  const http = `proxy_cache_path ${store} levels=2:2 keys_zone=c:64m max_size=40g inactive=10d use_temp_path=off;
    upstream origin { server ${new URL(spec.origin).host}; keepalive 64; }`;
  return startNginx(ring, { ...spec, name: 'nginx', role: 'cache', location, http });
}

export async function startVarnish(ring: Ring, spec: PeerSpec): Promise<Contestant> {
  const home = ring.room('varnish');
  const port = await freePort();
  const { hostname, port: originPort } = new URL(spec.origin);
  const vcl = join(home, 'larder.vcl');
  writeFileSync(
    vcl,
    `vcl 4.1;
backend origin { .host = "${hostname}"; .port = "${originPort}"; }
sub vcl_backend_response { set beresp.ttl = 10d; set beresp.do_gzip = false; }
`,
  );
  const threads = ['thread_pools=1', 'thread_pool_max=12000', 'thread_pool_min=200', 'timeout_idle=600'];
  const flags = ['-s', 'malloc,4g', ...threads.flatMap((parameter) => ['-p', parameter])];
  const place = ['-n', join(home, 'work'), '-f', vcl, '-a', `127.0.0.1:${port}`, '-T', 'none'];
  const running = ring.spawn('varnish', spec.core ?? SERVER_CORE, ['varnishd', '-F', '-j', 'none', ...place, ...flags]);
  // It answers 503 until the origin has what is asked for; any answer will do.
  const url = `http://127.0.0.1:${port}`;
  const readyMs = await untilAnswered(`${url}/`, running);
  return { name: 'varnish', role: 'cache', url, running, admin: null, readyMs, configuration: flags.join(' ') };
}

export async function startLarder(
  ring: Ring,
  spec: PeerSpec & { readonly flags?: readonly string[]; readonly home?: string },
): Promise<Contestant> {
  const [port, admin] = [await freePort(), await freePort()];
  const home = spec.home ?? ring.room('larder');
  mkdirSync(home, { recursive: true });
  const tls = spec.tls === undefined ? [] : ['--tls-cert', spec.tls.certFile, '--tls-key', spec.tls.keyFile];
  const told = ['--workers', '1', '--access-log', join(home, 'access.log'), ...(spec.flags ?? [])];
  const running = ring.spawn('larder', spec.core ?? SERVER_CORE, [
    process.execPath,
    join(packageRoot, 'dist', 'larder.js'),
    ...['appliance', 'run', '--origin', spec.origin],
    ...['--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`],
    ...['--store', join(home, 'store'), '--state', join(home, 'state'), '--fleet-key', join(home, 'fleet.key')],
    ...(told.includes('--store-bytes') ? [] : ['--store-bytes', '40GB']),
    ...told,
    ...tls,
  ]);
  const readyMs = await untilAnswered(`http://127.0.0.1:${admin}/readyz`, running);
  const scheme = spec.tls === undefined ? 'http' : 'https';
  return {
    name: 'larder',
    role: 'reference',
    url: `${scheme}://127.0.0.1:${port}`,
    running,
    admin: `http://127.0.0.1:${admin}`,
    readyMs,
    configuration: told.join(' ').replaceAll(`${home}/`, ''),
  };
}

/** Peers as an outcome names them. */
export const peersOf = (contestants: readonly Contestant[]): Peer[] =>
  contestants
    .filter(({ name }) => name !== 'larder')
    .map(({ name, role, configuration }) => ({ name, role, configuration }));

const NGINX_TUNED =
  'sendfile off; output_buffers 2 512k; tcp_nodelay on; open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h; keepalive_requests 1000000';

async function startNginx(
  ring: Ring,
  spec: {
    readonly name: string;
    readonly role: Peer['role'];
    readonly core?: number;
    readonly tls?: Certificate | undefined;
    readonly location: string;
    readonly http: string;
  },
): Promise<Contestant> {
  const port = await freePort();
  const prefix = ring.room(`nginx-${spec.name}`);
  const tls =
    spec.tls === undefined
      ? ''
      : `ssl_certificate ${spec.tls.certFile}; ssl_certificate_key ${spec.tls.keyFile}; ssl_protocols TLSv1.3; ssl_buffer_size 16k;`;
  const listen = `listen 127.0.0.1:${port} backlog=4096 reuseport${spec.tls === undefined ? '' : ' ssl'};`;
  // As root nginx would drop to a user that cannot enter our directory.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  const conf = `${user}worker_processes 1; worker_rlimit_nofile 20000; thread_pool default threads=256 max_queue=65536;
pid ${prefix}/pid;
error_log ${prefix}/error.log warn;
events { worker_connections 18000; }
http {
    access_log ${prefix}/access.log combined buffer=256k flush=1s;
    ${NGINX_TUNED}; keepalive_timeout 600s; max_ranges 32;
    client_body_temp_path ${prefix}/body; proxy_temp_path ${prefix}/proxy; fastcgi_temp_path ${prefix}/f; uwsgi_temp_path ${prefix}/u; scgi_temp_path ${prefix}/s;
    ${spec.http}
    server { ${listen} ${tls} location / { ${spec.location}; } }
}
`;
  const file = join(prefix, 'nginx.conf');
  writeFileSync(file, conf);
  const command = ['nginx', '-p', prefix, '-c', file, '-g', 'daemon off;'];
  const running = ring.spawn(`nginx-${spec.name}`, spec.core ?? SERVER_CORE, command);
  const readyMs = await untilAnswered(`http://127.0.0.1:${port}/`, running);
  const url = `${spec.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  const { name, role, location } = spec;
  return {
    name,
    role,
    url,
    running,
    admin: null,
    readyMs,
    configuration: `${NGINX_TUNED}; access_log buffer=256k; ${location}`,
  };
}

/** Whether this build of the appliance speaks TLS. */
export async function knowsTls(): Promise<boolean> {
  const larder = join(packageRoot, 'dist', 'larder.js');
  const { stdout } = await promisify(execFile)(process.execPath, [larder, 'appliance', 'run', '--help']);
  return stdout.includes('--tls-cert');
}
