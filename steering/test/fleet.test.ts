// Leases, inventories, probes, freezes and restarts of the fleet, on a manual clock.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { InventoryDelta } from '../../protocol/heartbeat.ts';
import { silentLog } from '../../runtime/log.ts';
import { APPLIANCES_MAX, REMOVE_AFTER_MS, type Fleet } from '../fleet.ts';
import { MemoryRegistry, type Registry } from '../registry.ts';
import { openStateStore } from '../store.ts';
import { aHeartbeat, openFleet, aTitle, fallbackCount, manualClock, metricValue, allHoldings } from './harness.ts';

const harbor = aTitle({ id: 'harbor' });
const refusalOf = (fleet: Fleet, appliance: string): string | null =>
  fleet.candidates(harbor).find(({ id }) => id === appliance)!.refusal;
const livenessOf = (fleet: Fleet, appliance: string): string =>
  fleet.describe({ inventory: false }).find(({ id }) => id === appliance)!.liveness;

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

describe('a lease', () => {
  it('ends ten seconds after the last heartbeat', async () => {
    const clock = manualClock();
    const { fleet } = await openFleet({ clock });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    clock.advance(9_999);
    expect(refusalOf(fleet, 'a')).toBeNull();
    clock.advance(1);
    expect(refusalOf(fleet, 'a')).toContain('its lease ended');
    expect(livenessOf(fleet, 'a')).toBe('expired');
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 2 }));
    expect(refusalOf(fleet, 'a')).toBeNull();
  });

  it('does not end because the wall clock is set', async () => {
    const clock = manualClock();
    const { fleet } = await openFleet({ clock });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    clock.setNow(clock.now() + 86_400_000);
    expect(refusalOf(fleet, 'a')).toBeNull();
    clock.setNow(clock.now() - 2 * 86_400_000);
    clock.advance(10_001);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
  });

  it('is not renewed by an overtaken heartbeat or by one of a replaced incarnation', async () => {
    const clock = manualClock();
    const { fleet, metrics } = await openFleet({ clock });
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 5, connections: 5 }));
    clock.advance(5_000);
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 4, connections: 4 }));
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 5, connections: 7 }));
    expect(fleet.describe({ inventory: false })[0]!.connections).toBe(5);
    clock.advance(5_000);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 1, incarnation: '00000000000000bb', connections: 1 }));
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 9, connections: 9 }));
    expect(fleet.describe({ inventory: false })[0]!.connections).toBe(1);
    expect(await metricValue(metrics, 'larder_steering_heartbeats_total{outcome="stale"}')).toBe(3);
  });
});

const delta = (since: number, revision: number, added: string[]): InventoryDelta => ({
  since,
  revision,
  added,
  removed: [],
});

describe('an inventory', () => {
  it('is requested whole when a delta does not follow, and accepts a delta repeated after a lost answer', async () => {
    const { fleet } = await openFleet({});
    const send = (seq: number, inventory: InventoryDelta | null, incarnation = '00000000000000aa'): number | null =>
      fleet.renewLease(aHeartbeat({ appliance: 'a', seq, incarnation, inventory })).answer.inventoryRevision;
    expect(send(1, null)).toBeNull();
    expect(send(2, delta(0, 4, allHoldings('harbor')))).toBe(4);
    expect(send(3, delta(4, 5, ['meadow:manifest']))).toBe(5);
    expect(send(4, delta(4, 5, ['meadow:manifest']))).toBe(5);
    expect(send(5, delta(7, 8, []))).toBeNull();
    expect(fleet.describe({ inventory: true })[0]!.inventory).toHaveLength(5);
    expect(send(1, null, '00000000000000bb')).toBeNull();
    expect(fleet.candidates(harbor)[0]!.held).toBe(1);
  });
});

