// Steering's copy of the catalog: pulled from fill by revision, stored on disk, and in force while fill is unreachable.

import { catalogPage, type CatalogPage, type Title } from '../protocol/catalog.ts';
import { Fault } from '../protocol/faults.ts';
import { call, reasonOf } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
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

/** A port with two implementations, on disk (store.ts) and in memory (below). */
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
    for (const id of removed) this.#titles.delete(id);
    return Promise.resolve();
  }
}

export class Catalog {
  readonly #titles = new Map<string, Title>();
  /** Title id by asset path prefix. */
  readonly #idByBase = new Map<string, string>();
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

  find(id: string): Title | null {
    return this.#titles.get(id) ?? null;
  }

  /** Throws `not_found`. */
  get(id: string): Title {
    const title = this.find(id);
    if (title === null)
      throw new Fault(
        'not_found',
        `no title "${id}" in the catalog (revision ${this.#revision}); \`larder catalog ls\` lists them`,
      );
    return title;
  }

  /** The title whose `base` is the longest prefix of the asset path. */
  findByPath(path: string): Title | null {
    for (let end = path.lastIndexOf('/'); end >= 0; end = end === 0 ? -1 : path.lastIndexOf('/', end - 1)) {
      const id = this.#idByBase.get(path.slice(0, end + 1));
      if (id !== undefined) return this.find(id);
    }
    return null;
  }

  async load(): Promise<void> {
    const { revision, titles } = await this.#store.load();
    this.#applyInMemory({ revision, titles, removed: [] });
  }

  /** Writes the change to disk, then applies it. */
  async apply(change: CatalogChange): Promise<void> {
    await this.#store.apply(change);
    this.#applyInMemory(change);
  }

  /** Removes every other title. */
  async retainOnly(ids: ReadonlySet<string>, revision: number): Promise<void> {
    const removed = [...this.#titles.keys()].filter((id) => !ids.has(id));
    await this.apply({ revision, titles: [], removed });
  }

  #applyInMemory({ revision, titles, removed }: CatalogChange): void {
    for (const id of [...removed, ...titles.map((title) => title.id)]) {
      const before = this.#titles.get(id);
      if (before !== undefined) this.#idByBase.delete(before.base);
      this.#titles.delete(id);
    }
    for (const title of titles) {
      this.#titles.set(title.id, title);
      this.#idByBase.set(title.base, title.id);
    }
    this.#revision = revision;
  }
}

export interface CatalogPullDeps {
  readonly catalog: Catalog;
  readonly fillUrl: string;
  readonly token: string;
  readonly clock: Clock;
  readonly metrics: Metrics<typeof METRICS>;
  readonly log: Log;
}

/** Pulls until aborted. After a failed pull the last catalog stays in force, which is counted as a fallback. */
export async function runCatalogPulls(deps: CatalogPullDeps, signal: AbortSignal): Promise<void> {
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
          'the catalog could not be pulled; the last one stays in force',
        );
      failing = true;
    }
    await deps.clock.sleep(CATALOG_PULL_MS, signal).catch(() => undefined);
  }
}

/** Brings the catalog to fill's revision. */
export async function pullCatalog(deps: CatalogPullDeps, signal?: AbortSignal): Promise<void> {
  const { catalog } = deps;
  const page = await pullPage(deps, catalog.revision, signal);
  if (page.revision < catalog.revision) {
    // Fill's state was lost or replaced. Fill owns the catalog, so everything is pulled again.
    deps.log.warn(
      { had: catalog.revision, fill: page.revision },
      'fill lost its revisions; the whole catalog is pulled',
    );
    await pullWholeCatalog(deps, signal);
  } else await pullChanges(deps, page, signal);
  deps.metrics.set('larder_steering_catalog_revision', catalog.revision);
  deps.metrics.set('larder_steering_catalog_titles', catalog.titles.length);
}

async function pullChanges(deps: CatalogPullDeps, firstPage: CatalogPage, signal?: AbortSignal): Promise<void> {
  const { catalog } = deps;
  let page = firstPage;
  while (page.revision !== catalog.revision || page.titles.length > 0) {
    await catalog.apply(page);
    if (!page.more) return;
    page = await pullPage(deps, page.revision, signal);
  }
}

async function pullWholeCatalog(deps: CatalogPullDeps, signal?: AbortSignal): Promise<void> {
  const { catalog } = deps;
  const ids = new Set<string>();
  let page: CatalogPage;
  let since = 0;
  do {
    page = await pullPage(deps, since, signal);
    for (const title of page.titles) ids.add(title.id);
    for (const id of page.removed) ids.delete(id);
    await catalog.apply(page);
    since = page.revision;
  } while (page.more);
  await catalog.retainOnly(ids, page.revision);
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
