// The HTTP API of fill: every route with the roles that may call it, its schemas and its faults. It decides nothing itself.

import { z } from 'zod';
import {
  importAccepted,
  importProgress,
  importRequest,
  pin,
  pinList,
  pinRequest,
  planList,
  RUNS_LISTED_MAX,
  runList,
  titleList,
} from '../protocol/answers.ts';
import { assetPage, catalogPage, title } from '../protocol/catalog.ts';
import { Fault } from '../protocol/faults.ts';
import { id, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { fillPlan, fillProgress, run, runRequest } from '../protocol/plan.ts';
import { playReport, popularity } from '../protocol/plays.ts';
import type { Caller, Role } from '../runtime/auth.ts';
import { route, type Route } from '../runtime/service.ts';
import type { Catalog } from './catalog.ts';
import type { Demand } from './plan/demand.ts';
import type { Dispatcher } from './runs/dispatcher.ts';
import type { ImportQueue } from './import/import-queue.ts';
import type { FillMetrics } from './metrics.ts';
import type { Pins } from './plan/pins.ts';
import type { Runs } from './runs/runs.ts';

interface RoutesDeps {
  readonly catalog: Catalog;
  readonly imports: ImportQueue;
  readonly demand: Demand;
  readonly pins: Pins;
  readonly runs: Runs;
  readonly dispatcher: Dispatcher;
  readonly metrics: FillMetrics;
}

const ANY_ROLE: readonly Role[] = ['operator', 'service', 'appliance'];
const OPERATOR: readonly Role[] = ['operator'];
const READERS: readonly Role[] = ['operator', 'service'];

const countParam = (fallback: string): z.ZodType<number> =>
  z
    .string()
    .regex(/^\d{1,15}$/, 'must be a whole number')
    .default(fallback)
    .transform(Number);
const okAnswer = z.object({ ok: z.literal(true) });
const titleParams = z.object({ title: id });
const idParams = z.object({ id: z.string().max(64) });

export function routes(deps: RoutesDeps): Route[] {
  return [...catalogRoutes(deps), ...planRoutes(deps), ...runRoutes(deps), ...demandRoutes(deps)];
}

function catalogRoutes({ catalog, imports }: RoutesDeps): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/titles',
      summary: 'Every title of the catalog, without renditions and manifests.',
      roles: READERS,
      answer: titleList,
      run: () => ({ protocol: PROTOCOL_VERSION, revision: catalog.revision, titles: catalog.summaries() }),
    }),
    route({
      method: 'GET',
      path: '/v1/titles/:title',
      summary: 'One title with its renditions and manifests.',
      roles: ANY_ROLE,
      params: titleParams,
      answer: title,
      faults: ['not_found'],
      run: ({ params }) => catalog.get(params.title),
    }),
    route({
      method: 'DELETE',
      path: '/v1/titles/:title',
      summary: 'Removes a title from the catalog; appliances stop serving it.',
      roles: OPERATOR,
      params: titleParams,
      answer: okAnswer,
      faults: ['not_found'],
      run: async ({ params }) => {
        await catalog.remove(params.title);
        return { ok: true };
      },
    }),
    route({
      method: 'GET',
      path: '/v1/titles/:title/assets',
      summary: 'Assets of a title with validators and digests, in pages.',
      roles: ANY_ROLE,
      params: titleParams,
      query: z.object({ offset: countParam('0') }),
      answer: assetPage,
      faults: ['not_found'],
      run: ({ params, query }) => catalog.assetPage(params.title, query.offset),
    }),
    route({
      method: 'GET',
      path: '/v1/catalog',
      summary:
        'Titles that changed after a revision, oldest first, in pages. A revision ahead of the catalog starts from 0.',
      roles: ANY_ROLE,
      query: z.object({ since: countParam('0') }),
      answer: catalogPage,
      run: ({ query }) => catalog.page(query.since),
    }),
    route({
      method: 'POST',
      path: '/v1/imports',
      summary: 'Imports a title from its HLS or DASH manifest at the origin.',
      roles: OPERATOR,
      body: importRequest,
      answer: importAccepted,
      faults: ['body_invalid', 'state_conflict', 'overloaded'],
      run: async ({ body, reply }) => reply.code(202).send({ id: await imports.submit(body) }),
    }),
    route({
      method: 'GET',
      path: '/v1/imports/:id',
      summary: 'Progress of an import.',
      roles: READERS,
      params: idParams,
      answer: importProgress,
      faults: ['not_found'],
      run: ({ params }) => imports.progress(params.id),
    }),
  ];
}

