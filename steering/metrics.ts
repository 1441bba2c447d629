// The metrics of steering.

import { FALLBACK_METRIC } from '../runtime/fallbacks.ts';
import type { MetricTable } from '../runtime/metrics.ts';

export const METRICS = {
  ...FALLBACK_METRIC,
  larder_steering_plays_total: {
    type: 'counter',
    help: 'Plays requested, by the public route that they came through.',
    labels: ['route'],
  },
  larder_steering_unparsed_addresses_total: {
    type: 'counter',
    help: 'Plays of clients whose address, as a trusted proxy named it, is none: the default site took them.',
  },
  larder_steering_decision_seconds: {
    type: 'histogram',
    help: 'Time to decide one play.',
    buckets: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
  },
  larder_steering_lists_total: {
    type: 'counter',
    help: 'Content steering answers, by whether a pathway was moved behind the origin.',
    labels: ['moved'],
  },
  larder_steering_heartbeats_total: {
    type: 'counter',
    help: 'Heartbeats, by outcome: taken, or stale (overtaken by a later one or sent by a replaced incarnation).',
    labels: ['outcome'],
  },
  larder_steering_appliances: {
    type: 'gauge',
    help: 'Appliances in the fleet, by liveness.',
    labels: ['liveness'],
  },
  larder_steering_frozen: {
    type: 'gauge',
    help: '1 while expired leases are ignored because too many appliances vanished at once.',
  },
  larder_steering_probes_total: {
    type: 'counter',
    help: 'Probes of advertised URLs, by result.',
    labels: ['result'],
  },
  larder_steering_catalog_revision: { type: 'gauge', help: "Revision of fill's catalog that is in force." },
  larder_steering_history_rows: { type: 'gauge', help: 'Rows of history on disk.' },
  larder_steering_catalog_titles: { type: 'gauge', help: 'Titles in the catalog.' },
  larder_steering_play_rows_dropped_total: {
    type: 'counter',
    help: 'Plays not reported to fill: too many different titles and sites in one report, or fill refused it.',
  },
} as const satisfies MetricTable;
