// Steering and fill as one stub service for tests of the verbs. Its routes use the schemas of the protocol, a test sets their
// responses, and every request is recorded.

import { z } from 'zod';
import { importRequest, pinRequest } from '../../protocol/answers.ts';
import type { Title } from '../../protocol/catalog.ts';
import { stateOrder, type Explanation, type Fleet, type FleetAppliance } from '../../protocol/decision.ts';
import { Fault } from '../../protocol/faults.ts';
import { runRequest, type FillPlan, type Run } from '../../protocol/plan.ts';
import { silentLog } from '../../runtime/log.ts';
import { createService, route, type Route, type Service } from '../../runtime/service.ts';

export interface StubState {
  fleet: Fleet;
  title: Title;
  plans: FillPlan[];
  /** Returned one after another; the last one is repeated. */
  runs: Run[];
  imports: { state: 'running' | 'done' | 'failed'; message?: string }[];
  explanation: Explanation;
}

export interface Stub {
  readonly url: string;
  readonly state: StubState;
  readonly requests: { readonly method: string; readonly url: string; readonly body: unknown }[];
  close(): Promise<void>;
}

const NOW = '2026-03-01T02:00:00.000Z';

export async function startStub(fleetKey: Buffer): Promise<Stub> {
  const state: StubState = {
    fleet: FLEET,
    title: TITLE,
    plans: [PLAN],
    runs: [RUN],
    imports: [{ state: 'done' }],
    explanation: EXPLANATION,
  };
  const requests: { method: string; url: string; body: unknown }[] = [];
  const service: Service = createService({
    name: 'stub',
    log: silentLog,
    fleetKey,
    routes: routes(state),
    expose: () => Promise.resolve({ contentType: 'text/plain', body: '' }),
  });
  service.app.addHook('preHandler', (request, _reply, done) => {
    requests.push({ method: request.method, url: request.url, body: request.body });
    done();
  });
  const { port } = await service.listen({ host: '127.0.0.1', port: 0 });
  return { url: `http://127.0.0.1:${port}`, state, requests, close: () => service.close() };
}

