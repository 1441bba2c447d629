// A real appliance, started by its command line, and an origin that a test scripts. Everything listens on port 0 of a
// loopback address; `stop` removes all files.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { ensureFleetKey, issueToken } from '../../runtime/auth.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { until } from './waiting.ts';

const LAST_MODIFIED = 'Sun, 01 Nov 2026 00:00:00 GMT';

export interface AssetSpec {
  readonly body: Buffer;
  readonly etag: string | null;
  readonly headers?: Record<string, string>;
}

/** An origin with assets in memory. It records every request; `intercept` may respond instead, and break any rule. */
export class ScriptedOrigin {
  readonly assets = new Map<string, AssetSpec>();
  readonly requests: {
    readonly method: string;
    readonly path: string;
    readonly headers: IncomingMessage['headers'];
  }[] = [];
  bytesSent = 0;
  /** Returns true if it has responded itself, or will. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<ScriptedOrigin> {
    const server = createServer((request, response) => origin.#respond(request, response));
    const origin = new ScriptedOrigin(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return origin;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  put(
    path: string,
    body: Buffer,
    options: { readonly etag?: string | null; readonly headers?: Record<string, string> } = {},
  ): Buffer {
    const etag =
      options.etag === undefined ? `"${createHash('sha256').update(body).digest('hex').slice(0, 16)}"` : options.etag;
    this.assets.set(path, { body, etag, ...(options.headers === undefined ? {} : { headers: options.headers }) });
    return body;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #respond(request: IncomingMessage, response: ServerResponse): void {
    this.requests.push({ method: request.method!, path: request.url!, headers: request.headers });
    response.on('error', () => undefined);
    if (this.intercept(request, response)) return;
    const asset = this.assets.get(request.url!);
    if (asset === undefined) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('no such asset\n');
      return;
    }
    const { body, etag, headers } = asset;
    const ifMatch = request.headers['if-match'];
    const since = Date.parse(request.headers['if-unmodified-since'] ?? '');
    const modified = Date.parse(headers?.['last-modified'] ?? LAST_MODIFIED);
    if (ifMatch === undefined ? modified > since : ifMatch !== etag && ifMatch !== '*') {
      response.writeHead(412).end();
      return;
    }
    if (etag !== null && request.headers['if-none-match'] === etag) {
      response.writeHead(304, { ...headers, etag }).end();
      return;
    }
    const fields: Record<string, string> = {
      'content-type': 'application/octet-stream',
      'last-modified': LAST_MODIFIED,
      ...headers,
    };
    if (etag !== null) fields['etag'] = etag;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const first = range === null ? 0 : Number(range[1]);
    const last = range === null || range[2] === '' ? body.length - 1 : Math.min(Number(range[2]), body.length - 1);
    if (range !== null && first >= body.length) {
      response.writeHead(416, { 'content-range': `bytes */${body.length}` }).end();
      return;
    }
    const part = body.subarray(first, last + 1);
    if (range !== null) fields['content-range'] = `bytes ${first}-${last}/${body.length}`;
    response.writeHead(range === null ? 200 : 206, { ...fields, 'content-length': String(part.length) });
    if (request.method === 'HEAD') response.end();
    else {
      this.bytesSent += part.length;
      response.end(part);
    }
  }
}

export interface ApplianceOptions {
  readonly origin: string;
  /** More flags, such as `['--store-bytes', '64MB']`. */
  readonly flags?: readonly string[];
  readonly stores?: number;
}

/** `larder appliance run` in its own directory. It can be killed and started again over the same store. */
export class RunningAppliance {
  readonly directory: string;
  readonly #options: ApplianceOptions;
  process!: ChildProcess;
  port = 0;
  adminPort = 0;
  log = '';

  private constructor(options: ApplianceOptions) {
    this.#options = options;
    this.directory = mkdtempSync(join(tmpdir(), 'larder-test-'));
  }

  static async start(options: ApplianceOptions): Promise<RunningAppliance> {
    const appliance = new RunningAppliance(options);
    await appliance.start();
    return appliance;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Admin URL of the current storekeeper: one that restarts may listen at another port. */
  get admin(): string {
    return `http://127.0.0.1:${portOf(this.#lines().findLast((line) => line['msg'] === 'listening'))}`;
  }

  get token(): string {
    return issueToken(ensureFleetKey(join(this.directory, 'fleet.key')), { role: 'operator', id: 'operator' });
  }

  stores(): string[] {
    return Array.from({ length: this.#options.stores ?? 1 }, (_, at) => join(this.directory, `store-${at}`));
  }

  async start(): Promise<void> {
    this.log = '';
    const flags = [
      '--listen',
      `127.0.0.1:${this.port}`,
      '--admin',
      `127.0.0.1:${this.adminPort}`,
      '--origin',
      this.#options.origin,
      '--state',
      join(this.directory, 'state'),
      '--fleet-key',
      join(this.directory, 'fleet.key'),
      '--workers',
      '2',
    ];
    for (const store of this.stores()) flags.push('--store', store);
    this.process = spawn(
      process.execPath,
      [join(packageRoot, 'dist/larder.js'), 'appliance', 'run', ...flags, ...(this.#options.flags ?? [])],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
        detached: true,
      },
    );
    const { process: started } = this;
    started.stderr!.setEncoding('utf8').on('data', (text: string) => {
      // Children of the previous process may still write to its log.
      if (this.process === started) this.log = (this.log + text).slice(-200_000);
    });
    await this.until(
      () =>
        this.#lines().some((line) => line['msg'] === 'serving') &&
        this.#lines().some((line) => line['msg'] === 'listening'),
    );
    this.port = portOf(this.#lines().find((line) => line['msg'] === 'serving'));
    this.adminPort = portOf(this.#lines().find((line) => line['msg'] === 'listening'));
    await this.until(async () => (await fetch(`${this.admin}/readyz`).catch(() => null))?.status === 200);
  }

  /** Process ids, read from /proc; the storekeeper's is 0 while it is down. */
  async pids(): Promise<{
    readonly supervisor: number;
    readonly storekeeper: number;
    readonly workers: readonly number[];
  }> {
    const supervisor = this.process.pid!;
    const children = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((name) => {
        try {
          const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
          const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
          return parent === supervisor
            ? [{ pid: Number(name), command: readFileSync(`/proc/${name}/cmdline`, 'utf8') }]
            : [];
        } catch {
          return [];
        }
      });
    return {
      supervisor,
      storekeeper: children.find((child) => child.command.includes('storekeeper'))?.pid ?? 0,
      workers: children.filter((child) => /appliance\/worker/.test(child.command)).map((child) => child.pid),
    };
  }

  /** Signals the whole process group. */
  async killAll(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const exited =
      this.process.exitCode === null && this.process.signalCode === null
        ? once(this.process, 'exit')
        : Promise.resolve();
    process.kill(-this.process.pid!, signal);
    await exited;
  }

  async stop(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.killAll('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  /** `until`, which also fails as soon as the appliance exits; the error carries the end of the log. */
  async until(condition: () => boolean | Promise<boolean>, deadlineMs?: number): Promise<void> {
    const explain = (): string => `${condition.toString()}\n${this.log.slice(-4_000)}`;
    await until(
      async () => {
        if (await condition()) return true;
        if (this.process.exitCode !== null)
          throw new Error(`the appliance exited with ${this.process.exitCode}:\n${explain()}`);
        return false;
      },
      { ...(deadlineMs === undefined ? {} : { deadlineMs }), explain },
    );
  }

  #lines(): Record<string, unknown>[] {
    return this.log.split('\n').flatMap((line) => {
      try {
        return [JSON.parse(line) as Record<string, unknown>];
      } catch {
        return [];
      }
    });
  }
}

/** Pseudo-random bytes, the same for the same seed, so that bytes from a wrong offset or asset are noticed. */
export function noise(bytes: number, seed = 1): Buffer {
  const buffer = Buffer.allocUnsafe(bytes);
  let state = seed >>> 0 || 1;
  for (let at = 0; at < bytes; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    buffer[at] = state >>> 24;
  }
  return buffer;
}

function portOf(line: Record<string, unknown> | undefined): number {
  return Number(String(line?.['listen']).split(':').at(-1));
}
