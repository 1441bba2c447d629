// What a worker counts between two reports to the storekeeper. `drain` empties the counters; a report that could not be sent is restored.

import type { HoldingId } from '../../protocol/ids.ts';
import type { AssetView } from '../http/asset.ts';
import { blockKey, type WorkerReport } from '../link/messages.ts';
import type { ApplianceMetric, Counters } from '../metrics.ts';

const TOUCHED_BLOCKS_MAX = 100_000;
const HOLDINGS_MAX = 50_000;

/** A count to which its owner adds directly. */
export interface Counter {
  readonly name: ApplianceMetric;
  value: number;
  readonly labels: Record<string, string>;
}

export class WorkerCounters implements Counters {
  #counts = new Map<string, Counter>();
  readonly #counters: Counter[] = [];
  /** By volume. */
  #touched = new Map<number, Set<number>>();
  #served = new Map<HoldingId, { bytes: number; requests: number }>();
  #bytes = 0;
  #requests = 0;

  add(name: ApplianceMetric, value = 1, labels: Record<string, string> = {}): void {
    const key = name + Object.values(labels).join('\0');
    const count = this.#counts.get(key);
    if (count === undefined) this.#counts.set(key, { name, value, labels });
    else count.value += value;
  }

  /** A counter for the hot path: adding to its `value` is all that counting costs. */
  counter(name: ApplianceMetric, labels: Record<string, string>): Counter {
    const counter: Counter = { name, value: 0, labels };
    this.#counters.push(counter);
    return counter;
  }

  /** Notes the use of a block, for eviction and the memory tier. */
  touch(asset: AssetView, number: number): void {
    const blocks = this.#touched.get(asset.volume) ?? new Set<number>();
    this.#touched.set(asset.volume, blocks);
    if (blocks.size < TOUCHED_BLOCKS_MAX) blocks.add(blockKey(asset.id, number));
  }

  served(holding: HoldingId | null, bytes: number): void {
    this.#bytes += bytes;
    this.#requests += 1;
    if (holding === null) return;
    const row = this.#served.get(holding);
    if (row !== undefined) {
      row.bytes += bytes;
      row.requests += 1;
    } else if (this.#served.size < HOLDINGS_MAX) this.#served.set(holding, { bytes, requests: 1 });
  }

  /** Returns all counts and resets them. */
  drain(connections: number): WorkerReport {
    const report: WorkerReport = {
      touched: [...this.#touched].map(([volume, blocks]) => ({ volume, blocks: [...blocks] })),
      served: [...this.#served].map(([holding, row]) => ({ holding, ...row })),
      counts: [...this.#counts.values(), ...this.#drainCounters()],
      connections,
      bytes: this.#bytes,
      requests: this.#requests,
    };
    this.#counts = new Map();
    this.#touched = new Map();
    this.#served = new Map();
    this.#bytes = 0;
    this.#requests = 0;
    return report;
  }

  /** Adds the counts of a report that could not be sent. Touches are lost: they are hints. */
  restore(report: WorkerReport): void {
    for (const { name, value, labels } of report.counts) this.add(name as ApplianceMetric, value, labels);
    for (const { holding, bytes, requests } of report.served) {
      const row = this.#served.get(holding) ?? { bytes: 0, requests: 0 };
      if (this.#served.size < HOLDINGS_MAX)
        this.#served.set(holding, { bytes: row.bytes + bytes, requests: row.requests + requests });
    }
    this.#bytes += report.bytes;
    this.#requests += report.requests;
  }

  #drainCounters(): Counter[] {
    const counted = this.#counters.filter((counter) => counter.value !== 0).map((counter) => ({ ...counter }));
    for (const counter of this.#counters) counter.value = 0;
    return counted;
  }
}
