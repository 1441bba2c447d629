// The storekeeper: the one process that owns volumes, eviction, upstream fetches and the control link. This file composes it.

import { randomInt } from 'node:crypto';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Order } from '../protocol/heartbeat.ts';
import { holdingOf, type HoldingId } from '../protocol/ids.ts';
import { ensureFleetKey, readFleetKey } from '../runtime/auth.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { describeError, dieOnDefect, EXIT, exitCodeOf, followParent, sendToParent } from '../runtime/process.ts';
import type { Service } from '../runtime/service.ts';
import { warmUpOriginClient } from './warm-up.ts';
import { admissionPolicyOf, inFleet, ownToken, proxyIdentityOf } from './config.ts';
import { parseTarget } from './http/asset-key.ts';
import { hasStrongValidator, Inflight, type IntegrityCheck } from './fetch/inflight.ts';
import { Lookup } from './fetch/lookup.ts';
import { Miss } from './fetch/miss.ts';
import { Origin } from './fetch/origin.ts';
import { replyTo } from './fetch/reply.ts';
import { createAdmin } from './fleet/admin.ts';
import { ApplianceStatus, planBytesOf } from './fleet/appliance-status.ts';
import { assetMetaOf, Catalog, versionOf } from './fleet/catalog.ts';
import { Filler } from './fleet/filler.ts';
import { HeartbeatLoop } from './fleet/heartbeat.ts';
import { currentInventory } from './fleet/inventory.ts';
import { PlayReports } from './fleet/play-reports.ts';
import { openState, PersistedValue, stateFault, type StateDb } from './fleet/state.ts';
import type { FromSupervisor, StorekeeperSpec, ToSupervisor } from './ipc.ts';
import { LinkServer } from './link/server.ts';
import { beat, dieWithParent } from './liveness.ts';
import { METRICS } from './metrics.ts';
import type { Admission } from './store/admission.ts';
import { assetsToRemember, demandPolicy } from './store/demand-policy.ts';
import { Cache } from './store/cache.ts';
import { DiskVolume } from './store/disk-volume.ts';
import { DISK_RUN_GEOMETRY } from './store/eviction-policy.ts';
import type { OwnedMemory } from './io/shared-memory.ts';
import { blockOfKey, type StorekeeperMessage } from './link/messages.ts';
import { KnownVolumes, type KnownVolumesRecord } from './store/known-volumes.ts';
import { HeapBuffers } from './store/receive-buffer.ts';
import { MemoryTier, SLOT_BYTES, type ResidentBlock } from './store/memory-tier.ts';
import { Scrub } from './store/scrub.ts';
import type { VolumeUsage } from './store/volume-budget.ts';
import type { AssetMeta, Entry } from './store/volume.ts';
import { growHeapBeforeCollecting } from './v8-tuning.ts';

const SAVE_MS = 30_000;
const CATALOG_MS = 10_000;
/** The first heartbeat waits this long for the catalog and a worker, so that it need not report `starting` or `red`. */
const FIRST_SYNC_MS = 3_000;
const WORKER_POLL_MS = 50;
/** How long a purge waits for workers that have not linked yet. */
const WORKERS_MS_MAX = 10_000;
/** Blocks of the memory tier named in one message to a worker. */
const GREETING_BLOCKS = 1_000;

const { config } = JSON.parse(process.env['LARDER_STOREKEEPER']!) as StorekeeperSpec;
const log = createLog('storekeeper', { appliance: config.id });
const clock = systemClock;
const counters = createMetrics(METRICS);
let memoryTier: SharedTier | null = null;
dieOnDefect(log);
growHeapBeforeCollecting();
followParent();
beat(clock);
try {
  await start();
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  // Wrong settings, a foreign store and a locked one do not mend themselves: the supervisor must not try again.
  const isPermanent =
    exitCodeOf(error) === EXIT.usage || (isFault(error) && ['store_mismatch', 'store_locked'].includes(error.code));
  process.exit(isPermanent ? EXIT.usage : EXIT.failed);
}

