// The composition root of fill: opens the state, joins the parts, listens, and lets go in order.

import { ensureFleetKey, issueToken } from '../runtime/auth.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import type { HostPort } from '../runtime/config.ts';
import type { Log } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { createService } from '../runtime/service.ts';
import { Catalog } from './catalog.ts';
import type { FillConfig } from './config.ts';
import { Demand } from './plan/demand.ts';
import { Dispatcher } from './runs/dispatcher.ts';
import { Imports } from './import/import-queue.ts';
import { METRICS } from './metrics.ts';
import { Pins } from './plan/pins.ts';
import { routes } from './routes.ts';
import { Runs } from './runs/runs.ts';
import { Scheduler } from './runs/scheduler.ts';
import { openState } from './state.ts';
import { SteeringClient } from './steering-client.ts';
import { Watcher } from './runs/watcher.ts';

export interface RunningFill {
  readonly at: HostPort;
  /** Looks for open windows now, as it does each minute. */
  tick(): Promise<void>;
  close(): Promise<void>;
}

export async function startFill(config: FillConfig, log: Log, clock: Clock = systemClock): Promise<RunningFill> {
  const fleetKey = ensureFleetKey(config.fleetKey);
  const metrics = createMetrics(METRICS);
  const state = await openState(config.state);
  const catalog = await Catalog.open(state);
  metrics.set('larder_fill_catalog_revision', catalog.revision);
  metrics.set('larder_fill_titles', catalog.titles.length);
  const knows = (title: string, rendition: string | null): boolean => {
    const found = catalog.find(title);
    return found !== null && (rendition === null || found.renditions.some((r) => r.id === rendition));
  };
  const demand = await Demand.open({ state, halfLifeMs: config.halfLife, clock, knows });
  const pins = await Pins.open(state, clock);
  const runs = await Runs.open({ state, clock, log, metrics });
  const token = issueToken(fleetKey, { role: 'service', id: 'fill' });
  const steering = await SteeringClient.open({ url: config.steering, token, state, log, metrics });
  const dispatcher = new Dispatcher({
    catalog,
    demand,
    pins,
    runs,
    steering,
    clock,
    log,
    metrics,
    concurrency: config.fillConcurrency,
  });
  const watcher = new Watcher({
    runs,
    steering,
    clock,
    log,
    vanishAfterMs: config.vanishAfter,
    silenceAfterMs: config.silenceAfter,
  });
  const scheduler = new Scheduler({ dispatcher, watcher, runs, steering, clock, log, jitterMs: config.windowJitter });
  const imports = await Imports.open({
    state,
    log,
    metrics,
    catalog,
    clock,
    origin: config.origin,
    concurrency: config.importConcurrency,
  });
  const service = createService({
    name: 'fill',
    log,
    routes: routes({ catalog, imports, demand, pins, runs, dispatcher, metrics }),
    fleetKey,
    expose: () => metrics.expose(),
  });
  const at = await service.listen(config.listen);
  scheduler.start();
  dispatcher.recall();
  return {
    at,
    tick: () => scheduler.round(),
    close: async () => {
      await service.close();
      await scheduler.stop();
      await imports.close();
      await dispatcher.close();
      await state.close();
    },
  };
}
