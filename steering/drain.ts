// Drains and orders of one appliance, as pure steps from record to record. A drain has a start and optionally an end. The
// appliance receives an order at either edge, and the drain order once more when it restarts as a new incarnation.

import type { StateOrder } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import type { Order } from '../protocol/heartbeat.ts';
import type { ApplianceRecord, Drain } from './registry.ts';

/** As many as the answer to a heartbeat may carry. */
export const ORDERS_MAX = 100;

/** Makes order ids. */
export type NewId = () => string;

/** Records the operator's order; `advanceDrain` carries it out when it is due. Throws `body_invalid`. */
export function scheduleDrain(record: ApplianceRecord, order: StateOrder, now: number): ApplianceRecord {
  const from = Math.max(now, order.at === null ? now : Date.parse(order.at));
  if (order.state === 'draining') {
    const drain: Drain = {
      from: new Date(from).toISOString(),
      until: order.forMs === null ? null : isoInstantAt(from + order.forMs),
      told: false,
    };
    return { ...record, drain };
  }
  if (order.forMs !== null)
    throw new Fault('body_invalid', `body.forMs is ${order.forMs}: only a drain has a length; send null`, {
      detail: { field: 'body.forMs' },
    });
  if (record.drain === null) return record;
  return { ...record, drain: { ...record.drain, until: isoInstantAt(from) } };
}

/** Orders a drain that is due and lifts one that is over. Returns the same object if neither is the case. */
export function advanceDrain(record: ApplianceRecord, now: number, newId: NewId): ApplianceRecord {
  const { drain } = record;
  if (drain === null) return record;
  if (drain.until !== null && Date.parse(drain.until) <= now) {
    const lifted = { ...record, drain: null };
    return drain.told ? queueOrder(lifted, { id: newId(), kind: 'resume' }) : lifted;
  }
  if (drain.told || Date.parse(drain.from) > now) return record;
  return queueOrder({ ...record, drain: { ...drain, told: true } }, { id: newId(), kind: 'drain', until: drain.until });
}

export const isDrained = ({ drain }: Pick<ApplianceRecord, 'drain'>, now: number): boolean =>
  drain !== null && Date.parse(drain.from) <= now && (drain.until === null || now < Date.parse(drain.until));

/** Removes the orders that were carried out. A new incarnation knows of no drain, so one in force is ordered again. */
export function acknowledgeOrders(
  record: ApplianceRecord,
  heartbeat: { readonly ordersDone: readonly string[]; readonly restarted: boolean },
  newId: NewId,
): ApplianceRecord {
  const orders = record.orders.filter((order) => !heartbeat.ordersDone.includes(order.id));
  const { drain } = record;
  if (heartbeat.restarted && drain?.told === true && !orders.some((order) => order.kind === 'drain'))
    return queueOrder({ ...record, orders }, { id: newId(), kind: 'drain', until: drain.until });
  return { ...record, orders };
}

/**
 * Appends an order. A drain or resume replaces a queued drain or resume; a fill order replaces a queued one for the same run.
 * Throws `overloaded` at the bound.
 */
export function queueOrder(record: ApplianceRecord, order: Order): ApplianceRecord {
  const others = record.orders.filter(
    (queued) =>
      !(order.kind !== 'fill' && queued.kind !== 'fill') &&
      !(order.kind === 'fill' && queued.kind === 'fill' && queued.run === order.run),
  );
  if (others.length < ORDERS_MAX) return { ...record, orders: [...others, order] };
  if (order.kind === 'fill')
    throw new Fault(
      'overloaded',
      `${record.beat.appliance} has ${ORDERS_MAX} orders that it did not carry out; see whether it is alive`,
    );
  // A drain must get through. The oldest fill order can be dropped, because the appliance fetches its plan by itself anyway.
  return { ...record, orders: [...others.slice(1), order] };
}

/** Caps the instant at the year 9999: a length in the millions of years would exceed the range of dates, 8.64e15 ms. */
const isoInstantAt = (ms: number): string => new Date(Math.min(ms, Date.UTC(9999, 11, 31))).toISOString();
