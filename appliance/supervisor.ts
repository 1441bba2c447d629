// The process that cannot fail: it binds, accepts, forks and restarts, and parses nothing. One storekeeper, N workers.
//
// Each accepted connection is handed to a worker with `keepOpen`; our copy of the descriptor is closed when the worker
// says that it has it, or when the worker dies. (node:cluster's round robin leaks both when workers are killed.)

import { fork, type ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { formatHostPort } from '../runtime/config.ts';
import type { Log } from '../runtime/log.ts';
import { siblingModule } from '../runtime/paths.ts';
import { EXIT, untilStopped } from '../runtime/process.ts';
import { inFleet, type ApplianceConfig } from './config.ts';
import type { FromSupervisor, KeeperSpec, ToSupervisor, WorkerSpec } from './family.ts';

const RESTART_MS = 50;
const RESTART_MS_MAX = 5_000;
/** A child that lived this long starts with a clean record. */
const STEADY_MS = 10_000;
/** Accepted connections that wait for a worker while none is up. */
const WAITING_MAX = 1_024;

interface Child {
  readonly name: string;
  process: ChildProcess | null;
  ready: boolean;
  startedAt: number;
  failures: number;
  /** Connections sent to it and not yet acknowledged. */
  readonly pending: Map<number, Socket>;
}

export async function supervise(config: ApplianceConfig, log: Log): Promise<void> {
  mkdirSync(config.state, { recursive: true, mode: 0o700 });
  let stopping = false;
  let sequence = 0;
  const waiting: Socket[] = [];
  const keeper = child('storekeeper');
  const workers = Array.from({ length: config.workers }, (_, at) => child(`worker-${at}`));
  let announceReady = (): void => undefined;
  const firstReady = new Promise<void>((resolve) => {
    announceReady = resolve;
  });

  const start = (target: Child, module: string, env: Record<string, string>): void => {
    target.startedAt = performance.now();
    target.process = fork(siblingModule(import.meta.dirname, module), [], {
      cwd: config.state,
      env: { ...process.env, ...env },
      execArgv: process.execArgv,
    });
    target.process.on('message', (message: ToSupervisor) => hear(target, message));
    target.process.on('exit', (code, signal) => {
      target.ready = false;
      for (const socket of target.pending.values()) socket.destroy();
      target.pending.clear();
      if (stopping) return;
      if (target === keeper && code === EXIT.usage) process.exit(EXIT.usage);
      target.failures = performance.now() - target.startedAt > STEADY_MS ? 0 : target.failures + 1;
      const delayMs = Math.min(RESTART_MS * 2 ** Math.max(0, target.failures - 1), RESTART_MS_MAX);
      log.warn({ child: target.name, code, signal, restartMs: delayMs }, 'child ended, restarting');
      setTimeout(() => stopping || start(target, module, env), delayMs);
    });
  };

  const hear = (target: Child, message: ToSupervisor): void => {
    if (message.kind === 'taken') {
      target.pending.get(message.number)?.destroy();
      target.pending.delete(message.number);
    } else if (message.kind === 'ready') {
      target.ready = true;
      if (keeper.ready && workers.some((worker) => worker.ready)) announceReady();
      if (target === keeper) return;
      for (const socket of waiting.splice(0)) hand(socket);
    }
  };

  let turn = 0;
  const hand = (socket: Socket): void => {
    const up = workers.filter((worker) => worker.ready && worker.process?.connected === true);
    if (up.length === 0) {
      if (stopping || waiting.length >= WAITING_MAX) socket.destroy();
      else waiting.push(socket);
      return;
    }
    turn += 1;
    sequence += 1;
    const worker = up[turn % up.length]!;
    worker.pending.set(sequence, socket);
    socket.on('error', () => undefined);
    send(worker, { kind: 'socket', number: sequence }, socket);
  };

  const keeperSpec: KeeperSpec = { config };
  start(keeper, 'storekeeper', { LARDER_STOREKEEPER: JSON.stringify(keeperSpec) });
  for (const [at, worker] of workers.entries()) {
    const spec: WorkerSpec = {
      appliance: config.id,
      worker: at,
      origin: config.origin,
      mode: inFleet(config) ? 'fleet' : 'alone',
    };
    start(worker, 'worker', { LARDER_WORKER: JSON.stringify(spec) });
  }

  const server = createServer({ pauseOnConnect: true, noDelay: true }, hand);
  server.maxConnections = config.connectionsMax;
  await firstReady;
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen({ host: config.listen.host, port: config.listen.port, backlog: 4096 }, resolve),
  );
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : config.listen.port;
  log.info({ listen: formatHostPort({ host: config.listen.host, port }), workers: workers.length }, 'serving');

  const signal = await untilStopped(log, config.drainTimeout);
  stopping = true;
  log.info({ signal, drainMs: config.drainTimeout }, 'draining');
  server.close();
  for (const socket of waiting.splice(0)) socket.destroy();
  await Promise.all(workers.map((worker) => drain(worker)));
  await drain(keeper);
  log.info('stopped');
  process.exit(EXIT.done);
}

function child(name: string): Child {
  return { name, process: null, ready: false, startedAt: 0, failures: 0, pending: new Map() };
}

function drain(target: Child): Promise<void> {
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
