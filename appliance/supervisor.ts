// The process that cannot fail: it binds, accepts, forks and restarts, and parses nothing. One storekeeper, N workers.
//
// Each accepted connection is handed to a worker with `keepOpen`; our copy of the descriptor is closed when the worker
// says that it has it, or when the worker dies. (node:cluster's round robin leaks both when workers are killed.)

import { fork, type ChildProcess } from 'node:child_process';
import { createServer, type Server, type Socket } from 'node:net';
import { Fault } from '../protocol/faults.ts';
import { formatHostPort, type HostPort } from '../runtime/config.ts';
import type { Log } from '../runtime/log.ts';
import { siblingModule } from '../runtime/paths.ts';
import { EXIT, untilStopped } from '../runtime/process.ts';
import { inFleet, proxyIdentityOf, tlsFilesOf, type ApplianceConfig } from './config.ts';
import { validateDirectories, warnOfSpace } from './directories.ts';
import { DISK_THREADS, type FromSupervisor, type StorekeeperSpec, type ToSupervisor, type WorkerSpec } from './ipc.ts';
import { collectNow, capYoungGeneration } from './v8-tuning.ts';
import { CertificateStore } from './tls/certificate-store.ts';

const RESTART_MS = 50;
const RESTART_MS_MAX = 5_000;
/** A child that lived this long starts with a clean record. */
const STEADY_MS = 10_000;
/** Accepted connections that wait for a worker while none is up. */
const WAITING_MAX = 1_024;
const BACKLOG = 4_096;
/** A connection that was handed on leaves 3 kB of garbage, and collecting 30 MB of garbage takes 3 ms. */
const COLLECT_CONNECTIONS = 2_000;
/** Of V8. A young heap of up to 48 MB per process buys nothing: what is short-lived here is small. In MiB. */
const CHILD_FLAGS = ['--max-semi-space-size=1'];
/**
 * Of libc, where a worker speaks TLS: OpenSSL's buffer for what comes is 64 KiB a connection, of which an idle one has used
 * the first page. Only by itself does it cost no more than that page.
 */
const TLS_ENV = { MALLOC_MMAP_THRESHOLD_: '65536' };

interface Child {
  readonly name: string;
  readonly module: string;
  readonly env: Readonly<Record<string, string>>;
  process: ChildProcess | null;
  ready: boolean;
  startedAt: number;
  failures: number;
  /** Connections sent to it and not yet acknowledged. */
  readonly pending: Map<number, Socket>;
}

/** Runs until told to stop, then ends the process. Throws `config_invalid` where it cannot listen. */
export async function supervise(config: ApplianceConfig, log: Log): Promise<never> {
  capYoungGeneration();
  validateDirectories(config);
  warnOfSpace(config, log);
  const family = new ProcessGroup(config, log);
  const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => family.hand(socket));
  server.maxConnections = config.connectionsMax;
  // Bound first, so that a taken port is reported before anything is forked; connections wait until somebody can answer.
  const at = await listen(server, config.listen, log);
  await family.start();
  log.info({ listen: formatHostPort(at), workers: config.workers }, 'serving');

  const signal = await untilStopped(log, config.drainTimeout);
  log.info({ signal, drainMs: config.drainTimeout }, 'draining');
  server.close();
  await family.drain();
  log.info('stopped');
  process.exit(EXIT.done);
}

class ProcessGroup {
  readonly #config: ApplianceConfig;
  readonly #log: Log;
  readonly #storekeeper: Child;
  readonly #workers: readonly Child[];
  readonly #waiting: Socket[] = [];
  readonly #tls: CertificateStore | null;
  #open = false;
  #stopping = false;
  #turn = 0;
  #sequence = 0;
  #announce: () => void = () => undefined;

