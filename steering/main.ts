// The composition root of steering. It loads the state from disk, opens the listener and starts the loops (catalog, play
// reports, probes, ticks); on a signal it stops them in the reverse order.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { ensureFleetKey, issueToken } from '../runtime/auth.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { packageRoot } from '../runtime/paths.ts';
import { dieOnDefect, untilStopped } from '../runtime/process.ts';
import { Catalog, runCatalogPulls } from './catalog.ts';
import type { SteeringConfig } from './config.ts';
import { Fleet } from './fleet.ts';
import { HistoryRecorder } from './history/recorder.ts';
import { HistoryStore } from './history/store.ts';
import { METRICS } from './metrics.ts';
import { readUi } from './players/ui.ts';
import { PlayCounter, runPlayReports } from './plays.ts';
import { Prober } from './probe.ts';
import { createSteeringService } from './service.ts';
import { SteeringSettings } from './settings.ts';
import { openStateStore } from './store.ts';

const TICK_MS = 1_000;

export async function runSteering(config: SteeringConfig): Promise<void> {
  const log = createLog('steering');
  dieOnDefect(log);
  const fleetKey = ensureFleetKey(config.fleetKey);
  const settings = await SteeringSettings.read(config, log);
  const store = await openStateStore(config.state, log);
  const metrics = createMetrics(METRICS);
  const clock = systemClock;
  const fleet = new Fleet({
    registry: store.registry,
    clock,
    metrics,
    log,
    newId: () => randomBytes(8).toString('hex'),
  });
  const catalog = new Catalog(store.catalog);
  await Promise.all([fleet.load(), catalog.load()]);
  const history = new HistoryRecorder({
    open: () => HistoryStore.open(config.state),
    settings,
    fleet,
    catalog,
    clock,
    metrics,
    log,
  });
  history.tick();
  const plays = new PlayCounter({ clock, metrics });
  const prober = new Prober({
    targets: () => fleet.probeTargets(),
    onResult: (appliance, result) => fleet.recordProbe(appliance, result),
    clock,
  });
  const service = createSteeringService({
    settings,
    fleet,
    catalog,
    history,
    plays,
    prober,
    clock,
    metrics,
    log,
    fleetKey,
    publicUrl: config.publicUrl,
    trustProxy: config.trustProxy,
    ui: readUi(join(packageRoot, 'steering', 'ui')),
  });
  const stopped = untilStopped(log, config.drainTimeout);
  process.on('SIGHUP', () => void settings.reload());
  await service.listen(config.listen);
  const stop = new AbortController();
  const token = issueToken(fleetKey, { role: 'service', id: 'steering' });
  const fill = { fillUrl: config.fill, token, clock, metrics, log };
  const loops = [
    runCatalogPulls({ ...fill, catalog }, stop.signal),
    runPlayReports({ ...fill, plays }, stop.signal),
    prober.run(stop.signal),
    runTicks({ clock, fleet, history }, stop.signal),
  ];
  const signal = await stopped;
  log.info({ signal }, 'stopping');
  await service.close();
  stop.abort();
  await Promise.all(loops);
  await Promise.all([fleet.close(), history.close()]);
  await store.close();
  log.info('stopped');
}

/** Ticks the fleet and the history every second until aborted. */
async function runTicks(
  { clock, fleet, history }: { readonly clock: Clock; readonly fleet: Fleet; readonly history: HistoryRecorder },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await clock.sleep(TICK_MS, signal).catch(() => undefined);
    if (signal.aborted) return;
    fleet.tick();
    history.tick();
  }
}
