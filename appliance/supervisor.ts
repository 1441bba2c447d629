// The supervisor, kept so simple that it cannot fail: it binds, accepts connections, forks one storekeeper and N workers, restarts
// them and drains them. It parses no bytes from the network.
//
// Each accepted connection is handed to a worker with `keepOpen`. Our copy of the descriptor is closed when the worker acknowledges
// the connection or exits. (The round robin of node:cluster leaks connections and descriptors when workers are killed.)

import { createServer, type Server, type Socket } from 'node:net';
import { Fault } from '../protocol/faults.ts';
import { systemClock } from '../runtime/clock.ts';
import { formatHostPort, type HostPort } from '../runtime/config.ts';
import type { Log } from '../runtime/log.ts';
import { EXIT, ignoreReload, untilStopped } from '../runtime/process.ts';
import { Child, type ChildDeps } from './child.ts';
import { inFleet, proxyIdentityOf, tlsFilesOf, type ApplianceConfig } from './config.ts';
import { validateDirectories, warnOfSpace } from './directories.ts';
import type { FromSupervisor, StorekeeperSpec, WorkerSpec } from './ipc.ts';
import { LIMITS } from './limits.ts';
import { CertificateStore, type TlsSecrets } from './tls/certificate-store.ts';
import { collectNow, capYoungGeneration } from './v8-tuning.ts';

const BACKLOG = 4_096;
/** Each connection handed over leaves 3 kB of garbage, and collecting 30 MB of it takes 3 ms. */
const CONNECTIONS_PER_COLLECTION = 2_000;
/**
 * For the malloc of glibc in workers that speak TLS. OpenSSL's read buffer is 64 KiB per connection, of which an idle one has
 * touched the first page; allocated by mmap, it costs no more than that page.
 */
const TLS_ENV = { MALLOC_MMAP_THRESHOLD_: '65536' };

/** Runs until a signal stops it, then ends the process. Throws `config_invalid` if it cannot listen. */
export async function supervise(config: ApplianceConfig, log: Log): Promise<never> {
  capYoungGeneration();
  validateDirectories(config);
  warnOfSpace(config, log);
  const processes = new ProcessGroup(config, log);
  const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => processes.dispatch(socket));
  server.maxConnections = config.connectionsMax;
  // Listen before forking, so that a port in use is reported at once. Connections are queued until a worker is ready.
  const address = await listen(server, config.listen, log);
  await processes.start();
  log.info({ listen: formatHostPort(address), workers: config.workers }, 'serving');

  const signal = await untilStopped(log, config.drainTimeout);
  log.info({ signal, drainMs: config.drainTimeout }, 'draining');
  server.close();
  await processes.drain();
  log.info('stopped');
  process.exit(EXIT.done);
}

/** The storekeeper and the workers, and the connections on their way to a worker. */
class ProcessGroup {
  readonly #config: ApplianceConfig;
  readonly #log: Log;
  readonly #storekeeper: Child;
  readonly #workers: readonly Child[];
  /** Null without TLS. */
  readonly #certificates: CertificateStore | null;
  /** Connections accepted while no worker was ready. */
  readonly #queue: Socket[] = [];
  #accepted = 0;
  #started = false;
  #stopping = false;
  #resolveStarted: () => void = () => undefined;

  constructor(config: ApplianceConfig, log: Log) {
    this.#config = config;
    this.#log = log;
    this.#certificates = this.#openCertificates();
    this.#storekeeper = this.#newStorekeeper();
    this.#workers = Array.from({ length: config.workers }, (_, number) => this.#newWorker(number));
  }

