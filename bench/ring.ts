// Where a bench takes place: one directory, the processes that it started pinned to their cores, and their end. Whatever
// happens to the bench, Ctrl-C included, nothing of it is left.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { packageRoot } from '../runtime/paths.ts';
import { EXIT } from '../runtime/process.ts';

const READY_MS = 30_000;
const STOP_MS = 10_000;
const LOOK_MS = 10;

/** One core serves, the other asks and plays origin. */
export const SERVER_CORE = 0;
export const CLIENT_CORE = Math.min(1, cpus().length - 1);

export interface Running {
  readonly pid: number;
  readonly process: ChildProcess;
  readonly logFile: string;
}

export class Ring {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-bench-'));
  readonly #running = new Set<Running>();
  readonly #deferred: (() => void)[] = [];
  #closing: Promise<void> | null = null;
  readonly #onSignal = (): void => {
    void this.close().finally(() => process.exit(EXIT.interrupted));
  };
  readonly #onExit = (): void => {
    for (const running of this.#running) signalGroup(running, 'SIGKILL');
  };

  constructor() {
    process.once('SIGINT', this.#onSignal);
    process.once('SIGTERM', this.#onSignal);
    process.once('exit', this.#onExit);
  }

  /** An empty directory of that name. */
  room(name: string): string {
    const path = join(this.directory, name);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path);
    return path;
  }

  /** A process group of its own on one core; output goes to NAME.log. */
  spawn(
    name: string,
    core: number,
    command: readonly string[],
    options: { readonly ipc?: boolean; readonly env?: Readonly<Record<string, string>> } = {},
  ): Running {
    const logFile = join(this.directory, `${name}.log`);
    const log = openSync(logFile, 'a');
    const child = spawn('taskset', ['-c', String(core), ...command], {
      stdio: ['ignore', log, log, ...(options.ipc === true ? (['ipc'] as const) : [])],
      detached: true,
      env: { ...process.env, ...options.env, PATH: `${process.env['PATH']}:/usr/sbin` },
    });
    closeSync(log);
    child.on('error', () => undefined);
    if (child.pid === undefined) throw new Fault('internal', `${command[0]} cannot be started: there is no taskset`);
    const running = { pid: child.pid, process: child, logFile };
    this.#running.add(running);
    return running;
  }

  /** A module of bench/ as a process that is told what to do by `spec` and talks by messages. */
  spawnModule(name: string, core: number, module: string, spec: object): Running {
    const path = join(packageRoot, 'dist', 'bench', `${module}.js`);
    return this.spawn(name, core, [process.execPath, path], {
      ipc: true,
      env: { LARDER_BENCH: JSON.stringify(spec) },
    });
  }

  /** Done when all processes have ended. */
  defer(work: () => void): void {
    this.#deferred.push(work);
  }

  async stop(running: Running, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (!this.#running.has(running)) return;
    await stop(running, signal);
    this.#running.delete(running);
  }

  /** Also when it is being closed already: by a signal, while the bench fails for want of what has ended. */
  close(): Promise<void> {
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async #end(): Promise<void> {
    await Promise.all([...this.#running].map((running) => this.stop(running)));
    for (const work of this.#deferred.splice(0)) work();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10 });
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
    process.off('exit', this.#onExit);
  }
}

/** Runs a bench in a ring of its own, and clears it away. */
export async function withRing<T>(work: (ring: Ring) => Promise<T>): Promise<T> {
  const ring = new Ring();
  try {
    return await work(ring);
  } finally {
    await ring.close();
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Resolves with the milliseconds since the call at the first answer below 500. */
export async function untilAnswered(url: string, running: Running, waitMs = READY_MS): Promise<number> {
  const start = performance.now();
  while (performance.now() - start < waitMs) {
    if (running.process.exitCode !== null) break;
    const response = await fetch(url).catch(() => null);
    await response?.body?.cancel();
    if (response !== null && response.status < 500) return performance.now() - start;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  const tail = readFileSync(running.logFile, 'utf8').slice(-2_000);
  throw new Fault(
    'internal',
    `${url} did not answer within ${Math.round((performance.now() - start) / 1000)} s:\n${tail}`,
  );
}

/** The next message of that kind from a module. */
export function message<T>(running: Running, kind: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const hear = (said: { readonly kind: string }): void => {
      if (said.kind !== kind) return;
      done();
      resolve(said as T);
    };
    const gone = (): void => {
      done();
      reject(
        new Fault('internal', `a helper of the bench ended:\n${readFileSync(running.logFile, 'utf8').slice(-2_000)}`),
      );
    };
    const done = (): void => {
      running.process.off('message', hear);
      running.process.off('exit', gone);
    };
    running.process.on('message', hear);
    running.process.on('exit', gone);
  });
}

export function tell(running: Running, what: { readonly kind: string }): void {
  running.process.send(what);
}

async function stop(running: Running, signal: NodeJS.Signals): Promise<void> {
  const { process: child } = running;
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  signalGroup(running, signal);
  const timer = setTimeout(() => signalGroup(running, 'SIGKILL'), STOP_MS);
  await exited;
  clearTimeout(timer);
  // Whoever of the group outlived its leader would write on.
  signalGroup(running, 'SIGKILL');
}

function signalGroup({ pid }: Running, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // Gone already.
  }
}
