// Least recently used: evicts the run whose last request is longest ago.

import type { EvictionPolicy, RunGeometry, RunKey } from './eviction-policy.ts';
import { newList, RunTable, type RunList } from './run-table.ts';

export class Lru implements EvictionPolicy {
  readonly #table: RunTable;
  /** Most recently used first. */
  readonly #list: RunList = newList();

  constructor(geometry: RunGeometry) {
    this.#table = new RunTable(geometry);
  }

  get bytes(): number {
    return this.#list.bytes;
  }

  get runs(): number {
    return this.#table.runs;
  }

  get memoryBytes(): number {
    return this.#table.memoryBytes;
  }

  reserve(runs: number): void {
    this.#table.reserve(runs);
  }

  /** A run that grows becomes the most recently used. */
  add(key: RunKey, bytes: number): void {
    const slot = this.#table.find(key);
    if (slot === 0) return this.append(key, bytes);
    this.#table.unlink(this.#list, slot);
    this.#table.link(this.#list, slot);
    this.#table.grow(this.#list, slot, bytes);
  }

  append(key: RunKey, bytes: number): void {
    const slot = this.#table.insert(key);
    this.#table.link(this.#list, slot);
    this.#table.grow(this.#list, slot, bytes);
  }

  subtract(key: RunKey, bytes: number): void {
    const slot = this.#table.find(key);
    if (slot === 0) return;
    this.#table.grow(this.#list, slot, -bytes);
    if (this.#table.bytes(slot) === 0) this.#remove(slot);
  }

  touch(key: RunKey): void {
    const slot = this.#table.find(key);
    if (slot === 0 || slot === this.#list.first) return;
    this.#table.unlink(this.#list, slot);
    this.#table.link(this.#list, slot);
  }

  evict(): RunKey | null {
    const slot = this.#list.last;
    if (slot === 0) return null;
    const key = this.#table.key(slot);
    this.#remove(slot);
    return key;
  }

  #remove(slot: number): void {
    this.#table.unlink(this.#list, slot);
    this.#table.remove(slot);
  }
}
