// The catalog copy of an appliance, against a scripted fill: what each revision retires from the cache, also across a crash
// and on a full disk.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { CatalogAsset, Title } from '../../../protocol/catalog.ts';
import { Fault } from '../../../protocol/faults.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import { expectFallback, RecordedCounters } from '../../test/metrics.ts';
import { Catalog } from '../catalog.ts';
import { openState, type StateDb } from '../state.ts';

let directory: string;
let db: StateDb;
let fill: ScriptedFill;
let url: string;
let counters: RecordedCounters;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-catalog-'));
  db = await openState(directory);
  fill = new ScriptedFill();
  url = await fill.listen();
  counters = new RecordedCounters();
});

afterEach(async () => {
  fill.close();
  await db.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Serves a catalog of titles with one rendition each. */
class ScriptedFill {
  readonly titles = new Map<string, { readonly title: Title; readonly assets: readonly CatalogAsset[] }>();
  removed: string[] = [];
  revision = 0;
  readonly #server: HttpServer = createServer((request, response) => {
    const target = new URL(request.url!, 'http://fill');
    const since = Number(target.searchParams.get('since'));
    const found = this.titles.get(target.pathname.split('/')[3] ?? '');
    response.end(
      JSON.stringify(
        found === undefined
          ? {
              ...{ protocol: 1, revision: this.revision, removed: this.removed, more: false },
              titles: [...this.titles.values()].map((each) => each.title).filter((each) => each.revision > since),
            }
          : {
              ...{ protocol: 1, title: found.title.id, revision: found.title.revision },
              ...{ assets: found.assets, next: null },
            },
      ),
    );
  });

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
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

const openCatalog = (onRetired: (keys: readonly string[]) => Promise<void> = async () => undefined): Promise<Catalog> =>
  Catalog.open({ db, fill: url, token: 't', onRetired, counters, clock: systemClock, log: silentLog });

test('versions that a revision replaces are retired at the next start if a crash interrupts the revision', async () => {
  fill.put('film', '/film/', { a: '1', b: '1', c: '1' });
  await (await openCatalog()).sync();

  fill.put('film', '/film/', { a: '1', b: '2' });
  const killed = await openCatalog(() => Promise.reject(new Fault('internal', 'killed here')));
  expect(await killed.sync()).toBe(false);
  const retired = new Set<string>();
  const restarted = await openCatalog(async (keys) => keys.forEach((key) => retired.add(key)));
  // Before fill is asked: it may be down.
  await restarted.retire();
  expect([...retired].sort()).toEqual(['/film/b', '/film/c']);
  expect(await restarted.sync()).toBe(true);
  expect((await restarted.getOrSync('/film/b'))?.asset.etag).toBe('"2"');
  expect(await restarted.getOrSync('/film/c')).toBeNull();
});

test('a title that comes back under another id keeps its assets when the first id is removed', async () => {
  fill.put('film', '/film/', { a: '1' });
  const catalog = await openCatalog();
  await catalog.sync();
  fill.titles.delete('film');
  fill.put('film-again', '/film/', { a: '1' });
  fill.removed = ['film'];
  await catalog.sync();
  expect((await catalog.getOrSync('/film/a'))?.title).toBe('film-again');
  expect(await catalog.assetsOf('film:video')).toEqual([]);
});

test('a sync that finds the disk full reports failure and does not throw', async () => {
  // It ended the storekeeper once.
  fill.put('film', '/film/', { a: '1' });
  const catalog = await openCatalog();
  const noSpace = Object.assign(new Error('IO error: No space left on device'), { code: 'LEVEL_IO_ERROR' });
  Object.assign(db, { batch: () => Promise.reject(noSpace) });
  expect(await catalog.sync()).toBe(false);
});

test('while fill is down the last catalog stays in force (fill_down_catalog_kept)', async () => {
  fill.put('film', '/film/', { a: '1' });
  const catalog = await openCatalog();
  expect(await catalog.sync()).toBe(true);
  fill.close();
  expect(await catalog.sync()).toBe(false);
  await expectFallback(counters, 'fill_down_catalog_kept');
  expect((await catalog.getOrSync('/film/a'))?.asset.etag).toBe('"1"');
});
