// The storekeeper: one process that owns volumes, eviction, upstream fetches and the control link. This file composes it.

import { randomBytes } from 'node:crypto';
import type { BeatBody } from './heartbeat.ts';
import { HeartbeatLoop } from './heartbeat.ts';
import { isFault } from '../protocol/faults.ts';
import type { ApplianceState, Health, Order } from '../protocol/heartbeat.ts';
import { holdingOf, PROTOCOL_VERSION } from '../protocol/ids.ts';
import { ensureFleetKey, issueToken, readFleetKey } from '../runtime/auth.ts';
import { systemClock } from '../runtime/clock.ts';
import { createLog } from '../runtime/log.ts';
import { createMetrics } from '../runtime/metrics.ts';
import { packageVersion } from '../runtime/paths.ts';
import { describeError, dieOnDefect, EXIT, exitCodeOf, followParent, tellParent } from '../runtime/process.ts';
import { createAdmin, type ApplianceStatus } from './admin.ts';
import { Cache } from './cache.ts';
import { Catalog } from './catalog.ts';
import { inFleet } from './config.ts';
import { DiskVolume } from './disk-volume.ts';
import type { FromSupervisor, KeeperSpec, ToSupervisor } from './family.ts';
import { Filler, metaOf } from './filler.ts';
import { Inflight, isSealed } from './inflight.ts';
import { heldNow } from './inventory.ts';
import { LinkServer } from './link-server.ts';
import type { WorkerReport } from './link.ts';
import { METRICS, type ApplianceMetric } from './metrics.ts';
import { Miss } from './miss.ts';
import { Origin } from './origin.ts';
import { Plays } from './plays.ts';
import { openState } from './state.ts';
import type { AssetMeta } from './store.ts';

const SAVE_MS = 30_000;
const CATALOG_MS = 10_000;

const { config } = JSON.parse(process.env['LARDER_STOREKEEPER']!) as KeeperSpec;
const log = createLog('storekeeper', { appliance: config.id });
dieOnDefect(log);
followParent();
try {
  await run();
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  const settled = isFault(error) && ['store_mismatch', 'config_invalid'].includes(error.code);
  process.exit(settled ? EXIT.usage : exitCodeOf(error) === EXIT.usage ? EXIT.usage : EXIT.failed);
}

