// The metrics of fill. Labels are bounded: outcomes and states, never a title or an appliance.

import { FALLBACK_METRIC } from '../runtime/fallbacks.ts';
import type { Metrics } from '../runtime/metrics.ts';

export const METRICS = {
  ...FALLBACK_METRIC,
  larder_fill_catalog_revision: { type: 'gauge', help: 'Revision of the catalog.' },
  larder_fill_titles: { type: 'gauge', help: 'Titles in the catalog.' },
  larder_fill_imports_total: { type: 'counter', help: 'Imports that ended, by outcome.', labels: ['outcome'] },
  larder_fill_import_bytes_total: { type: 'counter', help: 'Bytes read from the origin to compute digests.' },
  larder_fill_import_assets_total: {
    type: 'counter',
    help: 'Assets of imports: fetched, or unchanged by their ETag.',
    labels: ['outcome'],
  },
  larder_fill_reports_total: {
    type: 'counter',
    help: 'Play reports: counted, or known because they had been sent before.',
    labels: ['outcome'],
  },
  larder_fill_played_bytes_total: { type: 'counter', help: 'Bytes served to players, from play reports.' },
  larder_fill_runs_total: { type: 'counter', help: 'Runs that ended, by state.', labels: ['state'] },
  larder_fill_runs_running: { type: 'gauge', help: 'Runs under way.' },
  larder_fill_orders_total: {
    type: 'counter',
    help: 'Fill orders handed to steering, by outcome.',
    labels: ['outcome'],
  },
  larder_fill_planned_bytes_total: { type: 'counter', help: 'Bytes that plans have appliances fetch.' },
} as const;

export type FillMetrics = Metrics<typeof METRICS>;
