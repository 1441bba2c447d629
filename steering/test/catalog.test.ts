// Pulls of the catalog from an HTTP stub of fill: by revision, in pages, from scratch, and while fill is down.

import { afterEach, describe, expect, it } from 'vitest';
import type { CatalogPage, Title } from '../../protocol/catalog.ts';
import { systemClock } from '../../runtime/clock.ts';
import { silentLog } from '../../runtime/log.ts';
import { createMetrics } from '../../runtime/metrics.ts';
import { Catalog, runCatalogPulls, MemoryCatalogStore, pullCatalog, type CatalogPullDeps } from '../catalog.ts';
import { METRICS } from '../metrics.ts';
import { openFillStub, aTitle, fallbackCount, tokenOf, until, type FillStub } from './harness.ts';

interface TitleChange {
  readonly revision: number;
  readonly title?: Title;
  readonly removed?: string;
}

/** Pages as fill serves them: changes after `since`, oldest first, at most `size` per page. */
const paging =
  (changes: readonly TitleChange[], size: number) =>
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
  changes: readonly TitleChange[],
  size = 2,
): Promise<CatalogPullDeps & { readonly store: MemoryCatalogStore }> {
  fill = await openFillStub(paging(changes, size));
  const store = new MemoryCatalogStore();
  return {
    store,
    catalog: new Catalog(store),
    fillUrl: fill.url,
    token: tokenOf('service', 'steering'),
    clock: systemClock,
    metrics: createMetrics(METRICS),
    log: silentLog,
  };
}

const title = (id: string, revision: number): TitleChange => ({ revision, title: aTitle({ id, revision }) });
const pathwayIds = ({ catalog }: { readonly catalog: Catalog }): string[] => catalog.titles.map(({ id }) => id).sort();

describe('the catalog', () => {
  it('is pulled page by page, and afterwards only the changes', async () => {
    const changes = [title('a', 1), title('b', 2), title('c', 3), title('d', 4), title('e', 5)];
    const deps = await start(changes);
    await pullCatalog(deps);
    expect(pathwayIds(deps)).toEqual(['a', 'b', 'c', 'd', 'e']);
    fill.pages = paging([...changes, { revision: 6, removed: 'b' }, title('a', 7)], 2);
    await pullCatalog(deps);
    expect(pathwayIds(deps)).toEqual(['a', 'c', 'd', 'e']);
    expect(deps.catalog.find('a')!.revision).toBe(7);
    expect(deps.catalog.revision).toBe(7);
  });

  it('is on disk after each page and is pulled from that revision after a restart', async () => {
    const deps = await start([title('a', 1), title('b', 2), title('c', 3)]);
    await pullCatalog(deps);
    const restarted = new Catalog(deps.store);
    await restarted.load();
    expect([restarted.revision, restarted.titles.length]).toEqual([3, 3]);
    const revisions: number[] = [];
    fill.pages = (since) => {
      revisions.push(since);
      return paging([title('c', 3)], 2)(since);
    };
    await pullCatalog({ ...deps, catalog: restarted });
    expect(revisions).toEqual([3]);
  });

  it('is replaced when fill lost its state: titles that fill no longer lists are removed', async () => {
    const deps = await start([title('a', 1), title('b', 2), title('c', 9)]);
    await pullCatalog(deps);
    fill.pages = paging([title('b', 1), title('z', 2)], 1);
    await pullCatalog(deps);
    expect(pathwayIds(deps)).toEqual(['b', 'z']);
    expect(deps.catalog.revision).toBe(2);
    const restarted = new Catalog(deps.store);
    await restarted.load();
    expect(restarted.titles.map(({ id }) => id).sort()).toEqual(['b', 'z']);
  });

  it('finds a title by a path below its base, also after the base moved', async () => {
    const moved = { ...aTitle({ id: 'a', revision: 2 }), base: '/new/' };
    const deps = await start([title('a', 1)]);
    await pullCatalog(deps);
    expect(deps.catalog.findByPath('/a/x/y.m4s')?.id).toBe('a');
    expect(deps.catalog.findByPath('/ab/x')).toBeNull();
    fill.pages = paging([{ revision: 2, title: moved }], 1);
    await pullCatalog(deps);
    expect(deps.catalog.findByPath('/a/x')).toBeNull();
    expect(deps.catalog.findByPath('/new/x')?.id).toBe('a');
  });

  it('stays in force while fill is down, counted as a fallback, and is pulled again afterwards', async () => {
    const changes = [title('a', 1)];
    const deps = await start(changes);
    const stop = new AbortController();
    const loop = runCatalogPulls(deps, stop.signal);
    await until(() => deps.catalog.revision === 1, 'the first pull');
    fill.failWith = 503;
    await until(async () => (await fallbackCount(deps.metrics, 'fill_down_catalog_kept')) > 0, 'the fallback');
    expect(pathwayIds(deps)).toEqual(['a']);
    fill.failWith = null;
    fill.pages = paging([...changes, title('b', 2)], 2);
    await until(() => deps.catalog.revision === 2, 'fill is back');
    stop.abort();
    await loop;
  });

  it('ignores a page that breaks the protocol', async () => {
    const deps = await start([title('a', 1)]);
    await pullCatalog(deps);
    fill.failWith = 200;
    await expect(pullCatalog(deps)).rejects.toMatchObject({ code: 'peer_invalid' });
    expect([deps.catalog.revision, pathwayIds(deps)]).toEqual([1, ['a']]);
  });
});
