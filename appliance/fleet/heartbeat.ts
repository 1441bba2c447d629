// The control link: this appliance sends heartbeats, steering answers with a lease and orders. Without steering the appliance
// keeps serving, and heartbeats go on until they are answered again.

import { BEAT_MS, heartbeatAnswer, type Heartbeat, type Order } from '../../protocol/heartbeat.ts';
import { isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import { call } from '../../runtime/client.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';
import { InventoryLog } from './inventory.ts';

const BEAT_TIMEOUT_MS = 2_500;
/** Of `heartbeat.ordersDone` in the protocol. */
const ORDERS_PER_BEAT_MAX = 100;
const ORDERS_REMEMBERED_MAX = 1_000;

export type HeartbeatBody = Omit<Heartbeat, 'seq' | 'inventory' | 'inventoryRevision' | 'ordersDone'>;

export interface HeartbeatDeps {
  readonly steering: string;
  readonly token: string;
  readonly body: () => HeartbeatBody;
  readonly inventory: () => ReadonlySet<HoldingId>;
  readonly executeOrder: (order: Order) => Promise<void>;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

/** Heartbeats to one steering URL. */
export class HeartbeatLoop {
  readonly #deps: HeartbeatDeps;
  readonly #inventory = new InventoryLog();
  /** Ids of executed orders, so that none is executed twice. */
  readonly #executed = new Set<string>();
  /** Ids of executed orders that no answered heartbeat has reported. */
  #unreported: string[] = [];
  #seq = 0;
  /** Null while a heartbeat is under way. */
  #timer: Timer | null = null;
  #stopped = false;
  #answered = false;

  constructor(deps: HeartbeatDeps) {
    this.#deps = deps;
  }

  /** Whether the last heartbeat was answered. */
  get answered(): boolean {
    return this.#answered;
  }

  start(): void {
    void this.#beat();
  }

  /** Sends the next heartbeat early, because something changed that steering should know. */
  beatNow(): void {
    if (this.#timer === null || this.#stopped) return;
    this.#deps.clock.clear(this.#timer);
    void this.#beat();
  }

  /** Sends a last heartbeat, so that steering need not wait for the lease to expire. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#deps.clock.clear(this.#timer);
    await this.#send().catch(() => undefined);
  }

  async #beat(): Promise<void> {
    const { clock, counters } = this.#deps;
    this.#timer = null;
    let nextMs = BEAT_MS;
    try {
      nextMs = await this.#send();
      this.#answered = true;
      counters.add('larder_heartbeats_total', 1, { outcome: 'answered' });
    } catch (error) {
      if (!isFault(error)) throw error;
      // Logged once per outage.
      if (this.#answered || this.#seq === 1)
        this.#deps.log.warn(
          { steering: this.#deps.steering, code: error.code, reason: error.message },
          'heartbeat not answered; serving goes on',
        );
      this.#answered = false;
      counters.add('larder_heartbeats_total', 1, { outcome: error.code });
      counters.add('larder_fallback_total', 1, { name: 'steering_down_serve' });
    }
    if (!this.#stopped) this.#timer = clock.setTimeout(() => void this.#beat(), nextMs);
  }

  /** Returns the interval to the next heartbeat. */
  async #send(): Promise<number> {
    const { steering, token } = this.#deps;
    const body = this.#deps.body();
    const inventory = this.#inventory.delta(this.#deps.inventory());
    const ordersDone = this.#unreported.slice(0, ORDERS_PER_BEAT_MAX);
    this.#seq += 1;
    const heartbeat: Heartbeat = {
      ...body,
      seq: this.#seq,
      inventory,
      inventoryRevision: this.#inventory.revision,
      ordersDone,
    };
    const answer = await call({
      url: `${steering}/v1/appliances/${body.appliance}/heartbeat`,
      method: 'POST',
      token,
      body: heartbeat,
      answer: heartbeatAnswer,
      timeoutMs: BEAT_TIMEOUT_MS,
    });
    this.#inventory.acknowledge(answer.inventoryRevision);
    this.#unreported = this.#unreported.filter((id) => !ordersDone.includes(id));
    await this.#execute(answer.orders);
    return answer.beatMs;
  }

  /** Steering repeats an order until it is reported done, so a repeated one is reported again but not executed again. */
  async #execute(orders: readonly Order[]): Promise<void> {
    for (const order of orders) {
      if (!this.#executed.has(order.id)) {
        this.#executed.add(order.id);
        await this.#deps.executeOrder(order);
      }
      if (!this.#unreported.includes(order.id)) this.#unreported.push(order.id);
    }
    while (this.#executed.size > ORDERS_REMEMBERED_MAX) this.#executed.delete(this.#executed.values().next().value!);
  }
}
