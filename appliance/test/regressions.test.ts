// Each of these broke once; the name says what. One case per defect, at the lowest level that shows it.

import { once } from 'node:events';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import { createConnection, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Level } from 'level';
import { afterEach, expect, test, vi } from 'vitest';
import type { CatalogAsset, Title } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { systemClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { admitAll } from '../store/admission.ts';
import { BLOCK_BYTES, diskBytesOf } from '../store/block-file.ts';
import { INDEX_BYTES_RESERVED } from '../store/volume-budget.ts';
import { Cache } from '../store/cache.ts';
import { Catalog } from '../fleet/catalog.ts';
import { DiskVolume } from '../store/disk-volume.ts';
import { IndexWriter } from '../store/index-writer.ts';
import { Inflight } from '../fetch/inflight.ts';
import { StorekeeperClient } from '../link/client.ts';
import { LinkServer } from '../link/server.ts';
import { Lookup } from '../fetch/lookup.ts';
import { replyTo } from '../fetch/reply.ts';
import { Miss } from '../fetch/miss.ts';
import type { Origin } from '../fetch/origin.ts';
import { openState, type StateDb } from '../fleet/state.ts';
import { Bypass } from '../serve/bypass.ts';
import { BufferPool } from '../io/buffer-pool.ts';
import { byteStreamOf } from '../io/byte-stream.ts';
import type { BlockReader } from '../serve/block-reader.ts';
import { AssetServer } from '../serve/serve.ts';
import { RangeBody, type RangeBodyDeps } from '../serve/range-body.ts';
import type { Entry, Volume } from '../store/volume.ts';
import { WorkerCounters } from '../serve/counters.ts';
import { blockFiles } from '../store/layout.ts';
import { MemoryVolume } from '../store/test/memory-volume.ts';
import { noise, raw, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;

afterEach(async () => {
  await appliance?.stop();
  await origin?.stop();
  appliance = null;
  origin = null;
  vi.restoreAllMocks();
  fill?.closeAllConnections();
  fill?.close();
  fill = null;
  if (directory !== null) rmSync(directory, { recursive: true, force: true });
  directory = null;
});

async function start(flags: readonly string[] = []): Promise<{ appliance: RunningAppliance; origin: ScriptedOrigin }> {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, flags });
  return { appliance, origin };
}

let directory: string | null = null;
let fill: HttpServer | null = null;

function temporary(): string {
  directory = mkdtempSync(join(tmpdir(), 'larder-regression-'));
  return directory;
}

const residentBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;

