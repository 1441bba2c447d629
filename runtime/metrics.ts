// Metrics from a table: name, type, help and labels are declared once, for Prometheus and for the docs.

import type * as PromClient from 'prom-client';
import { loadCommonJs } from './commonjs.ts';

// The whole package loads OpenTelemetry for its default metrics, which takes a starting process 30 ms. These are the modules that it
// exports as `Counter` and so on.
const Registry = loadCommonJs('prom-client/lib/registry') as typeof PromClient.Registry;
const Counter = loadCommonJs('prom-client/lib/counter') as typeof PromClient.Counter;
const Gauge = loadCommonJs('prom-client/lib/gauge') as typeof PromClient.Gauge;
const Histogram = loadCommonJs('prom-client/lib/histogram') as typeof PromClient.Histogram;

interface MetricSpec {
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels?: readonly string[];
  /** Upper bounds of the buckets of a histogram. */
  readonly buckets?: readonly number[];
}

export type MetricTable = Readonly<Record<string, MetricSpec>>;

export interface Metrics<T extends MetricTable> {
  add(name: keyof T & string, value?: number, labels?: Record<string, string>): void;
  set(name: keyof T & string, value: number, labels?: Record<string, string>): void;
  observe(name: keyof T & string, value: number, labels?: Record<string, string>): void;
  /** The metrics in the Prometheus text format, with its media type. */
  expose(): Promise<{ readonly contentType: string; readonly body: string }>;
}

export function createMetrics<T extends MetricTable>(table: T): Metrics<T> {
  const registry = new Registry();
  const counters = new Map<string, PromClient.Counter>();
  const gauges = new Map<string, PromClient.Gauge>();
  const histograms = new Map<string, PromClient.Histogram>();
  for (const [name, spec] of Object.entries(table)) {
    const base = { name, help: spec.help, labelNames: [...(spec.labels ?? [])], registers: [registry] };
    if (spec.type === 'counter') counters.set(name, new Counter(base));
    else if (spec.type === 'gauge') gauges.set(name, new Gauge(base));
    else histograms.set(name, new Histogram({ ...base, buckets: [...(spec.buckets ?? [])] }));
  }
  return {
    add: (name, value = 1, labels = {}) => counters.get(name)!.inc(labels, value),
    set: (name, value, labels = {}) => gauges.get(name)!.set(labels, value),
    observe: (name, value, labels = {}) => histograms.get(name)!.observe(labels, value),
    expose: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
  };
}
