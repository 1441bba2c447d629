// The registry: what steering must know of each appliance after its own restart. A port with two implementations, on disk
// (store.ts) and in memory (below); test/registry.test.ts runs one contract over both.

import { z } from 'zod';
import { heartbeat, order } from '../protocol/heartbeat.ts';
import { holdingId, id, isoInstant } from '../protocol/ids.ts';

/** The last heartbeat without its inventory delta and acknowledgements, which the rest of the record absorbs. */
export const storedHeartbeat = heartbeat.omit({ inventory: true, ordersDone: true });

export const drain = z.object({
  /** Lies in the future while the drain is only scheduled. */
  from: isoInstant,
  /** Null lasts until an operator resumes the appliance. */
  until: isoInstant.nullable(),
  /** Whether the drain order was queued for the appliance; false before `from`. */
  told: z.boolean(),
});
export type Drain = z.infer<typeof drain>;

export const applianceRecord = z.object({
  beat: storedHeartbeat,
  beatAt: isoInstant,
  leaseEndsAt: isoInstant,
  /** The previous incarnation; a late heartbeat from it is ignored. */
  retired: z.string().nullable(),
  drain: drain.nullable(),
  /** Not carried out yet, oldest first. */
  orders: z.array(order),
});
export type ApplianceRecord = z.infer<typeof applianceRecord>;

export const inventoryRecord = z.object({
  appliance: id,
  /** The incarnation that counts `revision`. */
  incarnation: z.string(),
  revision: z.number().int().nonnegative(),
  holdings: z.array(holdingId),
});
export type InventoryRecord = z.infer<typeof inventoryRecord>;

export interface Registry {
  load(): Promise<{
    readonly appliances: readonly ApplianceRecord[];
    readonly inventories: readonly InventoryRecord[];
  }>;
  save(record: ApplianceRecord): Promise<void>;
  saveInventory(record: InventoryRecord): Promise<void>;
  /** Removes the appliance and its inventory. */
  remove(appliance: string): Promise<void>;
}

export class MemoryRegistry implements Registry {
  readonly #appliances = new Map<string, string>();
  readonly #inventories = new Map<string, string>();

  load(): ReturnType<Registry['load']> {
    return Promise.resolve({
      appliances: [...this.#appliances.values()].map((text) => JSON.parse(text) as ApplianceRecord),
      inventories: [...this.#inventories.values()].map((text) => JSON.parse(text) as InventoryRecord),
    });
  }

  /** Stores text, so that a caller that changes its record afterwards does not change the stored one. */
  save(record: ApplianceRecord): Promise<void> {
    this.#appliances.set(record.beat.appliance, JSON.stringify(record));
    return Promise.resolve();
  }

  saveInventory(record: InventoryRecord): Promise<void> {
    this.#inventories.set(record.appliance, JSON.stringify(record));
    return Promise.resolve();
  }

  remove(appliance: string): Promise<void> {
    this.#appliances.delete(appliance);
    this.#inventories.delete(appliance);
    return Promise.resolve();
  }
}