function planRoutes({ catalog, dispatcher, pins, runs }: RoutesDeps): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/plans',
      summary: 'The plans that a run would have now, one per appliance. Changes nothing.',
      roles: READERS,
      query: z.object({ site: id.optional(), title: id.optional() }),
      answer: planList,
      faults: ['not_found', 'unreachable'],
      run: ({ query }) => dispatcher.dryRun({ site: query.site ?? null, title: query.title ?? null }),
    }),
    route({
      method: 'GET',
      path: '/v1/plans/:id',
      summary: 'The current plan of an appliance.',
      roles: ANY_ROLE,
      params: idParams,
      answer: fillPlan,
      faults: ['not_found', 'token_forged'],
      run: ({ params, caller }) => {
        assertTokenIsFor(caller, params.id);
        const plan = runs.currentPlan(params.id);
        if (plan === null)
          throw new Fault('not_found', `no plan was made for appliance "${params.id}" yet`, {
            help: 'A run makes it: `larder fill run --now`. Appliances are listed by `larder appliance ls`.',
          });
        return plan;
      },
    }),
    route({
      method: 'GET',
      path: '/v1/pins',
      summary: 'Pinned titles, which every site holds.',
      roles: READERS,
      answer: pinList,
      run: () => ({ protocol: PROTOCOL_VERSION, pins: pins.list() }),
    }),
    route({
      method: 'PUT',
      path: '/v1/pins/:title',
      summary: 'Pins a title, for good or until an instant; effective with the next run.',
      roles: OPERATOR,
      params: titleParams,
      body: pinRequest,
      answer: pin,
      faults: ['not_found', 'body_invalid', 'overloaded'],
      run: ({ params, body }) => pins.put(catalog.get(params.title).id, body.until),
    }),
    route({
      method: 'DELETE',
      path: '/v1/pins/:title',
      summary: 'Unpins a title: popularity decides again.',
      roles: OPERATOR,
      params: titleParams,
      answer: okAnswer,
      faults: ['not_found'],
      run: async ({ params }) => {
        await pins.remove(params.title);
        return { ok: true };
      },
    }),
  ];
}

function runRoutes({ dispatcher, runs }: RoutesDeps): Route[] {
  return [
    route({
      method: 'POST',
      path: '/v1/runs',
      summary: 'Starts a fill run: now, or when the windows open.',
      roles: OPERATOR,
      body: runRequest,
      answer: run,
      faults: ['not_found', 'plan_impossible', 'unreachable', 'config_invalid', 'overloaded'],
      run: ({ body }) => dispatcher.start(body),
    }),
    route({
      method: 'GET',
      path: '/v1/runs',
      summary: 'Runs, newest first.',
      roles: READERS,
      answer: runList,
      run: () => ({ protocol: PROTOCOL_VERSION, runs: runs.list(RUNS_LISTED_MAX) }),
    }),
    route({
      method: 'GET',
      path: '/v1/runs/:id',
      summary: 'One run with the progress of each appliance.',
      roles: READERS,
      params: idParams,
      answer: run,
      faults: ['not_found'],
      run: ({ params }) => runs.get(params.id).run,
    }),
    route({
      method: 'POST',
      path: '/v1/runs/:id/progress',
      summary: 'Reports the progress of an appliance in a run.',
      roles: ['appliance'],
      params: idParams,
      body: fillProgress,
      answer: okAnswer,
      faults: ['not_found', 'token_forged', 'body_invalid'],
      run: async ({ params, body, caller }) => {
        assertTokenIsFor(caller, body.appliance);
        if (body.run !== params.id)
          throw new Fault('body_invalid', `body.run is "${body.run}", but the path names ${params.id}`, {
            detail: { field: 'body.run' },
          });
        await runs.recordProgress(body);
        return { ok: true };
      },
    }),
  ];
}

function demandRoutes({ catalog, demand, metrics }: RoutesDeps): Route[] {
  return [
    route({
      method: 'GET',
      path: '/v1/popularity',
      summary: 'Popularity per rendition and site: decayed bytes streamed ÷ bytes of the rendition.',
      roles: READERS,
      answer: popularity,
      run: () => demand.popularity(catalog.titles),
    }),
    route({
      method: 'POST',
      path: '/v1/plays',
      summary: 'Reports demand, from an appliance or from steering. Sent again until it is answered; counted once.',
      roles: ['appliance', 'service'],
      body: playReport,
      answer: z.object({ ok: z.literal(true), counted: z.boolean() }),
      faults: ['token_forged', 'overloaded'],
      run: async ({ body, caller }) => {
        assertTokenIsFor(caller, body.source);
        const counted = await demand.accept(body);
        metrics.add('larder_fill_reports_total', 1, { outcome: counted ? 'counted' : 'known' });
        const bytes = body.served.reduce((total, row) => total + row.bytes, 0);
        if (counted) metrics.add('larder_fill_played_bytes_total', bytes);
        return { ok: true, counted };
      },
    }),
  ];
}

/** The token of an appliance is valid for that appliance only; steering and operators may name any. */
function assertTokenIsFor(caller: Caller | null, appliance: string): void {
  if (caller?.role === 'appliance' && caller.id !== appliance)
    throw new Fault('token_forged', `the token of appliance ${caller.id} does not speak for ${appliance}`);
}
