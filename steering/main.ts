// The composition root of steering. It loads the state from disk, opens the listener and starts the loops (catalog, play
// reports, probes, ticks); on a signal it stops them in the reverse order.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { ensureFleetKey, issueToken } from '../runtime/auth.ts';
import { systemClock, type Clock } from '../runtime/clock.ts';
import { createLog, type Log } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { packageRoot } from '../runtime/paths.ts';
import { dieOnDefect, untilStopped } from '../runtime/process.ts';
import { Catalog, runCatalogPulls } from './catalog.ts';
import type { SteeringConfig } from './config.ts';
import type { DecisionSettings } from './decision-inputs.ts';
import { Fleet } from './fleet.ts';
import { emptyFootprint, parseFootprint, type Footprint } from './footprint.ts';
import { noGeoIp, readGeoIp } from './geoip.ts';
import { HistoryRecorder } from './history/recorder.ts';
import { HistoryStore } from './history/store.ts';
import { METRICS } from './metrics.ts';
import { readUi } from './players/ui.ts';
import { PlayCounter, runPlayReports } from './plays.ts';
import { Prober } from './probe.ts';
import { createSteeringService } from './service.ts';
import { openStateStore } from './store.ts';

const TICK_MS = 1_000;

export async function runSteering(config: SteeringConfig): Promise<void> {
  const log = createLog('steering');
  dieOnDefect(log);
  const fleetKey = ensureFleetKey(config.fleetKey);
  const { settings, mapText } = await readSettings(config, log);
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
    settings: { ...settings, mapText },
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
    ...settings,
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

interface ReadSettings {
  readonly settings: DecisionSettings;
  readonly mapText: string | null;
}

async function readSettings(config: SteeringConfig, log: Log): Promise<ReadSettings> {
  const { footprint, mapText } = readMap(config.map);
  const geoip = config.geoip === null ? noGeoIp : await readGeoIp(config.geoip);
  warnOfUnknownDefault(config.defaultSite, footprint, log);
  const { defaultSite, origin: originBase, ttl: ttlMs } = config;
  return { settings: { footprint, geoip, defaultSite, originBase, ttlMs }, mapText };
}

function readMap(file: string | null): { readonly footprint: Footprint; readonly mapText: string | null } {
  if (file === null) return { footprint: emptyFootprint, mapText: null };
  let mapText: string;
  try {
    mapText = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Fault('config_invalid', `--map ${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  return { footprint: parseFootprint(mapText, file), mapText };
}

/** A warning only, because the site's first appliance may join after steering started. */
function warnOfUnknownDefault(site: string | null, { zones }: Footprint, log: Log): void {
  if (site !== null && zones.size > 0 && !zones.has(site))
    log.warn({ site }, '--default-site is not a zone of the map');
}
