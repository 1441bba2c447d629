// The fixtures of the tests of steering: heartbeats and titles with sensible fields, a steering service on a free port with a
// manual clock, and an HTTP stub of fill that speaks the protocol.

import { createServer, request, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { catalogPage, type CatalogPage, type Title } from '../../protocol/catalog.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import { playReport, type PlayReport } from '../../protocol/plays.ts';
import { issueToken, type Caller } from '../../runtime/auth.ts';
import { systemClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics, type Metrics } from '../../runtime/metrics.ts';
import { ManualClock } from '../../runtime/test/manual-clock.ts';
import { Catalog, MemoryCatalogStore, type CatalogStore } from '../catalog.ts';
import type { DecisionSettings } from '../decision-inputs.ts';
import { Fleet } from '../fleet.ts';
import { emptyFootprint, type Footprint } from '../footprint.ts';
import { noGeoIp, type GeoIp } from '../geoip.ts';
import { HistoryRecorder, type HistoryRecorderDeps } from '../history/recorder.ts';
import { HistoryStore } from '../history/store.ts';
import { METRICS } from '../metrics.ts';
import { PlayCounter } from '../plays.ts';
import { MemoryRegistry, type Registry } from '../registry.ts';
import { createSteeringService } from '../service.ts';
import type { UiFile } from '../players/ui.ts';

export const fleetKey = Buffer.alloc(32, 7);
export const tokenOf = (role: Caller['role'], id: string = role): string => issueToken(fleetKey, { role, id });

export const manualClock = (at = Date.parse('2026-03-01T12:00:00Z')): ManualClock => new ManualClock(at);

export const aHeartbeat = (fields: Partial<Heartbeat> & { readonly appliance: string }): Heartbeat => ({
  protocol: 1,
  site: 'north',
  incarnation: '00000000000000aa',
  seq: 1,
  advertise: [`http://${fields.appliance}.example:8080`],
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
  ...fields,
});

const RENDITIONS = ['video/144p', 'video/240p', 'audio/en', 'manifest'];

export const aTitle = (fields: Partial<Title> & { readonly id: string }): Title => ({
  revision: 1,
  name: fields.id,
  base: `/${fields.id}/`,
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
  manifests: [{ dialect: 'hls', path: `/${fields.id}/master.m3u8`, text: MULTIVARIANT_PLAYLIST }],
  importedAt: '2026-01-01T00:00:00Z',
  ...fields,
});

export const allHoldings = (title: string): string[] => RENDITIONS.map((rendition) => `${title}:${rendition}`);

export const MULTIVARIANT_PLAYLIST = `#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS

#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="English",LANGUAGE="en",DEFAULT=YES,URI="audio/en/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=200000,CODECS="avc1.4d400c,mp4a.40.2",RESOLUTION=256x144,AUDIO="audio",CLOSED-CAPTIONS=NONE
video/144p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=400000,CODECS="avc1.4d4015,mp4a.40.2",RESOLUTION=426x240,AUDIO="audio",CLOSED-CAPTIONS=NONE
video/240p/index.m3u8
`;

export interface TestSteering {
  readonly url: string;
  readonly clock: ManualClock;
  readonly fleet: Fleet;
  readonly catalog: Catalog;
  readonly metrics: Metrics<typeof METRICS>;
  readonly plays: PlayCounter;
  readonly settings: DecisionSettings;
  /** Records only when `tick` is called. */
  readonly history: HistoryRecorder;
  /** Advances the clock by `ms`, by default one second, ticks fleet and history, and waits until history is on disk. */
  tick(ms?: number): Promise<void>;
  /** Closes the listener and the disk without recording the final state, like a kill. */
  kill(): Promise<void>;
  /** Appliances that were probed because of a heartbeat. */
  readonly probes: string[];
  close(): Promise<void>;
}

export interface TestSteeringOptions {
  readonly titles?: readonly Title[];
  readonly footprint?: Footprint;
  readonly geoip?: GeoIp;
  readonly defaultSite?: string;
  readonly registry?: Registry;
  readonly catalogStore?: CatalogStore;
  readonly clock?: ManualClock;
  /** State directory of history. Without one, history cannot be opened. */
  readonly state?: string;
  readonly historyLimits?: HistoryRecorderDeps['limits'];
  /** Text that the footprint was parsed from. */
  readonly mapText?: string;
  readonly trustProxy?: readonly string[];
  readonly publicUrl?: string;
  readonly host?: string;
  readonly ui?: ReadonlyMap<string, UiFile>;
}

export async function openTestSteering(options: TestSteeringOptions = {}): Promise<TestSteering> {
  const clock = options.clock ?? manualClock();
  const metrics = createMetrics(METRICS);
  const { fleet, catalog } = await openFleet({ ...options, clock, metrics });
  if (options.titles !== undefined) await catalog.apply({ revision: 1, titles: options.titles, removed: [] });
  const plays = new PlayCounter({ clock, metrics });
  const settings: DecisionSettings = {
    footprint: options.footprint ?? emptyFootprint,
    geoip: options.geoip ?? noGeoIp,
    defaultSite: options.defaultSite ?? null,
    originBase: 'http://origin.example/media',
    ttlMs: 30_000,
  };
  const { state } = options;
  let historyStore: HistoryStore | null = null;
  const history = new HistoryRecorder({
    open: async () => {
      if (state === undefined) throw new Error('no state directory');
      return (historyStore = await HistoryStore.open(state));
    },
    settings: { ...settings, mapText: options.mapText ?? null },
    fleet,
    catalog,
    clock,
    metrics,
    log: silentLog,
    ...(options.historyLimits === undefined ? {} : { limits: options.historyLimits }),
  });
  const probes: string[] = [];
  const service = createSteeringService({
    settings,
    fleet,
    catalog,
    history,
    metrics,
    plays,
    clock,
    log: silentLog,
    fleetKey,
    publicUrl: options.publicUrl ?? null,
    trustProxy: options.trustProxy ?? [],
    ui: options.ui ?? new Map(),
    prober: {
      probe: ({ id }) => {
        probes.push(id);
        return Promise.resolve();
      },
    },
  });
  const host = options.host ?? '127.0.0.1';
  const { port } = await service.listen({ host, port: 0 });
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  return {
    url,
    clock,
    fleet,
    catalog,
    metrics,
    plays,
    settings,
    history,
    probes,
    tick: async (ms = 1_000) => {
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

export async function openFleet(options: {
  readonly clock?: ManualClock;
  readonly metrics?: Metrics<typeof METRICS>;
  readonly registry?: Registry;
  readonly catalogStore?: CatalogStore;
}): Promise<{ readonly fleet: Fleet; readonly catalog: Catalog; readonly metrics: Metrics<typeof METRICS> }> {
  const metrics = options.metrics ?? createMetrics(METRICS);
  let ids = 0;
  const fleet = new Fleet({
    registry: options.registry ?? new MemoryRegistry(),
    clock: options.clock ?? manualClock(),
    metrics,
    log: silentLog,
    newId: () => `order-${(ids += 1)}`,
  });
  const catalog = new Catalog(options.catalogStore ?? new MemoryCatalogStore());
  await Promise.all([fleet.load(), catalog.load()]);
  return { fleet, catalog, metrics };
}

/** The value of a metric, labels included in `name`; 0 if it was never counted. */
export async function metricValue(metrics: Pick<Metrics<typeof METRICS>, 'expose'>, name: string): Promise<number> {
  const { body } = await metrics.expose();
  const line = body.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? 0 : Number(line.slice(name.length + 1));
}

export const fallbackCount = (metrics: Pick<Metrics<typeof METRICS>, 'expose'>, name: string): Promise<number> =>
  metricValue(metrics, `larder_fallback_total{name="${name}"}`);

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  /** An unchecked cast to the type that the caller expects. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters
  json<T>(): T;
}

/** Sends one request, from the local address `from` if given. Redirects are returned, not followed. */
export function send(
  url: string,
  options: {
    readonly method?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: unknown;
    readonly token?: string;
    readonly from?: string;
  } = {},
): Promise<HttpAnswer> {
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
  /** Status of every answer; null answers normally. */
  failWith: number | null;
  pages: (since: number) => CatalogPage;
  close(): Promise<void>;
}

/** A stub of fill that validates requests and answers by the schemas of the protocol. */
export async function openFillStub(pages: (since: number) => CatalogPage): Promise<FillStub> {
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

/** Waits for a condition; fails after ten seconds. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = systemClock.monotonic() + 10_000;
  while (!(await condition())) {
    if (systemClock.monotonic() > deadline) throw new Error(`never came true: ${what}`);
    await systemClock.sleep(5);
  }
}
