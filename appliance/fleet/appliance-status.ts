// The status of this appliance: what its workers report, its state and health, its heartbeat and gauges.

import { randomBytes } from 'node:crypto';
import { CAUSE_CHARS_MAX, type ApplianceState, type Health, type Order } from '../../protocol/heartbeat.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Metrics } from '../../runtime/metrics.ts';
import { packageVersion } from '../../runtime/paths.ts';
import type { VolumeUsage } from '../store/volume-budget.ts';
import type { Cache } from '../store/cache.ts';
import type { ApplianceConfig } from '../config.ts';
import type { HeartbeatBody } from './heartbeat.ts';
import type { Inflight } from '../fetch/inflight.ts';
import type { WorkerReport } from '../link/messages.ts';
import { METRICS, type ApplianceMetric } from '../metrics.ts';

export interface ApplianceStatusDeps {
  readonly config: ApplianceConfig;
  readonly cache: Cache;
  readonly metrics: Metrics<typeof METRICS>;
  readonly clock: Clock;
  readonly workersLinked: () => number;
  readonly mismatches: Inflight['mismatches'];
  /** Why a volume is out of use; null when all are in use. */
  readonly volumeProblem: string | null;
  readonly filling: () => boolean;
  readonly catalogRevision: () => number | null;
}

/** Bytes that plans may pin: the store less the demand share. */
export const planBytesOf = (config: ApplianceConfig): number =>
  Math.floor(config.storeBytes * (1 - config.demandShare / 100));

export class ApplianceStatus {
  readonly #deps: ApplianceStatusDeps;
  readonly #incarnation = randomBytes(8).toString('hex');
  readonly #connections = new Map<number, number>();
  #servedBytes = 0;
  #servedRequests = 0;
  /** The operator's drain order in force; null if there is none. A null `untilMs` means until resumed. */
  #drain: { readonly untilMs: number | null } | null = null;
  /** Set after the first attempt to pull the catalog, which decides what may be served. */
  synced = false;
  /** Set when the process stops: current players are served to the end, new ones should go elsewhere. */
  shutdown: 'no' | 'draining' | 'stopped' = 'no';

  constructor(deps: ApplianceStatusDeps) {
    this.#deps = deps;
  }

  get connections(): number {
    return [...this.#connections.values()].reduce((sum, count) => sum + count, 0);
  }

  get ready(): boolean {
    return this.synced && this.#deps.workersLinked() > 0;
  }

  applyReport(worker: number, report: WorkerReport): void {
    const { metrics } = this.#deps;
    this.#connections.set(worker, report.connections);
    this.#servedBytes += report.bytes;
    this.#servedRequests += report.requests;
    for (const { name, value, labels } of report.counts)
      if (name in METRICS) metrics.add(name as ApplianceMetric, value, labels);
  }

  removeWorker(worker: number): void {
    this.#connections.delete(worker);
  }

  applyOrder(order: Order & { readonly kind: 'drain' | 'resume' }): void {
    if (order.kind === 'resume') this.#drain = null;
    else this.#drain = { untilMs: order.until === null ? null : Date.parse(order.until) };
  }

  state(): ApplianceState {
    if (this.shutdown !== 'no') return this.shutdown;
    const until = this.#drain?.untilMs ?? null;
    if (until !== null && until <= this.#deps.clock.now()) this.#drain = null;
    if (this.#drain !== null) return 'draining';
    if (!this.synced) return 'starting';
    return this.#deps.filling() ? 'filling' : 'serving';
  }

  health(): Health {
    const { workersLinked, cache, config, mismatches, volumeProblem } = this.#deps;
    const { workers, store } = config;
    const linked = workersLinked();
    if (linked === 0) return { level: 'red', causes: ['no serving worker is linked'] };
    const causes: string[] = [];
    if (linked < workers) causes.push(`${workers - linked} of ${workers} workers are down`);
    const volumes = cache.usage().length;
    if (volumes < store.length)
      causes.push(
        `${store.length - volumes} of ${store.length} volumes out of use: ${volumeProblem}`.slice(0, CAUSE_CHARS_MAX),
      );
    const mismatch = mismatches.healthCause();
    if (mismatch !== null) causes.push(mismatch);
    return { level: causes.length === 0 ? 'green' : 'yellow', causes };
  }

  heartbeatBody(): HeartbeatBody {
    const { config, cache } = this.#deps;
    const volumes = cache.usage();
    return {
      protocol: PROTOCOL_VERSION,
      appliance: config.id,
      site: config.site,
      incarnation: this.#incarnation,
      advertise: [...config.advertise],
      position: config.position,
      timeZone: config.timeZone,
      fillWindows: [...config.fillWindow],
      fillRateBitsPerSecond: config.fillRate,
      state: this.state(),
      health: this.health(),
      storeBytes: config.storeBytes,
      usedBytes: total(volumes, usedBytes),
      pinnedBytes: total(volumes, ({ pinnedBytes }) => pinnedBytes),
      planBytes: planBytesOf(config),
      connections: this.connections,
      connectionsMax: config.connectionsMax,
      servedBytes: this.#servedBytes,
      servedRequests: this.#servedRequests,
      version: packageVersion,
    };
  }

  /** Gauges are set when they are read; counters are added to as things happen. */
  updateGauges(): void {
    const { metrics, cache, config } = this.#deps;
    metrics.set('larder_connections', this.connections);
    metrics.set('larder_workers', this.#deps.workersLinked());
    metrics.set('larder_assets', cache.assets);
    metrics.set('larder_store_limit_bytes', config.storeBytes);
    metrics.set('larder_catalog_revision', this.#deps.catalogRevision() ?? 0);
    metrics.set('larder_mismatched_holdings', this.#deps.mismatches.holdings().size);
    for (const use of cache.usage()) {
      const volume = String(use.volume);
      metrics.set('larder_store_bytes', use.pinnedBytes, { volume, kind: 'pinned' });
      metrics.set('larder_store_bytes', use.demandBytes, { volume, kind: 'demand' });
      metrics.set('larder_store_bytes', use.indexBytes, { volume, kind: 'index' });
    }
  }
}

const usedBytes = (use: VolumeUsage): number =>
  use.pinnedBytes + use.demandBytes + use.reservedBytes + use.removingBytes + use.indexBytes;

const total = (volumes: readonly VolumeUsage[], bytesOf: (volume: VolumeUsage) => number): number =>
  volumes.reduce((sum, volume) => sum + bytesOf(volume), 0);
