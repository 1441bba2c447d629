// Starts the load-generating clients of client-worker.ts, in as many processes as their sockets require, and sums up their counts.

import type { ClientCounts, ClientSpec, ClientSummary } from './client-worker.ts';
import { CLIENT_CORE, nextMessage, sendMessage, type PinnedProcess, type Testbed } from './testbed.ts';

/** Sockets per process, well below the usual limit of descriptors. */
const CLIENTS_PER_PROCESS = 5_000;

const DEFAULT_SPEC: ClientSpec = {
  url: '',
  mode: 'once',
  clients: 1,
  path: '/',
  assets: 1,
  assetBytes: 0,
  rangeBytes: 0,
  bytesPerSecond: 0,
  missShare: 0,
  missPath: '/',
};

interface ClientPool {
  /** Resolves once every client has reached the state of its mode, such as its first response. */
  readonly ready: Promise<ClientSummary>;
  counts(): Promise<ClientCounts>;
  close(): Promise<void>;
}

export function startClients(testbed: Testbed, options: Partial<ClientSpec> & { readonly url: string }): ClientPool {
  const spec = { ...DEFAULT_SPEC, ...options };
  const workers: PinnedProcess[] = [];
  for (let left = spec.clients; left > 0; left -= CLIENTS_PER_PROCESS)
    workers.push(
      testbed.spawnWorker(`clients-${workers.length}`, CLIENT_CORE, 'client-worker', {
        ...spec,
        clients: Math.min(left, CLIENTS_PER_PROCESS),
      }),
    );
  const ready = Promise.all(workers.map((worker) => nextMessage<ClientSummary>(worker, 'ready'))).then((all) => ({
    ...sum(all),
    lastMs: Math.max(...all.map(({ lastMs }) => lastMs)),
    medianMs: all[0]!.medianMs,
  }));
  // A bench that has failed already does not await this promise, and its rejection must not end the process.
  ready.catch(() => undefined);
  return {
    ready,
    counts: async () =>
      sum(
        await Promise.all(
          workers.map((worker) => {
            const counts = nextMessage<ClientCounts>(worker, 'counts');
            sendMessage(worker, { kind: 'count' });
            return counts;
          }),
        ),
      ),
    close: async () => {
      await Promise.all(workers.map((worker) => testbed.stop(worker)));
    },
  };
}

function sum(all: readonly ClientCounts[]): ClientCounts {
  const total = (field: keyof ClientCounts): number => all.reduce((before, counts) => before + counts[field], 0);
  return {
    bodyBytes: total('bodyBytes'),
    responses: total('responses'),
    errors: total('errors'),
    onTime: total('onTime'),
    connected: total('connected'),
  };
}
