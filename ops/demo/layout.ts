// The topology of the demo: addresses, sites, prefixes and the command line of every service. Pure; fleet.ts starts the services.

import { join } from 'node:path';

/** Appliances have distinct addresses, because a player that excludes a host excludes it on every port. */
export const APPLIANCES = [
  { id: 'north-1', site: 'north', host: '127.0.0.2' },
  { id: 'north-2', site: 'north', host: '127.0.0.3' },
  { id: 'south-1', site: 'south', host: '127.0.0.4' },
] as const;

export const SERVICE_HOST = '127.0.0.1';

export const SITES = {
  north: {
    network: ['127.1.0.0/16', '127.0.0.0/16'],
    network6: ['::1/128'],
    coordinates: { latitude: 53.55, longitude: 9.99 },
    timeZone: 'Europe/Berlin',
    /** The address from which viewers of the site connect. */
    viewer: '127.1.7.7',
  },
  south: {
    network: ['127.2.0.0/16'],
    network6: [],
    coordinates: { latitude: 41.39, longitude: 2.17 },
    timeZone: 'Europe/Madrid',
    viewer: '127.2.7.7',
  },
} as const;

export type SiteId = keyof typeof SITES;
export type ApplianceId = (typeof APPLIANCES)[number]['id'];

const FILL_WINDOW = '02:00-06:00';
const STORE_BYTES = '200MB';

export interface DemoPorts {
  readonly origin: number;
  readonly fill: number;
  readonly steering: number;
  readonly appliances: Readonly<Record<ApplianceId, { readonly video: number; readonly admin: number }>>;
}

interface DemoLayout {
  /** Everything that the demo writes is below this directory. */
  readonly directory: string;
  /** Directory that the origin serves. */
  readonly media: string;
  readonly ports: DemoPorts;
  /** Limits the fill of each appliance, so that a person can watch it; null means no limit. */
  readonly fillRate: string | null;
}

interface ServiceCommand {
  readonly name: string;
  readonly args: readonly string[];
  /**
   * URLs that respond 200 once the service is ready. Metrics require the token of this demo, so that a service of another demo on
   * the same port does not pass for this one.
   */
  readonly readyUrls: readonly string[];
}

export const urlOf = (host: string, port: number): string => `http://${host}:${port}`;

export const fleetKeyFile = (directory: string): string => join(directory, 'fleet.key');
export const mapFile = (directory: string): string => join(directory, 'prefixes.json');

/** The prefix map in the coverage-zone format that steering reads. */
export const prefixMap = (): string =>
  `${JSON.stringify(
    {
      coverageZones: Object.fromEntries(
        Object.entries(SITES).map(([site, { network, network6, coordinates }]) => [
          site,
          { network, network6, coordinates },
        ]),
      ),
    },
    null,
    2,
  )}\n`;

export function serviceCommands(layout: DemoLayout): Readonly<Record<string, ServiceCommand>> {
  const { directory, ports } = layout;
  const origin = urlOf(SERVICE_HOST, ports.origin);
  const fill = urlOf(SERVICE_HOST, ports.fill);
  const steering = urlOf(SERVICE_HOST, ports.steering);
  const key = ['--fleet-key', fleetKeyFile(directory)];
  const commands: Record<string, ServiceCommand> = {
    origin: {
      name: 'origin',
      args: ['origin', '--root', layout.media, '--listen', `${SERVICE_HOST}:${ports.origin}`],
      readyUrls: [`${origin}/-/stats`],
    },
    fill: {
      name: 'fill',
      args: [
        ...['fill', 'serve', '--listen', `${SERVICE_HOST}:${ports.fill}`, '--state', join(directory, 'fill')],
        ...['--origin', origin, '--steering', steering, ...key],
      ],
      readyUrls: [`${fill}/metrics`],
    },
    steering: {
      name: 'steering',
      args: [
        ...['steering', 'run', '--listen', `${SERVICE_HOST}:${ports.steering}`, '--state', join(directory, 'steering')],
        ...['--map', mapFile(directory), '--default-site', 'north', '--fill', fill, '--origin', origin, ...key],
      ],
      readyUrls: [`${steering}/metrics`],
    },
  };
  for (const { id, site, host } of APPLIANCES) {
    const { video, admin } = ports.appliances[id];
    const { coordinates, timeZone } = SITES[site];
    commands[id] = {
      name: id,
      args: [
        ...['appliance', 'run', '--id', id, '--site', site, '--listen', `${host}:${video}`],
        ...['--advertise', urlOf(host, video), '--admin', `${SERVICE_HOST}:${admin}`, '--origin', origin],
        ...['--store', join(directory, id, 'store'), '--store-bytes', STORE_BYTES],
        ...['--state', join(directory, id, 'state'), '--workers', '1', '--steering', steering, '--fill', fill],
        ...['--position', `${coordinates.latitude},${coordinates.longitude}`, '--time-zone', timeZone],
        ...['--fill-window', FILL_WINDOW, ...key],
        ...(layout.fillRate === null ? [] : ['--fill-rate', layout.fillRate]),
      ],
      readyUrls: ['/readyz', '/metrics'].map((path) => urlOf(SERVICE_HOST, admin) + path),
    };
  }
  return commands;
}