async function start(): Promise<void> {
  // The key comes first: an appliance that has one makes its own token from it.
  const fleetKey = inFleet(config) ? readFleetKey(config.fleetKey) : ensureFleetKey(config.fleetKey);
  const token = ownToken(config);
  const db = await openState(config.state);
  const link = new LinkServer({ clock, log });
  const store = await openStore(db, link);
  const { cache } = store;
  const catalog = await openCatalog({ db, token, cache, onChanged: (key) => inflight.mismatches.forget(key) });
  const integrityOf = (entry: Entry): Promise<IntegrityCheck> => integrityIn(catalog, entry);
  const identity = proxyIdentityOf(config);
  const origin = new Origin({ url: config.origin, ...identity, clock, counters });
  const buffers = new HeapBuffers();
  const inflight = new Inflight({
    ...{ cache, origin, integrityOf, clock, counters, log },
    receive: (bytes) => memoryTier?.tier.receive(bytes) ?? buffers.receive(bytes),
    isPlanned: (holding) => fleet?.filler.isPlanned(holding) ?? false,
  });
  const { reverseProxy } = identity;
  const catalogued = catalogLookup(catalog);
  const lookup = new Lookup({ cache, inflight, origin, catalogued, reverseProxy, clock });
  const miss = new Miss({
    ...{ cache, inflight, lookup, admission: store.admission, alone: !inFleet(config), clock, counters },
    resident: (entry, number) => memoryTier?.tier.find(entry, number) ?? null,
  });
  const fleet = await openFleet({ catalog, token, db, cache, inflight });
  const status = new ApplianceStatus({
    ...{ config, cache, metrics: counters, mismatches: inflight.mismatches, clock },
    workersLinked: () => link.workers,
    volumeProblem: store.problem,
    filling: () => fleet?.filler.filling ?? false,
    catalogRevision: () => catalog?.revision ?? null,
  });
  const heartbeats = createHeartbeats({ token, status, fleet, inventory: () => inventoryOf(catalog, cache) });
  const admin = createAdminService({ fleetKey, token, link, cache, lookup, catalog, fleet, status, heartbeats });

  await catalog
    ?.retire()
    .catch((error: unknown) => log.warn({ err: stateFault(error) }, 'outdated versions stay in the cache for now'));
  await link.listen({
    fetch: async (request) => replyTo(request, await miss.open(request), originTagOf),
    update: (update) => lookup.applyUpdate(update),
    arePresent: (query) => cache.arePresent(query),
    memory: () => memoryTier?.memory.name.inode ?? null,
    greeting: () => (memoryTier === null ? [] : greetingOf(memoryTier)),
    onReport: (worker, report) => {
      status.applyReport(worker, report);
      for (const { volume, blocks } of report.touched)
        for (const key of blocks) {
          const block = { volume, ...blockOfKey(key) };
          cache.touch(block);
          memoryTier?.tier.touch(block);
        }
      fleet?.plays.add(report.served);
    },
    onWorkerGone: (worker) => status.removeWorker(worker),
  });
  await admin.listen(config.admin);
  sendToParent({ kind: 'ready' } satisfies ToSupervisor);
  void dieWithParent();
  await warmUpOriginClient();
  const saving = clock.setInterval(() => void saveRecency(cache), SAVE_MS);
  process.on('message', (message: FromSupervisor) => {
    if (message.kind === 'prepare-drain') prepareDrain();
    else void stop();
  });
  memoryTier = await openMemoryTier(store.volumes, link);
  const scrubs = store.volumes.map((volume, at) =>
    createScrub(volume, { bytes: () => storedBytes(cache.usage()[at]!), repair }),
  );
  for (const scrub of scrubs) scrub.start();
  await joinFleet({ catalog, link, status, fleet, heartbeats });

  /** Discards a damaged block, and fetches it again where its version can still be asked for. */
  async function repair(entry: Entry, number: number): Promise<void> {
    counters.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await cache.discardBlock(entry, number);
    if (entry.removed || !hasStrongValidator(entry) || inflight.has(entry, number)) return;
    await inflight.start(entry, { number, lastWanted: number, pool: 'fill' }).done;
  }

  /** Steering learns at once that no new plays are wanted, while workers finish the running ones. */
  function prepareDrain(): void {
    status.shutdown = 'draining';
    for (const heartbeat of heartbeats) heartbeat.beatNow();
  }

  async function stop(): Promise<void> {
    clock.clear(saving);
    // Workers that are still there go on reading in it.
    memoryTier?.tier.close();
    for (const scrub of scrubs) scrub.stop();
    status.shutdown = 'stopped';
    fleet?.filler.stop();
    await fleet?.plays.stop();
    await Promise.all(heartbeats.map((heartbeat) => heartbeat.stop()));
    await admin.close();
    await link.close();
    await saveRecency(cache);
    await Promise.all(store.volumes.map((volume) => volume.close()));
    await db.close();
    process.exit(EXIT.done);
  }
}

