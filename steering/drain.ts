// Drains and orders of one appliance: pure steps from record to record. A drain has a beginning and perhaps an end by the
// clock; the appliance is told by an order at each edge, and told again when it comes back as a new incarnation.

import type { StateOrder } from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import type { Order } from '../protocol/heartbeat.ts';
import type { ApplianceRecord, Drain } from './registry.ts';

/** As many as a heartbeat's answer may carry. */
export const ORDERS_MAX = 100;

export type NewId = () => string;

/** The record after the operator's order; `advance` then carries it out when its time is there. Throws `body_invalid`. */
export function orderState(record: ApplianceRecord, order: StateOrder, now: number): ApplianceRecord {
  const from = Math.max(now, order.at === null ? now : Date.parse(order.at));
  if (order.state === 'draining') {
    const drain: Drain = {
      from: new Date(from).toISOString(),
      until: order.forMs === null ? null : instant(from + order.forMs),
      told: false,
    };
    return { ...record, drain };
  }
  if (order.forMs !== null)
    throw new Fault('body_invalid', `body.forMs is ${order.forMs}: only a drain has a length; send null`, {
      detail: { field: 'body.forMs' },
    });
  if (record.drain === null) return record;
  return { ...record, drain: { ...record.drain, until: instant(from) } };
}

/** The record at `now`: a drain whose time has come is ordered, one that is over is lifted. The same object if nothing is due. */
export function advance(record: ApplianceRecord, now: number, newId: NewId): ApplianceRecord {
  const { drain } = record;
  if (drain === null) return record;
  if (drain.until !== null && Date.parse(drain.until) <= now) {
    const lifted = { ...record, drain: null };
    return drain.told ? withOrder(lifted, { id: newId(), kind: 'resume' }) : lifted;
  }
  if (drain.told || Date.parse(drain.from) > now) return record;
  return withOrder({ ...record, drain: { ...drain, told: true } }, { id: newId(), kind: 'drain', until: drain.until });
}

export const isDrained = ({ drain }: Pick<ApplianceRecord, 'drain'>, now: number): boolean =>
  drain !== null && Date.parse(drain.from) <= now && (drain.until === null || now < Date.parse(drain.until));

/** Orders carried out leave the queue. A new incarnation knows of no drain: one in force is ordered again. */
export function afterBeat(
  record: ApplianceRecord,
  beat: { readonly ordersDone: readonly string[]; readonly restarted: boolean },
  newId: NewId,
): ApplianceRecord {
  const orders = record.orders.filter((order) => !beat.ordersDone.includes(order.id));
  const { drain } = record;
  if (beat.restarted && drain?.told === true && !orders.some((order) => order.kind === 'drain'))
    return withOrder({ ...record, orders }, { id: newId(), kind: 'drain', until: drain.until });
  return { ...record, orders };
}

/**
 * A later drain or resume replaces one that was not carried out yet; a fill order for a run is queued once. Throws
 * `overloaded` at the bound.
 */
export function withOrder(record: ApplianceRecord, order: Order): ApplianceRecord {
  const kept = record.orders.filter(
    (queued) =>
      !(order.kind !== 'fill' && queued.kind !== 'fill') &&
      !(order.kind === 'fill' && queued.kind === 'fill' && queued.run === order.run),
  );
  if (kept.length < ORDERS_MAX) return { ...record, orders: [...kept, order] };
  if (order.kind === 'fill')
    throw new Fault(
      'overloaded',
      `${record.beat.appliance} has ${ORDERS_MAX} orders that it did not carry out; see whether it is alive`,
    );
  // A drain must get through: the oldest fill order makes room, for the appliance asks for its plan anyway.
  return { ...record, orders: [...kept.slice(1), order] };
}

/** Dates end at 8.64e15 ms; a drain "for ever" given as a number of days must not break the record. */
const instant = (ms: number): string => new Date(Math.min(ms, Date.UTC(9999, 11, 31))).toISOString();
