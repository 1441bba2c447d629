// Starts readers.ts, as many processes as their sockets need, and asks them what they read.

import type { ReadersCounts, ReadersDone, ReadersSpec } from './readers.ts';
import { CLIENT_CORE, message, tell, type Ring, type Running } from './ring.ts';

/** Descriptors of one process, with room to spare below the usual limit. */
const READERS_PER_PROCESS = 5_000;

export const READERS: ReadersSpec = {
  url: '',
  manner: 'once',
  readers: 1,
  path: '/',
  assets: 1,
  assetBytes: 0,
  rangeBytes: 0,
  bytesPerSecond: 0,
  missShare: 0,
  missPath: '/',
};

export interface Audience {
  /** Until all have what they came for first. */
  readonly ready: Promise<ReadersDone>;
  counts(): Promise<ReadersCounts>;
  leave(): Promise<void>;
}

export function startAudience(ring: Ring, spec: Partial<ReadersSpec> & { readonly url: string }): Audience {
  const whole = { ...READERS, ...spec };
  const processes: Running[] = [];
  for (let left = whole.readers; left > 0; left -= READERS_PER_PROCESS)
    processes.push(
      ring.spawnModule(`readers-${processes.length}`, CLIENT_CORE, 'readers', {
        ...whole,
        readers: Math.min(left, READERS_PER_PROCESS),
      }),
    );
  const ready = Promise.all(processes.map((each) => message<ReadersDone>(each, 'ready'))).then((all) => ({
    ...sum(all),
    lastMs: Math.max(...all.map(({ lastMs }) => lastMs)),
    medianMs: all[0]!.medianMs,
  }));
  // Whoever waits for it hears of a failure; a bench that has failed before must not end as a defect.
  ready.catch(() => undefined);
  return {
    ready,
    counts: async () =>
      sum(
        await Promise.all(
          processes.map((each) => {
            const answer = message<ReadersCounts>(each, 'counts');
            tell(each, { kind: 'count' });
            return answer;
          }),
        ),
      ),
    leave: async () => {
      await Promise.all(processes.map((each) => ring.stop(each)));
    },
  };
}

function sum(all: readonly ReadersCounts[]): ReadersCounts {
  const of = (field: keyof ReadersCounts): number => all.reduce((total, each) => total + each[field], 0);
  return {
    bodyBytes: of('bodyBytes'),
    answers: of('answers'),
    errors: of('errors'),
    onTime: of('onTime'),
    connected: of('connected'),
  };
}