interface Store {
  readonly volumes: readonly DiskVolume[];
  /** Why a volume is out of use; null when all are in use. */
  readonly problem: string | null;
  readonly cache: Cache;
  readonly admission: Admission;
}

async function openStore(db: StateDb, link: LinkServer): Promise<Store> {
  const { volumes, problem } = await openVolumes(db);
  const { admission, newPolicy } = demandPolicy(admissionPolicyOf(config), {
    geometry: DISK_RUN_GEOMETRY,
    assets: assetsToRemember((config.storeBytes * config.demandShare) / 100),
    seed: randomInt(2 ** 32),
  });
  const cache = new Cache({
    volumes,
    newPolicy,
    // Healthy disks do not take over the share of one that is out of use.
    storeBytes: (config.storeBytes / config.store.length) * volumes.length,
    pinned: await Filler.pinnedIn(db),
    broadcast: async (removal) => {
      const removed = memoryTier?.tier.remove(removal.blocks);
      const { forgotten, closed } = link.broadcast({ ...removal, evicted: [] });
      void forgotten.then(() => removed?.done());
      await Promise.all([forgotten, closed]);
    },
    ...{ clock, counters, log },
  });
  // Entries stored stand-alone are unknown to the catalog, and catalogued ones have no age: neither serves in the other mode.
  for (const entry of [...cache.entries()])
    if ((entry.generatedAtMs === null) !== inFleet(config)) await cache.removeEntry(entry);
  return { volumes, problem, cache, admission };
}

/** A disk that fails costs its blocks, not the appliance. Throws when none is left. */
async function openVolumes(db: StateDb): Promise<Pick<Store, 'volumes' | 'problem'>> {
  const volumes: DiskVolume[] = [];
  const known = new KnownVolumes(await PersistedValue.load<KnownVolumesRecord['value']>(db, 'volumes', []));
  let failure: Fault | null = null;
  for (const directory of config.store) {
    try {
      known.check(directory);
      volumes.push(await DiskVolume.open({ number: volumes.length, directory, clock, log }));
      await known.remember(directory);
    } catch (error) {
      if (!isFault(error) || (error.code !== 'disk_failed' && error.code !== 'disk_full')) throw error;
      log.error({ err: error, volume: directory }, 'volume is out of use until the next start');
      failure = error;
    }
  }
  if (volumes.length === 0) throw failure;
  return { volumes, problem: failure?.message ?? null };
}

interface SharedTier {
  readonly memory: OwnedMemory;
  readonly tier: MemoryTier;
}

/** Null without memory for it, or where the system cannot share it: then the page cache does its work. */
async function openMemoryTier(volumes: readonly DiskVolume[], link: LinkServer): Promise<SharedTier | null> {
  const slots = Math.floor(config.memoryBytes / SLOT_BYTES);
  if (slots === 0) return null;
  // The foreign function library takes long to load.
  const memory = (await import('./io/shared-memory.ts')).OwnedMemory.create({ slots, slotBytes: SLOT_BYTES });
  if (memory === null) {
    log.warn('this system shares no memory between processes: there is no memory tier');
    return null;
  }
  const tier = new MemoryTier({
    volumes,
    memory,
    announce: (block) => link.announce({ kind: 'resident', blocks: [block] }),
    withdraw: (evicted) => link.broadcast({ keys: [], blocks: [], evicted }).forgotten,
    seed: randomInt(2 ** 32),
    ...{ clock, counters, log },
  });
  link.announce({ kind: 'memory', ...memory.name });
  return { memory, tier };
}

