// Metrics of a running appliance, as Prometheus would read them, and the assertion that proves a fallback.

import type { FallbackName } from '../../runtime/fallbacks.ts';
import type { RunningAppliance } from './rig.ts';

/** Value of one series, such as `larder_workers` or `larder_fallback_total{name="store_full_pass"}`; 0 if it is absent. */
export async function metricValue({ admin, token }: RunningAppliance, series: string): Promise<number> {
  const response = await fetch(`${admin}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  const line = (await response.text()).split('\n').find((text) => text.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1) ?? 0);
}

/** Waits until the fallback has been counted: workers report twice a second. */
export async function expectFallback(appliance: RunningAppliance, name: FallbackName): Promise<void> {
  await appliance.until(async () => (await metricValue(appliance, `larder_fallback_total{name="${name}"}`)) > 0);
}