  /** Resolves when the storekeeper and a worker are ready: a worker alone could not tell a hit from a miss. */
  async start(): Promise<void> {
    const started = new Promise<void>((resolve) => {
      this.#resolveStarted = resolve;
    });
    const children = [this.#storekeeper, ...this.#workers];
    // A child that hangs must not outlive this process, however it ends.
    process.on('exit', () => children.forEach((child) => child.kill()));
    if (this.#certificates === null) ignoreReload(this.#log);
    else process.on('SIGHUP', () => this.#certificates?.reload());
    for (const child of children) child.start();
    await started;
    this.#started = true;
    this.#dispatchQueue();
  }

  dispatch(socket: Socket): void {
    const ready = this.#started ? this.#workers.filter((worker) => worker.ready) : [];
    if (ready.length === 0) {
      if (this.#stopping || this.#queue.length >= LIMITS.connectionsQueuedMax) socket.destroy();
      else this.#queue.push(socket);
      return;
    }
    this.#accepted += 1;
    // Round robin, but a worker that does not acknowledge its connections gets no more: it may hang.
    const worker = ready
      .map((_, at) => ready[(this.#accepted + at) % ready.length]!)
      .reduce((best, each) => (each.unacknowledged < best.unacknowledged ? each : best));
    worker.handOver(this.#accepted, socket);
    if (this.#accepted % CONNECTIONS_PER_COLLECTION === 0) collectNow();
  }

  /** Workers finish their responses, then the storekeeper closes the store. */
  async drain(): Promise<void> {
    this.#stopping = true;
    for (const child of [this.#storekeeper, ...this.#workers]) child.stopRestarting();
    for (const socket of this.#queue.splice(0)) socket.destroy();
    this.#storekeeper.send({ kind: 'prepare-drain' });
    await Promise.all(this.#workers.map((worker) => worker.drain()));
    await this.#storekeeper.drain();
  }

  #openCertificates(): CertificateStore | null {
    const files = tlsFilesOf(this.#config);
    if (files === null) return null;
    const onChange = (secrets: TlsSecrets): void => {
      for (const worker of this.#workers) worker.send({ kind: 'tls', secrets });
    };
    return new CertificateStore({ files, clock: systemClock, log: this.#log, onChange });
  }

  #newStorekeeper(): Child {
    const spec: StorekeeperSpec = { config: this.#config };
    return this.#newChild('storekeeper', {
      module: 'storekeeper',
      env: { LARDER_STOREKEEPER: JSON.stringify(spec) },
      greeting: () => null,
      onExit: (code) => {
        // A storekeeper that rejects its settings would reject them again.
        if (code === EXIT.usage) process.exit(EXIT.usage);
      },
    });
  }

  #newWorker(number: number): Child {
    const config = this.#config;
    const spec: WorkerSpec = {
      appliance: config.id,
      worker: number,
      origin: config.origin,
      mode: inFleet(config) ? 'fleet' : 'alone',
      identity: proxyIdentityOf(config),
      connectionsMax: Math.ceil(config.connectionsMax / config.workers),
      accessLog: config.accessLog,
      tls: config.tlsCert === null ? null : { http2: config.http2 },
    };
    return this.#newChild(`worker-${number}`, {
      module: 'worker',
      env: { LARDER_WORKER: JSON.stringify(spec), ...(spec.tls === null ? {} : TLS_ENV) },
      greeting: () => this.#tlsMessage(),
      onExit: () => undefined,
    });
  }

  #newChild(name: string, spec: Pick<ChildDeps, 'module' | 'env' | 'greeting' | 'onExit'>): Child {
    return new Child({
      ...spec,
      name,
      directory: this.#config.state,
      onReady: () => this.#onChildReady(),
      onReturned: (socket) => this.dispatch(socket),
      clock: systemClock,
      log: this.#log,
    });
  }

  #tlsMessage(): FromSupervisor | null {
    return this.#certificates === null ? null : { kind: 'tls', secrets: this.#certificates.secrets };
  }

  #onChildReady(): void {
    if (this.#storekeeper.ready && this.#workers.some((worker) => worker.ready)) this.#resolveStarted();
    if (this.#started) this.#dispatchQueue();
  }

  #dispatchQueue(): void {
    for (const socket of this.#queue.splice(0)) this.dispatch(socket);
  }
}

/** Resolves with the address that the server is bound to. */
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
