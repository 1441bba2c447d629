// Metrics of a running appliance, as Prometheus would read them, metrics of a part under test, and the assertion that proves a
// fallback.

import { expect } from 'vitest';
import type { FallbackName } from '../../runtime/fallbacks.ts';
import type { ApplianceMetric, Counters } from '../metrics.ts';
import type { RunningAppliance } from './rig.ts';

/** Value of one series, such as `larder_workers` or `larder_fallback_total{name="store_full_pass"}`; 0 if it is absent. */
export async function metricValue({ admin, token }: RunningAppliance, series: string): Promise<number> {
  const response = await fetch(`${admin}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const line = (await response.text()).split('\n').find((text) => text.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1) ?? 0);
}

/** Counters for a part under test. Series are named as in `metricValue`. */
export class RecordedCounters implements Counters {
  readonly #values = new Map<string, number>();

  add(name: ApplianceMetric, value = 1, labels: Record<string, string> = {}): void {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
    const series = pairs.length === 0 ? name : `${name}{${pairs.join(',')}}`;
    this.#values.set(series, this.value(series) + value);
  }

  value(series: string): number {
    return this.#values.get(series) ?? 0;
  }

  touch(): void {
    // Recency is not recorded.
  }
}

/** Asserts that the fallback was counted. A running appliance is given time: its workers report twice a second. */
export async function expectFallback(counted: RunningAppliance | RecordedCounters, name: FallbackName): Promise<void> {
  const series = `larder_fallback_total{name="${name}"}`;
  if (counted instanceof RecordedCounters) expect(counted.value(series), series).toBeGreaterThan(0);
  else await counted.until(async () => (await metricValue(counted, series)) > 0);
}
