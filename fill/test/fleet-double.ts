// A double of steering and its fleet: an HTTP server whose answers conform to the protocol's schemas, and appliances that pull
// their plans and report progress when the test says so.

import fastify, { type FastifyInstance } from 'fastify';
import { z } from 'zod';
import { fleet, type Fleet, type FleetAppliance } from '../../protocol/decision.ts';
import { faultBody, isFault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import { fillPlan, fillProgress, type FillPlan, type FillProgress } from '../../protocol/plan.ts';
import { issueToken, verifyToken } from '../../runtime/auth.ts';
import { call } from '../../runtime/client.ts';

const orderBody = z.strictObject({ kind: z.literal('fill'), run: z.string() });

interface FillOrder {
  readonly appliance: string;
  readonly run: string;
}

export class FleetDouble {
  readonly appliances = new Map<string, FleetAppliance>();
  readonly orders: FillOrder[] = [];
  /** Requests for the fleet without its inventories, as they are made to read the leases. */
  leaseReads = 0;
  /** Statuses with which the next orders are refused. */
  readonly orderFailures: number[] = [];
  /** With a key other than fill's, the tokens of fill are refused. */
  key: Buffer;
  readonly #port: number;
  #app: FastifyInstance | null = null;

  constructor(key: Buffer, port = 0) {
    this.key = key;
    this.#port = port;
  }

  async start(): Promise<string> {
    const app = fastify();
    app.setErrorHandler((error, _, reply) =>
      isFault(error) ? reply.code(error.spec.status).send(faultBody(error)) : reply.code(500).send(),
    );
    this.#app = app;
    app.addHook('onRequest', async (request) => {
      if (verifyToken(this.key, request.headers.authorization).role !== 'service') throw new Error('not fill');
    });
    app.get<{ Querystring: { inventory?: string } }>('/v1/fleet', ({ query }) => {
      if (query.inventory !== '1') this.leaseReads += 1;
      return this.view(query.inventory === '1');
    });
    app.post<{ Params: { id: string } }>('/v1/appliances/:id/orders', async ({ params, body }, reply) => {
      const failure = this.orderFailures.shift();
      if (failure !== undefined) return reply.code(failure).send();
      this.orders.push({ appliance: params.id, run: orderBody.parse(body).run });
      return { order: 'o1' };
    });
    return app.listen({ host: '127.0.0.1', port: this.#port });
  }

  async stop(): Promise<void> {
    await this.#app?.close();
    this.#app = null;
  }

  add(id: string, overrides: Partial<FleetAppliance> = {}): void {
    this.appliances.set(id, {
      id,
      site: 'north',
      advertise: ['http://127.0.0.2:1'],
      position: null,
      timeZone: 'UTC',
      fillWindows: [],
      fillRateBitsPerSecond: null,
      state: 'serving',
      health: { level: 'green', causes: [] },
      liveness: 'alive',
      leaseEndsAt: new Date(0).toISOString(),
      draining: null,
      storeBytes: 1e12,
      usedBytes: 0,
      pinnedBytes: 0,
      planBytes: 1e12,
      connections: 0,
      connectionsMax: 1,
      servedBytes: 0,
      servedRequests: 0,
      inventoryRevision: 0,
      holdings: 0,
      inventory: [],
      version: '0',
      ...overrides,
    });
  }

  change(id: string, changes: Partial<FleetAppliance>): void {
    this.appliances.set(id, { ...this.appliances.get(id)!, ...changes });
  }

  view(withInventory: boolean): Fleet {
    const appliances = [...this.appliances.values()].map(({ inventory, ...rest }) =>
      withInventory ? { ...rest, inventory: inventory ?? [] } : rest,
    );
    const sites = [...new Set(appliances.map((a) => a.site))].map((id) => ({
      id,
      position: null,
      prefixes: 0,
      appliances: appliances.filter((a) => a.site === id).length,
    }));
    return fleet.parse({
      protocol: PROTOCOL_VERSION,
      at: new Date().toISOString(),
      catalogRevision: 0,
      sites,
      appliances,
    });
  }

  /** Pulls the plan of an appliance. */
  pull(fill: string, appliance: string): Promise<FillPlan> {
    return call({ url: `${fill}/v1/plans/${appliance}`, token: this.#token(appliance), answer: fillPlan });
  }

  async report(fill: string, plan: FillPlan, progress: Partial<FillProgress>): Promise<void> {
    const body = fillProgress.parse({
      protocol: PROTOCOL_VERSION,
      run: plan.run,
      plan: plan.id,
      appliance: plan.appliance,
      state: 'filling',
      bytesTotal: plan.addBytes,
      bytesDone: 0,
      bytesResumed: 0,
      renditionsTotal: plan.add.length,
      renditionsDone: 0,
      bytesPerSecond: 0,
      faults: [],
      at: new Date().toISOString(),
      ...progress,
    });
    await call({
      url: `${fill}/v1/runs/${plan.run}/progress`,
      method: 'POST',
      token: this.#token(plan.appliance),
      body,
      answer: z.object({ ok: z.literal(true) }),
    });
  }

  /** Pulls the plan of an appliance, reports it done, and puts it into the appliance's inventory. */
  async complete(fill: string, appliance: string): Promise<FillPlan> {
    const plan = await this.pull(fill, appliance);
    await this.report(fill, plan, { state: 'done', bytesDone: plan.addBytes, renditionsDone: plan.add.length });
    this.change(appliance, { inventory: [...plan.keep, ...plan.add].map((item) => item.holding) });
    return plan;
  }

  #token(appliance: string): string {
    return issueToken(this.key, { role: 'appliance', id: appliance });
  }
}
