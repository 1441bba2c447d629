// What every process does the same way about disks: directories are made, and errors of the system become faults.

import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Fault, isFault } from '../protocol/faults.ts';

/** Makes a directory and its parents with mode 0700, level by level: below some kernel file systems Node's recursive form never ends. */
export function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** An error of the file system or of LevelDB as `disk_full` or `disk_failed`; a fault stays what it is. */
export function diskFault(error: unknown, path: string): Fault {
  if (isFault(error)) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  // LevelDB reports a full disk in its message alone.
  const full = code === 'ENOSPC' || code === 'EDQUOT' || /no space left|quota exceeded/i.test(message);
  return new Fault(full ? 'disk_full' : 'disk_failed', `${path}: ${message}`, { cause: error });
}
