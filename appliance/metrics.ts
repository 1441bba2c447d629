// Metrics of an appliance. Workers count locally and report the differences; the storekeeper adds them up, so that no counter
// falls when a worker is restarted.

import { FALLBACK_METRIC } from '../runtime/fallbacks.ts';

export const METRICS = {
  larder_requests_total: { type: 'counter', help: 'Responses sent to players.', labels: ['method', 'status'] },
  larder_served_bytes_total: { type: 'counter', help: 'Body bytes sent to players.', labels: ['source'] },
  larder_cache_total: {
    type: 'counter',
    help: 'Responses by what the cache did: hit, stale, revalidated, partial, miss, bypass.',
    labels: ['outcome'],
  },
  larder_fast_path_total: {
    type: 'counter',
    help: 'Responses sent by the fast path, from socket to disk without node:http.',
  },
  larder_aborted_total: { type: 'counter', help: 'Players that disconnected before the end of a response.' },
  larder_access_log_dropped_total: {
    type: 'counter',
    help: 'Lines lost by the access log because the disk was full or too slow.',
  },
  larder_faults_total: { type: 'counter', help: 'Faults by code.', labels: ['code'] },
  larder_origin_requests_total: { type: 'counter', help: 'Requests to the origin.', labels: ['pool'] },
  larder_origin_bytes_total: { type: 'counter', help: 'Body bytes received from the origin.', labels: ['pool'] },
  larder_tls_handshakes_total: {
    type: 'counter',
    help: 'TLS handshakes of players by outcome: full, resumed, failed.',
    labels: ['outcome'],
  },
  larder_connections: { type: 'gauge', help: 'Open connections of players.' },
  larder_workers: { type: 'gauge', help: 'Workers connected to the storekeeper.' },
  larder_store_bytes: { type: 'gauge', help: 'Bytes on disk.', labels: ['volume', 'kind'] },
  larder_store_limit_bytes: { type: 'gauge', help: 'Limit on the bytes of all volumes.' },
  larder_assets: { type: 'gauge', help: 'Asset versions in the index.' },
  larder_admission_blocks_total: {
    type: 'counter',
    help: 'Unpinned blocks fetched for players, by the decision of admission: admitted, refused.',
    labels: ['outcome'],
  },
  larder_blocks_stored_total: { type: 'counter', help: 'Blocks written.' },
  larder_blocks_evicted_total: { type: 'counter', help: 'Blocks removed for space.' },
  larder_blocks_discarded_total: { type: 'counter', help: 'Blocks removed because they were damaged.' },
  larder_memory_blocks_total: {
    type: 'counter',
    help: 'Blocks of the memory tier by event: received from the origin, filled because they were read again, evicted.',
    labels: ['event'],
  },
  larder_memory_bytes: { type: 'gauge', help: 'Bytes of blocks in the memory tier.' },
  larder_scrubbed_bytes_total: { type: 'counter', help: 'Bytes on disk that the scrub has checked.' },
  larder_heartbeats_total: { type: 'counter', help: 'Heartbeats by outcome.', labels: ['outcome'] },
  larder_fill_bytes_total: { type: 'counter', help: 'Bytes fetched, verified and stored by fills.' },
  larder_mismatched_holdings: {
    type: 'gauge',
    help: 'Renditions of which the origin sent bytes that differ from the catalog.',
  },
  larder_catalog_revision: { type: 'gauge', help: 'Revision of the catalog copy.' },
  ...FALLBACK_METRIC,
} as const;

export type ApplianceMetric = keyof typeof METRICS;

/** What counts: the registry of the storekeeper or the counters of a worker. */
export interface Counters {
  add(name: ApplianceMetric, value?: number, labels?: Record<string, string>): void;
}
