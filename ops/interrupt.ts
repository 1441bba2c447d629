// Ctrl-C for verbs that follow a task of a service: it ends the following, not the task.

/** Runs `work` with a signal that Ctrl-C or SIGTERM aborts. Afterwards both signals have their default effect again. */
export async function withInterruptSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  process.once('SIGINT', abort);
  process.once('SIGTERM', abort);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', abort);
    process.off('SIGTERM', abort);
  }
}
