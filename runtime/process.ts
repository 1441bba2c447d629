// The life cycle of every process: exit codes, error messages, signals, and the bond between parent and child.

import { Fault, faultBody, isFault, type FaultBody } from '../protocol/faults.ts';
import { systemClock } from './clock.ts';
import type { Log } from './log.ts';

/** Exit statuses: 2 is a usage or configuration error, 3 a service that could not be reached, 130 Ctrl-C. */
export const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

export function exitCodeOf(error: unknown): number {
  if (!isFault(error)) return EXIT.failed;
  if (['config_invalid', 'map_invalid', 'token_missing'].includes(error.code)) return EXIT.usage;
  return error.code === 'unreachable' ? EXIT.unreachable : EXIT.failed;
}

/** The message for people on stderr: what happened and what to do next. Only defects include the stack. */
export function describeError(error: unknown): string {
  if (isFault(error)) return `larder: ${error.message}\n  ${error.help}`;
  return `larder: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
}

/** The error for programs, in the form in which the services return it. */
export function errorBody(error: unknown): FaultBody {
  if (isFault(error)) return faultBody(error);
  return faultBody(new Fault('internal', error instanceof Error ? error.message : String(error)));
}

/** Logs a defect (an uncaught exception or rejection) and exits, so that the supervisor starts a clean process. */
export function dieOnDefect(log: Log): void {
  const die = (error: unknown): never => {
    log.fatal({ err: error }, 'defect');
    process.exit(EXIT.failed);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);
}

/**
 * Binds this child process to its parent. Signals are ignored, because Ctrl-C and service managers signal the whole group, but only
 * the parent decides when its children stop. If the parent has gone, the child exits, because nothing else would stop it.
 */
export function followParent(): void {
  process.on('SIGTERM', () => undefined);
  process.on('SIGINT', () => undefined);
  process.on('SIGHUP', () => undefined);
  process.on('disconnect', () => process.exit(EXIT.done));
  if (process.send !== undefined && !process.connected) process.exit(EXIT.done);
}

/** Sends a message to the parent. Errors are ignored: `followParent` notices a parent that has gone. */
export function sendToParent(message: object): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/** SIGHUP, which would end the process, is answered in a process that has nothing to read again. */
export function ignoreReload(log: Log): void {
  process.on('SIGHUP', () => log.info('SIGHUP: nothing here is read again without a restart'));
}

/**
 * Resolves with the first SIGTERM or SIGINT. A second signal ends the process at once, and so does a shutdown that takes longer than
 * `drainMs`.
 */
export function untilStopped(log: Log, drainMs: number): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let stopping = false;
    const stop = (signal: NodeJS.Signals): void => {
      if (stopping) process.exit(EXIT.interrupted);
      stopping = true;
      const exitUndrained = (): void => {
        log.warn({ drainMs }, 'drain bound reached, leaving');
        process.exit(EXIT.done);
      };
      systemClock.setTimeout(exitUndrained, drainMs).unref();
      resolve(signal);
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
