// The storekeeper: one process that owns volumes, eviction, upstream fetches and the control link. This file composes it.

import { randomInt } from 'node:crypto';
import { isFault } from '../protocol/faults.ts';
import type { Order } from '../protocol/heartbeat.ts';
import { holdingOf } from '../protocol/ids.ts';
import { ensureFleetKey, readFleetKey } from '../runtime/auth.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { describeError, dieOnDefect, EXIT, exitCodeOf, followParent, tellParent } from '../runtime/process.ts';
import { loadUndiciSoon } from '../runtime/undici.ts';
import { createAdmin } from './fleet/admin.ts';
import { assetsToRemember, demandPolicy } from './store/admission.ts';
import { Cache } from './store/cache.ts';
import { assetMetaOf, Catalog } from './fleet/catalog.ts';
import { inFleet, proxyIdentityOf, ownToken, admissionPolicyOf } from './config.ts';
import { DiskVolume } from './store/disk-volume.ts';
import { DISK_RUN_GEOMETRY } from './store/eviction.ts';
import type { FromSupervisor, StorekeeperSpec, ToSupervisor } from './ipc.ts';
import { Filler } from './fleet/filler.ts';
import { HeartbeatLoop } from './fleet/heartbeat.ts';
import { Inflight, hasStrongValidator } from './fetch/inflight.ts';
import { currentInventory } from './fleet/inventory.ts';
import { LinkServer } from './link/server.ts';
import { Lookup } from './fetch/lookup.ts';
import { growHeapBeforeCollecting, optimizeEarly } from './v8-tuning.ts';
import { METRICS } from './metrics.ts';
import { Miss } from './fetch/miss.ts';
import { Origin } from './fetch/origin.ts';
import { PlayReports } from './fleet/play-reports.ts';
import { planBytesOf, ApplianceStatus } from './fleet/appliance-status.ts';
import { openState, stateFault, type StateDb } from './fleet/state.ts';
import type { Entry } from './store/volume.ts';

const SAVE_MS = 30_000;
const CATALOG_MS = 10_000;
/** The first heartbeat waits this long for the catalog and a worker, so that it need not say `starting` or `red`. */
const FIRST_SYNC_MS = 3_000;
const LOOK_MS = 50;

const { config } = JSON.parse(process.env['LARDER_STOREKEEPER']!) as StorekeeperSpec;
const log = createLog('storekeeper', { appliance: config.id });
const clock = systemClock;
const counters = createMetrics(METRICS);
dieOnDefect(log);
growHeapBeforeCollecting();
optimizeEarly();
followParent();
try {
  await run();
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  // Settings, a foreign store and one in use do not mend themselves: the supervisor must not try again.
  const settled =
    exitCodeOf(error) === EXIT.usage || (isFault(error) && ['store_mismatch', 'store_locked'].includes(error.code));
  process.exit(settled ? EXIT.usage : EXIT.failed);
}