test('pipelined requests of one connection each held a buffer, also after it had hung up', async () => {
  const running = await start(['--workers', '1']);
  running.origin.put('/film', noise(2 * MB));
  running.origin.put('/last', Buffer.from('the end'));
  await (await fetch(`${running.appliance.url}/film`)).arrayBuffer();
  const worker = (await running.appliance.pids()).workers[0]!;
  const before = residentBytes(worker);
  const ask = 'GET /film HTTP/1.1\r\nHost: a\r\n\r\n';
  const sockets = Array.from({ length: 12 }, () => {
    const socket = createConnection(running.appliance.port, '127.0.0.1').pause();
    socket.on('error', () => undefined).write(ask.repeat(60));
    return socket;
  });
  // A later request is answered only when the worker has read all of those.
  const answer = await raw(
    running.appliance.port,
    'GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    20_000,
  );
  expect(String(answer)).toContain('the end');
  // 12 connections of 60 requests: 360 MB where each held 512 KiB.
  expect(residentBytes(worker) - before).toBeLessThan(100 * MB);
  for (const socket of sockets) socket.destroy();

  const order = String(
    await raw(
      running.appliance.port,
      `${ask}GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
    ),
  );
  expect([...order.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => match[1])).toEqual(['200', '404', '200']);
});

/** A catalog of titles with one rendition each, as fill answers it. */
class FillDouble {
  readonly titles = new Map<string, { readonly title: Title; readonly assets: readonly CatalogAsset[] }>();
  removed: string[] = [];
  revision = 0;

  put(id: string, base: string, versions: Readonly<Record<string, string>>): void {
    this.revision += 1;
    const assets = Object.entries(versions).map(([name, version]) => ({
      path: base + name,
      bytes: 4,
      etag: `"${version}"`,
      validator: 'origin' as const,
      contentType: 'video/mp4',
      lastModified: null,
      digest: { root: '0'.repeat(64), chunks: ['0'.repeat(64)] },
      rendition: 'video',
    }));
    const rendition = { id: 'video', kind: 'video' as const, bytes: 4 * assets.length, assets: assets.length };
    const unknown = { bandwidth: null, width: null, height: null, language: null };
    const title: Title = {
      ...{ id, revision: this.revision, name: id, base, durationS: 1, bytes: rendition.bytes, manifests: [] },
      renditions: [{ ...rendition, ...unknown }],
      importedAt: '2026-01-01T00:00:00.000Z',
    };
    this.titles.set(id, { title, assets });
  }

  async listen(): Promise<string> {
    fill = createServer((request, response) => {
      const url = new URL(request.url!, 'http://fill');
      const since = Number(url.searchParams.get('since'));
      const known = this.titles.get(url.pathname.split('/')[3] ?? '');
      response.end(
        JSON.stringify(
          known === undefined
            ? {
                ...{ protocol: 1, revision: this.revision, removed: this.removed, more: false },
                titles: [...this.titles.values()].map((each) => each.title).filter((each) => each.revision > since),
              }
            : {
                ...{ protocol: 1, title: known.title.id, revision: known.title.revision },
                ...{ assets: known.assets, next: null },
              },
        ),
      );
    });
    fill.listen(0, '127.0.0.1');
    await once(fill, 'listening');
    return `http://127.0.0.1:${(fill.address() as AddressInfo).port}`;
  }
}

const catalogOf = (db: StateDb, url: string, onGone: (keys: readonly string[]) => Promise<void>): Promise<Catalog> =>
  Catalog.open({
    ...{ db, fill: url, token: 't', onRetired: onGone },
    ...{ counters: { add: () => undefined }, clock: systemClock, log: silentLog },
  });

test('a crash in the middle of a new revision left the old versions in the cache for ever', async () => {
  const db = await openState(temporary());
  const double = new FillDouble();
  double.put('film', '/film/', { a: '1', b: '1', c: '1' });
  const url = await double.listen();
  await (await catalogOf(db, url, async () => undefined)).sync();

  double.put('film', '/film/', { a: '1', b: '2' });
  const killed = await catalogOf(db, url, () => Promise.reject(new Fault('internal', 'killed here')));
  expect(await killed.sync()).toBe(false);
  const told = new Set<string>();
  const restarted = await catalogOf(db, url, async (keys) => keys.forEach((key) => told.add(key)));
  // Before fill is asked: it may be down.
  await restarted.retire();
  expect([...told].sort()).toEqual(['/film/b', '/film/c']);
  expect(await restarted.sync()).toBe(true);
  expect((await restarted.get('/film/b'))?.asset.etag).toBe('"2"');
  expect(await restarted.get('/film/c')).toBeNull();
  await db.close();
});

test('a title that came back under another id lost its assets with the removal of the first', async () => {
  const db = await openState(temporary());
  const double = new FillDouble();
  double.put('film', '/film/', { a: '1' });
  const catalog = await catalogOf(db, await double.listen(), async () => undefined);
  await catalog.sync();
  double.titles.delete('film');
  double.put('film-again', '/film/', { a: '1' });
  double.removed = ['film'];
  await catalog.sync();
  expect((await catalog.get('/film/a'))?.title).toBe('film-again');
  expect(await catalog.assetsOf('film:video')).toEqual([]);
  await db.close();
});

test('a full disk below the state directory ended the storekeeper', async () => {
  const db = await openState(temporary());
  const double = new FillDouble();
  double.put('film', '/film/', { a: '1' });
  const catalog = await catalogOf(db, await double.listen(), async () => undefined);
  Object.assign(db, { batch: () => Promise.reject(noRoom()) });
  expect(await catalog.sync()).toBe(false);
  await db.close();
});

const openDisk = (at: string): Promise<DiskVolume> =>
  DiskVolume.open({ number: 0, directory: at, clock: systemClock, log: silentLog });

/** The store as a crash at this moment leaves it. */
function crashOf(at: string): string {
  cpSync(at, `${at}-crashed`, { recursive: true });
  return `${at}-crashed`;
}

const noRoom = (): Error => Object.assign(new Error('IO error: No space left on device'), { code: 'LEVEL_IO_ERROR' });

const metaOf = (key: string, bytes: number, holding: string | null = null) => ({
  ...{ key, bytes, holding, generatedAtMs: null, version: `"${key}"`, headers: {} },
});

test('one index write that failed ended the storekeeper and poisoned every later one', async () => {
  const at = join(temporary(), 'store');
  const volume = await openDisk(at);
  const entry = volume.create(metaOf('/a', BLOCK_BYTES), 1);
  await volume.intend(entry, [0]);
  await volume.write(entry, 0, noise(BLOCK_BYTES));
  vi.spyOn(Level.prototype, 'batch').mockRejectedValueOnce(noRoom());
  await expect(volume.flush()).rejects.toMatchObject({ code: 'disk_full' });
  await volume.flush();
  const crashed = crashOf(at);
  await volume.close();
  const again = await openDisk(crashed);
  expect([...again.entries()].map((found) => found.blocks.has(0))).toEqual([true]);
  await again.close();
});

test('a fetch that failed and was tried again at once could leave a file that no index knew', async () => {
  const at = join(temporary(), 'store');
  const volume = await openDisk(at);
  const entry = volume.create(metaOf('/a', BLOCK_BYTES), 1);
  await volume.intend(entry, [0]);
  const second = volume.intend(entry, [0]);
  volume.abandon(entry, [0]);
  await second;
  await volume.flush();
  const unflushed = vi.spyOn(Level.prototype, 'batch').mockRejectedValue(noRoom());
  await volume.write(entry, 0, noise(BLOCK_BYTES));
  const crashed = crashOf(at);
  unflushed.mockRestore();
  const again = await openDisk(crashed);
  const known = [...again.entries()].reduce((sum, found) => sum + found.blocks.count, 0);
  expect([...blockFiles(again.directory)]).toHaveLength(known);
  expect(known).toBe(1);
  await again.close();
  await volume.close();
});

test('writes to an index overtook each other: what was removed came back', async () => {
  const written: string[][] = [];
  let underWay = 0;
  const index = {
    batch: async (batch: readonly { readonly key: string }[]) => {
      underWay += 1;
      expect(underWay).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      written.push(batch.map(({ key }) => key));
      underWay -= 1;
    },
  };
  const writer = new IndexWriter(index as unknown as Level, 'index');
  const keys = Array.from({ length: 20 }, (_, at) => `k${at}`);
  await Promise.all(keys.map((key) => writer.write([{ type: 'del', key }], { sync: key === 'k7' })));
  expect(written.flat()).toEqual(keys);
});

/** A cache with so much room on volumes in memory, and flights from an origin that sends `body`. */
function flightsOver(spec: {
  readonly blocks: number;
  readonly body: Buffer;
  readonly digests?: readonly string[];
  readonly volumes?: readonly Volume[];
}): { readonly cache: Cache; readonly inflight: Inflight } {
  const volumes = spec.volumes ?? [new MemoryVolume()];
  const cache = new Cache({
    volumes,
    storeBytes: volumes.length * (INDEX_BYTES_RESERVED + spec.blocks * diskBytesOf(BLOCK_BYTES)),
    ...{ pinned: new Set<string>(), broadcast: async () => undefined },
    ...{ clock: systemClock, counters: { add: () => undefined }, log: silentLog },
  });
  const origin = {
    countBytes: () => undefined,
    fetch: async (_pool: string, { first, last }: { readonly first: number; readonly last: number }) => ({
      ...{ kind: 'bytes', first, last, total: spec.body.length },
      body: Readable.from([spec.body.subarray(first, last + 1)]),
    }),
  };
  const inflight = new Inflight({
    ...{ cache, origin: origin as unknown as Origin },
    integrityOf: async () => ({ digests: spec.digests ?? null, originTag: null }),
    ...{ counters: { add: () => undefined }, log: silentLog },
  });
  return { cache, inflight };
}

async function land(inflight: Inflight, entry: Entry): Promise<void> {
  await inflight.start(entry, { number: 0, lastWanted: 0, pool: 'fill' }).done;
  await vi.waitUntil(() => entry.fetches === 0);
}

test('a viewer got the last bytes of a block although its digest was already known to be wrong', async () => {
  const body = noise(50_000);
  const digests = [createHash('sha256').update('something else').digest('hex')];
  const { cache, inflight } = flightsOver({ blocks: 4, body, digests });
  const entry = await cache.ensureEntry(metaOf('/a', body.length));
  const pending = inflight.start(entry, { number: 0, lastWanted: 0, pool: 'miss' });
  await expect(pending.follow(0, body.length).next()).rejects.toMatchObject({ code: 'digest_mismatch' });
});

test('assets of which nothing could be stored stayed in the index for ever', async () => {
  const body = noise(50_000);
  const { cache, inflight } = flightsOver({ blocks: 0, body });
  for (const key of ['/a', '/b', '/c']) await land(inflight, await cache.ensureEntry(metaOf(key, body.length)));
  await vi.waitUntil(() => cache.assets === 0);
});

test('a version that nothing can be stored of and that left meanwhile was a 503 to its reader', async () => {
  const body = noise(2 * BLOCK_BYTES);
  const { cache, inflight } = flightsOver({ blocks: 0, body });
  const meta = metaOf('/a', body.length);
  const counters = { add: () => undefined };
  const origin = {} as unknown as Origin;
  const rest = { reverseProxy: false, clock: systemClock };
  const lookup = new Lookup({ cache, inflight, origin, catalogued: async () => meta, ...rest });
  const miss = new Miss({ cache, inflight, lookup, alone: false, admission: admitAll, counters });
  const first = {
    headers: {},
    directives: [],
    revalidate: null,
    wantsFullBody: false,
    continuation: false,
  };
  const gone = await cache.ensureEntry(meta);
  await land(inflight, gone);
  expect(gone.removed).toBe(true);
  const known = { version: gone.version, id: gone.id, volume: gone.volume.number };
  const opened = await miss.open({ ...first, key: '/a', expected: known, from: 5, to: body.length });
  if (opened.kind !== 'asset' || opened.body === null) throw new Error('no bytes');
  const chunks: Buffer[] = [];
  for await (const chunk of opened.body) chunks.push(chunk);
  expect(Buffer.concat(chunks).equals(body.subarray(5))).toBe(true);
  const other = await miss.open({
    ...first,
    key: '/a',
    expected: { ...known, version: '"other"' },
    from: 5,
    to: body.length,
  });
  expect(other).toMatchObject({ kind: 'asset', body: null });
});

test('a block that a viewer and a fill both fetched counted twice: a rendition with a hole was reported as held', async () => {
  const body = noise(2 * BLOCK_BYTES);
  const { cache, inflight } = flightsOver({ blocks: 4, body });
  const entry = await cache.ensureEntry(metaOf('/a', body.length, 'film:video'));
  await land(inflight, entry);
  await land(inflight, entry);
  expect(cache.heldBytes('film:video')).toBe(BLOCK_BYTES);
  expect(cache.usage()[0]).toMatchObject({ demandBytes: diskBytesOf(BLOCK_BYTES), reservedBytes: 0 });
});

test(
  'an origin that ignores ranges made the storekeeper hold a whole film in memory',
  { timeout: 120_000 },
  async () => {
    const running = await start(['--store-bytes', '64MiB']);
    const bytes = 320 * MB;
    const piece = noise(MB);
    let sent = 0;
    running.origin.intercept = (_request, response) => {
      response.writeHead(200, { etag: '"film"', 'content-length': bytes });
      const more = (): void => {
        while (sent < bytes) {
          sent += MB;
          if (!response.write(piece)) return void response.once('drain', more);
        }
        response.end();
      };
      more();
      return true;
    };
    const { storekeeper } = await running.appliance.pids();
    const before = residentBytes(storekeeper);
    const answer = await fetch(`${running.appliance.url}/film`, { headers: { range: 'bytes=0-9' } });
    expect(Buffer.from(await answer.arrayBuffer()).equals(piece.subarray(0, 10))).toBe(true);
    let most = 0;
    await running.appliance.until(() => {
      most = Math.max(most, residentBytes(storekeeper) - before);
      return sent >= bytes;
    }, 90_000);
    expect(most).toBeLessThan(160 * MB);
  },
);

test('a reader that stalled kept its stream and a block in memory for ever', { timeout: 60_000 }, async () => {
  const before = process.cwd();
  process.chdir(temporary());
  const server = new LinkServer({ clock: systemClock, log: silentLog });
  let open = true;
  async function* endless(): AsyncGenerator<Buffer> {
    try {
      for (;;) yield noise(MB);
    } finally {
      open = false;
    }
  }
  const entry = new MemoryVolume().create(metaOf('/a', 100 * MB), 0);
  const opened = { kind: 'asset', entry, validated: true, forward: null } as const;
  await server.listen({
    fetch: async (request) => replyTo(request, { ...opened, body: endless() }, async () => null),
    update: async () => undefined,
    arePresent: () => false,
    onReport: () => undefined,
    onWorkerGone: () => undefined,
  });
  const answer = await new StorekeeperClient(new BufferPool()).fetch({
    ...{
      key: '/a',
      expected: null,
      from: 0,
      to: null,
      headers: {},
      directives: [],
      revalidate: null,
      wantsFullBody: false,
      continuation: false,
    },
  });
  expect(answer.head.kind).toBe('asset');
  await vi.waitUntil(() => !open, { timeout: 30_000, interval: 100 });
  await server.close();
  process.chdir(before);
});

test(
  'a worker that hangs held up purges, new versions and misses of all others for ever',
  { timeout: 90_000 },
  async () => {
    const running = await start();
    const film = running.origin.put('/film', noise(MB));
    await (await fetch(`${running.appliance.url}/film`)).arrayBuffer();
    const [hung] = (await running.appliance.pids()).workers;
    process.kill(hung!, 'SIGSTOP');
    try {
      const purge = await fetch(`${running.appliance.admin}/v1/purge`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${running.appliance.token}` },
        body: JSON.stringify({ key: '/film' }),
        signal: AbortSignal.timeout(40_000),
      });
      expect(purge.status).toBe(200);
      // Of the connections that come now at most one waits for the worker that hangs.
      let answered = 0;
      for (let at = 0; at < 8; at += 1) {
        const answer = await raw(
          running.appliance.port,
          'GET /film HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
          3_000,
        );
        if (answer.subarray(-film.length).equals(film)) answered += 1;
      }
      expect(answered).toBeGreaterThanOrEqual(7);
    } finally {
      process.kill(hung!, 'SIGCONT');
    }
    await running.appliance.until(async () => /larder_workers 2/.test(await metricsOf(running.appliance)));
  },
);

async function metricsOf(running: RunningAppliance): Promise<string> {
  const answer = await fetch(`${running.admin}/metrics`, { headers: { authorization: `Bearer ${running.token}` } });
  return answer.text();
}

test('a child that could not be forked ended the supervisor', { timeout: 60_000 }, async () => {
  const running = await start();
  running.origin.put('/film', noise(MB));
  const { supervisor, workers } = await running.appliance.pids();
  const state = join(running.appliance.directory, 'state');
  renameSync(state, `${state}-away`);
  process.kill(workers[0]!, 'SIGKILL');
  await running.appliance.until(() => /cannot be started/.test(running.appliance.log));
  expect((await fetch(`${running.appliance.url}/film`)).status).toBe(200);
  renameSync(`${state}-away`, state);
  await running.appliance.until(async () => (await running.appliance.pids()).workers.length === 2);
  expect((await running.appliance.pids()).supervisor).toBe(supervisor);
});

test('assets admitted together all went to one volume, and did not fit there', async () => {
  const volumes = [new MemoryVolume(0), new MemoryVolume(1)];
  const { cache } = flightsOver({ blocks: 100, body: Buffer.alloc(0), volumes });
  const entries = await Promise.all(
    ['/a', '/b', '/c', '/d'].map((key) => cache.ensureEntry(metaOf(key, 40 * BLOCK_BYTES, 'film:video'))),
  );
  expect(entries.map((entry) => entry.volume.number).toSorted((a, b) => a - b)).toEqual([0, 0, 1, 1]);
});

test('a store whose limit was lowered stayed above it until the next miss', async () => {
  const volumes = [new MemoryVolume()];
  const before = flightsOver({ blocks: 8, body: noise(BLOCK_BYTES), volumes });
  for (const key of ['/a', '/b', '/c', '/d'])
    await land(before.inflight, await before.cache.ensureEntry(metaOf(key, BLOCK_BYTES)));
  const { cache } = flightsOver({ blocks: 2, body: Buffer.alloc(0), volumes });
  await vi.waitUntil(
    () => cache.usage()[0]!.demandBytes + cache.usage()[0]!.removingBytes <= 2 * diskBytesOf(BLOCK_BYTES),
  );
  expect(cache.assets).toBe(2);
});

test('a worker learnt a version that it had just been told to forget', async () => {
  const asked: string[] = [];
  const asset = { ...metaOf('/a', 3), originTag: null, id: 1, volume: 0, directory: '' };
  const storekeeper = {
    fetch: async ({ key }: { readonly key: string }) => {
      asked.push(key);
      // Sent before the answer below was read from the other socket.
      if (asked.length === 1) server.invalidate([key]);
      return {
        head: { kind: 'asset', asset, body: false, validated: false, forward: null },
        body: byteStreamOf(Readable.from([])),
      };
    },
  };
  const server = new AssetServer({
    ...{
      appliance: 'box-1',
      mode: 'alone',
      identity: { reverseProxy: false, via: 'larder-test' },
      draining: () => false,
      clock: systemClock,
      log: silentLog,
      access: null,
      counters: new WorkerCounters(),
    },
    storekeeper: storekeeper as unknown as StorekeeperClient,
    reader: { has: async () => true } as unknown as BlockReader,
    ...{ origin: {} as unknown as Origin, bypass: {} as unknown as Bypass },
  });
  fill = createServer((request, response) => void server.serve(request, response));
  fill.listen(0, '127.0.0.1');
  await once(fill, 'listening');
  const url = `http://127.0.0.1:${(fill.address() as AddressInfo).port}/a`;
  for (let at = 0; at < 3; at += 1) expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
  expect(asked).toHaveLength(2);
});

test('one volume that could not be opened kept the whole appliance from serving', { timeout: 60_000 }, async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url, stores: 2, flags: ['--store-bytes', '128MiB'] });
  const running = appliance;
  const films = [1, 2, 3, 4].map((seed) => origin!.put(`/film-${seed}`, noise(MB, seed)));
  const fetchAll = async (): Promise<Buffer[]> =>
    Promise.all(
      films.map(async (_, at) => Buffer.from(await (await fetch(`${running.url}/film-${at + 1}`)).arrayBuffer())),
    );
  expect((await fetchAll()).map((body, at) => body.equals(films[at]!))).toEqual([true, true, true, true]);
  await running.killAll();
  const [dead] = running.stores();
  rmSync(join(dead!, 'index'), { recursive: true });
  writeFileSync(join(dead!, 'index'), 'no directory');
  await running.start();
  expect((await fetchAll()).map((body, at) => body.equals(films[at]!))).toEqual([true, true, true, true]);
  const state = await fetch(`${running.admin}/v1/state`, { headers: { authorization: `Bearer ${running.token}` } });
  expect(await state.json()).toMatchObject({
    health: { level: 'yellow', causes: ['1 of 2 volumes are out of use'] },
    volumes: [{ limitBytes: 64 * MB }],
  });
});

test('an answer that is passed on ends with its last byte, whenever its source says so', async () => {
  const [counters, clock, identity] = [new WorkerCounters(), systemClock, { reverseProxy: false, via: 'box-1' }];
  const storekeeper = { update: async (): Promise<void> => undefined };
  const pass = new Bypass({ origin: {} as unknown as Origin, storekeeper, identity, counters, access: null, clock });
  const forward = { reason: 'uri-miss', status: 404, stored: false, collapsed: false } as const;
  const head = { kind: 'relay', status: 404, headers: { 'content-length': '5' }, cookies: [], forward, leftMs: null };
  const body = new Readable({ read: () => undefined });
  body.push('12345');
  const under: Promise<unknown>[] = [];
  fill = createServer((request, response) => {
    under.push(
      once(response, 'finish'),
      pass.relay(request, response, { head, reply: { head, body: byteStreamOf(body) } } as never),
    );
  });
  await once(fill.listen(0, '127.0.0.1'), 'listening');
  const { port } = fill.address() as AddressInfo;
  const answer = await raw(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  expect(answer.toString('latin1')).toMatch(/^HTTP\/1.1 404 [^]*\r\n\r\n12345$/);
  await under[0];
  body.push(null);
  await Promise.all(under);
});

test('a CONNECT behind other requests was answered in their place', async () => {
  origin = await ScriptedOrigin.start();
  let release = (): void => undefined;
  origin.intercept = (request, response) => {
    if (request.url !== '/slow') return false;
    release = () => void response.writeHead(200, { 'content-length': 2 }).end('ok');
    return true;
  };
  appliance = await RunningAppliance.start({ origin: origin.url });
  const tunnel = 'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n';
  const answers = async (text: string): Promise<string[]> =>
    [...(await raw(Number(new URL(appliance!.url).port), text)).toString('latin1').matchAll(/HTTP\/1\.1 (\d+)/g)].map(
      ([, status]) => status!,
    );
  expect(await answers(`GET /slow HTTP/1.1\r\nHost: x\r\n\r\n${tunnel}`)).toEqual([]);
  release();
  expect(await answers(`GET /no-host HTTP/1.1\r\n\r\n${tunnel}`)).toEqual(['400']);
  expect(await answers(tunnel)).toEqual(['405']);
});

test('for a player that left while its bytes were awaited they were asked for once more', async () => {
  const asset = { ...metaOf('/a', 3), originTag: null, id: 1, volume: 0, directory: '' };
  const left = vi.fn<() => void>();
  let ended = (): void => undefined;
  const body = {
    next: () => new Promise<null>((resolve) => (ended = () => resolve(null))),
    close: () => {
      left();
      ended();
    },
  };
  const read = vi.fn(async () => ({
    head: { kind: 'asset', asset, body: true, validated: false, forward: null },
    body,
  }));
  const reader = { read: () => null };
  const deps = {
    reader,
    storekeeper: { fetch: read },
    origin: {},
    counters: new WorkerCounters(),
  } as unknown as RangeBodyDeps;
  const source = new RangeBody(deps, asset, { at: 0, end: 3, headers: {}, open: null });
  const pending = source.next();
  await vi.waitUntil(() => read.mock.calls.length === 1);
  source.close();
  expect(await pending).toBeNull();
  expect(read).toHaveBeenCalledTimes(1);
  expect(left).toHaveBeenCalledTimes(1);
});

test('a player that asked for a tunnel and hung up ended the worker', async () => {
  origin = await ScriptedOrigin.start();
  appliance = await RunningAppliance.start({ origin: origin.url });
  const port = Number(new URL(appliance.url).port);
  const { workers } = await appliance.pids();
  for (let at = 0; at < 60; at += 1) {
    const socket = createConnection(port, '127.0.0.1');
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write('CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n', () => socket.resetAndDestroy());
    await once(socket, 'close');
  }
  expect((await raw(port, 'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n')).toString('latin1')).toMatch(/^HTTP\/1.1 405/);
  expect((await appliance.pids()).workers).toEqual(workers);
});

test('an answer of which a byte was wanted went on until it stalled', async () => {
  const asset = { ...metaOf('/a', 3), originTag: null, id: 1, volume: 0, directory: '' };
  const [left, release] = [vi.fn<() => void>(), vi.fn<() => void>()];
  const body = { next: async () => ({ bytes: Buffer.from('abc'), release }), close: left };
  const head = { kind: 'asset', asset, body: true, validated: false, forward: null } as const;
  const deps = { reader: {}, storekeeper: {}, origin: {}, counters: new WorkerCounters() } as unknown as RangeBodyDeps;
  const source = new RangeBody(deps, asset, { at: 0, end: 1, headers: {}, open: { head, body } });
  expect((await source.next())!.bytes.toString()).toBe('a');
  expect(source.next()).toBeNull();
  expect(left).toHaveBeenCalledTimes(1);
});
