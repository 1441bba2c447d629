// Writes the fleet to its registry behind the heartbeats: one write at a time per appliance and always the newest state,
// so that nothing queues up behind a slow disk and nothing lands out of order.

import type { ApplianceRecord, InventoryRecord, Registry } from './registry.ts';

export interface WriteBehindDeps {
  readonly registry: Registry;
  /** The state to write, asked when its turn comes; null removes the appliance. */
  readonly newest: (appliance: string) => { readonly record: ApplianceRecord; inventory(): InventoryRecord } | null;
  readonly failed: (appliance: string, error: unknown) => void;
}

interface Pending {
  record: boolean;
  inventory: boolean;
  done: Promise<unknown>;
}

export class WriteBehind {
  readonly #deps: WriteBehindDeps;
  /** Only while there is something to write. */
  readonly #pending = new Map<string, Pending>();

  constructor(deps: WriteBehindDeps) {
    this.#deps = deps;
  }

  /** Resolves when all of it is written, with the error that kept it from the disk, or null. */
  save(appliance: string, part: 'record' | 'inventory'): Promise<unknown> {
    const pending = this.#pending.get(appliance) ?? { record: false, inventory: false, done: Promise.resolve(null) };
    pending[part] = true;
    if (!this.#pending.has(appliance)) {
      this.#pending.set(appliance, pending);
      pending.done = this.#drain(appliance, pending);
    }
    return pending.done;
  }

  async close(): Promise<void> {
    for (const { done } of this.#pending.values()) await done;
  }

  async #drain(appliance: string, pending: Pending): Promise<unknown> {
    let failed: unknown = null;
    while (pending.record || pending.inventory) {
      const { inventory } = pending;
      pending.record = false;
      pending.inventory = false;
      try {
        await this.#write(appliance, inventory);
        failed = null;
      } catch (error) {
        failed = error;
        this.#deps.failed(appliance, error);
      }
    }
    this.#pending.delete(appliance);
    return failed;
  }

  async #write(appliance: string, inventory: boolean): Promise<void> {
    const { registry, newest } = this.#deps;
    const state = newest(appliance);
    if (state === null) return registry.remove(appliance);
    await registry.save(state.record);
    if (inventory) await registry.saveInventory(state.inventory());
  }
}
