// Eviction policies for comparison, behind the interface of those that appliances use.

import type { EvictionPolicy, RunKey, RunGeometry } from '../appliance/store/eviction-policy.ts';
import { newList, RunTable } from '../appliance/store/run-table.ts';

/** FIFO: evicts in the order of insertion, regardless of hits. */
export class FifoPolicy implements EvictionPolicy {
  protected readonly table: RunTable;
  protected readonly list = newList();

  constructor(geometry: RunGeometry) {
    this.table = new RunTable(geometry);
  }

  get bytes(): number {
    return this.list.bytes;
  }

  get runs(): number {
    return this.table.runs;
  }

  get memoryBytes(): number {
    return this.table.memoryBytes;
  }

  reserve(runs: number): void {
    this.table.reserve(runs);
  }

  add(key: RunKey, bytes: number): void {
    const slot = this.table.find(key);
    if (slot === 0) this.append(key, bytes);
    else this.table.grow(this.list, slot, bytes);
  }

  append(key: RunKey, bytes: number): void {
    const slot = this.table.insert(key);
    this.table.link(this.list, slot);
    this.table.grow(this.list, slot, bytes);
  }

  subtract(key: RunKey, bytes: number): void {
    const slot = this.table.find(key);
    if (slot === 0) return;
    this.table.grow(this.list, slot, -bytes);
    if (this.table.bytes(slot) === 0) this.remove(slot);
  }

  touch(_key: RunKey): void {}

  evict(): RunKey | null {
    const slot = this.list.last;
    if (slot === 0) return null;
    const key = this.table.key(slot);
    this.remove(slot);
    return key;
  }

  protected remove(slot: number): void {
    this.table.unlink(this.list, slot);
    this.table.remove(slot);
  }
}

/**
 * SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi, NSDI 2024): a hand moves from the oldest to the newest, skips entries that were hit
 * since it last passed them, and evicts the first that was not.
 */
export class SievePolicy extends FifoPolicy {
  #hand = 0;

  override touch(key: RunKey): void {
    const slot = this.table.find(key);
    if (slot !== 0) this.table.setMark(slot, 1);
  }

  override evict(): RunKey | null {
    if (this.list.last === 0) return null;
    let slot = this.#hand === 0 ? this.list.last : this.#hand;
    while (this.table.mark(slot) === 1) {
      this.table.setMark(slot, 0);
      slot = this.table.previous(slot) === 0 ? this.list.last : this.table.previous(slot);
    }
    const key = this.table.key(slot);
    this.#hand = slot;
    this.remove(slot);
    return key;
  }

  protected override remove(slot: number): void {
    if (slot === this.#hand) this.#hand = this.table.previous(slot);
    super.remove(slot);
  }
}
