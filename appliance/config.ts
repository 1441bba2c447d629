// The settings of an appliance: identity and site, listeners, store, origin, steering and fill. REFERENCE.md prints this table.

import { createHash } from 'node:crypto';
import { cpus, hostname } from 'node:os';
import { resolve } from 'node:path';
import { fillWindow, position, type FillWindow, type Position } from '../protocol/heartbeat.ts';
import { defaultFleetKeyFile, issueToken, readFleetKey } from '../runtime/auth.ts';
import { option, type Values } from '../runtime/config.ts';
import { Fault } from '../protocol/faults.ts';
import { formatBytes } from '../protocol/units.ts';
import type { ProxyIdentity } from './http/response-headers.ts';
import { ADMISSION_POLICIES, type AdmissionPolicy } from './store/demand-policy.ts';
import { memoryBytes } from './system-limits.ts';
import type { TlsFiles } from './tls/material.ts';

/** Per volume. */
const STORE_BYTES_MIN = 32 * 2 ** 20;
const WORKERS_MAX = 64;
/** The rest is for the page cache, the processes and what readers hold. */
const MEMORY_SHARE = 1 / 4;

export const APPLIANCE_TABLE = {
  id: option.id({ doc: 'Name of this appliance in the fleet', fallback: 'appliance' }),
  site: option.id({ doc: 'Site that this appliance belongs to', fallback: 'local' }),
  listen: option.hostPort({ doc: 'Address at which players are served', fallback: ':8080' }),
  advertise: option.list(
    option.url({ doc: 'Base URL at which players reach this appliance, best first; required in a fleet' }),
  ),
  admin: option.hostPort({ doc: 'Address at which health, metrics and state are served', fallback: '127.0.0.1:8081' }),
  origin: option.url({ doc: 'Base URL of the origin' }),
  store: option.list(
    option.path({ doc: 'Directory of a volume, one per disk', placeholder: 'DIR', fallback: './larder-store' }),
  ),
  storeBytes: option.size({ doc: 'Limit on the bytes of all volumes together', fallback: '10GB' }),
  memoryBytes: option.size({
    doc: 'Memory for blocks that are read again and again, shared by all workers; 0 leaves them to the page cache',
    fallback: String(Math.floor(memoryBytes() * MEMORY_SHARE)),
    shown: 'a quarter of the memory',
  }),
  state: option.path({
    doc: 'Directory of pins, the catalog copy and unsent play reports',
    placeholder: 'DIR',
    fallback: './larder-state',
  }),
  workers: option.integer({
    doc: 'Serving processes',
    fallback: String(Math.min(cpus().length, WORKERS_MAX)),
    shown: 'one per CPU',
    min: 1,
    max: WORKERS_MAX,
  }),
  steering: option.list(option.url({ doc: 'Base URL of steering; makes the appliance a member of a fleet' })),
  fill: option.optional(option.url({ doc: 'Base URL of fill, for the catalog, plans and play reports' })),
  token: option.optional(
    option.text({ doc: 'Token of this appliance; by default derived from the fleet key', placeholder: 'TOKEN' }),
  ),
  fleetKey: option.path({ doc: 'File of the fleet key', fallback: defaultFleetKeyFile() }),
  position: option.optional(
    option.custom<Position>({ doc: 'Position of the site in degrees', placeholder: 'LAT,LON', parse: parsePosition }),
  ),
  timeZone: option.custom<string>({
    doc: 'IANA time zone of the site',
    placeholder: 'ZONE',
    fallback: 'UTC',
    parse: parseZone,
  }),
  fillWindow: option.list(
    option.custom<FillWindow>({
      doc: 'Off-peak hours in site-local time',
      placeholder: 'HH:MM-HH:MM',
      fallback: '02:00-14:00',
      parse: parseWindow,
    }),
  ),
  fillRate: option.optional(option.rate({ doc: 'Cap on the bit rate of fills' })),
  demandShare: option.number({
    doc: 'Share of the store that plans may not pin',
    fallback: '20',
    min: 1,
    max: 100,
    placeholder: 'PERCENT',
  }),
  reverseProxy: option.flag({
    doc: 'Be a reverse proxy of the origin: forward every method and what cannot be cached, leave CORS to it',
  }),
  admission: option.optional(
    option.custom<AdmissionPolicy>({
      doc: 'What the demand share stores: every miss, evicted by `lru` or `s3-fifo`, or assets from their second request on, by `second-hit`',
      placeholder: ADMISSION_POLICIES.join('|'),
      shown: 'second-hit in a fleet, else lru',
      parse: parsePolicy,
    }),
  ),
  tlsCert: option.optional(
    option.path({ doc: 'Certificate chain, PEM; players are then served over HTTPS alone. SIGHUP reloads it' }),
  ),
  tlsKey: option.optional(option.path({ doc: 'Private key of the certificate, PEM' })),
  http2: option.flag({ doc: 'Offer HTTP/2 too; needs --tls-cert' }),
  accessLog: option.optional(
    option.path({ doc: 'Access log, a line per request in the Combined Log Format; may be renamed at any time' }),
  ),
  connectionsMax: option.integer({ doc: 'Concurrent client connections', fallback: '10000', min: 1, max: 1_000_000 }),
  drainTimeout: option.duration({
    doc: 'Time limit of a drain; responses still running then are cut off',
    fallback: '30s',
  }),
} as const;

