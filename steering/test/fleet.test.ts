// Leases, restarts and probes of the fleet, on a clock in the hand.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { InventoryDelta } from '../../protocol/heartbeat.ts';
import { silentLog } from '../../runtime/log.ts';
import { APPLIANCES_MAX, FORGET_MS, type Fleet } from '../fleet.ts';
import { MemoryRegistry, type Registry } from '../registry.ts';
import { openStore } from '../store.ts';
import { aBeat, aFleet, aTitle, fallbackCount, handClock, sample, wholeTitle } from './stage.ts';

const harbor = aTitle({ id: 'harbor' });
const refusalOf = (fleet: Fleet, appliance: string): string | null =>
  fleet.contenders(harbor).find(({ id }) => id === appliance)!.refusal;
const livenessOf = (fleet: Fleet, appliance: string): string =>
  fleet.show({ inventory: false }).find(({ id }) => id === appliance)!.liveness;

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

describe('a lease', () => {
  it('ends ten seconds after the last heartbeat', async () => {
    const clock = handClock();
    const { fleet } = await aFleet({ clock });
    fleet.beat(aBeat({ appliance: 'a' }));
    clock.advance(9_999);
    expect(refusalOf(fleet, 'a')).toBeNull();
    clock.advance(1);
    expect(refusalOf(fleet, 'a')).toContain('its lease ended');
    expect(livenessOf(fleet, 'a')).toBe('expired');
    fleet.beat(aBeat({ appliance: 'a', seq: 2 }));
    expect(refusalOf(fleet, 'a')).toBeNull();
  });

  it('does not end because somebody sets the clock', async () => {
    const clock = handClock();
    const { fleet } = await aFleet({ clock });
    fleet.beat(aBeat({ appliance: 'a' }));
    clock.setNow(clock.now() + 86_400_000);
    expect(refusalOf(fleet, 'a')).toBeNull();
    clock.setNow(clock.now() - 2 * 86_400_000);
    clock.advance(10_001);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
  });

  it('is not renewed by a beat that was overtaken, or by one of a process that is gone', async () => {
    const clock = handClock();
    const { fleet, metrics } = await aFleet({ clock });
    fleet.beat(aBeat({ appliance: 'a', seq: 5, connections: 5 }));
    clock.advance(5_000);
    fleet.beat(aBeat({ appliance: 'a', seq: 4, connections: 4 }));
    fleet.beat(aBeat({ appliance: 'a', seq: 5, connections: 7 }));
    expect(fleet.show({ inventory: false })[0]!.connections).toBe(5);
    clock.advance(5_000);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
    fleet.beat(aBeat({ appliance: 'a', seq: 1, incarnation: '00000000000000bb', connections: 1 }));
    fleet.beat(aBeat({ appliance: 'a', seq: 9, connections: 9 }));
    expect(fleet.show({ inventory: false })[0]!.connections).toBe(1);
    expect(await sample(metrics, 'larder_steering_heartbeats_total{outcome="stale"}')).toBe(3);
  });
});

const delta = (since: number, revision: number, added: string[]): InventoryDelta => ({
  since,
  revision,
  added,
  removed: [],
});

describe('an inventory', () => {
  it('is asked for whole when a delta does not follow, and understood when an answer was lost', async () => {
    const { fleet } = await aFleet({});
    const send = (seq: number, inventory: InventoryDelta | null, incarnation = '00000000000000aa'): number | null =>
      fleet.beat(aBeat({ appliance: 'a', seq, incarnation, inventory })).answer.inventoryRevision;
    expect(send(1, null)).toBeNull();
    expect(send(2, delta(0, 4, wholeTitle('harbor')))).toBe(4);
    expect(send(3, delta(4, 5, ['meadow:manifest']))).toBe(5);
    expect(send(4, delta(4, 5, ['meadow:manifest']))).toBe(5);
    expect(send(5, delta(7, 8, []))).toBeNull();
    expect(fleet.show({ inventory: true })[0]!.inventory).toHaveLength(5);
    expect(send(1, null, '00000000000000bb')).toBeNull();
    expect(fleet.contenders(harbor)[0]!.held).toBe(1);
  });
});

