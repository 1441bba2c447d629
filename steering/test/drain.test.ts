import { describe, expect, it } from 'vitest';
import type { StateOrder } from '../../protocol/decision.ts';
import { advanceDrain, acknowledgeOrders, isDrained, scheduleDrain, ORDERS_MAX, queueOrder } from '../drain.ts';
import { storedHeartbeat, type ApplianceRecord } from '../registry.ts';
import { aHeartbeat } from './harness.ts';

const T0 = Date.parse('2026-03-01T12:00:00Z');
const HOUR = 3_600_000;
const at = (ms: number): string => new Date(ms).toISOString();

const fresh: ApplianceRecord = {
  beat: storedHeartbeat.parse(aHeartbeat({ appliance: 'a' })),
  beatAt: at(T0),
  leaseEndsAt: at(T0),
  retired: null,
  drain: null,
  orders: [],
};
const drainOrder = (fields: Partial<StateOrder> = {}): StateOrder => ({
  state: 'draining',
  at: null,
  forMs: null,
  ...fields,
});
const resume: StateOrder = { state: 'serving', at: null, forMs: null };
let ids = 0;
const newId = (): string => `o${(ids += 1)}`;
const kinds = (record: ApplianceRecord): string[] => record.orders.map(({ kind }) => kind);

describe('a drain', () => {
  it('without an instant begins at once and lasts until it is resumed', () => {
    const drained = advanceDrain(scheduleDrain(fresh, drainOrder(), T0), T0, newId);
    expect(drained.orders).toMatchObject([{ kind: 'drain', until: null }]);
    expect(isDrained(drained, T0 + 100 * HOUR)).toBe(true);
    const resumed = advanceDrain(scheduleDrain(drained, resume, T0 + 1), T0 + 1, newId);
    expect(isDrained(resumed, T0 + 1)).toBe(false);
    expect(kinds(resumed)).toEqual(['resume']);
  });

  it('with a length ends and is resumed by itself', () => {
    const drained = advanceDrain(scheduleDrain(fresh, drainOrder({ forMs: HOUR }), T0), T0, newId);
    expect(drained.orders).toMatchObject([{ until: at(T0 + HOUR) }]);
    expect(advanceDrain(drained, T0 + HOUR - 1, newId)).toBe(drained);
    const over = advanceDrain(drained, T0 + HOUR, newId);
    expect(over.drain).toBeNull();
    expect(kinds(over)).toEqual(['resume']);
  });

  it('that is scheduled sends no order before its time', () => {
    const planned = scheduleDrain(fresh, drainOrder({ at: at(T0 + HOUR), forMs: HOUR }), T0);
    expect(advanceDrain(planned, T0, newId)).toBe(planned);
    expect(isDrained(planned, T0 + HOUR - 1)).toBe(false);
    expect(isDrained(planned, T0 + HOUR)).toBe(true);
    expect(kinds(advanceDrain(planned, T0 + HOUR, newId))).toEqual(['drain']);
  });

  it('that is cancelled before it begins sends no order', () => {
    const planned = scheduleDrain(fresh, drainOrder({ at: at(T0 + HOUR) }), T0);
    const cancelled = advanceDrain(scheduleDrain(planned, resume, T0 + 1), T0 + 1, newId);
    expect(cancelled.drain).toBeNull();
    expect(cancelled.orders).toEqual([]);
  });

  it('that passed entirely while steering was down is lifted without an order', () => {
    const planned = scheduleDrain(fresh, drainOrder({ at: at(T0 + HOUR), forMs: HOUR }), T0);
    expect(advanceDrain(planned, T0 + 3 * HOUR, newId)).toMatchObject({ drain: null, orders: [] });
  });

  it('scheduled for a past instant begins at once', () => {
    expect(scheduleDrain(fresh, drainOrder({ at: at(T0 - HOUR), forMs: HOUR }), T0).drain).toMatchObject({
      from: at(T0),
      until: at(T0 + HOUR),
    });
  });

  it('can be resumed at a later instant', () => {
    const drained = advanceDrain(scheduleDrain(fresh, drainOrder(), T0), T0, newId);
    const later = advanceDrain(scheduleDrain(drained, { ...resume, at: at(T0 + HOUR) }, T0), T0, newId);
    expect(isDrained(later, T0 + HOUR - 1)).toBe(true);
    expect(isDrained(later, T0 + HOUR)).toBe(false);
  });

  it('with an excessive length still ends at a valid date', () => {
    expect(() => scheduleDrain(fresh, drainOrder({ forMs: Number.MAX_SAFE_INTEGER }), T0)).not.toThrow();
  });

  it('cannot be resumed for a length of time', () => {
    expect(() => scheduleDrain(fresh, { ...resume, forMs: 1 }, T0)).toThrow(
      expect.objectContaining({ code: 'body_invalid' }),
    );
  });
});

describe('orders', () => {
  it('leave the queue once they are carried out', () => {
    const drained = advanceDrain(scheduleDrain(fresh, drainOrder(), T0), T0, newId);
    const done = acknowledgeOrders(
      drained,
      { ordersDone: drained.orders.map(({ id }) => id), restarted: false },
      newId,
    );
    expect(done.orders).toEqual([]);
    expect(isDrained(done, T0)).toBe(true);
  });

  it('repeat a drain in force once to a new incarnation', () => {
    const drained = advanceDrain(scheduleDrain(fresh, drainOrder(), T0), T0, newId);
    const done = acknowledgeOrders(
      drained,
      { ordersDone: drained.orders.map(({ id }) => id), restarted: false },
      newId,
    );
    expect(kinds(acknowledgeOrders(done, { ordersDone: [], restarted: true }, newId))).toEqual(['drain']);
    expect(kinds(acknowledgeOrders(drained, { ordersDone: [], restarted: true }, newId))).toEqual(['drain']);
    expect(kinds(acknowledgeOrders(fresh, { ordersDone: [], restarted: true }, newId))).toEqual([]);
  });

  it('replace a queued order: a drain or resume another one, a fill order that of the same run', () => {
    let record = queueOrder(fresh, { id: '1', kind: 'fill', run: 'r1' });
    record = queueOrder(record, { id: '2', kind: 'drain', until: null });
    record = queueOrder(record, { id: '3', kind: 'fill', run: 'r1' });
    record = queueOrder(record, { id: '4', kind: 'resume' });
    expect(record.orders.map(({ id }) => id)).toEqual(['3', '4']);
  });

  it('are bounded: at the bound a fill order is refused and a drain replaces one', () => {
    let record = fresh;
    for (let run = 0; run < ORDERS_MAX; run += 1)
      record = queueOrder(record, { id: `f${run}`, kind: 'fill', run: `r${run}` });
    expect(() => queueOrder(record, { id: 'x', kind: 'fill', run: 'x' })).toThrow(
      expect.objectContaining({ code: 'overloaded' }),
    );
    const drained = queueOrder(record, { id: 'd', kind: 'drain', until: null });
    expect(drained.orders).toHaveLength(ORDERS_MAX);
    expect(drained.orders.at(-1)!.kind).toBe('drain');
  });
});
