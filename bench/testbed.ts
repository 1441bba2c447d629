// The testbed of a bench: a temporary directory, and processes that are pinned to a core. Whether the bench ends, fails or is
// interrupted, the processes are stopped and the directory is deleted.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { systemClock } from '../runtime/clock.ts';
import { packageRoot } from '../runtime/paths.ts';
import { EXIT } from '../runtime/process.ts';

const READY_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 10_000;
const POLL_MS = 10;

/** One core runs the server, the other the clients and the origin. */
export const SERVER_CORE = 0;
export const CLIENT_CORE = Math.min(1, cpus().length - 1);

export interface PinnedProcess {
  readonly pid: number;
  readonly process: ChildProcess;
  readonly logFile: string;
}

export class Testbed {
  readonly directory = mkdtempSync(join(tmpdir(), 'larder-bench-'));
  readonly #processes = new Set<PinnedProcess>();
  readonly #deferred: (() => void)[] = [];
  #closing: Promise<void> | null = null;
  readonly #onSignal = (): void => {
    void this.close().finally(() => process.exit(EXIT.interrupted));
  };
  readonly #onExit = (): void => {
    for (const target of this.#processes) signalGroup(target, 'SIGKILL');
  };

  constructor() {
    process.once('SIGINT', this.#onSignal);
    process.once('SIGTERM', this.#onSignal);
    process.once('exit', this.#onExit);
  }

  /** Creates an empty directory of that name. */
  makeDirectory(name: string): string {
    const path = join(this.directory, name);
    rmSync(path, { recursive: true, force: true });
    mkdirSync(path);
    return path;
  }

  /** Starts a process group on one core. Its output goes to NAME.log. */
  spawn(
    name: string,
    core: number,
    command: readonly string[],
    options: { readonly ipc?: boolean; readonly env?: Readonly<Record<string, string>> } = {},
  ): PinnedProcess {
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
    const target = { pid: child.pid, process: child, logFile };
    this.#processes.add(target);
    return target;
  }

  /** Starts a module of bench/ as a process that reads `spec` from its environment and exchanges messages. */
  spawnWorker(name: string, core: number, module: string, spec: object): PinnedProcess {
    const path = join(packageRoot, 'dist', 'bench', `${module}.js`);
    return this.spawn(name, core, [process.execPath, path], {
      ipc: true,
      env: { LARDER_BENCH: JSON.stringify(spec) },
    });
  }

  /** Runs `work` after all processes have ended. */
  defer(work: () => void): void {
    this.#deferred.push(work);
  }

  async stop(target: PinnedProcess, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (!this.#processes.has(target)) return;
    await stopProcess(target, signal);
    this.#processes.delete(target);
  }

  /** May be called again while the testbed closes: after a signal the bench fails, too, and closes it. */
  close(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  async #shutDown(): Promise<void> {
    await Promise.all([...this.#processes].map((target) => this.stop(target)));
    for (const work of this.#deferred.splice(0)) work();
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 10 });
    process.off('SIGINT', this.#onSignal);
    process.off('SIGTERM', this.#onSignal);
    process.off('exit', this.#onExit);
  }
}

/** Runs a bench in a new testbed, and closes it. */
export async function withTestbed<T>(work: (testbed: Testbed) => Promise<T>): Promise<T> {
  const testbed = new Testbed();
  try {
    return await work(testbed);
  } finally {
    await testbed.close();
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

/** What a process wrote last, for the message of an error. */
export const logTail = ({ logFile }: PinnedProcess): string => readFileSync(logFile, 'utf8').slice(-2_000);

/** Polls until a response has a status below 500. Resolves to the milliseconds since the call. */
export async function waitForResponse(url: string, target: PinnedProcess, waitMs = READY_TIMEOUT_MS): Promise<number> {
  const start = systemClock.monotonic();
  while (systemClock.monotonic() - start < waitMs) {
    if (target.process.exitCode !== null) break;
    const response = await fetch(url).catch(() => null);
    await response?.body?.cancel();
    if (response !== null && response.status < 500) return systemClock.monotonic() - start;
    await systemClock.sleep(POLL_MS);
  }
  throw new Fault(
    'internal',
    `${url} did not answer within ${Math.round((systemClock.monotonic() - start) / 1000)} s:\n${logTail(target)}`,
  );
}

/** The next message of that kind from a worker. */
export function nextMessage<T>(target: PinnedProcess, kind: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const onMessage = (received: { readonly kind: string }): void => {
      if (received.kind !== kind) return;
      unsubscribe();
      resolve(received as T);
    };
    const onExit = (): void => {
      unsubscribe();
      reject(new Fault('internal', `a worker of the bench ended:\n${logTail(target)}`));
    };
    const unsubscribe = (): void => {
      target.process.off('message', onMessage);
      target.process.off('exit', onExit);
    };
    target.process.on('message', onMessage);
    target.process.on('exit', onExit);
  });
}

export function sendMessage(target: PinnedProcess, message: { readonly kind: string }): void {
  target.process.send(message);
}

async function stopProcess(target: PinnedProcess, signal: NodeJS.Signals): Promise<void> {
  const { process: child } = target;
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  signalGroup(target, signal);
  const timer = systemClock.setTimeout(() => signalGroup(target, 'SIGKILL'), STOP_TIMEOUT_MS);
  await exited;
  systemClock.clear(timer);
  // A process that outlives the leader of its group would keep running.
  signalGroup(target, 'SIGKILL');
}

function signalGroup({ pid }: PinnedProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // The group has ended already.
  }
}