describe('probes', () => {
  it('take an appliance away at once when nobody listens, and bring it back when it answers', async () => {
    const { fleet } = await aFleet({});
    fleet.beat(aBeat({ appliance: 'a' }));
    fleet.probed('a', 'refused');
    expect(refusalOf(fleet, 'a')).toBe('nobody listens at http://a.example:8080');
    expect(livenessOf(fleet, 'a')).toBe('refused');
    // A beat alone proves that the box lives, not that it serves: a probe is sent with it.
    expect(fleet.beat(aBeat({ appliance: 'a', seq: 2 })).probeNow).toBe(true);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
    fleet.probed('a', 'answered');
    expect(refusalOf(fleet, 'a')).toBeNull();
  });

  it('of before a restart, or of another address, say nothing', async () => {
    const { fleet } = await aFleet({});
    fleet.beat(aBeat({ appliance: 'a' }));
    fleet.probed('a', 'refused');
    fleet.beat(aBeat({ appliance: 'a', incarnation: '00000000000000bb' }));
    expect(refusalOf(fleet, 'a')).toBeNull();
    fleet.probed('a', 'refused');
    fleet.beat(
      aBeat({ appliance: 'a', incarnation: '00000000000000bb', seq: 2, advertise: ['http://elsewhere.example'] }),
    );
    expect(refusalOf(fleet, 'a')).toBeNull();
    expect(fleet.probeTargets()).toEqual([{ id: 'a', url: 'http://elsewhere.example/' }]);
  });

  it('go to everybody who is expected, for an hour after the lease', async () => {
    const clock = handClock();
    const { fleet } = await aFleet({ clock });
    fleet.beat(aBeat({ appliance: 'a' }));
    clock.advance(60_000);
    expect(fleet.probeTargets()).toHaveLength(1);
    clock.advance(3_600_000);
    expect(fleet.probeTargets()).toHaveLength(0);
  });
});

describe('a fleet of ten', () => {
  it('that falls silent all at once is kept, until it refuses', async () => {
    const clock = handClock();
    const { fleet, metrics } = await aFleet({ clock });
    const ids = Array.from({ length: 10 }, (_, at) => `a${at}`);
    for (const appliance of ids) fleet.beat(aBeat({ appliance }));
    clock.advance(11_000);
    for (const id of [...ids, ...ids]) fleet.probed(id, 'missed');
    fleet.tick();
    expect(fleet.frozen).toBe(true);
    expect(await sample(metrics, 'larder_steering_frozen')).toBe(1);
    expect(refusalOf(fleet, 'a0')).toBeNull();
    fleet.probed('a0', 'refused');
    expect(refusalOf(fleet, 'a0')).not.toBeNull();
    expect(refusalOf(fleet, 'a1')).toBeNull();
  });
});

async function disk(): Promise<{ registry: Registry; close: () => Promise<void>; reopen: () => Promise<Registry> }> {
  const directory = mkdtempSync(join(tmpdir(), 'steering-'));
  directories.push(directory);
  let store = await openStore(directory, silentLog);
  return {
    registry: store.registry,
    close: () => store.close(),
    reopen: async () => {
      await store.close();
      store = await openStore(directory, silentLog);
      return store.registry;
    },
  };
}

