// Calls from fill to steering: the fleet with its inventories, its leases, and orders to appliances to pull their plan. The
// last view of the fleet is kept on disk, so that plans can be made from it while steering is down, also after a restart.

import { z } from 'zod';
import { fleet, type Fleet } from '../protocol/decision.ts';
import { Fault, isFault } from '../protocol/faults.ts';
import { call } from '../runtime/client.ts';
import type { Log } from '../runtime/log.ts';
import { mutex } from '../runtime/semaphore.ts';
import type { Database } from './database.ts';
import type { FillMetrics } from './metrics.ts';

const ORDER_TIMEOUT_MS = 5_000;

interface SteeringClientDeps {
  /** Base URL without a trailing slash. */
  readonly url: string;
  readonly token: string;
  readonly database: Database;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

export class SteeringClient {
  readonly #deps: SteeringClientDeps;
  readonly #exclusively = mutex();
  #lastFleet: Fleet | null = null;

  private constructor(deps: SteeringClientDeps) {
    this.#deps = deps;
  }

  static async open(deps: SteeringClientDeps): Promise<SteeringClient> {
    const client = new SteeringClient(deps);
    const stored = fleet.safeParse(await deps.database.get('fleet'));
    client.#lastFleet = stored.success ? stored.data : null;
    return client;
  }

  /** The fleet with its inventories; the last view if steering does not answer. Throws if there has never been one. */
  async fleet(): Promise<Fleet> {
    try {
      const current = await this.#get('/v1/fleet?inventory=1', fleet);
      await this.#exclusively(() => this.#store(current));
      return current;
    } catch (error) {
      if (this.#lastFleet === null || !isFault(error) || error.spec.status < 500) throw error;
      const { metrics, log } = this.#deps;
      metrics.add('larder_fallback_total', 1, { name: 'steering_down_plan_from_memory' });
      log.warn({ reason: error.message, fleetAt: this.#lastFleet.at }, 'planning with the last view of the fleet');
      return this.#lastFleet;
    }
  }

  /** Appliances that hold a lease; null if steering does not answer. */
  async leaseHolders(): Promise<ReadonlySet<string> | null> {
    try {
      const { appliances } = await this.#get('/v1/fleet', fleet);
      return new Set(appliances.filter((a) => a.liveness === 'alive').map((a) => a.id));
    } catch (error) {
      this.#deps.log.debug({ err: error }, 'steering did not answer, the leases are unknown');
      return null;
    }
  }

  /** Has steering order the appliance to pull its plan. */
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

  async #store(current: Fleet): Promise<void> {
    await this.#deps.database.put('fleet', current);
    this.#lastFleet = current;
  }

  async #get<S extends z.ZodType>(path: string, answer: S): Promise<z.infer<S>> {
    try {
      return await call({ url: this.#deps.url + path, token: this.#deps.token, answer });
    } catch (error) {
      // Unchanged, the fault would tell the operator that the operator's own token is wrong.
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
