// Starts the distant origin of delayed-origin-worker.ts and reads its counts.

import { Fault } from '../protocol/faults.ts';
import { systemClock } from '../runtime/clock.ts';
import type { DelayedOriginSpec, OriginCounts } from './delayed-origin-worker.ts';
import { CLIENT_CORE, nextMessage, sendMessage, type Testbed } from './testbed.ts';

const IDLE_MS = 250;
const IDLE_TIMEOUT_MS = 30_000;

export interface DelayedOrigin {
  readonly url: string;
  counts(): Promise<OriginCounts>;
  /** Waits until the origin has sent nothing for 250 ms. */
  countsWhenIdle(): Promise<OriginCounts>;
}

export async function startDelayedOrigin(testbed: Testbed, spec: DelayedOriginSpec): Promise<DelayedOrigin> {
  const worker = testbed.spawnWorker('delayed-origin', CLIENT_CORE, 'delayed-origin-worker', spec);
  const { port } = await nextMessage<{ readonly port: number }>(worker, 'ready');
  const counts = async (): Promise<OriginCounts> => {
    const received = nextMessage<OriginCounts>(worker, 'counts');
    sendMessage(worker, { kind: 'count' });
    return received;
  };
  const countsWhenIdle = async (): Promise<OriginCounts> => {
    let before = await counts();
    for (let waitedMs = 0; waitedMs < IDLE_TIMEOUT_MS; waitedMs += IDLE_MS) {
      await systemClock.sleep(IDLE_MS);
      const current = await counts();
      if (current.bodyBytes === before.bodyBytes) return current;
      before = current;
    }
    throw new Fault('internal', `the origin still sends bytes ${IDLE_TIMEOUT_MS / 1_000} s after the last client`);
  };
  return { url: `http://127.0.0.1:${port}`, counts, countsWhenIdle };
}
