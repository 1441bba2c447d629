// A child process of the supervisor: forked from a module, killed when it hangs, and forked again with back-off whenever it ends. Holds our
// copies of the connections that were handed to the process until it acknowledges them or ends.

import { fork, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { siblingModule } from '../runtime/paths.ts';
import type { FromSupervisor, ToSupervisor } from './ipc.ts';
import { LIMITS } from './limits.ts';
import { BEAT_MS, Pulse } from './liveness.ts';

const RESTART_MS = 50;
const RESTART_MS_MAX = 5_000;
/** A process that ran this long resets the back-off. */
const STABLE_MS = 10_000;
/** A V8 flag, in MiB. A young generation of up to 48 MiB per process gains nothing, because short-lived objects here are small. */
const V8_FLAGS = ['--max-semi-space-size=1'];

export interface ChildDeps {
  readonly name: string;
  /** The module to fork, next to this file. */
  readonly module: string;
  readonly directory: string;
  readonly env: Readonly<Record<string, string>>;
  /** The first message to each new process, if any. */
  readonly greeting: () => FromSupervisor | null;
  readonly onReady: () => void;
  /** Takes back a connection that the process was handed and, because it hung, never had. */
  readonly onReturned: (socket: Socket) => void;
  /** Called with the exit code, before the process is restarted. */
  readonly onExit: (code: number | null) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class Child {
  readonly #deps: ChildDeps;
  #process: ChildProcess | null = null;
  #ready = false;
  #pulse = new Pulse();
  #watch: Timer | null = null;
  #hung = false;
  #stopping = false;
  #forkedAtMs = 0;
  /** Processes in a row that ended before they were stable. */
  #failures = 0;
  /** Connections sent to the process and not yet acknowledged, by number. */
  readonly #unacknowledged = new Map<number, Socket>();

  constructor(deps: ChildDeps) {
    this.#deps = deps;
  }

  get ready(): boolean {
    return this.#ready && this.#process?.connected === true;
  }

  get unacknowledged(): number {
    return this.#unacknowledged.size;
  }

  start(): void {
    const { module, directory, env, greeting } = this.#deps;
    this.#forkedAtMs = this.#deps.clock.monotonic();
    try {
      const forked = fork(siblingModule(import.meta.dirname, module), [], {
        cwd: directory,
        env: { ...process.env, UV_THREADPOOL_SIZE: String(LIMITS.diskThreads), ...env },
        execArgv: [...process.execArgv, ...V8_FLAGS],
      });
      this.#process = forked;
      forked.on('message', (message: ToSupervisor) => this.#onMessage(message));
      forked.on('exit', (code, signal) => this.#onExit(code, signal));
      // A fork that fails has no process id and emits no exit.
      forked.on('error', (error) => {
        if (forked.pid === undefined) this.#onForkFailure(error);
      });
      const message = greeting();
      if (message !== null) this.send(message);
    } catch (error) {
      this.#onForkFailure(error);
    }
  }

  send(message: FromSupervisor, socket?: Socket): void {
    this.#process?.send(message, socket, { keepOpen: true }, () => undefined);
  }

  /** Hands a connection to the process. Our copy of the descriptor is closed once the process has its own. */
  handOver(number: number, socket: Socket): void {
    this.#unacknowledged.set(number, socket);
    socket.on('error', () => undefined);
    this.send({ kind: 'socket', number }, socket);
  }

  /** The process is not restarted from now on. */
  stopRestarting(): void {
    this.#stopping = true;
  }

  /** Resolves when the process has drained and exited. */
  drain(): Promise<void> {
    return new Promise((resolve) => {
      const running = this.#process;
      if (running === null || running.exitCode !== null || running.signalCode !== null) return resolve();
      running.once('exit', () => resolve());
      this.send({ kind: 'drain' });
    });
  }

  kill(): void {
    this.#process?.kill('SIGKILL');
  }

  #onMessage(message: ToSupervisor): void {
    this.#pulse.onBeat();
    if (message.kind === 'accepted') {
      this.#unacknowledged.get(message.number)?.destroy();
      this.#unacknowledged.delete(message.number);
    } else if (message.kind === 'ready') {
      this.#ready = true;
      this.#watch ??= this.#deps.clock.setInterval(() => this.#checkPulse(), BEAT_MS);
      this.#deps.onReady();
    }
  }

  /** Until it is ready, a child may be busy for longer: it loads its index. */
  #checkPulse(): void {
    if (this.#hung || !this.#pulse.tick()) return;
    this.#hung = true;
    this.#ready = false;
    this.#deps.log.error({ child: this.#deps.name, pid: this.#process?.pid }, 'child hangs and is killed');
    this.kill();
  }

  #onForkFailure(error: unknown): void {
    this.#deps.log.error({ err: error, child: this.#deps.name }, 'child cannot be started');
    this.#process = null;
    this.#onExit(null, null);
  }

  #onExit(code: number | null, signal: NodeJS.Signals | null): void {
    const { name, clock, log, onExit } = this.#deps;
    this.#ready = false;
    clock.clear(this.#watch);
    this.#watch = null;
    const [isReturned, unacknowledged] = [this.#hung, [...this.#unacknowledged.values()]];
    this.#hung = false;
    this.#pulse = new Pulse();
    this.#unacknowledged.clear();
    // One that died by itself may have read from a connection, and its word for it may be lost. One that hung has read nothing.
    for (const socket of unacknowledged)
      if (isReturned) this.#deps.onReturned(socket);
      else socket.destroy();
    if (this.#stopping) return;
    onExit(code);
    this.#failures = clock.monotonic() - this.#forkedAtMs > STABLE_MS ? 0 : this.#failures + 1;
    const restartMs = Math.min(RESTART_MS * 2 ** Math.max(0, this.#failures - 1), RESTART_MS_MAX);
    log.warn({ child: name, code, signal, restartMs }, 'child ended, restarting');
    clock.setTimeout(() => {
      if (!this.#stopping) this.start();
    }, restartMs);
  }
}
