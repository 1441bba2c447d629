// Starts slow-origin.ts and asks it what it sent.

import { Fault } from '../protocol/faults.ts';
import type { DistantCounts, DistantSpec } from './slow-origin.ts';
import { CLIENT_CORE, message, tell, type Ring } from './ring.ts';

const SETTLED_MS = 250;
const SETTLE_MS_MAX = 30_000;

export interface Distant {
  readonly url: string;
  counts(): Promise<DistantCounts>;
  /** Counts once nothing more is under way. */
  settled(): Promise<DistantCounts>;
}

export async function startDistant(ring: Ring, spec: DistantSpec): Promise<Distant> {
  const running = ring.spawnModule('slow-origin', CLIENT_CORE, 'slow-origin', spec);
  const { port } = await message<{ readonly port: number }>(running, 'ready');
  const counts = async (): Promise<DistantCounts> => {
    const answer = message<DistantCounts>(running, 'counts');
    tell(running, { kind: 'count' });
    return answer;
  };
  const settled = async (): Promise<DistantCounts> => {
    let before = await counts();
    for (let waitedMs = 0; waitedMs < SETTLE_MS_MAX; waitedMs += SETTLED_MS) {
      await new Promise((resolve) => setTimeout(resolve, SETTLED_MS));
      const now = await counts();
      if (now.bodyBytes === before.bodyBytes) return now;
      before = now;
    }
    throw new Fault('internal', `the origin is still asked for bytes ${SETTLE_MS_MAX / 1_000} s after the last reader`);
  };
  return { url: `http://127.0.0.1:${port}`, counts, settled };
}