describe('probes', () => {
  it('stop plays to an appliance as soon as nobody listens, and resume them when it answers', async () => {
    const { fleet } = await openFleet({});
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    fleet.recordProbe('a', 'refused');
    expect(refusalOf(fleet, 'a')).toBe('nobody listens at http://a.example:8080');
    expect(livenessOf(fleet, 'a')).toBe('refused');
    // A heartbeat proves that the appliance runs, not that it serves, so a probe is sent at once.
    expect(fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 2 })).probeNow).toBe(true);
    expect(refusalOf(fleet, 'a')).not.toBeNull();
    fleet.recordProbe('a', 'answered');
    expect(refusalOf(fleet, 'a')).toBeNull();
  });

  it('from before a restart, or of another address, no longer count', async () => {
    const { fleet } = await openFleet({});
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    fleet.recordProbe('a', 'refused');
    fleet.renewLease(aHeartbeat({ appliance: 'a', incarnation: '00000000000000bb' }));
    expect(refusalOf(fleet, 'a')).toBeNull();
    fleet.recordProbe('a', 'refused');
    fleet.renewLease(
      aHeartbeat({ appliance: 'a', incarnation: '00000000000000bb', seq: 2, advertise: ['http://elsewhere.example'] }),
    );
    expect(refusalOf(fleet, 'a')).toBeNull();
    expect(fleet.probeTargets()).toEqual([{ id: 'a', url: 'http://elsewhere.example/' }]);
  });

  it('go to every appliance until an hour after its lease expired', async () => {
    const clock = manualClock();
    const { fleet } = await openFleet({ clock });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    clock.advance(60_000);
    expect(fleet.probeTargets()).toHaveLength(1);
    clock.advance(3_600_000);
    expect(fleet.probeTargets()).toHaveLength(0);
  });
});

describe('a fleet of ten', () => {
  it('that falls silent at once stays eligible, except for appliances that refuse connections', async () => {
    const clock = manualClock();
    const { fleet, metrics } = await openFleet({ clock });
    const ids = Array.from({ length: 10 }, (_, at) => `a${at}`);
    for (const appliance of ids) fleet.renewLease(aHeartbeat({ appliance }));
    clock.advance(11_000);
    for (const id of [...ids, ...ids]) fleet.recordProbe(id, 'missed');
    fleet.tick();
    expect(fleet.frozen).toBe(true);
    expect(await metricValue(metrics, 'larder_steering_frozen')).toBe(1);
    expect(refusalOf(fleet, 'a0')).toBeNull();
    fleet.recordProbe('a0', 'refused');
    expect(refusalOf(fleet, 'a0')).not.toBeNull();
    expect(refusalOf(fleet, 'a1')).toBeNull();
  });
});

async function openDiskRegistry(): Promise<{
  registry: Registry;
  close: () => Promise<void>;
  reopen: () => Promise<Registry>;
}> {
  const directory = mkdtempSync(join(tmpdir(), 'steering-'));
  directories.push(directory);
  let store = await openStateStore(directory, silentLog);
  return {
    registry: store.registry,
    close: () => store.close(),
    reopen: async () => {
      await store.close();
      store = await openStateStore(directory, silentLog);
      return store.registry;
    },
  };
}

