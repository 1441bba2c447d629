// The one way to open a LevelDB database. A predecessor that is still closing is waited for; another layout is refused by name.

import { Level } from 'level';
import { Fault } from '../protocol/faults.ts';
import { systemClock, type Clock } from './clock.ts';
import { diskFault, makeDirectory } from './disk.ts';
import type { Log } from './log.ts';

const LOCK_RETRY_MS = 100;
/** A predecessor needs no longer than this to close, after a restart or a `kill -9`. */
export const LOCK_WAIT_MS = 10_000;

export interface LevelSpec {
  /** Directory of the database; it is made if it is absent. */
  readonly path: string;
  readonly valueEncoding: 'json' | 'utf8';
  /** How long another process may go on holding the lock; 0 if absent. */
  readonly lockWaitMs?: number;
  /** Bytes that LevelDB gathers before it writes a file, and the size of that file; LevelDB's own 4 and 2 MiB if absent. */
  readonly writeBufferBytes?: number;
  /** Called when the database is damaged; true means that it was set aside and is to be opened once more. */
  readonly repair?: (error: Error) => boolean;
  readonly clock?: Clock;
  readonly log?: Log;
}

/** Throws `store_locked`, `disk_full` or `disk_failed`. */
export async function openLevel<V>(spec: LevelSpec): Promise<Level<string, V>> {
  const { path, lockWaitMs = 0, clock = systemClock } = spec;
  const startedMs = clock.monotonic();
  let repaired = false;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await tryOpen<V>(spec);
    } catch (error) {
      const cause = causeOf(error);
      if (cause.code === 'LEVEL_LOCKED') {
        if (clock.monotonic() - startedMs >= lockWaitMs)
          throw new Fault('store_locked', `${path} is in use by another process`, { cause: error });
        if (attempt === 1) spec.log?.warn({ path }, 'the directory is in use by another process, waiting for its end');
        await clock.sleep(LOCK_RETRY_MS);
      } else if (!repaired && /corrupt|missing|checksum/i.test(cause.message) && spec.repair?.(cause) === true)
        repaired = true;
      else throw diskFault(cause, path);
    }
  }
}

async function tryOpen<V>({ path, valueEncoding, writeBufferBytes }: LevelSpec): Promise<Level<string, V>> {
  makeDirectory(path);
  const buffers =
    writeBufferBytes === undefined ? {} : { writeBufferSize: writeBufferBytes, maxFileSize: writeBufferBytes };
  const db = new Level<string, V>(path, { valueEncoding, ...buffers });
  await db.open();
  return db;
}

/** Level wraps what LevelDB said. */
function causeOf(error: unknown): NodeJS.ErrnoException {
  const { cause } = error as { cause?: NodeJS.ErrnoException };
  return cause ?? (error as NodeJS.ErrnoException);
}

/** Writes the layout into a new database. Closes one with another layout and throws `store_mismatch`. */
export async function checkLayout<V>(
  db: Level<string, V>,
  spec: { readonly key: string; readonly layout: V & number; readonly directory: string },
): Promise<void> {
  const { key, layout, directory } = spec;
  const found = await db.get(key);
  if (found === undefined) return db.put(key, layout, { sync: true } as object);
  if (found === layout) return;
  await db.close();
  throw new Fault(
    'store_mismatch',
    `${directory} has layout ${JSON.stringify(found)}, this version writes ${layout}; use an empty --state directory`,
  );
}
