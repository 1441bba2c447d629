// The catalog: pages by revision, pages of assets, and changes that are atomic on disk and in memory.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { ASSET_PAGE_MAX, assetPage, catalogPage, type CatalogAsset } from '../../protocol/catalog.ts';
import { Catalog, type TitleDraft } from '../catalog.ts';
import { openDatabase, type Database } from '../database.ts';
import { failNextBatch, holdNextBatch, WRITE_ERROR } from './failing-writes.ts';

let directory: string;
let database: Database;
let catalog: Catalog;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'larder-catalog-'));
  database = await openDatabase(directory);
  catalog = await Catalog.open(database);
});

afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true });
});

const draft = (id: string, text = ''): TitleDraft => ({
  id,
  name: id,
  base: `/${id}/`,
  durationS: 1,
  bytes: 1,
  renditions: [],
  manifests: [{ dialect: 'hls', path: `/${id}/m.m3u8`, text }],
  importedAt: new Date(0).toISOString(),
});
const asset = (path: string, chunks = 1): CatalogAsset => ({
  path,
  rendition: 'v',
  bytes: chunks,
  etag: '"a"',
  validator: 'origin',
  contentType: 'video/mp4',
  lastModified: null,
  digest: { root: '0'.repeat(64), chunks: Array.from({ length: chunks }, () => '0'.repeat(64)) },
});

/** Reads the catalog page by page, as steering and appliances do. */
function follow(
  since: number,
  previous: ReadonlySet<string> = new Set(),
): { revision: number; titles: string[]; pages: number } {
  const titles = new Set(previous);
  let revision = since;
  for (let pages = 1; ; pages += 1) {
    const page = catalogPage.parse(catalog.page(revision));
    for (const title of page.titles) titles.add(title.id);
    for (const id of page.removed) titles.delete(id);
    revision = page.revision;
    if (!page.more) return { revision, titles: [...titles].sort(), pages };
  }
}

describe('a reader that follows the catalog by revision', () => {
  test('gets every title in pages, then only the titles that changed and those that were removed', async () => {
    for (let n = 0; n < 250; n += 1) await catalog.publish(draft(`t${n}`), []);
    const all = follow(0);
    expect([all.revision, all.titles.length, all.pages]).toEqual([250, 250, 3]);
    await catalog.publish(draft('t7', 'changed'), []);
    await catalog.remove('t8');
    expect(catalog.page(250)).toMatchObject({ revision: 252, titles: [{ id: 't7', revision: 251 }], removed: ['t8'] });
    expect(follow(250, new Set(all.titles)).titles).toEqual(all.titles.filter((id) => id !== 't8'));
    // A title occurs once, at its latest revision, however often it changed.
    expect(follow(0).titles).toHaveLength(249);
    expect((await database.keys({ gte: 'change!', lt: 'change"' }).all()).length).toBe(250);
  });

  test('gets the same pages after a restart', async () => {
    for (const id of ['a', 'b', 'c']) await catalog.publish(draft(id), [asset(`/${id}/1`)]);
    await catalog.remove('b');
    await catalog.publish(draft('a', 'changed'), [asset('/a/2')]);
    const before = [catalog.page(0), catalog.page(3), await catalog.assetPage('a', 0)];
    catalog = await Catalog.open(database);
    expect([catalog.page(0), catalog.page(3), await catalog.assetPage('a', 0)]).toEqual(before);
    expect((await catalog.publish(draft('d'), [])).title.revision).toBe(6);
  });

  test('starts from 0 if its revision is ahead of the catalog', async () => {
    await catalog.publish(draft('a'), []);
    expect(catalog.page(99)).toMatchObject({ revision: 1, titles: [{ id: 'a' }] });
  });

  test('gets fewer titles per page if manifests are large', async () => {
    for (let n = 0; n < 9; n += 1) await catalog.publish(draft(`t${n}`, 'x'.repeat(2 ** 20)), []);
    const all = follow(0);
    expect(all.titles).toHaveLength(9);
    expect(all.pages).toBe(3);
  });
});

describe('the assets of a title', () => {
  const read = async (id: string): Promise<{ paths: string[]; pages: number }> => {
    const paths: string[] = [];
    let offset: number | null = 0;
    let pages = 0;
    for (; offset !== null; pages += 1) {
      const page = assetPage.parse(await catalog.assetPage(id, offset));
      paths.push(...page.assets.map((a) => a.path));
      offset = page.next;
    }
    return { paths, pages };
  };

  test('are read in pages, each asset once and in order', async () => {
    const paths = Array.from({ length: ASSET_PAGE_MAX * 2 + 1 }, (_, n) => `/a/${n}`);
    await catalog.publish(
      draft('a'),
      paths.map((path) => asset(path)),
    );
    expect(await read('a')).toEqual({ paths, pages: 3 });
  });

  test('are read in smaller pages if digest lists are long', async () => {
    // A 50 GB file has 50,000 digests.
    await catalog.publish(
      draft('a'),
      ['/a/1', '/a/2', '/a/3'].map((path) => asset(path, 50_000)),
    );
    expect(await read('a')).toEqual({ paths: ['/a/1', '/a/2', '/a/3'], pages: 2 });
  });

  test('are not mixed with those of a title whose id begins alike', async () => {
    await catalog.publish(draft('a'), [asset('/a/1')]);
    await catalog.publish(draft('a-b'), [asset('/a-b/1')]);
    await catalog.publish(draft('a.b'), [asset('/a.b/1')]);
    expect((await read('a')).paths).toEqual(['/a/1']);
    await catalog.remove('a');
    expect((await read('a-b')).paths).toEqual(['/a-b/1']);
    expect((await read('a.b')).paths).toEqual(['/a.b/1']);
  });
});

describe('a change of the catalog', () => {
  test('leaves the catalog unchanged if it cannot be written', async () => {
    await catalog.publish(draft('a'), [asset('/a/1')]);
    const before = [catalog.page(0), await catalog.assetPage('a', 0)];
    failNextBatch(database);
    await expect(catalog.publish(draft('a', 'changed'), [asset('/a/2')])).rejects.toThrow(WRITE_ERROR);
    failNextBatch(database);
    await expect(catalog.remove('a')).rejects.toThrow(WRITE_ERROR);
    expect([catalog.page(0), await catalog.assetPage('a', 0)]).toEqual(before);
    expect((await catalog.publish(draft('b'), [])).title.revision).toBe(2);
    const after = catalog.page(0);
    catalog = await Catalog.open(database);
    expect(catalog.page(0)).toEqual(after);
  });

  test('shows no title without its assets while it is committed', async () => {
    await catalog.publish(draft('a'), [asset('/a/1')]);
    const release = holdNextBatch(database);
    const publishing = catalog.publish(draft('a', 'changed'), [asset('/a/2')]);
    await expect.poll(() => database.get('meta!revision')).toBe(2);
    const reading = catalog.assetPage('a', 0);
    await Promise.race([reading, systemClock.sleep(100)]);
    release();
    await publishing;
    expect(await reading).toMatchObject({ revision: 2, assets: [{ path: '/a/2' }] });
  });
});

test('a second service on the same database is refused with a message that names the directory', async () => {
  await expect(openDatabase(directory)).rejects.toMatchObject({
    code: 'store_locked',
    message: expect.stringContaining(directory),
  });
});

test('a database of another layout is refused', async () => {
  await database.put('meta!layout', 99);
  await database.close();
  await expect(openDatabase(directory)).rejects.toMatchObject({
    code: 'store_mismatch',
    message: expect.stringContaining('layout 99'),
  });
  database = await openDatabase(join(directory, 'another'));
});
