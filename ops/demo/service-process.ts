// One process of the demo: started in a group of its own, so that a kill or a freeze takes the workers it forked too; its
// log in a file, whose end is shown when it fails.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from 'undici';
import { Fault } from '../../protocol/faults.ts';
import { packageRoot } from '../../runtime/paths.ts';
import { signalGroup, untilGroupEnds } from './process-group.ts';

export const READY_MS = 20_000;
const STOP_MS = 4_000;
const LOOK_MS = 40;
const LOG_LINES_SHOWN = 15;

export type ProcessState = 'running' | 'frozen' | 'stopped';

export interface ProcessSpec {
  readonly name: string;
  /** Arguments of `larder`. */
  readonly args: readonly string[];
  /** All answer 200 to the demo's token once the process does its work. */
  readonly readyUrls: readonly string[];
  readonly logFile: string;
  readonly env: Readonly<Record<string, string>>;
}

/** The process that ends everything when this one is gone; see demo-warden.ts. */
export class Warden {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = spawn(process.execPath, [join(packageRoot, 'dist', 'ops', 'demo', 'reaper.js')], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#child.unref();
    // A warden that was killed guards nothing more; the demo itself goes on.
    this.#child.stdin!.on('error', () => undefined);
    this.#child.on('error', () => undefined);
  }

  say(word: 'started' | 'ended' | 'directory', value: number | string): void {
    this.#child.stdin!.write(`${word} ${value}\n`);
  }

  dismiss(): void {
    this.#child.stdin!.end();
  }
}

export class DemoProcess {
  readonly spec: ProcessSpec;
  readonly #larder: string;
  readonly #warden: Warden;
  readonly #token: string;
  #child: ChildProcess | null = null;
  #state: ProcessState = 'stopped';
  #wanted = false;
  readonly #groups: number[] = [];

  constructor(spec: ProcessSpec, deps: { readonly larder: string; readonly warden: Warden; readonly token: string }) {
    this.spec = spec;
    this.#larder = deps.larder;
    this.#warden = deps.warden;
    this.#token = deps.token;
  }

  get state(): ProcessState {
    return this.#state;
  }

  /** Every process group it ever had: the pids of their leaders. */
  get groups(): readonly number[] {
    return this.#groups;
  }

  /** True where it ended by itself. */
  get crashed(): boolean {
    return this.#wanted && this.#state === 'stopped';
  }

  /** Resolves when it is ready; throws with the end of its log where it ends or stays silent instead. */
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
    this.#warden.say('started', child.pid);
    this.#groups.push(child.pid);
    this.#child = child;
    this.#state = 'running';
    this.#wanted = true;
    child.once('exit', () => this.#ended(child));
    await this.#untilReady(child);
  }

  /** Asks it to end as an operator would, and insists after a while. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#wanted = false;
    signalGroup(child.pid!, 'SIGCONT');
    child.kill('SIGTERM');
    if (!(await this.#endsWithin(child, STOP_MS))) signalGroup(child.pid!, 'SIGKILL');
    await untilGroupEnds(child.pid!, STOP_MS);
  }

  /** `kill -9` to the whole group: no last word, no flush. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    this.#wanted = false;
    signalGroup(child.pid!, 'SIGKILL');
    await this.#endsWithin(child, STOP_MS);
    await untilGroupEnds(child.pid!, STOP_MS);
  }

  /** `SIGSTOP`: sockets stay open and nothing answers, as on a box that hangs. */
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

  /** The last lines of its log, made short for people; the file has them in full. */
  logTail(): string {
    try {
      const lines = readFileSync(this.spec.logFile, 'utf8').trimEnd().split('\n');
      return lines.slice(-LOG_LINES_SHOWN).map(shorten).join('\n');
    } catch {
      return '(no log)';
    }
  }

  async #untilReady(child: ChildProcess): Promise<void> {
    const deadline = performance.now() + READY_MS;
    while (performance.now() < deadline) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw this.#failure(`ended with ${child.exitCode ?? child.signalCode} instead of starting`);
      if (await this.#isReady()) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    await this.kill();
    throw this.#failure(`was not ready within ${READY_MS / 1000} s (${this.spec.readyUrls.join(', ')})`);
  }

  async #isReady(): Promise<boolean> {
    for (const url of this.spec.readyUrls) if (!(await answers(url, this.#token))) return false;
    return true;
  }

  #failure(what: string): Fault {
    return new Fault('internal', `${this.spec.name} ${what}; the end of its log:\n${this.logTail()}`);
  }

  #ended(child: ChildProcess): void {
    // Workers that outlived their leader would keep the port.
    signalGroup(child.pid!, 'SIGKILL');
    this.#warden.say('ended', child.pid!);
    if (this.#child !== child) return;
    this.#child = null;
    this.#state = 'stopped';
  }

  #endsWithin(child: ChildProcess, ms: number): Promise<boolean> {
    if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms);
      child.once('exit', () => {
        clearTimeout(timer);
        resolve(true);
      });
    });
  }
}

/** `05:30:22 fatal storekeeper: defect: Value cannot be null` of a log line; anything else as it is. */
function shorten(line: string): string {
  let entry: LogEntry;
  try {
    entry = JSON.parse(line) as LogEntry;
  } catch {
    return line;
  }
  if (typeof entry.msg !== 'string') return line;
  const about = entry.err?.message === undefined || entry.err.message === entry.msg ? '' : `: ${entry.err.message}`;
  return `${(entry.time ?? '').slice(11, 19)} ${entry.level ?? ''} ${entry.role ?? ''}: ${entry.msg}${about}`;
}

interface LogEntry {
  readonly time?: string;
  readonly level?: string;
  readonly role?: string;
  readonly msg?: string;
  readonly err?: { readonly message?: string };
}

async function answers(url: string, token: string): Promise<boolean> {
  try {
    const headers = { authorization: `Bearer ${token}` };
    const response = await request(url, { headers, signal: AbortSignal.timeout(1_000) });
    await response.body.dump();
    return response.statusCode === 200;
  } catch {
    return false;
  }
}
