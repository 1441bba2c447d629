// The index database of a volume, opened whatever a predecessor left behind.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { Fault } from '../../protocol/faults.ts';
import type { Log } from '../../runtime/log.ts';
import { diskFault } from './layout.ts';

const LOCK_RETRIES = 100;
const LOCK_RETRY_MS = 100;
const WRITE_BUFFER_BYTES = 2 ** 20;

/** A predecessor may still be closing; an index that cannot be opened otherwise is set aside and rebuilt. */
export async function openIndex(directory: string, log: Log): Promise<Level> {
  const path = join(directory, 'index');
  for (let attempt = 0; ; attempt += 1) {
    const index = new Level<string>(path, {
      valueEncoding: 'utf8',
      writeBufferSize: WRITE_BUFFER_BYTES,
      maxFileSize: WRITE_BUFFER_BYTES,
    });
    try {
      await index.open();
      return index;
    } catch (error) {
      const cause = (error as { cause?: NodeJS.ErrnoException }).cause;
      if (cause?.code !== 'LEVEL_LOCKED') {
        if (attempt > LOCK_RETRIES || !/corrupt|missing|checksum/i.test(String(cause?.message)))
          throw diskFault(cause ?? error, path);
        log.error({ err: cause, path }, 'index cannot be read, rebuilding it from block files');
        rmSync(path, { recursive: true, force: true });
        attempt = LOCK_RETRIES;
      } else if (attempt >= LOCK_RETRIES)
        throw new Fault('store_locked', `${directory} is in use by another process`, { cause: error });
      else {
        if (attempt === 0)
          log.warn({ store: directory }, 'the store is in use by another process, waiting for its end');
        await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
      }
    }
  }
}