  constructor(config: ApplianceConfig, log: Log) {
    this.#config = config;
    this.#log = log;
    const files = tlsFilesOf(config);
    this.#tls =
      files === null
        ? null
        : new CertificateStore(files, log, () => this.#workers.forEach((each) => this.#tellTls(each)));
    const keeperSpec: StorekeeperSpec = { config };
    this.#storekeeper = child('storekeeper', 'storekeeper', { LARDER_STOREKEEPER: JSON.stringify(keeperSpec) });
    this.#workers = Array.from({ length: config.workers }, (_, worker) => {
      const spec: WorkerSpec = {
        appliance: config.id,
        worker,
        origin: config.origin,
        mode: inFleet(config) ? 'fleet' : 'alone',
        identity: proxyIdentityOf(config),
        connectionsMax: Math.ceil(config.connectionsMax / config.workers),
        accessLog: config.accessLog,
        tls: config.tlsCert === null ? null : { http2: config.http2 },
      };
      const tlsEnv = spec.tls === null ? {} : TLS_ENV;
      return child(`worker-${worker}`, 'worker', { LARDER_WORKER: JSON.stringify(spec), ...tlsEnv });
    });
  }

  /** However this process ends, a child that hangs must not outlive it. */
  #killAll(): void {
    for (const { process: running } of [this.#storekeeper, ...this.#workers]) running?.kill('SIGKILL');
  }

  /** Resolves when the storekeeper and a worker are ready: before that nobody could tell a hit from a miss. */
  async start(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      this.#announce = resolve;
    });
    process.on('exit', () => this.#killAll());
    if (this.#tls !== null) process.on('SIGHUP', () => this.#tls?.reload());
    for (const each of [this.#storekeeper, ...this.#workers]) this.#fork(each);
    await ready;
    this.#open = true;
    this.#handWaiting();
  }

  hand(socket: Socket): void {
    const up = this.#open ? this.#workers.filter((worker) => worker.ready && worker.process?.connected === true) : [];
    if (up.length === 0) {
      if (this.#stopping || this.#waiting.length >= WAITING_MAX) socket.destroy();
      else this.#waiting.push(socket);
      return;
    }
    this.#turn += 1;
    this.#sequence += 1;
    // In turn, but one that does not take what it was handed gets no more: it may hang.
    const worker = up
      .map((_, at) => up[(this.#turn + at) % up.length]!)
      .reduce((best, each) => (each.pending.size < best.pending.size ? each : best));
    worker.pending.set(this.#sequence, socket);
    socket.on('error', () => undefined);
    send(worker, { kind: 'socket', number: this.#sequence }, socket);
    if (this.#sequence % COLLECT_CONNECTIONS === 0) collectNow();
  }

  /** Workers end their answers, then the storekeeper closes the store. */
  async drain(): Promise<void> {
    this.#stopping = true;
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    send(this.#storekeeper, { kind: 'prepare-drain' });
    await Promise.all(this.#workers.map(drainChild));
    await drainChild(this.#storekeeper);
  }

  #fork(target: Child): void {
    target.startedAt = performance.now();
    try {
      const forked = fork(siblingModule(import.meta.dirname, target.module), [], {
        cwd: this.#config.state,
        env: { ...process.env, UV_THREADPOOL_SIZE: String(DISK_THREADS), ...target.env },
        execArgv: [...process.execArgv, ...CHILD_FLAGS],
      });
      target.process = forked;
      forked.on('message', (message: ToSupervisor) => this.#hear(target, message));
      if (target !== this.#storekeeper) this.#tellTls(target);
      forked.on('exit', (code, signal) => this.#restart(target, code, signal));
      // Without a process id there was no child, and there will be no exit.
      forked.on('error', (error) => {
        if (forked.pid === undefined) this.#cannotFork(target, error);
      });
    } catch (error) {
      this.#cannotFork(target, error);
    }
  }

  #tellTls(worker: Child): void {
    if (this.#tls !== null) send(worker, { kind: 'tls', state: this.#tls.state });
  }

  #cannotFork(target: Child, error: unknown): void {
    this.#log.error({ err: error, child: target.name }, 'child cannot be started');
    target.process = null;
    this.#restart(target, null, null);
  }

  #hear(target: Child, message: ToSupervisor): void {
    if (message.kind === 'accepted') {
      target.pending.get(message.number)?.destroy();
      target.pending.delete(message.number);
    } else if (message.kind === 'ready') {
      target.ready = true;
      if (this.#storekeeper.ready && this.#workers.some((worker) => worker.ready)) this.#announce();
      if (this.#open) this.#handWaiting();
    }
  }

  #restart(target: Child, code: number | null, signal: NodeJS.Signals | null): void {
    target.ready = false;
    for (const socket of target.pending.values()) socket.destroy();
    target.pending.clear();
    if (this.#stopping) return;
    // A storekeeper that refuses its settings would refuse them again.
    if (target === this.#storekeeper && code === EXIT.usage) process.exit(EXIT.usage);
    target.failures = performance.now() - target.startedAt > STEADY_MS ? 0 : target.failures + 1;
    const restartMs = Math.min(RESTART_MS * 2 ** Math.max(0, target.failures - 1), RESTART_MS_MAX);
    this.#log.warn({ child: target.name, code, signal, restartMs }, 'child ended, restarting');
    setTimeout(() => {
      if (!this.#stopping) this.#fork(target);
    }, restartMs);
  }

  #handWaiting(): void {
    for (const socket of this.#waiting.splice(0)) this.hand(socket);
  }
}

async function listen(server: Server, at: HostPort, log: Log): Promise<HostPort> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new Fault('config_invalid', `cannot listen at ${formatHostPort(at)}: ${error.message}`, { cause: error })),
    );
    server.listen({ host: at.host, port: at.port, backlog: BACKLOG }, resolve);
  });
  server.on('error', (error) => log.error({ err: error }, 'a connection cannot be accepted'));
  const bound = server.address();
  return { host: at.host, port: bound !== null && typeof bound === 'object' ? bound.port : at.port };
}

function child(name: string, module: string, env: Readonly<Record<string, string>>): Child {
  return { name, module, env, process: null, ready: false, startedAt: 0, failures: 0, pending: new Map() };
}

function drainChild(target: Child): Promise<void> {
  return new Promise((resolve) => {
    const running = target.process;
    if (running === null || running.exitCode !== null || running.signalCode !== null) return resolve();
    running.once('exit', () => resolve());
    send(target, { kind: 'drain' });
  });
}

function send(target: Child, message: FromSupervisor, socket?: Socket): void {
  target.process?.send(message, socket, { keepOpen: true }, () => undefined);
}
