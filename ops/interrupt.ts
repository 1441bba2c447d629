// Ctrl-C for verbs that follow something: the following ends, what was started goes on at the service.

/** Runs `work` with a signal that Ctrl-C or SIGTERM aborts; afterwards both do what they always do. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = (): void => controller.abort();
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
