// Active probes: every two seconds a small request goes to each appliance's first advertised URL, so that a dead or frozen one
// loses its plays before its lease expires. Any HTTP answer counts as alive, whatever its status.

import { Agent, request, type Dispatcher } from 'undici';
import type { Clock } from '../runtime/clock.ts';
import { forEachAtMost } from '../runtime/semaphore.ts';
import type { ProbeResult } from './health.ts';

export const PROBE_MS = 2_000;
export const PROBE_TIMEOUT_MS = 1_500;
export const PROBES_AT_ONCE_MAX = 64;

export interface ProberDeps {
  readonly targets: () => readonly { readonly id: string; readonly url: string }[];
  readonly onResult: (appliance: string, result: ProbeResult) => void;
  readonly clock: Clock;
}

export class Prober {
  readonly #deps: ProberDeps;
  /** Each probe opens a connection: a kept-alive one would hide that the appliance no longer accepts any. */
  readonly #agent = new Agent({ connections: null, pipelining: 0, connect: { timeout: PROBE_TIMEOUT_MS } });
  /** Appliances with a probe in flight. */
  readonly #inFlight = new Set<string>();

  constructor(deps: ProberDeps) {
    this.#deps = deps;
  }

  /** Probes in rounds until aborted. A slow round delays the next one; rounds never overlap. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pause = this.#deps.clock.sleep(PROBE_MS, signal).catch(() => undefined);
      await this.round();
      await pause;
    }
    await this.#agent.destroy();
  }

  async round(): Promise<void> {
    await forEachAtMost(PROBES_AT_ONCE_MAX, this.#deps.targets(), (target) => this.probe(target));
  }

  /** Probes one appliance, or does nothing if a probe of it is in flight. Never throws. */
  async probe({ id, url }: { readonly id: string; readonly url: string }): Promise<void> {
    if (this.#inFlight.has(id)) return;
    this.#inFlight.add(id);
    try {
      this.#deps.onResult(id, await probeOnce(url, this.#agent));
    } finally {
      this.#inFlight.delete(id);
    }
  }
}

/** Sends `OPTIONS`, which the appliance answers itself: it is neither cached nor forwarded to the origin. */
async function probeOnce(url: string, dispatcher: Dispatcher): Promise<ProbeResult> {
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
  // A host name with several addresses is refused only if every address refuses.
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.every(isRefusal);
  return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
}
