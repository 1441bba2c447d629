// Opens LevelDB databases. Waits for a predecessor that still holds the lock, has damaged databases repaired, and refuses a database
// with another layout.

import type * as LevelPackage from 'level';
import type { Level } from 'level';
import { Fault } from '../protocol/faults.ts';
import { systemClock, type Clock } from './clock.ts';
import { loadCommonJs } from './commonjs.ts';
import { diskFault, makeDirectory } from './disk.ts';
import type { Log } from './log.ts';

const { Level: Database } = loadCommonJs('level') as typeof LevelPackage;

const LOCK_RETRY_MS = 100;
/** Longer than a predecessor takes to close, after a restart or a `kill -9`. */
export const LOCK_WAIT_MS = 10_000;

interface LevelSpec {
  /** Directory of the database; it is created if it does not exist. */
  readonly path: string;
  readonly valueEncoding: 'json' | 'utf8';
  /** How long to wait for another process to release the lock; 0 if absent. */
  readonly lockWaitMs?: number;
  /** Size of LevelDB's write buffer and of its files; LevelDB's defaults of 4 and 2 MiB if absent. */
  readonly writeBufferBytes?: number;
  /** Called once if the database is damaged. Returns true if it moved the database away, so that it is opened again. */
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
  const db = new Database<string, V>(path, { valueEncoding, ...buffers });
  await db.open();
  return db;
}

/** The package wraps the error of LevelDB. */
function causeOf(error: unknown): NodeJS.ErrnoException {
  const { cause } = error as { cause?: NodeJS.ErrnoException };
  return cause ?? (error as NodeJS.ErrnoException);
}

/** Writes the layout version into a new database. Throws `store_mismatch` for a database with another version, and closes it. */
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