export type ApplianceConfig = Values<typeof APPLIANCE_TABLE>;

/** Validates settings against each other. Throws `config_invalid`. */
export function validateConfig(config: ApplianceConfig): void {
  const problems = [...storeProblems(config), ...fleetProblems(config), ...tlsProblems(config)];
  if (problems.length > 0)
    throw new Fault('config_invalid', `the settings do not fit together:\n  ${problems.join('\n  ')}`);
}

function storeProblems({ storeBytes, store }: ApplianceConfig): string[] {
  const bytesMin = STORE_BYTES_MIN * store.length;
  if (storeBytes >= bytesMin) return [];
  const size = formatBytes(storeBytes);
  return [`--store-bytes is ${size}, but ${store.length} volume(s) need at least ${formatBytes(bytesMin)}`];
}

function fleetProblems(config: ApplianceConfig): string[] {
  if (!inFleet(config)) return [];
  const problems: string[] = [];
  if (config.advertise.length === 0)
    problems.push('--advertise is required with --steering: the URL at which players reach this appliance');
  if (config.reverseProxy)
    problems.push('--reverse-proxy is for an appliance that stands alone: in a fleet the catalog says what is served');
  if (config.fill === null)
    problems.push('--fill is required with --steering: the catalog says what this appliance may serve');
  if (ownToken(config) === null)
    problems.push(
      `--token is required with --steering, for ${config.fleetKey} holds no fleet key; the operator prints one with: larder keys issue --appliance ${config.id}`,
    );
  return problems;
}

/** Null if players are served without TLS. */
export const tlsFilesOf = ({ tlsCert, tlsKey }: ApplianceConfig): TlsFiles | null =>
  tlsCert === null || tlsKey === null ? null : { tlsCert, tlsKey };

function tlsProblems(config: ApplianceConfig): string[] {
  const { tlsCert, tlsKey, http2, advertise } = config;
  if (tlsCert !== null && tlsKey === null)
    return ['--tls-key is required with --tls-cert: the file of its private key'];
  if (tlsCert === null && tlsKey !== null)
    return ['--tls-cert is required with --tls-key: the file of its certificate'];
  if (tlsCert === null) return http2 ? ['--http2 needs --tls-cert and --tls-key: players speak it over TLS alone'] : [];
  return advertise
    .filter((url) => !url.startsWith('https:'))
    .map((url) => `--advertise ${url} must begin with https: with --tls-cert the listener speaks TLS alone`);
}

/** The configured token, or one derived from the fleet key if this machine has it; null if there is neither. */
export function ownToken(config: ApplianceConfig): string | null {
  if (config.token !== null) return config.token;
  const key = readFleetKey(config.fleetKey);
  return key === null ? null : issueToken(key, { role: 'appliance', id: config.id });
}

export const inFleet = (config: ApplianceConfig): boolean => config.steering.length > 0;

/** The name in Via is unique to this appliance, so that a request that carries it is a loop (RFC 9110 7.6.3). */
export const proxyIdentityOf = (config: ApplianceConfig): ProxyIdentity => ({
  reverseProxy: config.reverseProxy,
  via: `larder-${createHash('sha256')
    .update(`${hostname()} ${resolve(config.state)}`)
    .digest('hex')
    .slice(0, 8)}`,
});

export const admissionPolicyOf = (config: ApplianceConfig): AdmissionPolicy =>
  config.admission ?? (inFleet(config) ? 'second-hit' : 'lru');

function parsePolicy(text: string): AdmissionPolicy {
  const policy = ADMISSION_POLICIES.find((each) => each === text);
  if (policy === undefined) throw new Error(`one of ${ADMISSION_POLICIES.join(', ')}`);
  return policy;
}

function parsePosition(text: string): Position {
  const [lat, lon, ...rest] = text.split(',').map(Number);
  const parsed = position.safeParse({ lat, lon });
  if (!parsed.success || rest.length > 0) throw new Error('latitude,longitude in degrees, such as 52.52,13.40');
  return parsed.data;
}

function parseZone(text: string): string {
  // The rules of all others are loaded when the first of them is used, which takes 10 ms.
  if (text === 'UTC') return text;
  try {
    return new Intl.DateTimeFormat('en', { timeZone: text }).format(0) && text;
  } catch {
    throw new Error('an IANA time zone such as Europe/Berlin');
  }
}

function parseWindow(text: string): FillWindow {
  const [start, end] = text.split('-');
  const parsed = fillWindow.safeParse({ start, end });
  if (!parsed.success) throw new Error('start-end in site-local time, such as 02:00-14:00');
  return parsed.data;
}
