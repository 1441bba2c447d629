// The composition root of steering: state from disk, then the listener, then the loops (catalog, probes, clock, play
// reports); on a signal the other way round.

import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setInterval as ticks } from 'node:timers/promises';
import { Fault } from '../protocol/faults.ts';
import { ensureFleetKey, issueToken } from '../runtime/auth.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog, type Log } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { packageRoot } from '../runtime/paths.ts';
import { dieOnDefect, untilStopped } from '../runtime/process.ts';
import { Catalog, keepCatalog } from './catalog.ts';
import type { SteeringConfig } from './config.ts';
import { Fleet } from './fleet.ts';
import { emptyFootprint, parseFootprint, type Footprint } from './footprint.ts';
import { noGeoIp, readGeoIp } from './geoip.ts';
import { History } from './history/recorder.ts';
import { HistoryStore } from './history/store.ts';
import { METRICS } from './metrics.ts';
import { keepReporting, Plays } from './plays.ts';
import { Prober } from './probe.ts';
import { createSteeringService } from './service.ts';
import { openStore } from './store.ts';
import { readUi } from './players/ui.ts';

const TICK_MS = 1_000;

export async function runSteering(config: SteeringConfig): Promise<void> {
  const log = createLog('steering');
  dieOnDefect(log);
  const fleetKey = ensureFleetKey(config.fleetKey);
  const { footprint, mapText } = readMap(config.map);
  const geoip = config.geoip === null ? noGeoIp : await readGeoIp(config.geoip);
  warnOfUnknownDefault(config, footprint, log);
  const store = await openStore(config.state, log);
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
  const ground = { footprint, geoip, defaultSite: config.defaultSite, originBase: config.origin, ttlMs: config.ttl };
  const history = new History({
    open: () => HistoryStore.open(config.state),
    present: { ...ground, mapText },
    fleet,
    catalog,
    clock,
    metrics,
    log,
  });
  history.tick();
  const plays = new Plays({ clock, metrics, log });
  const prober = new Prober({
    targets: () => fleet.probeTargets(),
    probed: (appliance, result) => fleet.probed(appliance, result),
    log,
  });
  const service = createSteeringService({
    ...ground,
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
  const fill = { fillUrl: config.fill, token: issueToken(fleetKey, { role: 'service', id: 'steering' }), metrics, log };
  const loops = [
    keepCatalog({ ...fill, catalog }, stop.signal),
    keepReporting({ ...fill, plays, clock }, stop.signal),
    prober.run(stop.signal),
    keepTime({ fleet, history }, stop.signal),
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

async function keepTime(
  { fleet, history }: { readonly fleet: Fleet; readonly history: History },
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const _ of ticks(TICK_MS, undefined, { signal })) {
      fleet.tick();
      history.tick();
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
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

/** No error: the site's first appliance may come later than steering. */
function warnOfUnknownDefault(config: SteeringConfig, footprint: Footprint, log: Log): void {
  const site = config.defaultSite;
  if (site !== null && footprint.zones.size > 0 && !footprint.zones.has(site))
    log.warn({ site }, '--default-site is no zone of the map');
}
