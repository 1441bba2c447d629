// The table of fallbacks: what the system does if a dependency fails, counted as larder_fallback_total{name}. Each fallback has a
// test that removes the dependency. REFERENCE.md prints this table, and test/tidy checks that it is complete.

export const FALLBACKS = {
  storekeeper_down_origin:
    'A worker cannot reach its storekeeper: stored blocks are served, misses go to the origin under a cap, unstored.',
  kept_connection_closed_retry:
    'The origin closes a connection that was kept before it answers: a request that may be repeated goes over a fresh one.',
  store_full_pass: 'No room can be made for a block: it passes through to its readers without being stored.',
  steering_down_serve: 'Heartbeats are not answered: the appliance keeps serving and keeps trying.',
  fill_down_catalog_kept: 'Fill cannot be reached: the last catalog pulled stays in force (steering and appliances).',
  fill_down_reports_kept: 'Fill cannot be reached: play reports are kept, bounded, and sent later.',
  block_damaged_refetch: 'A stored block fails its checksum or cannot be read: it is discarded and fetched again.',
  appliances_down_origin: 'No appliance can take the play: the origin is the only pathway.',
  site_down_next_site:
    "No appliance of the client's own site can take the play: the next site by distance is ranked first.",
  registry_down_memory:
    "Steering's registry cannot be written: leases, drains and inventories live in memory and are written with the next change.",
  history_down_unrecorded:
    "Steering's history cannot be opened or written: decisions go on, and that time cannot be explained later.",
  steering_down_plan_from_memory: 'Steering cannot be reached: fill plans with the last fleet view that it saw.',
} as const satisfies Record<string, string>;

export type FallbackName = keyof typeof FALLBACKS;

export const FALLBACK_METRIC = {
  larder_fallback_total: { type: 'counter', help: 'Times a named fallback was taken.', labels: ['name'] },
} as const;
