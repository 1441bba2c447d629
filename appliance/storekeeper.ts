// The storekeeper: one process that owns volumes, eviction, upstream fetches and the control link. This file composes it.

import { randomInt } from 'node:crypto';
import { isFault } from '../protocol/faults.ts';
import type { Order } from '../protocol/heartbeat.ts';
import { holdingOf } from '../protocol/ids.ts';
import { ensureFleetKey, readFleetKey } from '../runtime/auth.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { describeError, dieOnDefect, EXIT, exitCodeOf, followParent, sendToParent } from '../runtime/process.ts';
import { preloadUndici } from '../runtime/undici.ts';
import { createAdmin } from './fleet/admin.ts';
import { assetsToRemember, demandBy } from './store/admission.ts';
import { Cache } from './store/cache.ts';
import { Catalog } from './fleet/catalog.ts';
import { inFleet, mannerOf, ownToken, policyOf } from './config.ts';
import { DiskVolume } from './store/disk-volume.ts';
import { DISK_RUNS } from './store/eviction.ts';
import type { FromSupervisor, KeeperSpec, ToSupervisor } from './ipc.ts';
import { Filler, metaOf } from './fleet/filler.ts';
import { HeartbeatLoop } from './fleet/heartbeat.ts';
import { Inflight, isSealed } from './fetch/inflight.ts';
import { heldNow } from './fleet/inventory.ts';
import { LinkServer } from './link/server.ts';
import { Locate } from './fetch/lookup.ts';
import { collectSeldom, optimiseEarly } from './machine.ts';
import { METRICS } from './metrics.ts';
import { Miss } from './fetch/miss.ts';
import { Origin } from './fetch/origin.ts';
import { Plays } from './fleet/play-reports.ts';
import { planBytesOf, Standing } from './fleet/status.ts';
import { openState, stateFault, type StateDb } from './fleet/state.ts';
import type { Entry } from './store/volume.ts';

const SAVE_MS = 30_000;
const CATALOG_MS = 10_000;
/** The first heartbeat waits this long for the catalog and a worker, so that it need not say `starting` or `red`. */
const FIRST_SYNC_MS = 3_000;
const LOOK_MS = 50;

