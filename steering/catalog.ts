// The catalog as steering holds it: pulled from fill by revision, kept on disk, and kept in force when fill is gone.

import { setTimeout as sleep } from 'node:timers/promises';
import { catalogPage, type CatalogPage, type Title } from '../protocol/catalog.ts';
import { call, reasonOf } from '../runtime/client.ts';
import type { Log } from '../runtime/log.ts';
import type { Metrics } from '../runtime/metrics.ts';
import type { METRICS } from './metrics.ts';

export const CATALOG_PULL_MS = 1_000;
export const CATALOG_PULL_TIMEOUT_MS = 10_000;

export interface CatalogChange {
  readonly revision: number;
  readonly titles: readonly Title[];
  readonly removed: readonly string[];
}

export interface CatalogStore {
  load(): Promise<{ readonly revision: number; readonly titles: readonly Title[] }>;
  apply(change: CatalogChange): Promise<void>;
}

export class MemoryCatalogStore implements CatalogStore {
  #revision = 0;
  readonly #titles = new Map<string, Title>();

  load(): ReturnType<CatalogStore['load']> {
    return Promise.resolve({ revision: this.#revision, titles: [...this.#titles.values()] });
  }

  apply({ revision, titles, removed }: CatalogChange): Promise<void> {
    this.#revision = revision;
    for (const title of titles) this.#titles.set(title.id, title);
    for (const gone of removed) this.#titles.delete(gone);
    return Promise.resolve();
  }
}

export class Catalog {
  readonly #titles = new Map<string, Title>();
  /** Asset path prefix of each title, for the longest that a path starts with. */
  readonly #bases = new Map<string, string>();
  #revision = 0;
  readonly #store: CatalogStore;

  constructor(store: CatalogStore) {
    this.#store = store;
  }

  get revision(): number {
    return this.#revision;
  }

  get titles(): readonly Title[] {
    return [...this.#titles.values()];
  }

  find(title: string): Title | null {
    return this.#titles.get(title) ?? null;
  }

  /** The title whose `base` is the longest prefix of the asset path. */
  owning(path: string): Title | null {
    for (let end = path.lastIndexOf('/'); end >= 0; end = end === 0 ? -1 : path.lastIndexOf('/', end - 1)) {
      const title = this.#bases.get(path.slice(0, end + 1));
      if (title !== undefined) return this.find(title);
    }
    return null;
  }

  async load(): Promise<void> {
    const { revision, titles } = await this.#store.load();
    this.#take({ revision, titles, removed: [] });
  }

  async apply(page: CatalogChange): Promise<void> {
    await this.#store.apply(page);
    this.#take(page);
  }

  /** What fill no longer names, after it was asked for everything. */
  async keepOnly(titles: ReadonlySet<string>, revision: number): Promise<void> {
    const removed = [...this.#titles.keys()].filter((title) => !titles.has(title));
    await this.apply({ revision, titles: [], removed });
  }

  #take({ revision, titles, removed }: CatalogChange): void {
    for (const gone of [...removed, ...titles.map((title) => title.id)]) {
      const before = this.#titles.get(gone);
      if (before !== undefined) this.#bases.delete(before.base);
      this.#titles.delete(gone);
    }
    for (const title of titles) {
      this.#titles.set(title.id, title);
      this.#bases.set(title.base, title.id);
    }
    this.#revision = revision;
  }
}

export interface CatalogPullDeps {
  readonly catalog: Catalog;
  readonly fillUrl: string;
  readonly token: string;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
}

/** Pulls until aborted. A failed pull changes nothing: the last catalog stays in force, counted as a fallback. */
export async function keepCatalog(deps: CatalogPullDeps, signal: AbortSignal): Promise<void> {
  let failing = false;
  while (!signal.aborted) {
    try {
      await pullCatalog(deps, signal);
      if (failing) deps.log.info({ revision: deps.catalog.revision }, 'fill answers again');
      failing = false;
    } catch (error) {
      if (signal.aborted) return;
      deps.metrics.add('larder_fallback_total', 1, { name: 'fill_down_catalog_kept' });
      if (!failing)
        deps.log.warn(
          { revision: deps.catalog.revision, reason: reasonOf(error) },
          'catalog not pulled, the last one stays',
        );
      failing = true;
    }
    await sleep(CATALOG_PULL_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** Brings the catalog to fill's revision. */
export async function pullCatalog(deps: CatalogPullDeps, signal?: AbortSignal): Promise<void> {
  const { catalog } = deps;
  let page = await pullPage(deps, catalog.revision, signal);
  if (page.revision < catalog.revision) {
    // Fill has less history than we do: its state was lost or replaced. Its word counts, so everything is asked again.
    deps.log.warn({ had: catalog.revision, fill: page.revision }, 'fill began anew; the whole catalog is pulled');
    const seen = new Set<string>();
    for (let since = 0; ; since = page.revision) {
      page = await pullPage(deps, since, signal);
      for (const title of page.titles) seen.add(title.id);
      for (const gone of page.removed) seen.delete(gone);
      await catalog.apply(page);
      if (!page.more) break;
    }
    await catalog.keepOnly(seen, page.revision);
  } else {
    while (page.revision !== catalog.revision || page.titles.length > 0) {
      await catalog.apply(page);
      if (!page.more) break;
      page = await pullPage(deps, page.revision, signal);
    }
  }
  deps.metrics.set('larder_steering_catalog_revision', catalog.revision);
  deps.metrics.set('larder_steering_catalog_titles', catalog.titles.length);
}

function pullPage(deps: CatalogPullDeps, since: number, signal?: AbortSignal): Promise<CatalogPage> {
  return call({
    url: `${deps.fillUrl}/v1/catalog?since=${since}`,
    token: deps.token,
    answer: catalogPage,
    timeoutMs: CATALOG_PULL_TIMEOUT_MS,
    ...(signal === undefined ? {} : { signal }),
  });
}
