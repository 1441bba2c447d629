// Starts the reaper process (reaper.ts) and reports to it what it must clean up.

import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { packageRoot } from '../../runtime/paths.ts';

export class ReaperClient {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = spawn(process.execPath, [join(packageRoot, 'dist', 'ops', 'demo', 'reaper.js')], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    this.#child.unref();
    // The demo continues without its reaper.
    this.#child.stdin!.on('error', () => undefined);
    this.#child.on('error', () => undefined);
  }

  groupStarted(group: number): void {
    this.#report('started', group);
  }

  groupEnded(group: number): void {
    this.#report('ended', group);
  }

  /** The directory is deleted once this process has ended. */
  deleteAtEnd(directory: string): void {
    this.#report('directory', directory);
  }

  /** Closes the pipe, so that the reaper cleans up and ends. */
  close(): void {
    this.#child.stdin!.end();
  }

  #report(event: 'started' | 'ended' | 'directory', value: number | string): void {
    this.#child.stdin!.write(`${event} ${value}\n`);
  }
}
