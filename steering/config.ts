// Settings of `larder steering run`. Flags, YAML keys, environment variables, defaults and help all come from this table.

import { dirname, join } from 'node:path';
import { defaultFleetKeyFile } from '../runtime/auth.ts';
import { option, type Values } from '../runtime/config.ts';
import { parsePrefix } from './prefix-table.ts';

export const STEERING_TABLE = {
  listen: option.hostPort({ doc: 'Address of the service', fallback: ':8400' }),
  state: option.path({
    doc: 'Directory for leases, drains, inventories, the catalog and the history',
    placeholder: 'DIR',
    fallback: join(dirname(defaultFleetKeyFile()), 'steering'),
  }),
  map: option.optional(option.path({ doc: 'Which site serves which prefixes: a coverage-zone file (JSON)' })),
  geoip: option.optional(
    option.path({ doc: 'Positions of addresses that the map does not cover: CSV with network, latitude, longitude' }),
  ),
  defaultSite: option.optional(option.id({ doc: 'Site of clients that neither map nor position locate' })),
  fill: option.url({ doc: 'Base URL of fill, for the catalog', fallback: 'http://127.0.0.1:8500' }),
  origin: option.url({ doc: 'Base URL of the origin as players reach it: the last pathway' }),
  publicUrl: option.optional(option.url({ doc: 'Base URL of steering as players reach it (default: from Host)' })),
  trustProxy: option.list(
    option.custom({ doc: 'Proxy whose X-Forwarded-For is trusted', placeholder: 'CIDR', parse: parseCidr }),
  ),
  fleetKey: option.path({
    doc: 'File of the fleet key; created if it does not exist',
    fallback: defaultFleetKeyFile(),
  }),
  ttl: option.duration({ doc: 'How long players keep a ranking, give or take 20 %', fallback: '30s' }),
  drainTimeout: option.duration({ doc: 'Longest time that a shutdown may take', fallback: '10s' }),
} as const;

export type SteeringConfig = Values<typeof STEERING_TABLE>;

function parseCidr(text: string): string {
  const prefix = parsePrefix(text);
  if ('problem' in prefix) throw new Error(`an address or a network such as 10.0.0.0/8, and it ${prefix.problem}`);
  return text;
}
