// Databases that fail on demand: what a full or broken disk does to a write.

import type { State } from '../state.ts';

export const WRITE_ERROR = 'EIO: the write failed';

/** The next batch that `matches` rejects and writes nothing; the following ones succeed. */
export function failNextBatch(state: State, matches: (keys: readonly string[]) => boolean = () => true): void {
  const batch = state.batch.bind(state) as (...args: readonly unknown[]) => Promise<void>;
  const failOnce = (...args: readonly unknown[]): Promise<void> => {
    const keys = (args[0] as readonly { readonly key: string }[]).map(({ key }) => key);
    if (!matches(keys)) return batch(...args);
    Object.assign(state, { batch });
    return Promise.reject(new Error(WRITE_ERROR));
  };
  Object.assign(state, { batch: failOnce });
}

/** The next batch is written at once, but resolves only when the returned function is called. */
export function holdNextBatch(state: State): () => void {
  const batch = state.batch.bind(state) as (...args: readonly unknown[]) => Promise<void>;
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const holdOnce = async (...args: readonly unknown[]): Promise<void> => {
    Object.assign(state, { batch });
    await batch(...args);
    await released;
  };
  Object.assign(state, { batch: holdOnce });
  return release;
}
