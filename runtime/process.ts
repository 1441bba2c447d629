// What every process does the same way: exit codes, signals, last words.

import { Fault, faultBody, isFault, type FaultBody } from '../protocol/faults.ts';
import type { Log } from './log.ts';

/** 0 done, 1 failed, 2 usage or configuration, 3 a service could not be reached, 130 Ctrl-C. */
export const EXIT = { done: 0, failed: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

export function exitCodeOf(error: unknown): number {
  if (!isFault(error)) return EXIT.failed;
  if (['config_invalid', 'map_invalid', 'token_missing'].includes(error.code)) return EXIT.usage;
  return error.code === 'unreachable' ? EXIT.unreachable : EXIT.failed;
}

/** What a person reads on stderr: what happened, to what, what to do next. The stack only for a defect. */
export function describeError(error: unknown): string {
  if (isFault(error)) return `larder: ${error.message}\n  ${error.help}`;
  return `larder: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
}

/** The same for a program, shaped as the services answer it. */
export function errorBody(error: unknown): FaultBody {
  if (isFault(error)) return faultBody(error);
  return faultBody(new Fault('internal', error instanceof Error ? error.message : String(error)));
}

/** Ends the process on a broken invariant: logged, then out; whoever supervises starts a clean one. */
export function dieOnDefect(log: Log): void {
  const die = (error: unknown): never => {
    log.fatal({ err: error }, 'defect');
    process.exit(EXIT.failed);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);
}

/**
 * A child that lives and dies with its parent: Ctrl-C and service managers signal the whole group, but the parent alone
 * decides; and when the parent is gone nobody would ever stop the child, so it leaves.
 */
export function followParent(): void {
  process.on('SIGTERM', () => undefined);
  process.on('SIGINT', () => undefined);
  process.on('SIGHUP', () => undefined);
  process.on('disconnect', () => process.exit(EXIT.done));
  if (process.send !== undefined && !process.connected) process.exit(EXIT.done);
}

/** Tells the parent; a parent that just died is noticed by `followParent`, not here. */
export function tellParent(message: object): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

/**
 * Resolves with the first SIGTERM or SIGINT. A second one, or `drainMs` later, ends the process at once: the bound of
 * every shutdown.
 */
export function untilStopped(log: Log, drainMs: number): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let stopping = false;
    const stop = (signal: NodeJS.Signals): void => {
      if (stopping) process.exit(EXIT.interrupted);
      stopping = true;
      setTimeout(() => {
        log.warn({ drainMs }, 'drain bound reached, leaving');
        process.exit(EXIT.done);
      }, drainMs).unref();
      resolve(signal);
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
}
