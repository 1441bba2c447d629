import { describe, expect, it } from 'vitest';
import type { StateOrder } from '../../protocol/decision.ts';
import { advance, afterBeat, isDrained, orderState, ORDERS_MAX, withOrder } from '../drain.ts';
import { beatFacts, type ApplianceRecord } from '../registry.ts';
import { aBeat } from './stage.ts';

const T0 = Date.parse('2026-03-01T12:00:00Z');
const HOUR = 3_600_000;
const at = (ms: number): string => new Date(ms).toISOString();

const fresh: ApplianceRecord = {
  beat: beatFacts.parse(aBeat({ appliance: 'a' })),
  beatAt: at(T0),
  leaseEndsAt: at(T0),
  retired: null,
  drain: null,
  orders: [],
};
const drainOrder = (given: Partial<StateOrder> = {}): StateOrder => ({
  state: 'draining',
  at: null,
  forMs: null,
  ...given,
});
const resume: StateOrder = { state: 'serving', at: null, forMs: null };
let ids = 0;
const newId = (): string => `o${(ids += 1)}`;
const kinds = (record: ApplianceRecord): string[] => record.orders.map(({ kind }) => kind);

describe('a drain', () => {
  it('now is ordered now and lasts until it is resumed', () => {
    const drained = advance(orderState(fresh, drainOrder(), T0), T0, newId);
    expect(drained.orders).toMatchObject([{ kind: 'drain', until: null }]);
    expect(isDrained(drained, T0 + 100 * HOUR)).toBe(true);
    const resumed = advance(orderState(drained, resume, T0 + 1), T0 + 1, newId);
    expect(isDrained(resumed, T0 + 1)).toBe(false);
    expect(kinds(resumed)).toEqual(['resume']);
  });

  it('with a length ends by the clock and is resumed without anybody', () => {
    const drained = advance(orderState(fresh, drainOrder({ forMs: HOUR }), T0), T0, newId);
    expect(drained.orders).toMatchObject([{ until: at(T0 + HOUR) }]);
    expect(advance(drained, T0 + HOUR - 1, newId)).toBe(drained);
    const over = advance(drained, T0 + HOUR, newId);
    expect(over.drain).toBeNull();
    expect(kinds(over)).toEqual(['resume']);
  });

  it('for later waits, and says nothing to the appliance before', () => {
    const planned = orderState(fresh, drainOrder({ at: at(T0 + HOUR), forMs: HOUR }), T0);
    expect(advance(planned, T0, newId)).toBe(planned);
    expect(isDrained(planned, T0 + HOUR - 1)).toBe(false);
    expect(isDrained(planned, T0 + HOUR)).toBe(true);
    expect(kinds(advance(planned, T0 + HOUR, newId))).toEqual(['drain']);
  });

  it('that was called off before it began sends no order at all', () => {
    const planned = orderState(fresh, drainOrder({ at: at(T0 + HOUR) }), T0);
    const off = advance(orderState(planned, resume, T0 + 1), T0 + 1, newId);
    expect(off.drain).toBeNull();
    expect(off.orders).toEqual([]);
  });

  it('that missed its whole time, steering being away, is lifted without a word', () => {
    const planned = orderState(fresh, drainOrder({ at: at(T0 + HOUR), forMs: HOUR }), T0);
    expect(advance(planned, T0 + 3 * HOUR, newId)).toMatchObject({ drain: null, orders: [] });
  });

  it('of an instant that is past begins now', () => {
    expect(orderState(fresh, drainOrder({ at: at(T0 - HOUR), forMs: HOUR }), T0).drain).toMatchObject({
      from: at(T0),
      until: at(T0 + HOUR),
    });
  });

  it('can be told to end later', () => {
    const drained = advance(orderState(fresh, drainOrder(), T0), T0, newId);
    const later = advance(orderState(drained, { ...resume, at: at(T0 + HOUR) }, T0), T0, newId);
    expect(isDrained(later, T0 + HOUR - 1)).toBe(true);
    expect(isDrained(later, T0 + HOUR)).toBe(false);
  });

  it('with a length without end stays a date', () => {
    expect(() => orderState(fresh, drainOrder({ forMs: Number.MAX_SAFE_INTEGER }), T0)).not.toThrow();
  });

  it('of a length for `serving` is refused', () => {
    expect(() => orderState(fresh, { ...resume, forMs: 1 }, T0)).toThrow(
      expect.objectContaining({ code: 'body_invalid' }),
    );
  });
});

describe('orders', () => {
  it('leave the queue when they were carried out', () => {
    const drained = advance(orderState(fresh, drainOrder(), T0), T0, newId);
    const done = afterBeat(drained, { ordersDone: drained.orders.map(({ id }) => id), restarted: false }, newId);
    expect(done.orders).toEqual([]);
    expect(isDrained(done, T0)).toBe(true);
  });

  it('repeat a drain in force to a new incarnation, once', () => {
    const drained = advance(orderState(fresh, drainOrder(), T0), T0, newId);
    const done = afterBeat(drained, { ordersDone: drained.orders.map(({ id }) => id), restarted: false }, newId);
    expect(kinds(afterBeat(done, { ordersDone: [], restarted: true }, newId))).toEqual(['drain']);
    expect(kinds(afterBeat(drained, { ordersDone: [], restarted: true }, newId))).toEqual(['drain']);
    expect(kinds(afterBeat(fresh, { ordersDone: [], restarted: true }, newId))).toEqual([]);
  });

  it('of state replace each other, of one run too', () => {
    let record = withOrder(fresh, { id: '1', kind: 'fill', run: 'r1' });
    record = withOrder(record, { id: '2', kind: 'drain', until: null });
    record = withOrder(record, { id: '3', kind: 'fill', run: 'r1' });
    record = withOrder(record, { id: '4', kind: 'resume' });
    expect(record.orders.map(({ id }) => id)).toEqual(['3', '4']);
  });

  it('are bounded: fills are refused, a drain gets through', () => {
    let record = fresh;
    for (let run = 0; run < ORDERS_MAX; run += 1)
      record = withOrder(record, { id: `f${run}`, kind: 'fill', run: `r${run}` });
    expect(() => withOrder(record, { id: 'x', kind: 'fill', run: 'x' })).toThrow(
      expect.objectContaining({ code: 'overloaded' }),
    );
    const drained = withOrder(record, { id: 'd', kind: 'drain', until: null });
    expect(drained.orders).toHaveLength(ORDERS_MAX);
    expect(drained.orders.at(-1)!.kind).toBe('drain');
  });
});
