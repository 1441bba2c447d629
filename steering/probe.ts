// Steering's own eyes: every two seconds a small request to each appliance's first advertised URL, so that a dead or
// frozen one loses its plays before its lease ends. Any HTTP answer is life; what it says does not matter.

import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request, type Dispatcher } from 'undici';
import type { Log } from '../runtime/log.ts';
import { forEachAtMost } from '../runtime/semaphore.ts';
import type { ProbeResult } from './health.ts';

export const PROBE_MS = 2_000;
export const PROBE_TIMEOUT_MS = 1_500;
export const PROBES_AT_ONCE_MAX = 64;

export interface ProbeDeps {
  readonly targets: () => readonly { readonly id: string; readonly url: string }[];
  readonly probed: (appliance: string, result: ProbeResult) => void;
  readonly log: Log;
}

export class Prober {
  readonly #deps: ProbeDeps;
  /** A connection of its own for each probe: a kept one would hide that nobody accepts any more. */
  readonly #agent = new Agent({ connections: null, pipelining: 0, connect: { timeout: PROBE_TIMEOUT_MS } });
  readonly #inFlight = new Set<string>();

  constructor(deps: ProbeDeps) {
    this.#deps = deps;
  }

  /** Rounds until aborted; a slow round delays the next, and never doubles it. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pause = sleep(PROBE_MS, undefined, { signal }).catch(() => undefined);
      await this.round();
      await pause;
    }
    await this.#agent.destroy();
  }

  async round(): Promise<void> {
    await forEachAtMost(PROBES_AT_ONCE_MAX, this.#deps.targets(), (target) => this.probe(target));
  }

  /** One probe of one appliance; nothing while another is under way. Never throws. */
  async probe({ id, url }: { readonly id: string; readonly url: string }): Promise<void> {
    if (this.#inFlight.has(id)) return;
    this.#inFlight.add(id);
    try {
      this.#deps.probed(id, await probeOnce(url, this.#agent));
    } finally {
      this.#inFlight.delete(id);
    }
  }
}

/** `OPTIONS`: answered by the appliance itself, stored nowhere, asked of no origin. */
export async function probeOnce(url: string, dispatcher: Dispatcher): Promise<ProbeResult> {
  try {
    const { body } = await request(url, {
      method: 'OPTIONS',
      dispatcher,
      signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    });
    body.destroy();
    body.on('error', () => undefined);
    return 'answered';
  } catch (error) {
    return isRefusal(error) ? 'refused' : 'missed';
  }
}

function isRefusal(error: unknown): boolean {
  // A name with several addresses: refused only where all of them refuse.
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.every(isRefusal);
  return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
}
