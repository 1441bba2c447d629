// Writes the fleet to its registry after heartbeats were answered. At most one write per appliance is in progress, and it
// always writes the newest state, so that nothing queues behind a slow disk and writes never reorder.

import type { ApplianceRecord, InventoryRecord, Registry } from './registry.ts';

export interface WriteBehindDeps {
  readonly registry: Registry;
  /** Called when the write starts, to get the newest state; null removes the appliance. */
  readonly current: (appliance: string) => { readonly record: ApplianceRecord; inventory(): InventoryRecord } | null;
  readonly onError: (appliance: string, error: unknown) => void;
}

interface PendingWrite {
  record: boolean;
  inventory: boolean;
  done: Promise<unknown>;
}

export class WriteBehind {
  readonly #deps: WriteBehindDeps;
  /** By appliance; an entry is removed when everything of it is written. */
  readonly #pending = new Map<string, PendingWrite>();

  constructor(deps: WriteBehindDeps) {
    this.#deps = deps;
  }

  /** Resolves when everything pending for the appliance was written: with null, or with the error of the last write. */
  save(appliance: string, part: 'record' | 'inventory'): Promise<unknown> {
    const pending = this.#pending.get(appliance) ?? { record: false, inventory: false, done: Promise.resolve(null) };
    pending[part] = true;
    if (!this.#pending.has(appliance)) {
      this.#pending.set(appliance, pending);
      pending.done = this.#writeUntilCurrent(appliance, pending);
    }
    return pending.done;
  }

  async close(): Promise<void> {
    for (const { done } of this.#pending.values()) await done;
  }

  async #writeUntilCurrent(appliance: string, pending: PendingWrite): Promise<unknown> {
    let lastError: unknown = null;
    while (pending.record || pending.inventory) {
      const { inventory } = pending;
      pending.record = false;
      pending.inventory = false;
      try {
        await this.#write(appliance, inventory);
        lastError = null;
      } catch (error) {
        lastError = error;
        this.#deps.onError(appliance, error);
      }
    }
    this.#pending.delete(appliance);
    return lastError;
  }

  async #write(appliance: string, inventory: boolean): Promise<void> {
    const { registry, current } = this.#deps;
    const state = current(appliance);
    if (state === null) return registry.remove(appliance);
    await registry.save(state.record);
    if (inventory) await registry.saveInventory(state.inventory());
  }
}
