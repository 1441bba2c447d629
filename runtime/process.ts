// What every process does the same way: exit codes, signals, last words.

import { isFault } from '../protocol/faults.ts';
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
  if (isFault(error)) return `larder: ${error.message}\n  ${error.spec.help}`;
  return `larder: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
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

/** A child whose parent ends it in order: Ctrl-C and service managers signal the whole group, the parent alone decides. */
export function leaveSignalsToParent(): void {
  process.on('SIGTERM', () => undefined);
  process.on('SIGINT', () => undefined);
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
