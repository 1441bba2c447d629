// Metrics of an appliance. Workers count locally and send what came to be since their last report; the storekeeper
// adds it up, so that a counter never falls when a worker dies.

import { FALLBACK_METRIC } from '../runtime/fallbacks.ts';

export const METRICS = {
  larder_requests_total: { type: 'counter', help: 'Answers sent to players.', labels: ['method', 'status'] },
  larder_served_bytes_total: { type: 'counter', help: 'Body bytes sent to players.', labels: ['source'] },
  larder_cache_total: {
    type: 'counter',
    help: 'Answers by what the cache did: hit, stale, revalidated, partial, miss, pass.',
    labels: ['outcome'],
  },
  larder_fast_path_total: { type: 'counter', help: 'Answers that took the short way from socket to disk.' },
  larder_aborted_total: { type: 'counter', help: 'Players that hung up before the end of an answer.' },
  larder_access_log_dropped_total: {
    type: 'counter',
    help: 'Lines that the access record lost: disk full, or too slow.',
  },
  larder_faults_total: { type: 'counter', help: 'Faults by code.', labels: ['code'] },
  larder_origin_requests_total: { type: 'counter', help: 'Requests to the origin.', labels: ['pool'] },
  larder_origin_bytes_total: { type: 'counter', help: 'Body bytes received from the origin.', labels: ['pool'] },
  larder_tls_handshakes_total: {
    type: 'counter',
    help: 'TLS handshakes of players, by how they went: full, resumed, failed.',
    labels: ['outcome'],
  },
  larder_connections: { type: 'gauge', help: 'Open connections of players.' },
  larder_workers: { type: 'gauge', help: 'Serving workers that are linked.' },
  larder_store_bytes: { type: 'gauge', help: 'Bytes on disk.', labels: ['volume', 'kind'] },
  larder_store_limit_bytes: { type: 'gauge', help: 'Bytes that the volumes may take.' },
  larder_assets: { type: 'gauge', help: 'Asset versions in the index.' },
  larder_admission_blocks_total: {
    type: 'counter',
    help: 'Blocks fetched for players of what no plan pins, by whether they may be stored: admitted, refused.',
    labels: ['outcome'],
  },
  larder_blocks_stored_total: { type: 'counter', help: 'Blocks written.' },
  larder_blocks_evicted_total: { type: 'counter', help: 'Blocks removed for space.' },
  larder_blocks_discarded_total: { type: 'counter', help: 'Blocks removed because they were damaged.' },
  larder_heartbeats_total: { type: 'counter', help: 'Heartbeats by outcome.', labels: ['outcome'] },
  larder_fill_bytes_total: { type: 'counter', help: 'Bytes fetched, verified and stored by fills.' },
  larder_catalog_revision: { type: 'gauge', help: 'Revision of the catalog copy.' },
  ...FALLBACK_METRIC,
} as const;

export type ApplianceMetric = keyof typeof METRICS;

/** Whatever can count: the storekeeper's registry or a worker's tally. */
export interface Counters {
  add(name: ApplianceMetric, value?: number, labels?: Record<string, string>): void;
}