async function run(): Promise<void> {
  const fleetKey = inFleet(config) ? readFleetKey(config.fleetKey) : ensureFleetKey(config.fleetKey);
  const token = ownToken(config);
  const db = await openState(config.state);
  const volumes = await openVolumes();
  const link = new LinkServer(log);
  const demand = demandPolicy(admissionPolicyOf(config), {
    geometry: DISK_RUN_GEOMETRY,
    assets: assetsToRemember((config.storeBytes * config.demandShare) / 100),
    seed: randomInt(2 ** 32),
  });
  const cache = new Cache({
    volumes,
    newPolicy: demand.newPolicy,
    // What a disk that is out of use cannot take, the others must not.
    storeBytes: (config.storeBytes / config.store.length) * volumes.length,
    pinned: await Filler.pinnedIn(db),
    broadcast: (forgotten) => link.broadcast(forgotten),
    clock,
    counters,
    log,
  });
  const identity = proxyIdentityOf(config);
  // What was stored under the other rules is nothing to go by: a catalog may not know it, or its age counts for nothing.
  for (const entry of [...cache.entries()])
    if ((entry.generatedAtMs === null) !== inFleet(config)) await cache.removeEntry(entry);
  const origin = new Origin({ url: config.origin, ...identity, clock, counters });
  const catalog = await openCatalog({ db, token, cache });
  const inflight = new Inflight({
    cache,
    origin,
    integrityOf: (entry) => termsOf(entry, catalog),
    isPlanned: (holding) => fleet?.filler.isPlanned(holding) ?? false,
    counters,
    log,
  });
  const lookup = new Lookup({
    ...{ cache, inflight, origin, reverseProxy: identity.reverseProxy, clock },
    // A member without a token or without fill knows no asset; it must not turn into an open cache of the origin.
    catalogued: inFleet(config) ? async (key) => (catalog === null ? null : metaIn(catalog, key)) : null,
  });
  const { admission } = demand;
  const miss = new Miss({ cache, inflight, lookup, admission, alone: !inFleet(config), counters });
  const fleet = await openFleet({ catalog, token, db, cache, inflight });
  const standing = new ApplianceStatus({
    config,
    cache,
    metrics: counters,
    clock,
    workersLinked: () => link.workers,
    filling: () => fleet?.filler.filling ?? false,
    catalogRevision: () => catalog?.revision ?? null,
  });

  const held = (): Set<string> =>
    currentInventory({ titles: () => catalog?.titles() ?? [], heldBytes: (holding) => cache.heldBytes(holding) });
  const carryOut = async (order: Order): Promise<void> => {
    log.info({ order }, 'order');
    if (order.kind === 'fill') fleet?.filler.pull();
    else standing.applyOrder(order);
  };
  const body = (): ReturnType<ApplianceStatus['heartbeatBody']> => standing.heartbeatBody();
  const beats =
    token === null
      ? []
      : config.steering.map(
          (steering) =>
            new HeartbeatLoop({ steering, token, body, inventory: held, executeOrder: carryOut, clock, counters, log }),
        );

  const admin = createAdmin({
    appliance: config.id,
    fleetKey,
    token,
    cache,
    ready: () => standing.ready,
    status: () => ({
      ...standing.heartbeatBody(),
      mode: inFleet(config) ? 'fleet' : 'alone',
      origin: config.origin,
      workers: link.workers,
      catalogRevision: catalog?.revision ?? null,
      steering: config.steering.map((url, at) => ({ url, answered: beats[at]?.answered ?? false })),
      fill: fleet?.filler.progress ?? null,
    }),
    inventory: () => ({ held: [...held()].sort(), pinned: [...(fleet?.filler.pinned ?? [])].sort() }),
    expose: () => {
      standing.updateGauges();
      return counters.expose();
    },
    log,
  });

  await catalog
    ?.retire()
    .catch((error: unknown) => log.warn({ err: stateFault(error) }, 'stale versions stay for now'));
  await link.listen({
    miss,
    lookup,
    present: (look) => cache.arePresent(look),
    onReport: (worker, report) => {
      standing.applyReport(worker, report);
      fleet?.plays.add(report.served);
    },
    onWorkerGone: (worker) => standing.removeWorker(worker),
    log,
  });
  await admin.listen(config.admin);
  tellParent({ kind: 'ready' } satisfies ToSupervisor);
  loadUndiciSoon();
  const saving = setInterval(() => void save(), SAVE_MS);
  process.on('message', (message: FromSupervisor) => {
    if (message.kind === 'prepare-drain') leave();
    else void stop();
  });

  if (catalog !== null) {
    await Promise.race([catalog.sync(), new Promise((resolve) => setTimeout(resolve, FIRST_SYNC_MS))]);
    setInterval(() => void catalog.sync(), CATALOG_MS).unref();
  }
  standing.synced = true;
  for (let waited = 0; link.workers === 0 && waited < FIRST_SYNC_MS; waited += LOOK_MS)
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  fleet?.plays.start();
  fleet?.filler.start();
  for (const beat of beats) beat.start();

  /** Steering hears at once that no new plays are wanted, while workers end what runs. */
  function leave(): void {
    standing.shutdown = 'draining';
    for (const beat of beats) beat.beatNow();
  }

  async function save(): Promise<void> {
    await cache.flush().catch((error: unknown) => log.error({ err: error }, 'recency cannot be saved'));
  }

  async function stop(): Promise<void> {
    clearInterval(saving);
    standing.shutdown = 'stopped';
    fleet?.filler.stop();
    await fleet?.plays.stop();
    await Promise.all(beats.map((beat) => beat.stop()));
    await admin.close();
    await link.close();
    await save();
    await Promise.all(volumes.map((volume) => volume.close()));
    await db.close();
    process.exit(EXIT.done);
  }
}

