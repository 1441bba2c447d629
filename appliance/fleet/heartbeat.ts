// The control link: this appliance beats, steering answers with a lease and orders. Steering gone changes nothing for
// players: the beat goes on until somebody answers.

import { BEAT_MS, heartbeatAnswer, type Heartbeat, type InventoryDelta, type Order } from '../../protocol/heartbeat.ts';
import { isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import { call } from '../../runtime/client.ts';
import type { Log } from '../../runtime/log.ts';
import { InventoryLog } from './inventory.ts';
import type { Counters } from '../metrics.ts';

const BEAT_TIMEOUT_MS = 2_500;
const ORDERS_REMEMBERED_MAX = 1_000;

export type HeartbeatBody = Omit<Heartbeat, 'seq' | 'inventory' | 'inventoryRevision' | 'ordersDone'>;

export interface HeartbeatDeps {
  readonly steering: string;
  readonly token: string;
  readonly body: () => HeartbeatBody;
  readonly inventory: () => ReadonlySet<HoldingId>;
  readonly executeOrder: (order: Order) => Promise<void>;
  readonly counters: Counters;
  readonly log: Log;
}

/** One per steering URL. */
export class HeartbeatLoop {
  readonly #deps: HeartbeatDeps;
  readonly #inventory = new InventoryLog();
  /** Orders carried out: acknowledged with the next beat, and never carried out twice. */
  readonly #done = new Set<string>();
  #unacknowledged: string[] = [];
  #seq = 0;
  #timer: NodeJS.Timeout | null = null;
  #stopped = false;
  #answered = false;

  constructor(deps: HeartbeatDeps) {
    this.#deps = deps;
  }

  /** Whether the last beat was answered. */
  get answered(): boolean {
    return this.#answered;
  }

  start(): void {
    void this.#beat();
  }

  /** Beats before its time, because something changed that steering should know. */
  beatNow(): void {
    if (this.#timer === null || this.#stopped) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    void this.#beat();
  }

  /** A last beat, so that steering need not wait for the lease. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#send().catch(() => undefined);
  }

  async #beat(): Promise<void> {
    this.#timer = null;
    let nextMs = BEAT_MS;
    try {
      nextMs = await this.#send();
      this.#answered = true;
      this.#deps.counters.add('larder_heartbeats_total', 1, { outcome: 'answered' });
    } catch (error) {
      if (!isFault(error)) throw error;
      if (this.#answered || this.#seq === 1)
        this.#deps.log.warn(
          { steering: this.#deps.steering, code: error.code, reason: error.message },
          'heartbeat not answered; serving goes on',
        );
      this.#answered = false;
      this.#deps.counters.add('larder_heartbeats_total', 1, { outcome: error.code });
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'steering_down_serve' });
    }
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#beat(), nextMs);
  }

  async #send(): Promise<number> {
    const body = this.#deps.body();
    const inventory: InventoryDelta | null = this.#inventory.delta(this.#deps.inventory());
    const ordersDone = this.#unacknowledged.slice(0, 100);
    this.#seq += 1;
    const answer = await call({
      url: `${this.#deps.steering}/v1/appliances/${body.appliance}/heartbeat`,
      method: 'POST',
      token: this.#deps.token,
      body: {
        ...body,
        seq: this.#seq,
        inventory,
        inventoryRevision: this.#inventory.revision,
        ordersDone,
      } satisfies Heartbeat,
      answer: heartbeatAnswer,
      timeoutMs: BEAT_TIMEOUT_MS,
    });
    this.#inventory.acknowledge(answer.inventoryRevision);
    this.#unacknowledged = this.#unacknowledged.filter((id) => !ordersDone.includes(id));
    for (const order of answer.orders) {
      if (!this.#done.has(order.id)) {
        this.#done.add(order.id);
        await this.#deps.executeOrder(order);
      }
      if (!this.#unacknowledged.includes(order.id)) this.#unacknowledged.push(order.id);
    }
    while (this.#done.size > ORDERS_REMEMBERED_MAX) this.#done.delete(this.#done.values().next().value!);
    return answer.beatMs;
  }
}
