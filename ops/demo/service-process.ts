// One service of the demo as a process. It runs in a process group of its own, so that a kill or a freeze includes the workers
// that it forked. Its log goes to a file, whose last lines are shown if it fails.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { request } from 'undici';
import { Fault } from '../../protocol/faults.ts';
import { systemClock } from '../../runtime/clock.ts';
import { signalGroup, waitForGroupExit } from './process-group.ts';
import type { ReaperClient } from './reaper-client.ts';

const READY_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 4_000;
const POLL_MS = 40;
const READY_REQUEST_TIMEOUT_MS = 1_000;
const LOG_LINES_SHOWN = 15;

export type ProcessState = 'running' | 'frozen' | 'stopped';

interface ProcessSpec {
  readonly name: string;
  /** Arguments of `larder`. */
  readonly args: readonly string[];
  /** URLs that respond 200 to the demo's token once the service is ready. */
  readonly readyUrls: readonly string[];
  readonly logFile: string;
  readonly env: Readonly<Record<string, string>>;
}

export class ServiceProcess {
  readonly spec: ProcessSpec;
  readonly #larder: string;
  readonly #reaper: ReaperClient;
  readonly #token: string;
  #child: ChildProcess | null = null;
  #state: ProcessState = 'stopped';
  #expectedToRun = false;
  readonly #groups: number[] = [];

  constructor(
    spec: ProcessSpec,
    deps: { readonly larder: string; readonly reaper: ReaperClient; readonly token: string },
  ) {
    this.spec = spec;
    this.#larder = deps.larder;
    this.#reaper = deps.reaper;
    this.#token = deps.token;
  }

  get state(): ProcessState {
    return this.#state;
  }

  /** Process groups of all its starts, oldest first, by the pid of the leader. */
  get groups(): readonly number[] {
    return this.#groups;
  }

  /** True if the process ended without `stop` or `kill`. */
  get crashed(): boolean {
    return this.#expectedToRun && this.#state === 'stopped';
  }

  /** Resolves once the service is ready. Throws, with the end of its log, if it ends or is not ready in time. */
  async start(): Promise<void> {
    if (this.#child !== null) return;
    const log = openSync(this.spec.logFile, 'a');
    const child = spawn(process.execPath, [this.#larder, ...this.spec.args], {
      detached: true,
      stdio: ['ignore', log, log],
      env: this.spec.env,
    });
    closeSync(log);
    if (child.pid === undefined) throw new Fault('internal', `${this.spec.name} could not be started`);
    this.#reaper.groupStarted(child.pid);
    this.#groups.push(child.pid);
    this.#child = child;
    this.#state = 'running';
    this.#expectedToRun = true;
    child.once('exit', () => this.#onExit(child));
    await this.#waitUntilReady(child);
  }

  /** Sends SIGTERM, and SIGKILL after a timeout. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#expectedToRun = false;
    signalGroup(child.pid!, 'SIGCONT');
    child.kill('SIGTERM');
    if (!(await this.#exitsWithin(child, STOP_TIMEOUT_MS))) signalGroup(child.pid!, 'SIGKILL');
    await waitForGroupExit(child.pid!, STOP_TIMEOUT_MS);
  }

  /** Sends SIGKILL to the whole group: nothing is flushed. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#expectedToRun = false;
    signalGroup(child.pid!, 'SIGKILL');
    await this.#exitsWithin(child, STOP_TIMEOUT_MS);
    await waitForGroupExit(child.pid!, STOP_TIMEOUT_MS);
  }

  /** Sends SIGSTOP: sockets stay open and nothing responds, as on a machine that hangs. */
  freeze(): void {
    if (this.#child === null || this.#state !== 'running') return;
    signalGroup(this.#child.pid!, 'SIGSTOP');
    this.#state = 'frozen';
  }

  thaw(): void {
    if (this.#child === null || this.#state !== 'frozen') return;
    signalGroup(this.#child.pid!, 'SIGCONT');
    this.#state = 'running';
  }

  /** The last lines of its log, shortened for people. The file has them in full. */
  logTail(): string {
    try {
      const lines = readFileSync(this.spec.logFile, 'utf8').trimEnd().split('\n');
      return lines.slice(-LOG_LINES_SHOWN).map(formatLogLine).join('\n');
    } catch {
      return '(no log)';
    }
  }

  async #waitUntilReady(child: ChildProcess): Promise<void> {
    const deadlineMs = systemClock.monotonic() + READY_TIMEOUT_MS;
    while (systemClock.monotonic() < deadlineMs) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw this.#failure(`ended with ${child.exitCode ?? child.signalCode} instead of starting`);
      if (await this.#isReady()) return;
      await systemClock.sleep(POLL_MS);
    }
    await this.kill();
    throw this.#failure(`was not ready within ${READY_TIMEOUT_MS / 1000} s (${this.spec.readyUrls.join(', ')})`);
  }

  async #isReady(): Promise<boolean> {
    for (const url of this.spec.readyUrls) if (!(await respondsOk(url, this.#token))) return false;
    return true;
  }

  #failure(what: string): Fault {
    return new Fault('internal', `${this.spec.name} ${what}; the end of its log:\n${this.logTail()}`);
  }

  #onExit(child: ChildProcess): void {
    // Workers that outlive their leader would keep the port.
    signalGroup(child.pid!, 'SIGKILL');
    this.#reaper.groupEnded(child.pid!);
    if (this.#child !== child) return;
    this.#child = null;
    this.#state = 'stopped';
  }

  #exitsWithin(child: ChildProcess, ms: number): Promise<boolean> {
    if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = systemClock.setTimeout(() => resolve(false), ms);
      child.once('exit', () => {
        systemClock.clear(timer);
        resolve(true);
      });
    });
  }
}

/** Formats a JSON log line as `05:30:22 fatal storekeeper: defect: Value cannot be null`. Other lines are returned unchanged. */
function formatLogLine(line: string): string {
  let entry: LogEntry;
  try {
    entry = JSON.parse(line) as LogEntry;
  } catch {
    return line;
  }
  if (typeof entry.msg !== 'string') return line;
  const cause = entry.err?.message === undefined || entry.err.message === entry.msg ? '' : `: ${entry.err.message}`;
  return `${(entry.time ?? '').slice(11, 19)} ${entry.level ?? ''} ${entry.role ?? ''}: ${entry.msg}${cause}`;
}

interface LogEntry {
  readonly time?: string;
  readonly level?: string;
  readonly role?: string;
  readonly msg?: string;
  readonly err?: { readonly message?: string };
}

async function respondsOk(url: string, token: string): Promise<boolean> {
  try {
    const headers = { authorization: `Bearer ${token}` };
    const response = await request(url, { headers, signal: AbortSignal.timeout(READY_REQUEST_TIMEOUT_MS) });
    await response.body.dump();
    return response.statusCode === 200;
  } catch {
    return false;
  }
}
