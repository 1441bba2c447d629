// The catalog against a fill that speaks HTTP: by revision, in pages, from nothing, and while fill is gone.

import { afterEach, describe, expect, it } from 'vitest';
import type { CatalogPage, Title } from '../../protocol/catalog.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { Catalog, keepCatalog, MemoryCatalogStore, pullCatalog, type CatalogPullDeps } from '../catalog.ts';
import { METRICS } from '../metrics.ts';
import { aFill, aTitle, fallbackCount, tokenOf, until, type FillStub } from './stage.ts';

interface Change {
  readonly revision: number;
  readonly title?: Title;
  readonly removed?: string;
}

/** Fill's side: changes after `since`, oldest first, at most `size` a page. */
const paging =
  (changes: readonly Change[], size: number) =>
  (since: number): CatalogPage => {
    const due = changes.filter((change) => change.revision > since);
    const page = due.slice(0, size);
    return {
      protocol: 1,
      revision: page.at(-1)?.revision ?? changes.at(-1)?.revision ?? 0,
      titles: page.flatMap(({ title }) => (title === undefined ? [] : [title])),
      removed: page.flatMap(({ removed }) => (removed === undefined ? [] : [removed])),
      more: due.length > page.length,
    };
  };

let fill: FillStub;
afterEach(() => fill.close());

async function start(
  changes: readonly Change[],
  size = 2,
): Promise<CatalogPullDeps & { readonly store: MemoryCatalogStore }> {
  fill = await aFill(paging(changes, size));
  const store = new MemoryCatalogStore();
  return {
    store,
    catalog: new Catalog(store),
    fillUrl: fill.url,
    token: tokenOf('service', 'steering'),
    metrics: createMetrics(METRICS),
    log: silentLog,
  };
}

const title = (id: string, revision: number): Change => ({ revision, title: aTitle({ id, revision }) });
const idsOf = ({ catalog }: { readonly catalog: Catalog }): string[] => catalog.titles.map(({ id }) => id).sort();

describe('the catalog', () => {
  it('is pulled page by page, then by what changed', async () => {
    const changes = [title('a', 1), title('b', 2), title('c', 3), title('d', 4), title('e', 5)];
    const deps = await start(changes);
    await pullCatalog(deps);
    expect(idsOf(deps)).toEqual(['a', 'b', 'c', 'd', 'e']);
    fill.pages = paging([...changes, { revision: 6, removed: 'b' }, title('a', 7)], 2);
    await pullCatalog(deps);
    expect(idsOf(deps)).toEqual(['a', 'c', 'd', 'e']);
    expect(deps.catalog.find('a')!.revision).toBe(7);
    expect(deps.catalog.revision).toBe(7);
  });

  it('is on disk after each page, and asked for from there', async () => {
    const deps = await start([title('a', 1), title('b', 2), title('c', 3)]);
    await pullCatalog(deps);
    const again = new Catalog(deps.store);
    await again.load();
    expect([again.revision, again.titles.length]).toEqual([3, 3]);
    const asked: number[] = [];
    fill.pages = (since) => {
      asked.push(since);
      return paging([title('c', 3)], 2)(since);
    };
    await pullCatalog({ ...deps, catalog: again });
    expect(asked).toEqual([3]);
  });

  it('follows a fill that began anew: what it no longer names is gone', async () => {
    const deps = await start([title('a', 1), title('b', 2), title('c', 9)]);
    await pullCatalog(deps);
    fill.pages = paging([title('b', 1), title('z', 2)], 1);
    await pullCatalog(deps);
    expect(idsOf(deps)).toEqual(['b', 'z']);
    expect(deps.catalog.revision).toBe(2);
    const again = new Catalog(deps.store);
    await again.load();
    expect(again.titles.map(({ id }) => id).sort()).toEqual(['b', 'z']);
  });

  it('finds a title by a path below its base, and follows a base that moves', async () => {
    const moved = { ...aTitle({ id: 'a', revision: 2 }), base: '/new/' };
    const deps = await start([title('a', 1)]);
    await pullCatalog(deps);
    expect(deps.catalog.owning('/a/x/y.m4s')?.id).toBe('a');
    expect(deps.catalog.owning('/ab/x')).toBeNull();
    fill.pages = paging([{ revision: 2, title: moved }], 1);
    await pullCatalog(deps);
    expect(deps.catalog.owning('/a/x')).toBeNull();
    expect(deps.catalog.owning('/new/x')?.id).toBe('a');
  });

  it('stays in force while fill is gone, counted as a fallback, and goes on when it is back', async () => {
    const changes = [title('a', 1)];
    const deps = await start(changes);
    const stop = new AbortController();
    const loop = keepCatalog(deps, stop.signal);
    await until(() => deps.catalog.revision === 1, 'the first pull');
    fill.failWith = 503;
    await until(async () => (await fallbackCount(deps.metrics, 'fill_down_catalog_kept')) > 0, 'the fallback');
    expect(idsOf(deps)).toEqual(['a']);
    fill.failWith = null;
    fill.pages = paging([...changes, title('b', 2)], 2);
    await until(() => deps.catalog.revision === 2, 'fill is back');
    stop.abort();
    await loop;
  });

  it('takes nothing from a page that breaks the protocol', async () => {
    const deps = await start([title('a', 1)]);
    await pullCatalog(deps);
    fill.failWith = 200;
    await expect(pullCatalog(deps)).rejects.toMatchObject({ code: 'peer_invalid' });
    expect([deps.catalog.revision, idsOf(deps)]).toEqual([1, ['a']]);
  });
});
