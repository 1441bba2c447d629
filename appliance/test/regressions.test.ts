// Each of these broke once; the name says what. One case per defect, at the lowest level that shows it.

import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createConnection, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { CatalogAsset, Title } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { systemClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { Catalog } from '../catalog.ts';
import { openState, type StateDb } from '../state.ts';
import { noise, raw, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
let appliance: RunningAppliance | null = null;
let origin: ScriptedOrigin | null = null;

afterEach(async () => {
  await appliance?.stop();
  await origin?.stop();
  appliance = null;
  origin = null;
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
let fill: Server | null = null;

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
    ...{ db, fill: url, token: 't', onGone },
    ...{ tally: { add: () => undefined }, clock: systemClock, log: silentLog },
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
  expect((await restarted.known('/film/b'))?.asset.etag).toBe('"2"');
  expect(await restarted.known('/film/c')).toBeNull();
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
  expect((await catalog.known('/film/a'))?.title).toBe('film-again');
  expect(await catalog.assetsOf('film:video')).toEqual([]);
  await db.close();
});

test('a full disk below the state directory ended the storekeeper', async () => {
  const db = await openState(temporary());
  const double = new FillDouble();
  double.put('film', '/film/', { a: '1' });
  const catalog = await catalogOf(db, await double.listen(), async () => undefined);
  const full = Object.assign(new Error('IO error: No space left on device'), { code: 'LEVEL_IO_ERROR' });
  Object.assign(db, { batch: () => Promise.reject(full) });
  expect(await catalog.sync()).toBe(false);
  await db.close();
});
