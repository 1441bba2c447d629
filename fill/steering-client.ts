// What fill asks of steering: the fleet with its inventory, and to hand appliances the order to fill. The last view of the
// fleet is kept on disk, so that with steering gone a night is planned with what was known, also after a restart.

import { z } from 'zod';
import { fleet, type Fleet } from '../protocol/decision.ts';
import { Fault, isFault } from '../protocol/faults.ts';
import { call } from '../runtime/client.ts';
import type { Log } from '../runtime/log.ts';
import { mutex } from '../runtime/semaphore.ts';
import type { FillMetrics } from './metrics.ts';
import type { State } from './state.ts';

export const ORDER_TIMEOUT_MS = 5_000;

export interface SteeringDeps {
  /** Base URL without a trailing slash. */
  readonly url: string;
  readonly token: string;
  readonly state: State;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

export class SteeringClient {
  readonly #deps: SteeringDeps;
  readonly #exclusively = mutex();
  #last: Fleet | null = null;

  private constructor(deps: SteeringDeps) {
    this.#deps = deps;
  }

  static async open(deps: SteeringDeps): Promise<SteeringClient> {
    const client = new SteeringClient(deps);
    const kept = fleet.safeParse(await deps.state.get('fleet'));
    client.#last = kept.success ? kept.data : null;
    return client;
  }

  /** The fleet with its inventory; the last one seen where steering does not answer. Throws where none was ever seen. */
  async fleet(): Promise<Fleet> {
    try {
      const seen = await this.#get('/v1/fleet?inventory=1', fleet);
      await this.#exclusively(async () => {
        await this.#deps.state.put('fleet', seen);
        this.#last = seen;
      });
      return seen;
    } catch (error) {
      if (this.#last === null || !isFault(error) || error.spec.status < 500) throw error;
      this.#deps.metrics.add('larder_fallback_total', 1, { name: 'steering_down_plan_from_memory' });
      this.#deps.log.warn({ reason: error.message, fleetAt: this.#last.at }, 'planning with the fleet last seen');
      return this.#last;
    }
  }

  /** Appliances with a lease; null where steering does not answer. */
  async alive(): Promise<ReadonlySet<string> | null> {
    try {
      const seen = await this.#get('/v1/fleet', fleet);
      return new Set(seen.appliances.filter((a) => a.liveness === 'alive').map((a) => a.id));
    } catch (error) {
      this.#deps.log.debug({ err: error }, 'steering does not say who is alive');
      return null;
    }
  }

  async orderFill(appliance: string, run: string, signal: AbortSignal): Promise<void> {
    await call({
      url: `${this.#deps.url}/v1/appliances/${encodeURIComponent(appliance)}/orders`,
      method: 'POST',
      body: { kind: 'fill', run },
      token: this.#deps.token,
      answer: z.looseObject({}),
      timeoutMs: ORDER_TIMEOUT_MS,
      signal,
    });
  }

  async #get<S extends z.ZodType>(path: string, answer: S): Promise<z.infer<S>> {
    try {
      return await call({ url: this.#deps.url + path, token: this.#deps.token, answer });
    } catch (error) {
      // Passed on as it is, it would tell the operator that the operator's token is wrong.
      if (isFault(error) && (error.code === 'token_forged' || error.code === 'token_missing'))
        throw new Fault(
          'config_invalid',
          `steering at ${this.#deps.url} refuses fill: both need the same fleet key (--fleet-key); ${error.message}`,
          { cause: error },
        );
      throw error;
    }
  }
}
