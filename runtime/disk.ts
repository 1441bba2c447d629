// Disk helpers of every process: creating directories, and turning system errors into faults.

import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Fault, isFault } from '../protocol/faults.ts';

/** Creates a directory and its parents with mode 0700, level by level: on some file systems Node's recursive mkdir never returns. */
export function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** Converts an error of the file system or of LevelDB into `disk_full` or `disk_failed`. Faults are returned unchanged. */
export function diskFault(error: unknown, path: string): Fault {
  if (isFault(error)) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  // LevelDB reports a full disk only in its message.
  const full = code === 'ENOSPC' || code === 'EDQUOT' || /no space left|quota exceeded/i.test(message);
  return new Fault(full ? 'disk_full' : 'disk_failed', `${path}: ${message}`, { cause: error });
}
