// The contestants: Larder and its peers, each a real process tree pinned to one core, in front of the same origin. Peers run with the
// best configuration that we know for them, which this file defines. All of them count requests and write an access log.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../runtime/paths.ts';
import type { Peer } from './bench.ts';
import type { FloorSpec } from './floor-worker.ts';
import { freePort, nextMessage, SERVER_CORE, waitForResponse, type Testbed, type PinnedProcess } from './testbed.ts';

export interface Contestant extends Peer {
  readonly url: string;
  /** The root of its process tree. */
  readonly server: PinnedProcess;
  /** Base URL of the admin listener of an appliance; null for a peer. */
  readonly admin: string | null;
  /** Time from its start to its first response. */
  readonly readyMs: number;
}

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

interface ContestantSpec {
  readonly origin: string;
  readonly core?: number;
  readonly tls?: TlsFiles | undefined;
}

/** nginx that serves static files: the upper limit, without a cache. */
export async function startNginxStatic(
  testbed: Testbed,
  spec: { readonly root: string; readonly core?: number; readonly tls?: TlsFiles | undefined },
): Promise<Contestant> {
  return startNginx(testbed, {
    ...spec,
    name: 'static',
    role: 'reference',
    // The freshness lifetime equals that of the peers' configurations.
    location: `root ${spec.root}; etag on; expires 10d`,
    http: '',
  });
}

export async function startNginxCache(
  testbed: Testbed,
  /** `aio` reads in threads: better with a slow disk, worse without one. */
  spec: ContestantSpec & { readonly aio?: boolean },
): Promise<Contestant> {
  const store = testbed.makeDirectory('nginx-store');
  const location =
    (spec.aio === true ? 'aio threads=default; ' : '') +
    'slice 1m; proxy_cache c; proxy_cache_key $request_uri$slice_range; proxy_set_header Range $slice_range; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache_valid 200 206 10d; proxy_cache_lock on; proxy_buffering on; proxy_pass http://origin';
  const http = `proxy_cache_path ${store} levels=2:2 keys_zone=c:64m max_size=40g inactive=10d use_temp_path=off;
    upstream origin { server ${new URL(spec.origin).host}; keepalive 64; }`;
  return startNginx(testbed, { ...spec, name: 'nginx', role: 'cache', location, http });
}

export async function startVarnish(testbed: Testbed, spec: ContestantSpec): Promise<Contestant> {
  const home = testbed.makeDirectory('varnish');
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
  const server = testbed.spawn('varnish', spec.core ?? SERVER_CORE, [
    'varnishd',
    '-F',
    '-j',
    'none',
    ...place,
    ...flags,
  ]);
  // Varnish responds 503 until it reaches the origin, whose response for this path is 403 or 404.
  const url = `http://127.0.0.1:${port}`;
  const readyMs = await waitForResponse(`${url}/`, server);
  return { name: 'varnish', role: 'cache', url, server, admin: null, readyMs, configuration: flags.join(' ') };
}

export async function startLarder(
  testbed: Testbed,
  spec: ContestantSpec & { readonly flags?: readonly string[]; readonly home?: string },
): Promise<Contestant> {
  const [port, admin] = [await freePort(), await freePort()];
  const home = spec.home ?? testbed.makeDirectory('larder');
  mkdirSync(home, { recursive: true });
  const tls = spec.tls === undefined ? [] : ['--tls-cert', spec.tls.certFile, '--tls-key', spec.tls.keyFile];
  const options = ['--workers', '1', '--access-log', join(home, 'access.log'), ...(spec.flags ?? [])];
  const server = testbed.spawn('larder', spec.core ?? SERVER_CORE, [
    process.execPath,
    join(packageRoot, 'dist', 'larder.js'),
    ...['appliance', 'run', '--origin', spec.origin],
    ...['--listen', `127.0.0.1:${port}`, '--admin', `127.0.0.1:${admin}`],
    ...['--store', join(home, 'store'), '--state', join(home, 'state'), '--fleet-key', join(home, 'fleet.key')],
    ...(options.includes('--store-bytes') ? [] : ['--store-bytes', '40GB']),
    ...options,
    ...tls,
  ]);
  const readyMs = await waitForResponse(`http://127.0.0.1:${admin}/readyz`, server);
  const scheme = spec.tls === undefined ? 'http' : 'https';
  return {
    name: 'larder',
    role: 'reference',
    url: `${scheme}://127.0.0.1:${port}`,
    server,
    admin: `http://127.0.0.1:${admin}`,
    readyMs,
    configuration: options.join(' ').replaceAll(`${home}/`, ''),
  };
}

/** The least that a server can do about bytes in memory: see floor-worker.ts. */
export async function startFloor(testbed: Testbed, spec: FloorSpec): Promise<Contestant> {
  const server = testbed.spawnWorker('floor', SERVER_CORE, 'floor-worker', spec);
  const { port } = await nextMessage<{ readonly port: number }>(server, 'ready');
  const url = `http://127.0.0.1:${port}`;
  const configuration = 'a loop from memory to socket, without HTTP';
  return { name: 'floor', role: 'reference', url, server, admin: null, readyMs: 0, configuration };
}

/** The contestants except Larder, as an outcome lists them. */
export const peersOf = (contestants: readonly Contestant[]): Peer[] =>
  contestants
    .filter(({ name }) => name !== 'larder')
    .map(({ name, role, configuration }) => ({ name, role, configuration }));

const NGINX_TUNED =
  'sendfile off; output_buffers 2 512k; tcp_nodelay on; open_file_cache max=10000 inactive=1h; open_file_cache_valid 1h; keepalive_requests 1000000';

async function startNginx(
  testbed: Testbed,
  spec: {
    readonly name: string;
    readonly role: Peer['role'];
    readonly core?: number;
    readonly tls?: TlsFiles | undefined;
    readonly location: string;
    readonly http: string;
  },
): Promise<Contestant> {
  const port = await freePort();
  const prefix = testbed.makeDirectory(`nginx-${spec.name}`);
  const tls =
    spec.tls === undefined
      ? ''
      : `ssl_certificate ${spec.tls.certFile}; ssl_certificate_key ${spec.tls.keyFile}; ssl_protocols TLSv1.3; ssl_buffer_size 16k;`;
  const listen = `listen 127.0.0.1:${port} backlog=4096 reuseport${spec.tls === undefined ? '' : ' ssl'};`;
  // Started by root, nginx would switch to a user that cannot read the directory of the testbed.
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
  const server = testbed.spawn(`nginx-${spec.name}`, spec.core ?? SERVER_CORE, command);
  const readyMs = await waitForResponse(`http://127.0.0.1:${port}/`, server);
  const url = `${spec.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
  const { name, role, location } = spec;
  return {
    name,
    role,
    url,
    server,
    admin: null,
    readyMs,
    configuration: `${NGINX_TUNED}; access_log buffer=256k; ${location}`,
  };
}

/** Whether this build of the appliance supports TLS. */
export async function supportsTls(): Promise<boolean> {
  const larder = join(packageRoot, 'dist', 'larder.js');
  const { stdout } = await promisify(execFile)(process.execPath, [larder, 'appliance', 'run', '--help']);
  return stdout.includes('--tls-cert');
}