/** A disk that fails costs its blocks, not the appliance. Throws where none is left. */
async function openVolumes(): Promise<DiskVolume[]> {
  const volumes: DiskVolume[] = [];
  let failure: unknown = null;
  for (const directory of config.store) {
    try {
      volumes.push(await DiskVolume.open({ number: volumes.length, directory, clock, log }));
    } catch (error) {
      if (!isFault(error) || (error.code !== 'disk_failed' && error.code !== 'disk_full')) throw error;
      log.error({ err: error, volume: directory }, 'volume is out of use until the next start');
      failure = error;
    }
  }
  if (volumes.length === 0) throw failure;
  return volumes;
}

/** Null stand-alone: then the origin alone says what exists. */
async function openCatalog(deps: {
  readonly db: StateDb;
  readonly token: string | null;
  readonly cache: Cache;
}): Promise<Catalog | null> {
  const { db, token, cache } = deps;
  if (!inFleet(config) || config.fill === null || token === null) return null;
  const catalog = await Catalog.open({
    db,
    fill: config.fill,
    token,
    onRetired: async (keys) => {
      for (const key of keys) {
        const entry = cache.find(key);
        const current = await catalog.get(key);
        if (entry !== null && entry.version !== current?.asset.etag) await cache.removeEntry(entry);
      }
    },
    counters,
    clock,
    log,
  });
  return catalog;
}

async function openFleet(deps: {
  readonly catalog: Catalog | null;
  readonly token: string | null;
  readonly db: StateDb;
  readonly cache: Cache;
  readonly inflight: Inflight;
}): Promise<{ readonly plays: PlayReports; readonly filler: Filler } | null> {
  const { catalog, token, db, cache, inflight } = deps;
  const { id: appliance, site, fill } = config;
  if (catalog === null || token === null || fill === null) return null;
  const common = { db, fill, token, appliance, clock, counters, log };
  const filler = await Filler.open({
    ...common,
    planBytes: planBytesOf(config),
    rateBitsPerSecond: config.fillRate,
    cache,
    inflight,
    catalog,
  });
  return { plays: new PlayReports({ ...common, site }), filler };
}

/** Catalogued bytes are known by digest; others by the entity tag that the origin is asked for, where it has a strong one. */
async function termsOf(
  entry: Entry,
  catalog: Catalog | null,
): Promise<{ readonly digests: readonly string[] | null; readonly originTag: string | null }> {
  const asset = (await catalog?.get(entry.key))?.asset;
  if (asset === undefined || asset.etag !== entry.version)
    return { digests: null, originTag: hasStrongValidator(entry) ? entry.version : null };
  return { digests: asset.digest.chunks, originTag: asset.validator === 'origin' ? asset.etag : null };
}

async function metaIn(catalog: Catalog, key: string): Promise<ReturnType<typeof assetMetaOf> | null> {
  const found = await catalog.getOrSync(key);
  return found === null ? null : assetMetaOf(found.asset, holdingOf(found.title, found.asset.rendition));
}