/** What a worker has to know of the memory tier when it links. */
function* greetingOf({ memory, tier }: SharedTier): Generator<StorekeeperMessage> {
  yield { kind: 'memory', ...memory.name };
  let blocks: ResidentBlock[] = [];
  for (const block of tier.blocks()) {
    if (blocks.length === GREETING_BLOCKS) {
      yield { kind: 'resident', blocks };
      blocks = [];
    }
    blocks.push(block);
  }
  yield { kind: 'resident', blocks };
}

function createScrub(
  volume: DiskVolume,
  deps: { readonly bytes: () => number; readonly repair: (entry: Entry, number: number) => Promise<void> },
): Scrub {
  const onChecked = (bytes: number): void => counters.add('larder_scrubbed_bytes_total', bytes);
  const firstFolder = randomInt(2 ** 16);
  return new Scrub({ volume, bytes: deps.bytes, onDamaged: deps.repair, onChecked, firstFolder, clock, log });
}

function storedBytes({ pinnedBytes, demandBytes }: VolumeUsage): number {
  return pinnedBytes + demandBytes;
}

/** Null stand-alone: then the origin alone says what exists. */
async function openCatalog(deps: {
  readonly db: StateDb;
  readonly token: string | null;
  readonly cache: Cache;
  /** Called for each key of which the catalog has another version now, or none. */
  readonly onChanged: (key: string) => void;
}): Promise<Catalog | null> {
  const { db, token, cache, onChanged } = deps;
  if (!inFleet(config) || config.fill === null || token === null) return null;
  const catalog = await Catalog.open({
    db,
    fill: config.fill,
    token,
    onRetired: async (keys) => {
      for (const key of keys) {
        onChanged(key);
        const entry = cache.find(key);
        const current = await catalog.get(key);
        const isCurrent = current !== null && versionOf(current.asset) === entry?.version;
        if (entry !== null && !isCurrent) await cache.removeEntry(entry);
      }
    },
    ...{ counters, clock, log },
  });
  return catalog;
}

/** Null stand-alone. A member without a catalog knows no asset: it must not become an open cache of the origin. */
function catalogLookup(catalog: Catalog | null): ((key: string) => Promise<AssetMeta | null>) | null {
  if (!inFleet(config)) return null;
  return async (key) => {
    const found = (await catalog?.getOrSync(key)) ?? null;
    return found === null ? null : assetMetaOf(found.asset, holdingOf(found.title, found.asset.rendition));
  };
}

/** In a fleet bytes are verified by the digests of the catalog, stand-alone by the entity tag that the origin is asked for. */
async function integrityIn(catalog: Catalog | null, entry: Entry): Promise<IntegrityCheck> {
  if (!inFleet(config)) return { digests: null, originTag: hasStrongValidator(entry) ? entry.version : null };
  const asset = (await catalog?.get(entry.key))?.asset;
  if (asset === undefined) throw new Fault('asset_uncatalogued', `${entry.key} is not in the catalog`);
  if (versionOf(asset) !== entry.version)
    throw new Fault('version_gone', `the catalog has another version of ${entry.key}`);
  return { digests: asset.digest.chunks, originTag: asset.validator === 'origin' ? asset.etag : null };
}

/** The tag by which a worker may ask the origin itself. Null in a fleet, where only the storekeeper can verify what comes back. */
function originTagOf(entry: Entry): string | null {
  return inFleet(config) || !hasStrongValidator(entry) ? null : entry.version;
}

interface FleetMembership {
  readonly plays: PlayReports;
  readonly filler: Filler;
}

async function openFleet(deps: {
  readonly catalog: Catalog | null;
  readonly token: string | null;
  readonly db: StateDb;
  readonly cache: Cache;
  readonly inflight: Inflight;
}): Promise<FleetMembership | null> {
  const { catalog, token, db, cache, inflight } = deps;
  const { id: appliance, site, fill } = config;
  if (catalog === null || token === null || fill === null) return null;
  const common = { db, fill, token, appliance, clock, counters, log };
  const limits = { planBytes: planBytesOf(config), rateBitsPerSecond: config.fillRate };
  const filler = await Filler.open({ ...common, ...limits, cache, inflight, catalog });
  return { plays: new PlayReports({ ...common, site }), filler };
}

