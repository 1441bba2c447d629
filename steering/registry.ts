// The registry: what steering remembers of each appliance across its own restarts. A port with two implementations, on
// disk (store.ts) and in memory (here); test/registry.test.ts holds both to one contract.

import { z } from 'zod';
import { heartbeat, order } from '../protocol/heartbeat.ts';
import { holdingId, id, isoInstant } from '../protocol/ids.ts';

export const beatFacts = heartbeat.omit({ inventory: true, ordersDone: true });
/** The last heartbeat, without what is folded into the rest of the record. */
export type BeatFacts = z.infer<typeof beatFacts>;

export const drain = z.object({
  /** May lie ahead: scheduled. */
  from: isoInstant,
  /** Null: until somebody resumes it. */
  until: isoInstant.nullable(),
  /** Whether the appliance was told; false before `from`. */
  told: z.boolean(),
});
export type Drain = z.infer<typeof drain>;

export const applianceRecord = z.object({
  beat: beatFacts,
  beatAt: isoInstant,
  leaseEndsAt: isoInstant,
  /** Incarnation before this one; a late beat of it is ignored. */
  retired: z.string().nullable(),
  drain: drain.nullable(),
  /** Not yet carried out, oldest first. */
  orders: z.array(order),
});
export type ApplianceRecord = z.infer<typeof applianceRecord>;

export const inventoryRecord = z.object({
  appliance: id,
  /** Revisions belong to it. */
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
  /** Forgets the appliance and its inventory. */
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

  /** Kept as text: a caller that changes its record afterwards changes nothing here. */
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