describe('after a restart of steering', () => {
  it('held leases are renewed once, expired ones are not, and holdings and drains are restored', async () => {
    const state = await openDiskRegistry();
    const clock = manualClock();
    const before = (await openFleet({ clock, registry: state.registry })).fleet;
    before.renewLease(aHeartbeat({ appliance: 'expired' }));
    clock.advance(11_000);
    const inventory = { since: 0, revision: 6, added: allHoldings('harbor'), removed: [] };
    before.renewLease(aHeartbeat({ appliance: 'held', seq: 8, inventory }));
    before.renewLease(aHeartbeat({ appliance: 'drained' }));
    await before.orderState('drained', { state: 'draining', at: null, forMs: null });
    await before.close();

    // Steering was down for a day, and the monotonic clock started anew.
    const later = manualClock(clock.now() + 86_400_000);
    const { fleet } = await openFleet({ clock: later, registry: await state.reopen() });
    expect(refusalOf(fleet, 'held')).toBeNull();
    expect(fleet.candidates(harbor).find(({ id }) => id === 'held')!.held).toBe(1);
    expect(refusalOf(fleet, 'expired')).toContain('its lease ended');
    expect(refusalOf(fleet, 'drained')).toBe('the operator drained it');
    expect(fleet.renewLease(aHeartbeat({ appliance: 'held', seq: 9 })).answer.inventoryRevision).toBe(6);
    expect(fleet.renewLease(aHeartbeat({ appliance: 'drained', seq: 2 })).answer.orders).toMatchObject([
      { kind: 'drain' },
    ]);
    later.advance(10_001);
    expect(refusalOf(fleet, 'held')).not.toBeNull();
    await fleet.close();
    await state.close();
  });

  it('a drain whose end has passed is over', async () => {
    const registry = new MemoryRegistry();
    const clock = manualClock();
    const before = (await openFleet({ clock, registry })).fleet;
    before.renewLease(aHeartbeat({ appliance: 'a' }));
    await before.orderState('a', { state: 'draining', at: null, forMs: 60_000 });
    const { fleet } = await openFleet({ clock: manualClock(clock.now() + 3_600_000), registry });
    expect(refusalOf(fleet, 'a')).toBeNull();
    fleet.tick();
    expect(fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 2 })).answer.orders).toMatchObject([{ kind: 'resume' }]);
  });
});

class BrokenRegistry extends MemoryRegistry {
  broken = true;
  override save(...args: Parameters<MemoryRegistry['save']>): Promise<void> {
    return this.broken ? Promise.reject(new Error('ENOSPC')) : super.save(...args);
  }
}

describe('a registry that cannot be written', () => {
  it('fails no heartbeat and no play, is counted, and is written with the next change', async () => {
    const registry = new BrokenRegistry();
    const { fleet, metrics } = await openFleet({ registry });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    await fleet.close();
    expect(refusalOf(fleet, 'a')).toBeNull();
    expect(await fallbackCount(metrics, 'registry_down_memory')).toBe(1);
    registry.broken = false;
    fleet.renewLease(aHeartbeat({ appliance: 'a', seq: 2 }));
    await fleet.close();
    expect((await registry.load()).appliances).toHaveLength(1);
  });

  it('makes a drain order fail with the fact that it is in force but not on disk', async () => {
    const { fleet } = await openFleet({ registry: new BrokenRegistry() });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    await expect(fleet.orderState('a', { state: 'draining', at: null, forMs: null })).rejects.toMatchObject({
      code: 'disk_failed',
      message: 'a is draining, but only until steering restarts: ENOSPC',
    });
    expect(refusalOf(fleet, 'a')).toBe('the operator drained it');
  });
});

describe('the fleet', () => {
  it('removes an appliance that was gone for a month, also from disk', async () => {
    const clock = manualClock();
    const registry = new MemoryRegistry();
    const { fleet } = await openFleet({ clock, registry });
    fleet.renewLease(aHeartbeat({ appliance: 'a' }));
    await fleet.close();
    clock.advance(REMOVE_AFTER_MS + 11_000);
    fleet.tick();
    expect(fleet.describe({ inventory: false })).toEqual([]);
    await fleet.close();
    expect((await registry.load()).appliances).toEqual([]);
  });

  it('refuses appliances beyond its maximum', async () => {
    const { fleet } = await openFleet({});
    for (let at = 0; at < APPLIANCES_MAX; at += 1) fleet.renewLease(aHeartbeat({ appliance: `a${at}` }));
    expect(() => fleet.renewLease(aHeartbeat({ appliance: 'one-more' }))).toThrow(
      expect.objectContaining({ code: 'overloaded' }),
    );
    fleet.renewLease(aHeartbeat({ appliance: 'a0', seq: 2 }));
    await fleet.close();
  }, 60_000);
});