async function run(): Promise<void> {
  const fleet = inFleet(config);
  const fleetKey = fleet ? readFleetKey(config.fleetKey) : ensureFleetKey(config.fleetKey);
  const token = config.token ?? (fleetKey === null ? null : issueToken(fleetKey, { role: 'appliance', id: config.id }));
  const metrics = createMetrics(METRICS);
  const db = await openState(config.state);
  const volumes = await Promise.all(
    config.store.map((directory, number) => DiskVolume.open({ number, directory, log })),
  );

  const link = new LinkServer(log);
  const cache = new Cache({
    volumes,
    storeBytes: config.storeBytes,
    pinned: await Filler.pinnedIn(db),
    broadcast: (forgotten) => link.broadcast(forgotten),
    clock: systemClock,
    tally: metrics,
    log,
  });
  const origin = new Origin({ url: config.origin, tally: metrics });
  const catalog =
    config.fill === null || token === null || !fleet
      ? null
      : await Catalog.open({
          db,
          fill: config.fill,
          token,
          onGone: async (keys) => {
            for (const key of keys) {
              const entry = cache.find(key);
              const current = await catalog?.known(key);
              if (entry !== null && entry.version !== current?.asset.etag) await cache.drop(entry);
            }
          },
          tally: metrics,
          clock: systemClock,
          log,
        });
  const inflight = new Inflight({
    cache,
    origin,
    termsOf: async (entry) => {
      const asset = (await catalog?.known(entry.key))?.asset;
      // Stand-alone, an entry without a version of the origin's is asked for whole and once.
      if (asset === undefined || asset.etag !== entry.version)
        return { digests: null, originTag: isSealed(entry) ? entry.version : null };
      return { digests: asset.digest.chunks, originTag: asset.validator === 'origin' ? asset.etag : null };
    },
    tally: metrics,
    log,
  });
  const catalogued = async (key: string): Promise<AssetMeta | null> => {
    const found = await catalog!.find(key);
    return found === null ? null : metaOf(found.asset, holdingOf(found.title, found.asset.rendition));
  };
  const miss = new Miss({ cache, inflight, origin, catalogued: catalog === null ? null : catalogued, tally: metrics });

  const totals = { bytes: 0, requests: 0 };
  const connections = new Map<number, number>();
  const control = { draining: null as { until: number | null } | null, synced: catalog === null };

  const services =
    catalog === null || config.fill === null || token === null
      ? null
      : {
          catalog,
          plays: new Plays({
            db,
            fill: config.fill,
            token,
            appliance: config.id,
            site: config.site,
            clock: systemClock,
            tally: metrics,
            log,
          }),
          filler: await Filler.open({
            appliance: config.id,
            fill: config.fill,
            token,
            planBytes: planBytes(),
            rateBitsPerSecond: config.fillRate,
            cache,
            inflight,
            catalog,
            db,
            clock: systemClock,
            tally: metrics,
            log,
          }),
        };

  const held = (): Set<string> =>
    heldNow({ titles: () => catalog?.titles() ?? [], heldBytes: (holding) => cache.heldBytes(holding) });
  const incarnation = randomBytes(8).toString('hex');
  const beats =
    token === null
      ? []
      : config.steering.map(
          (steering) => new HeartbeatLoop({ steering, token, body: beatBody, held, carryOut, tally: metrics, log }),
        );

  const admin = createAdmin({
    appliance: config.id,
    fleetKey,
    token,
    cache,
    ready: () => link.workers > 0 && control.synced,
    status,
    inventory: () => ({ held: [...held()].sort(), pinned: [...(services?.filler.pinned ?? [])].sort() }),
    expose: () => {
      gauge();
      return metrics.expose();
    },
    log,
  });

  await link.listen({
    miss,
    onReport: (worker, report) => account(worker, report),
    onGone: (worker) => connections.delete(worker),
    log,
  });
  await admin.listen(config.admin);
  tellParent({ kind: 'ready' } satisfies ToSupervisor);
  const saving = setInterval(() => void cache.flush(), SAVE_MS);
  process.on('message', (message: FromSupervisor) => {
    if (message.kind === 'drain') void stop();
  });

  if (services !== null) {
    void services.catalog.sync().finally(() => {
      control.synced = true;
    });
    setInterval(() => void services.catalog.sync(), CATALOG_MS).unref();
    services.plays.start();
    services.filler.start();
  }
  for (const beat of beats) beat.start();

  function planBytes(): number {
    return Math.floor(config.storeBytes * (1 - config.demandShare / 100));
  }

  function account(worker: number, report: WorkerReport): void {
    connections.set(worker, report.connections);
    totals.bytes += report.bytes;
    totals.requests += report.requests;
    for (const { name, value, labels } of report.counts)
      if (name in METRICS) metrics.add(name as ApplianceMetric, value, labels);
    for (const { volume, runs } of report.touched) for (const run of runs) cache.touch(volume, run);
    services?.plays.add(report.served);
  }

  function gauge(): void {
    metrics.set('larder_connections', connectionsNow());
    metrics.set('larder_workers', link.workers);
    metrics.set('larder_assets', cache.assets);
    metrics.set('larder_store_limit_bytes', config.storeBytes);
    metrics.set('larder_catalog_revision', catalog?.revision ?? 0);
    for (const use of cache.use()) {
      const volume = String(use.volume);
      metrics.set('larder_store_bytes', use.pinnedBytes, { volume, kind: 'pinned' });
      metrics.set('larder_store_bytes', use.demandBytes, { volume, kind: 'demand' });
      metrics.set('larder_store_bytes', use.indexBytes, { volume, kind: 'index' });
    }
  }

  function connectionsNow(): number {
    return [...connections.values()].reduce((sum, count) => sum + count, 0);
  }

  function stateNow(): ApplianceState {
    if (control.draining !== null && control.draining.until !== null && control.draining.until <= systemClock.now())
      control.draining = null;
    if (control.draining !== null) return 'draining';
    if (!control.synced) return 'starting';
    return services?.filler.filling === true ? 'filling' : 'serving';
  }

  function healthNow(): Health {
    const causes: string[] = [];
    if (link.workers === 0) causes.push('no serving worker is linked');
    const level = causes.length > 0 ? 'red' : 'green';
    if (link.workers > 0 && link.workers < config.workers)
      causes.push(`${config.workers - link.workers} of ${config.workers} workers are down`);
    return { level: level === 'green' && causes.length > 0 ? 'yellow' : level, causes };
  }

  function beatBody(): BeatBody {
    const use = cache.use();
    const sum = (pick: (volume: (typeof use)[number]) => number): number =>
      use.reduce((total, volume) => total + pick(volume), 0);
    return {
      protocol: PROTOCOL_VERSION,
      appliance: config.id,
      site: config.site,
      incarnation,
      advertise: [...config.advertise],
      position: config.position,
      timeZone: config.timeZone,
      fillWindows: [...config.fillWindow],
      fillRateBitsPerSecond: config.fillRate,
      state: stateNow(),
      health: healthNow(),
      storeBytes: config.storeBytes,
      usedBytes: sum(
        (volume) =>
          volume.pinnedBytes + volume.demandBytes + volume.reservedBytes + volume.leavingBytes + volume.indexBytes,
      ),
      pinnedBytes: sum((volume) => volume.pinnedBytes),
      planBytes: planBytes(),
      connections: connectionsNow(),
      connectionsMax: config.connectionsMax,
      servedBytes: totals.bytes,
      servedRequests: totals.requests,
      version: packageVersion,
    };
  }

  async function carryOut(order: Order): Promise<void> {
    log.info({ order }, 'order');
    if (order.kind === 'drain') control.draining = { until: order.until === null ? null : Date.parse(order.until) };
    else if (order.kind === 'resume') control.draining = null;
    else services?.filler.pull();
  }

  function status(): ApplianceStatus {
    return {
      id: config.id,
      site: config.site,
      state: stateNow(),
      health: healthNow(),
      mode: fleet ? 'fleet' : 'alone',
      origin: config.origin,
      workers: link.workers,
      connections: connectionsNow(),
      servedBytes: totals.bytes,
      servedRequests: totals.requests,
      catalogRevision: catalog?.revision ?? null,
      steering: config.steering.map((url, at) => ({ url, answered: beats[at]?.answered ?? false })),
      fill: services?.filler.progress ?? null,
      pinned: services?.filler.pinned.length ?? 0,
    };
  }

  async function stop(): Promise<void> {
    clearInterval(saving);
    services?.filler.stop();
    await services?.plays.stop();
    await Promise.all(beats.map((beat) => beat.stop()));
    await admin.close();
    await link.close();
    await cache.flush();
    await Promise.all(volumes.map((volume) => volume.close()));
    await db.close();
    process.exit(EXIT.done);
  }
}