function routes(state: StubState): Route[] {
  const operator = ['operator'] as const;
  const title = z.object({ title: z.literal(TITLE.id) });
  const next = <T>(queue: T[]): T => (queue.length > 1 ? queue.shift()! : queue[0]!);
  return [
    route({ method: 'GET', path: '/v1/fleet', summary: '', roles: operator, run: () => state.fleet }),
    route({
      method: 'PUT',
      path: '/v1/appliances/:id/state',
      summary: '',
      roles: operator,
      params: z.object({ id: z.string() }),
      body: stateOrder,
      run: ({ params, body }) => {
        const draining =
          body.state === 'serving'
            ? null
            : {
                since: body.at ?? NOW,
                until: body.forMs === null ? null : new Date(Date.parse(body.at ?? NOW) + body.forMs).toISOString(),
              };
        const appliances = state.fleet.appliances.map((row) => (row.id === params.id ? { ...row, draining } : row));
        state.fleet = { ...state.fleet, appliances };
        return appliances.find((row) => row.id === params.id);
      },
    }),
    route({
      method: 'GET',
      path: '/v1/explain',
      summary: '',
      roles: operator,
      query: z.object({
        client: z.string(),
        title: z.literal(TITLE.id),
        at: z
          .string()
          .refine((at) => at < '2100', 'which lies ahead')
          .optional(),
      }),
      run: () => state.explanation,
    }),
    route({
      method: 'POST',
      path: '/v1/imports',
      summary: '',
      roles: operator,
      body: importRequest,
      run: ({ reply }) => reply.code(202).send({ id: 'i1' }),
    }),
    route({
      method: 'GET',
      path: '/v1/imports/i1',
      summary: '',
      roles: operator,
      run: () => {
        const { state: current, message } = next(state.imports);
        return {
          protocol: 1,
          id: 'i1',
          url: 'http://origin.example/film/master.m3u8',
          title: TITLE.id,
          state: current,
          assetsDone: 1,
          assetsTotal: 2,
          bytesDone: 500,
          bytesTotal: 1000,
          fault: message === undefined ? null : { code: 'manifest_invalid', message, help: 'Correct it.' },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/titles',
      summary: '',
      roles: operator,
      run: () => ({
        protocol: 1,
        revision: 3,
        titles: [
          { ...TITLE, renditions: 1, assets: 2, dialects: ['hls'] as const, manifests: undefined },
          {
            ...TITLE,
            id: 'b'.repeat(63),
            name: 'A name of quite some length '.repeat(5),
            renditions: 7,
            assets: 14_400,
            dialects: ['hls', 'dash'] as const,
          },
        ],
      }),
    }),
    route({
      method: 'GET',
      path: '/v1/titles/:title',
      summary: '',
      roles: operator,
      run: ({ params }) => {
        const { title: id } = params as { title?: string };
        if (id !== TITLE.id) throw new Fault('not_found', `there is no title "${id}"`);
        return state.title;
      },
    }),
    route({
      method: 'GET',
      path: '/v1/plans',
      summary: '',
      roles: operator,
      run: () => ({ protocol: 1, plans: state.plans }),
    }),
    route({
      method: 'POST',
      path: '/v1/runs',
      summary: '',
      roles: operator,
      body: runRequest,
      run: () => state.runs[0],
    }),
    route({
      method: 'GET',
      path: '/v1/runs',
      summary: '',
      roles: operator,
      run: () => ({ protocol: 1, runs: state.runs }),
    }),
    route({ method: 'GET', path: '/v1/runs/run-1', summary: '', roles: operator, run: () => next(state.runs) }),
    route({
      method: 'PUT',
      path: '/v1/pins/:title',
      summary: '',
      roles: operator,
      params: title,
      body: pinRequest,
      run: ({ body }) => ({ title: TITLE.id, until: body.until, since: NOW }),
    }),
    route({ method: 'DELETE', path: '/v1/pins/:title', summary: '', roles: operator, params: title, run: () => ({}) }),
  ];
}

const APPLIANCE: FleetAppliance = {
  id: 'north-1',
  site: 'north',
  advertise: ['http://127.0.0.2:8080'],
  position: { lat: 53.55, lon: 9.99 },
  timeZone: 'Europe/Berlin',
  fillWindows: [{ start: '02:00', end: '06:00' }],
  fillRateBitsPerSecond: 400e6,
  state: 'serving',
  health: { level: 'green', causes: [] },
  liveness: 'alive',
  leaseEndsAt: '2026-03-01T02:00:08.000Z',
  draining: null,
  storeBytes: 2e12,
  usedBytes: 1.5e12,
  pinnedBytes: 1.2e12,
  planBytes: 1.6e12,
  connections: 4_000,
  connectionsMax: 20_000,
  servedBytes: 9e14,
  servedRequests: 1_000_000,
  inventoryRevision: 5,
  holdings: 2,
  inventory: ['film:video/720p', 'film:audio/en'],
  version: '0.1.0',
};

const FLEET: Fleet = {
  protocol: 1,
  at: NOW,
  catalogRevision: 3,
  sites: [{ id: 'north', position: null, prefixes: 2, appliances: 2 }],
  appliances: [
    APPLIANCE,
    {
      ...APPLIANCE,
      id: 'an-appliance-whose-name-is-as-long-as-a-name-may-be-63-letters',
      liveness: 'expired',
      health: { level: 'yellow', causes: ['the disk at /srv/store-7 is slow', 'the clock is 2 s off'] },
    },
  ],
};

const TITLE: Title = {
  id: 'film',
  revision: 3,
  name: 'The Film',
  base: '/film/',
  durationS: 5_400,
  bytes: 4.2e9,
  renditions: [
    {
      id: 'video/720p',
      kind: 'video',
      bytes: 4e9,
      assets: 1350,
      bandwidth: 3e6,
      width: 1280,
      height: 720,
      language: null,
    },
    {
      id: 'audio/en',
      kind: 'audio',
      bytes: 2e8,
      assets: 1350,
      bandwidth: 128e3,
      width: null,
      height: null,
      language: 'en',
    },
  ],
  manifests: [{ dialect: 'hls', path: '/film/master.m3u8', text: '#EXTM3U\n' }],
  importedAt: NOW,
};

const PLAN: FillPlan = {
  protocol: 1,
  id: 'plan-1',
  run: 'dry',
  appliance: 'north-1',
  site: 'north',
  createdAt: NOW,
  closesAt: null,
  rateBitsPerSecond: null,
  concurrency: 4,
  add: [{ holding: 'film:video/720p', revision: 3, bytes: 4e9, reason: 'popularity 3.21' }],
  keep: [],
  remove: [{ holding: 'film:audio/en', revision: 3, bytes: 2e8, reason: 'popularity 0.01' }],
  addBytes: 4e9,
  expectedMs: 80_000,
};

export const RUN: Run = {
  protocol: 1,
  id: 'run-1',
  trigger: 'now',
  site: null,
  title: null,
  state: 'done',
  createdAt: NOW,
  endedAt: '2026-03-01T02:01:20.000Z',
  closesAt: null,
  bytesTotal: 4e9,
  bytesDone: 4e9,
  appliances: [
    {
      protocol: 1,
      run: 'run-1',
      plan: 'plan-1',
      appliance: 'north-1',
      state: 'done',
      bytesTotal: 4e9,
      bytesDone: 4e9,
      bytesResumed: 1e9,
      renditionsTotal: 1,
      renditionsDone: 1,
      bytesPerSecond: 5e7,
      faults: [],
      at: NOW,
    },
  ],
};

const EXPLANATION: Explanation = {
  protocol: 1,
  id: 'abcdefgh12345678',
  at: NOW,
  title: 'film',
  client: { address: '192.0.2.7', by: 'prefix', prefix: '192.0.2.0/24', site: 'north' },
  ttlS: 30,
  pathways: [
    {
      id: 'north-1',
      site: 'north',
      base: 'http://127.0.0.2:8080/~abcdefgh12345678',
      held: 1,
      reason: 'your own site, holds the whole title, first of its site by rendezvous',
    },
    { id: 'origin', site: null, base: 'http://127.0.0.1:8600', held: 1, reason: 'the origin, where nobody else can' },
  ],
  considered: [
    { appliance: 'north-1', site: 'north', outcome: 'chosen', reason: 'chosen', distanceKm: 0, held: 1 },
    {
      appliance: 'south-1',
      site: 'south',
      outcome: 'refused',
      reason: 'its lease ended 14 seconds ago and the probe was refused',
      distanceKm: 1476,
      held: 0.5,
    },
  ],
  catalogRevision: 3,
};