function createHeartbeats(deps: {
  readonly token: string | null;
  readonly status: ApplianceStatus;
  readonly fleet: FleetMembership | null;
  readonly inventory: () => ReadonlySet<HoldingId>;
}): HeartbeatLoop[] {
  const { token, status, fleet, inventory } = deps;
  if (token === null) return [];
  const executeOrder = async (order: Order): Promise<void> => {
    log.info({ order }, 'order');
    if (order.kind === 'fill') fleet?.filler.pull();
    else status.applyOrder(order);
  };
  const body = (): ReturnType<ApplianceStatus['heartbeatBody']> => status.heartbeatBody();
  return config.steering.map(
    (steering) => new HeartbeatLoop({ steering, token, body, inventory, executeOrder, clock, counters, log }),
  );
}

function createAdminService(deps: {
  readonly fleetKey: Buffer | null;
  readonly token: string | null;
  readonly link: LinkServer;
  readonly cache: Cache;
  readonly lookup: Lookup;
  readonly catalog: Catalog | null;
  readonly fleet: FleetMembership | null;
  readonly status: ApplianceStatus;
  readonly heartbeats: readonly HeartbeatLoop[];
}): Service {
  const { fleetKey, token, link, cache, lookup, catalog, fleet, status, heartbeats } = deps;
  return createAdmin({
    appliance: config.id,
    fleetKey,
    token,
    cache,
    lookup,
    allWorkersLinked: async () => {
      for (let waitedMs = 0; link.workers < config.workers; waitedMs += WORKER_POLL_MS) {
        if (waitedMs >= WORKERS_MS_MAX)
          throw new Fault('overloaded', `${config.workers - link.workers} workers are being restarted; try again`);
        await clock.sleep(WORKER_POLL_MS);
      }
    },
    keyOf: (target) => parseTarget(target, inFleet(config) ? 'fleet' : 'alone').key,
    ready: () => status.ready,
    status: () => ({
      ...status.heartbeatBody(),
      mode: inFleet(config) ? 'fleet' : 'alone',
      origin: config.origin,
      workers: link.workers,
      catalogRevision: catalog?.revision ?? null,
      steering: config.steering.map((url, at) => ({ url, answered: heartbeats[at]?.answered ?? false })),
      fill: fleet?.filler.progress ?? null,
    }),
    inventory: () => ({
      held: [...inventoryOf(catalog, cache)].sort(),
      pinned: [...(fleet?.filler.pinned ?? [])].sort(),
    }),
    expose: () => {
      status.updateGauges();
      counters.set('larder_memory_bytes', memoryTier?.tier.bytes ?? 0);
      return counters.expose();
    },
    log,
  });
}

function inventoryOf(catalog: Catalog | null, cache: Cache): Set<HoldingId> {
  return currentInventory({ titles: () => catalog?.titles() ?? [], heldBytes: (holding) => cache.heldBytes(holding) });
}

/** Pulls the catalog and waits for a worker, both bounded in time; then heartbeats, fills and play reports begin. */
async function joinFleet(deps: {
  readonly catalog: Catalog | null;
  readonly link: LinkServer;
  readonly status: ApplianceStatus;
  readonly fleet: FleetMembership | null;
  readonly heartbeats: readonly HeartbeatLoop[];
}): Promise<void> {
  const { catalog, link, status, fleet, heartbeats } = deps;
  if (catalog !== null) {
    await Promise.race([catalog.sync(), clock.sleep(FIRST_SYNC_MS)]);
    clock.setInterval(() => void catalog.sync(), CATALOG_MS).unref();
  }
  status.synced = true;
  for (let waitedMs = 0; link.workers === 0 && waitedMs < FIRST_SYNC_MS; waitedMs += WORKER_POLL_MS)
    await clock.sleep(WORKER_POLL_MS);
  fleet?.plays.start();
  fleet?.filler.start();
  for (const heartbeat of heartbeats) heartbeat.start();
}

async function saveRecency(cache: Cache): Promise<void> {
  await cache.flush().catch((error: unknown) => log.error({ err: error }, 'recency cannot be saved'));
}