const { config } = JSON.parse(process.env['LARDER_STOREKEEPER']!) as KeeperSpec;
const log = createLog('storekeeper', { appliance: config.id });
const clock = systemClock;
const tally = createMetrics(METRICS);
dieOnDefect(log);
collectSeldom();
optimiseEarly();
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
  const demand = demandBy(policyOf(config), {
    shape: DISK_RUNS,
    assets: assetsToRemember((config.storeBytes * config.demandShare) / 100),
    seed: randomInt(2 ** 32),
  });
  const cache = new Cache({
    volumes,
    newOrder: demand.newOrder,
    // What a disk that is out of use cannot take, the others must not.
    storeBytes: (config.storeBytes / config.store.length) * volumes.length,
    pinned: await Filler.pinnedIn(db),
    broadcast: (forgotten) => link.broadcast(forgotten),
    clock,
    tally,
    log,
  });
  const manner = mannerOf(config);
  // What was stored under the other rules is nothing to go by: a catalog may not know it, or its age counts for nothing.
  for (const entry of [...cache.entries()]) if ((entry.bornMs === null) !== inFleet(config)) await cache.drop(entry);
  const origin = new Origin({ url: config.origin, ...manner, clock, tally });
  const catalog = await openCatalog({ db, token, cache });
  const inflight = new Inflight({
    cache,
    origin,
    termsOf: (entry) => termsOf(entry, catalog),
    planned: (holding) => fleet?.filler.plans(holding) ?? false,
    tally,
    log,
  });
  const locate = new Locate({
    ...{ cache, inflight, origin, standsFor: manner.standsFor, clock },
    // A member without a token or without fill knows no asset; it must not turn into an open cache of the origin.
    catalogued: inFleet(config) ? async (key) => (catalog === null ? null : metaIn(catalog, key)) : null,
  });
  const { admission } = demand;
  const miss = new Miss({ cache, inflight, locate, admission, alone: !inFleet(config), tally });
  const fleet = await openFleet({ catalog, token, db, cache, inflight });
  const standing = new Standing({
    config,
    cache,
    metrics: tally,
    clock,
    workersLinked: () => link.workers,
    filling: () => fleet?.filler.filling ?? false,
    catalogRevision: () => catalog?.revision ?? null,
  });

  const held = (): Set<string> =>
    heldNow({ titles: () => catalog?.titles() ?? [], heldBytes: (holding) => cache.heldBytes(holding) });
  const carryOut = async (order: Order): Promise<void> => {
    log.info({ order }, 'order');
    if (order.kind === 'fill') fleet?.filler.pull();
    else standing.obey(order);
  };
  const body = (): ReturnType<Standing['beatBody']> => standing.beatBody();
  const beats =
    token === null
      ? []
      : config.steering.map((steering) => new HeartbeatLoop({ steering, token, body, held, carryOut, tally, log }));

  const admin = createAdmin({
    appliance: config.id,
    fleetKey,
    token,
    cache,
    ready: () => standing.ready,
    status: () => ({
      ...standing.beatBody(),
      mode: inFleet(config) ? 'fleet' : 'alone',
      origin: config.origin,
      workers: link.workers,
      catalogRevision: catalog?.revision ?? null,
      steering: config.steering.map((url, at) => ({ url, answered: beats[at]?.answered ?? false })),
      fill: fleet?.filler.progress ?? null,
    }),
    inventory: () => ({ held: [...held()].sort(), pinned: [...(fleet?.filler.pinned ?? [])].sort() }),
    expose: () => {
      standing.gauge();
      return tally.expose();
    },
    log,
  });

  await catalog
    ?.retire()
    .catch((error: unknown) => log.warn({ err: stateFault(error) }, 'stale versions stay for now'));
  await link.listen({
    miss,
    locate,
    present: (look) => cache.present(look),
    onReport: (worker, report) => {
      standing.account(worker, report);
      fleet?.plays.add(report.served);
    },
    onGone: (worker) => standing.workerGone(worker),
    log,
  });
  await admin.listen(config.admin);
  sendToParent({ kind: 'ready' } satisfies ToSupervisor);
  preloadUndici();
  const saving = setInterval(() => void save(), SAVE_MS);
  process.on('message', (message: FromSupervisor) => {
    if (message.kind === 'leave') leave();
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
    standing.leaving = 'draining';
    for (const beat of beats) beat.now();
  }

  async function save(): Promise<void> {
    await cache.flush().catch((error: unknown) => log.error({ err: error }, 'recency cannot be saved'));
  }

  async function stop(): Promise<void> {
    clearInterval(saving);
    standing.leaving = 'stopped';
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
      volumes.push(await DiskVolume.open({ number: volumes.length, directory, log }));
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
    onGone: async (keys) => {
      for (const key of keys) {
        const entry = cache.find(key);
        const current = await catalog.known(key);
        if (entry !== null && entry.version !== current?.asset.etag) await cache.drop(entry);
      }
    },
    tally,
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
}): Promise<{ readonly plays: Plays; readonly filler: Filler } | null> {
  const { catalog, token, db, cache, inflight } = deps;
  const { id: appliance, site, fill } = config;
  if (catalog === null || token === null || fill === null) return null;
  const common = { db, fill, token, appliance, clock, tally, log };
  const filler = await Filler.open({
    ...common,
    planBytes: planBytesOf(config),
    rateBitsPerSecond: config.fillRate,
    cache,
    inflight,
    catalog,
  });
  return { plays: new Plays({ ...common, site }), filler };
}

/** Catalogued bytes are known by digest; others by the entity tag that the origin is asked for, where it has a strong one. */
async function termsOf(
  entry: Entry,
  catalog: Catalog | null,
): Promise<{ readonly digests: readonly string[] | null; readonly originTag: string | null }> {
  const asset = (await catalog?.known(entry.key))?.asset;
  if (asset === undefined || asset.etag !== entry.version)
    return { digests: null, originTag: isSealed(entry) ? entry.version : null };
  return { digests: asset.digest.chunks, originTag: asset.validator === 'origin' ? asset.etag : null };
}

async function metaIn(catalog: Catalog, key: string): Promise<ReturnType<typeof metaOf> | null> {
  const found = await catalog.find(key);
  return found === null ? null : metaOf(found.asset, holdingOf(found.title, found.asset.rendition));
}
