// Imports a title and follows the import to its end. Used by `catalog import` and the demo.

import { importAccepted, importProgress, type ImportProgress } from '../protocol/answers.ts';
import { Fault, FAULTS, type FaultCode } from '../protocol/faults.ts';
import { systemClock } from '../runtime/clock.ts';
import type { ControlClient } from './control-client.ts';
import { poll } from './poll.ts';
import { RateMeter, type Progress } from './progress.ts';

const POLL_MS = 200;

/** Resolves once the import has ended, or to null once `signal` aborts. Throws the fault of an import that failed. */
export async function importTitle(
  client: ControlClient,
  request: { readonly url: string; readonly title: string | null },
  progress: Progress,
  signal: AbortSignal,
): Promise<ImportProgress | null> {
  const { id } = await client.fill('/v1/imports', importAccepted, { method: 'POST', body: request });
  const meter = new RateMeter();
  const name = `import ${request.title ?? shortPath(request.url)}`;
  try {
    const ended = await poll(
      async () => {
        const current = await client.fill(`/v1/imports/${id}`, importProgress);
        const bytesPerSecond = meter.record(systemClock.monotonic(), current.bytesDone);
        const row = { name, done: current.bytesDone, total: current.bytesTotal, bytesPerSecond };
        progress.show([current.bytesTotal === 0 ? { ...row, note: 'reading the manifest' } : row]);
        return current.state === 'running' ? null : current;
      },
      { everyMs: POLL_MS, signal },
    );
    if (ended?.state === 'failed') throw importFault(ended);
    return ended;
  } finally {
    progress.stop();
  }
}

function importFault(failed: ImportProgress): Fault {
  const code = failed.fault?.code ?? 'internal';
  return new Fault(
    code in FAULTS ? (code as FaultCode) : 'internal',
    `${failed.url} was not imported: ${failed.fault?.message ?? 'fill gave no reason'}`,
    failed.fault === null ? {} : { help: failed.fault.help },
  );
}

/** The last two segments of the path, such as `harbor/master.m3u8`. */
const shortPath = (url: string): string => new URL(url).pathname.split('/').slice(-2).join('/');
