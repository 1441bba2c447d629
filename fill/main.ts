// The composition root of fill: opens the database, wires the components, listens, and closes everything in order.

import { ensureFleetKey, issueToken } from '../runtime/auth.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import type { HostPort } from '../runtime/config.ts';
import type { Log } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { createService } from '../runtime/service.ts';
import { Catalog } from './catalog.ts';
import type { FillConfig } from './config.ts';
import { openDatabase } from './database.ts';
import { ImportQueue } from './import/import-queue.ts';
import { METRICS } from './metrics.ts';
import { Demand } from './plan/demand.ts';
import { Pins } from './plan/pins.ts';
import { routes } from './routes.ts';
import { Dispatcher } from './runs/dispatcher.ts';
import { Runs } from './runs/runs.ts';
import { Scheduler } from './runs/scheduler.ts';
import { Watcher } from './runs/watcher.ts';
import { SteeringClient } from './steering-client.ts';

export interface RunningFill {
  readonly address: HostPort;
  /** Plans for open windows now, as the scheduler does each minute. */
  planRound(): Promise<void>;
  close(): Promise<void>;
}

export async function startFill(config: FillConfig, log: Log, clock: Clock = systemClock): Promise<RunningFill> {
  const fleetKey = ensureFleetKey(config.fleetKey);
  const metrics = createMetrics(METRICS);
  const database = await openDatabase(config.state);
  const catalog = await Catalog.open(database);
  metrics.set('larder_fill_catalog_revision', catalog.revision);
  metrics.set('larder_fill_titles', catalog.titles.length);
  const demand = await Demand.open({
    database,
    clock,
    halfLifeMs: config.halfLife,
    isCatalogued: (title, rendition) => catalog.has(title, rendition),
  });
  const pins = await Pins.open(database, clock);
  const runs = await Runs.open({ database, clock, log, metrics });
  const token = issueToken(fleetKey, { role: 'service', id: 'fill' });
  const steering = await SteeringClient.open({ url: config.steering, token, database, log, metrics });
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
  const imports = await ImportQueue.open({
    database,
    catalog,
    clock,
    log,
    metrics,
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
  const address = await service.listen(config.listen);
  scheduler.start();
  dispatcher.resendOrders();
  return {
    address,
    planRound: () => scheduler.planRound(),
    close: async () => {
      await service.close();
      await scheduler.stop();
      await imports.close();
      await dispatcher.close();
      await database.close();
    },
  };
}