describe('after a restart of steering', () => {
  it('those that held a lease are expected for one lease, those that had lost it are not; holdings and drains are known', async () => {
    const state = await disk();
    const clock = handClock();
    const before = (await aFleet({ clock, registry: state.registry })).fleet;
    before.beat(aBeat({ appliance: 'lapsed' }));
    clock.advance(11_000);
    const inventory = { since: 0, revision: 6, added: wholeTitle('harbor'), removed: [] };
    before.beat(aBeat({ appliance: 'held', seq: 8, inventory }));
    before.beat(aBeat({ appliance: 'drained' }));
    await before.orderState('drained', { state: 'draining', at: null, forMs: null });
    await before.close();

    // Away for a day: wall clock and monotonic clock both say something else.
    const later = handClock(clock.now() + 86_400_000);
    const { fleet } = await aFleet({ clock: later, registry: await state.reopen() });
    expect(refusalOf(fleet, 'held')).toBeNull();
    expect(fleet.contenders(harbor).find(({ id }) => id === 'held')!.held).toBe(1);
    expect(refusalOf(fleet, 'lapsed')).toContain('its lease ended');
    expect(refusalOf(fleet, 'drained')).toBe('the operator drained it');
    expect(fleet.beat(aBeat({ appliance: 'held', seq: 9 })).answer.inventoryRevision).toBe(6);
    expect(fleet.beat(aBeat({ appliance: 'drained', seq: 2 })).answer.orders).toMatchObject([{ kind: 'drain' }]);
    later.advance(10_001);
    expect(refusalOf(fleet, 'held')).not.toBeNull();
    await fleet.close();
    await state.close();
  });

  it('a drain whose end passed meanwhile is over', async () => {
    const registry = new MemoryRegistry();
    const clock = handClock();
    const before = (await aFleet({ clock, registry })).fleet;
    before.beat(aBeat({ appliance: 'a' }));
    await before.orderState('a', { state: 'draining', at: null, forMs: 60_000 });
    const { fleet } = await aFleet({ clock: handClock(clock.now() + 3_600_000), registry });
    expect(refusalOf(fleet, 'a')).toBeNull();
    fleet.tick();
    expect(fleet.beat(aBeat({ appliance: 'a', seq: 2 })).answer.orders).toMatchObject([{ kind: 'resume' }]);
  });
});

class BrokenRegistry extends MemoryRegistry {
  broken = true;
  override save(...given: Parameters<MemoryRegistry['save']>): Promise<void> {
    return this.broken ? Promise.reject(new Error('ENOSPC')) : super.save(...given);
  }
}

describe('a registry that cannot be written', () => {
  it('costs no heartbeat and no play; it is counted, and written again with the next change', async () => {
    const registry = new BrokenRegistry();
    const { fleet, metrics } = await aFleet({ registry });
    fleet.beat(aBeat({ appliance: 'a' }));
    await fleet.close();
    expect(refusalOf(fleet, 'a')).toBeNull();
    expect(await fallbackCount(metrics, 'registry_down_memory')).toBe(1);
    registry.broken = false;
    fleet.beat(aBeat({ appliance: 'a', seq: 2 }));
    await fleet.close();
    expect((await registry.load()).appliances).toHaveLength(1);
  });

  it('tells the operator that the drain is in force and not on disk', async () => {
    const { fleet } = await aFleet({ registry: new BrokenRegistry() });
    fleet.beat(aBeat({ appliance: 'a' }));
    await expect(fleet.orderState('a', { state: 'draining', at: null, forMs: null })).rejects.toMatchObject({
      code: 'disk_failed',
      message: 'a is draining, but only until steering restarts: ENOSPC',
    });
    expect(refusalOf(fleet, 'a')).toBe('the operator drained it');
  });
});

describe('bounds', () => {
  it('an appliance that was away for a month is forgotten, on disk too', async () => {
    const clock = handClock();
    const registry = new MemoryRegistry();
    const { fleet } = await aFleet({ clock, registry });
    fleet.beat(aBeat({ appliance: 'a' }));
    await fleet.close();
    clock.advance(FORGET_MS + 11_000);
    fleet.tick();
    expect(fleet.show({ inventory: false })).toEqual([]);
    await fleet.close();
    expect((await registry.load()).appliances).toEqual([]);
  });

  it('the fleet has a maximum, and says so', async () => {
    const { fleet } = await aFleet({});
    for (let at = 0; at < APPLIANCES_MAX; at += 1) fleet.beat(aBeat({ appliance: `a${at}` }));
    expect(() => fleet.beat(aBeat({ appliance: 'one-more' }))).toThrow(expect.objectContaining({ code: 'overloaded' }));
    fleet.beat(aBeat({ appliance: 'a0', seq: 2 }));
    await fleet.close();
  }, 60_000);
});
