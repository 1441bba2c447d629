// Makes writes of a real database fail or wait, as a full or broken disk does.

import type { Database } from '../database.ts';

export const WRITE_ERROR = 'EIO: the write failed';

/** Rejects the next batch whose keys match, and writes nothing of it. Later batches succeed. */
export function failNextBatch(database: Database, matches: (keys: readonly string[]) => boolean = () => true): void {
  const batch = database.batch.bind(database) as (...args: readonly unknown[]) => Promise<void>;
  const failOnce = (...args: readonly unknown[]): Promise<void> => {
    const keys = (args[0] as readonly { readonly key: string }[]).map(({ key }) => key);
    if (!matches(keys)) return batch(...args);
    Object.assign(database, { batch });
    return Promise.reject(new Error(WRITE_ERROR));
  };
  Object.assign(database, { batch: failOnce });
}

/** Writes the next batch at once, but resolves it only when the returned function is called. */
export function holdNextBatch(database: Database): () => void {
  const batch = database.batch.bind(database) as (...args: readonly unknown[]) => Promise<void>;
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const holdOnce = async (...args: readonly unknown[]): Promise<void> => {
    Object.assign(database, { batch });
    await batch(...args);
    await released;
  };
  Object.assign(database, { batch: holdOnce });
  return release;
}
