// What the tests of steering stand on: a clock in the hand, heartbeats and titles with sensible fields, a service on a
// free port, and a fill that answers by HTTP in the words of the protocol.

import { createServer, type IncomingMessage, type Server } from 'node:http';
import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { catalogPage, type CatalogPage, type Title } from '../../protocol/catalog.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import { playReport, type PlayReport } from '../../protocol/plays.ts';
import { issueToken, type Caller } from '../../runtime/auth.ts';
import { ManualClock } from '../../runtime/test/manual-clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics, type Metrics } from '../../runtime/metrics.ts';
import { Catalog, MemoryCatalogStore, type CatalogStore } from '../catalog.ts';
import { Fleet } from '../fleet.ts';
import { emptyFootprint, type Footprint } from '../footprint.ts';
import { noGeoIp, type GeoIp } from '../geoip.ts';
import { History, type HistoryDeps } from '../history/recorder.ts';
import { HistoryStore } from '../history/store.ts';
import { METRICS } from '../metrics.ts';
import { Plays } from '../plays.ts';
import type { PlayDeps } from '../play.ts';
import { MemoryRegistry, type Registry } from '../registry.ts';
import { createSteeringService } from '../service.ts';
import type { UiFile } from '../players/ui.ts';

export const fleetKey = Buffer.alloc(32, 7);
export const tokenOf = (role: Caller['role'], id: string = role): string => issueToken(fleetKey, { role, id });

export const handClock = (at = Date.parse('2026-03-01T12:00:00Z')): ManualClock => new ManualClock(at);

export const aBeat = (given: Partial<Heartbeat> & { readonly appliance: string }): Heartbeat => ({
  protocol: 1,
  site: 'north',
  incarnation: '00000000000000aa',
  seq: 1,
  advertise: [`http://${given.appliance}.example:8080`],
  position: null,
  timeZone: 'UTC',
  fillWindows: [],
  fillRateBitsPerSecond: null,
  state: 'serving',
  health: { level: 'green', causes: [] },
  storeBytes: 1e12,
  usedBytes: 0,
  pinnedBytes: 0,
  planBytes: 8e11,
  connections: 0,
  connectionsMax: 1000,
  servedBytes: 0,
  servedRequests: 0,
  inventoryRevision: 0,
  inventory: null,
  ordersDone: [],
  version: '0.1.0',
  ...given,
});

const RENDITIONS = ['video/144p', 'video/240p', 'audio/en', 'manifest'];

export const aTitle = (given: Partial<Title> & { readonly id: string }): Title => ({
  revision: 1,
  name: given.id,
  base: `/${given.id}/`,
  durationS: 120,
  bytes: 1000,
  renditions: RENDITIONS.map((id) => ({
    id,
    kind: 'video',
    bytes: 250,
    assets: 2,
    bandwidth: 1000,
    width: null,
    height: null,
    language: null,
  })),
  manifests: [{ dialect: 'hls', path: `/${given.id}/master.m3u8`, text: MASTER }],
  importedAt: '2026-01-01T00:00:00Z',
  ...given,
});

export const wholeTitle = (title: string): string[] => RENDITIONS.map((rendition) => `${title}:${rendition}`);

export const MASTER = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS

