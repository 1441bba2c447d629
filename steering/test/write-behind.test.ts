import { describe, expect, it } from 'vitest';
import { storedHeartbeat, MemoryRegistry, type ApplianceRecord } from '../registry.ts';
import { WriteBehind } from '../write-behind.ts';
import { aHeartbeat } from './harness.ts';

/** Every write waits until the test lets it finish. */
class SlowRegistry extends MemoryRegistry {
  readonly waiting: (() => void)[] = [];
  writes = 0;

  override async save(record: ApplianceRecord): Promise<void> {
    this.writes += 1;
    await new Promise<void>((resolve) => this.waiting.push(resolve));
    await super.save(record);
  }
}

describe('the write-behind', () => {
  it('to a slow disk writes one state at a time and the newest last, however many saves there were', async () => {
    const registry = new SlowRegistry();
    let seq = 0;
    const writer = new WriteBehind({
      registry,
      current: () => ({
        record: {
          beat: storedHeartbeat.parse(aHeartbeat({ appliance: 'a', seq })),
          beatAt: '2026-03-01T12:00:00Z',
          leaseEndsAt: '2026-03-01T12:00:00Z',
          retired: null,
          drain: null,
          orders: [],
        },
        inventory: () => ({ appliance: 'a', incarnation: 'x', revision: seq, holdings: [] }),
      }),
      onError: () => undefined,
    });
    for (seq = 1; seq < 1000; seq += 1) void writer.save('a', seq % 2 === 0 ? 'record' : 'inventory');
    const done = writer.close();
    expect(registry.waiting).toHaveLength(1);
    while (registry.writes < 2) {
      registry.waiting.shift()?.();
      await Promise.resolve();
    }
    registry.waiting.shift()?.();
    await done;
    expect(registry.writes).toBe(2);
    const { appliances, inventories } = await registry.load();
    expect([appliances[0]!.beat.seq, inventories[0]!.revision]).toEqual([1000, 1000]);
  });
});