#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="English",LANGUAGE="en",DEFAULT=YES,URI="audio/en/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=200000,CODECS="avc1.4d400c,mp4a.40.2",RESOLUTION=256x144,AUDIO="audio",CLOSED-CAPTIONS=NONE
video/144p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=400000,CODECS="avc1.4d4015,mp4a.40.2",RESOLUTION=426x240,AUDIO="audio",CLOSED-CAPTIONS=NONE
video/240p/index.m3u8
`;

export interface Stage {
  readonly url: string;
  readonly clock: ManualClock;
  readonly fleet: Fleet;
  readonly catalog: Catalog;
  readonly metrics: Metrics<typeof METRICS>;
  readonly plays: Plays;
  readonly ground: Pick<PlayDeps, 'footprint' | 'geoip' | 'defaultSite' | 'originBase' | 'ttlMs'>;
  /** Not running until it is ticked. */
  readonly history: History;
  /** A second of steering: the clock, the fleet, and history until it is on disk. */
  second(ms?: number): Promise<void>;
  /** Lets go of the disk without a last word, as a kill does. */
  kill(): Promise<void>;
  /** Appliances that a heartbeat asked to be probed. */
  readonly probes: string[];
  close(): Promise<void>;
}

export interface StageGiven {
  readonly titles?: readonly Title[];
  readonly footprint?: Footprint;
  readonly geoip?: GeoIp;
  readonly defaultSite?: string;
  readonly registry?: Registry;
  readonly catalogStore?: CatalogStore;
  readonly clock?: ManualClock;
  /** Directory of the state in which history is kept. */
  readonly state?: string;
  readonly historyLimits?: HistoryDeps['limits'];
  /** Text that the footprint was read from. */
  readonly mapText?: string;
  readonly trustProxy?: readonly string[];
  readonly publicUrl?: string;
  readonly host?: string;
  readonly ui?: ReadonlyMap<string, UiFile>;
}

export async function openStage(given: StageGiven = {}): Promise<Stage> {
  const clock = given.clock ?? handClock();
  const metrics = createMetrics(METRICS);
  const { fleet, catalog } = await aFleet({ ...given, clock, metrics });
  if (given.titles !== undefined) await catalog.apply({ revision: 1, titles: given.titles, removed: [] });
  const plays = new Plays({ clock, metrics, log: silentLog });
  const ground = {
    footprint: given.footprint ?? emptyFootprint,
    geoip: given.geoip ?? noGeoIp,
    defaultSite: given.defaultSite ?? null,
    originBase: 'http://origin.example/media',
    ttlMs: 30_000,
  };
  const { state } = given;
  let historyStore: HistoryStore | null = null;
  const history = new History({
    open: async () => {
      if (state === undefined) throw new Error('no state directory');
      return (historyStore = await HistoryStore.open(state));
    },
    present: { ...ground, mapText: given.mapText ?? null },
    fleet,
    catalog,
    clock,
    metrics,
    log: silentLog,
    ...(given.historyLimits === undefined ? {} : { limits: given.historyLimits }),
  });
  const probes: string[] = [];
  const service = createSteeringService({
    ...ground,
    fleet,
    catalog,
    history,
    metrics,
    plays,
    clock,
    log: silentLog,
    fleetKey,
    publicUrl: given.publicUrl ?? null,
    trustProxy: given.trustProxy ?? [],
    ui: given.ui ?? new Map(),
    prober: {
      probe: ({ id }) => {
        probes.push(id);
        return Promise.resolve();
      },
    },
  });
  const host = given.host ?? '127.0.0.1';
  const { port } = await service.listen({ host, port: 0 });
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  return {
    url,
    clock,
    fleet,
    catalog,
    metrics,
    plays,
    ground,
    history,
    probes,
    second: async (ms = 1_000) => {
      clock.advance(ms);
      fleet.tick();
      history.tick();
      await history.settled();
    },
    kill: async () => {
      await service.close();
      await history.settled();
      await historyStore?.close();
    },
    close: () => service.close(),
  };
}

export async function aFleet(given: {
  readonly clock?: ManualClock;
  readonly metrics?: Metrics<typeof METRICS>;
  readonly registry?: Registry;
  readonly catalogStore?: CatalogStore;
}): Promise<{ readonly fleet: Fleet; readonly catalog: Catalog; readonly metrics: Metrics<typeof METRICS> }> {
  const metrics = given.metrics ?? createMetrics(METRICS);
  let ids = 0;
  const fleet = new Fleet({
    registry: given.registry ?? new MemoryRegistry(),
    clock: given.clock ?? handClock(),
    metrics,
    log: silentLog,
    newId: () => `order-${(ids += 1)}`,
  });
  const catalog = new Catalog(given.catalogStore ?? new MemoryCatalogStore());
  await Promise.all([fleet.load(), catalog.load()]);
  return { fleet, catalog, metrics };
}

/** The value of one sample, 0 where it never was counted. */
export async function sample(metrics: Pick<Metrics<typeof METRICS>, 'expose'>, name: string): Promise<number> {
  const { body } = await metrics.expose();
  const line = body.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}

export const fallbackCount = (metrics: Pick<Metrics<typeof METRICS>, 'expose'>, name: string): Promise<number> =>
  sample(metrics, `larder_fallback_total{name="${name}"}`);

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  /** A cast, named where it is made. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters
  json<T>(): T;
}

/** One request from a chosen local address; redirects are shown, not followed. */
export function ask(
  url: string,
  options: {
    readonly method?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly token?: string;
    readonly from?: string;
  } = {},
): Promise<Answer> {
  const body =
    options.body === undefined
      ? undefined
      : typeof options.body === 'string'
        ? options.body
        : JSON.stringify(options.body);
  return new Promise((resolve, reject) => {
    const outgoing = request(
      url,
      {
        method: options.method ?? 'GET',
        agent: false,
        ...(options.from === undefined ? {} : { localAddress: options.from }),
        headers: {
          ...(body === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
          ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
          ...options.headers,
        },
      },
      (response) => {
        readAll(response).then(
          (text) =>
            resolve({
              status: response.statusCode!,
              headers: response.headers,
              body: text,
              // oxlint-disable-next-line typescript/no-unnecessary-type-parameters
              json: <T>() => JSON.parse(text) as T,
            }),
          reject,
        );
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

export interface FillStub {
  readonly url: string;
  readonly reports: PlayReport[];
  /** Status to refuse everything with; null answers. */
  failWith: number | null;
  pages: (since: number) => CatalogPage;
  close(): Promise<void>;
}

/** Answers only what the protocol allows, and takes only what the protocol allows. */
export async function aFill(pages: (since: number) => CatalogPage): Promise<FillStub> {
  const stub: FillStub = { url: '', reports: [], failWith: null, pages, close: () => Promise.resolve() };
  const server = createServer((incoming, outgoing) => {
    void (async () => {
      const url = new URL(incoming.url!, 'http://fill');
      const text = await readAll(incoming);
      const authorized = incoming.headers.authorization === `Bearer ${tokenOf('service', 'steering')}`;
      if (!authorized || stub.failWith !== null) {
        outgoing.statusCode = stub.failWith ?? 401;
        outgoing.end(text === '' || stub.failWith !== 422 ? '{}' : FAULT_422);
      } else if (url.pathname === '/v1/catalog') {
        const page = catalogPage.parse(stub.pages(Number(url.searchParams.get('since'))));
        outgoing.end(JSON.stringify(page));
      } else {
        stub.reports.push(playReport.parse(JSON.parse(text)));
        outgoing.end('{}');
      }
    })().catch(() => {
      outgoing.statusCode = 500;
      outgoing.end();
    });
  });
  const at = await listen(server);
  return Object.assign(stub, {
    url: `http://127.0.0.1:${at.port}`,
    close: () => closeServer(server),
  });
}

const FAULT_422 = JSON.stringify({ error: { code: 'body_invalid', message: 'no', help: '', detail: {} } });

export function listen(server: Server, host = '127.0.0.1'): Promise<AddressInfo> {
  return new Promise((resolve) => server.listen(0, host, () => resolve(server.address() as AddressInfo)));
}

export function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}

async function readAll(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** Waits for a condition, never for a time. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
