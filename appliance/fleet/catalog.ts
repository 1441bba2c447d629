// The appliance's copy of the catalog: which assets it may serve in a fleet, in which version, with which digests. It is pulled
// from fill by revision and kept on disk; while fill is unreachable, the last copy stays in force.

import { z } from 'zod';
import { assetPage, catalogPage, type CatalogAsset, type Title } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { holdingOf, type HoldingId } from '../../protocol/ids.ts';
import { call } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';
import type { AssetMeta } from '../store/volume.ts';
import { PersistedValue, stateFault, type StateDb } from './state.ts';

/** An unknown key may belong to a title imported a moment ago, so it causes a pull, at most this often. */
const RECHECK_MS = 1_000;
const RETIRED_BATCH = 1_000;
const CACHE_CONTROL = 'public, max-age=3600';

export interface CataloguedAsset {
  readonly asset: CatalogAsset;
  readonly title: string;
  readonly revision: number;
}

export interface CatalogDeps {
  readonly db: StateDb;
  readonly fill: string;
  readonly token: string;
  /** Called with assets that were added, changed or removed: a cached entry of another version must be removed. */
  readonly onRetired: (keys: readonly string[]) => Promise<void>;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly log: Log;
}

const storedAsset = z.custom<CataloguedAsset>((value) => typeof value === 'object' && value !== null);

export class Catalog {
  readonly #deps: CatalogDeps;
  readonly #revision: PersistedValue<number>;
  readonly #titles = new Map<string, Title>();
  #syncing: Promise<boolean> | null = null;
  #syncedAtMs = Number.NEGATIVE_INFINITY;

  private constructor(deps: CatalogDeps, revision: PersistedValue<number>) {
    this.#deps = deps;
    this.#revision = revision;
  }

  static async open(deps: CatalogDeps): Promise<Catalog> {
    const catalog = new Catalog(deps, await PersistedValue.load(deps.db, 'catalog-revision', 0));
    for await (const value of deps.db.values({ gte: 'title!', lt: 'title"' })) {
      const title = value as Title;
      catalog.#titles.set(title.id, title);
    }
    return catalog;
  }

  get revision(): number {
    return this.#revision.value;
  }

  titles(): IterableIterator<Title> {
    return this.#titles.values();
  }

  /** Looks a key up in the local copy alone. */
  async get(key: string): Promise<CataloguedAsset | null> {
    const parsed = storedAsset.safeParse(await this.#deps.db.get(`asset!${key}`));
    return parsed.success ? parsed.data : null;
  }

  /** Looks a key up, and pulls from fill if it is unknown. Null where it is unknown even then. */
  async getOrSync(key: string): Promise<CataloguedAsset | null> {
    const asset = await this.get(key);
    if (asset !== null) return asset;
    if (this.#deps.clock.monotonic() - this.#syncedAtMs < RECHECK_MS && this.#syncing === null) return null;
    return (await this.sync()) ? this.get(key) : null;
  }

  /** Assets of a holding, in path order. */
  async assetsOf(holding: HoldingId): Promise<CatalogAsset[]> {
    const assets: CatalogAsset[] = [];
    for await (const path of this.#deps.db.values({ gte: `holding!${holding}!`, lt: `holding!${holding}"` })) {
      const catalogued = await this.get(path as string);
      if (catalogued !== null) assets.push(catalogued.asset);
    }
    return assets;
  }

  /**
   * Passes keys whose cached version may be out of date to `onRetired`. They are persisted in one batch with the change itself,
   * so that a crash loses none. Call it before the appliance serves.
   */
  async retire(): Promise<void> {
    for (;;) {
      const keys = (await this.#deps.db
        .values({ gte: 'retired!', lt: 'retired"', limit: RETIRED_BATCH })
        .all()) as string[];
      if (keys.length === 0) return;
      await this.#deps.onRetired(keys);
      await this.#deps.db.batch(keys.map((key) => ({ type: 'del', key: `retired!${key}` })));
    }
  }

  /** Pulls all changes since the local revision. False if fill is unreachable or the local disk fails. */
  sync(): Promise<boolean> {
    this.#syncedAtMs = this.#deps.clock.monotonic();
    this.#syncing ??= this.#pullOrKeep().finally(() => {
      this.#syncing = null;
    });
    return this.#syncing;
  }

  async #pullOrKeep(): Promise<boolean> {
    try {
      await this.#pull();
      return true;
    } catch (error) {
      const { code, message } = stateFault(error);
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'fill_down_catalog_kept' });
      this.#deps.log.warn(
        { err: { code, message }, revision: this.#revision.value },
        'the catalog cannot be pulled, the last copy stays in force',
      );
      return false;
    }
  }

  async #pull(): Promise<void> {
    for (let more = true; more;) {
      const page = await this.#call(`/v1/catalog?since=${this.#revision.value}`, catalogPage);
      for (const title of page.titles) await this.#replaceTitle(title);
      for (const id of page.removed) await this.#removeTitle(id);
      if (page.more && page.revision <= this.#revision.value)
        throw new Fault('peer_invalid', `fill says that more follows, but stays at revision ${page.revision}`);
      if (page.revision > this.#revision.value) await this.#revision.set(page.revision);
      ({ more } = page);
    }
  }

  /**
   * Writes the new assets of a title before it deletes old ones, so that a valid asset is known at every moment. After a crash the
   * next pull repeats all of it, because the revision is written last.
   */
  async #replaceTitle(title: Title): Promise<void> {
    const outdated = await this.#rowsOf(title.id);
    const current = new Set<string>();
    for await (const { assets, revision } of this.#assetPages(title.id)) {
      const batch: Batch = [];
      for (const asset of assets) {
        const { path } = asset;
        const former = outdated.get(path);
        batch.push(
          put(`asset!${path}`, { asset, title: title.id, revision } satisfies CataloguedAsset),
          put(`holding!${holdingOf(title.id, asset.rendition)}!${path}`, path),
        );
        if (former?.version !== versionOf(asset)) batch.push(put(`retired!${path}`, path));
        // An asset that moved to another rendition has an outdated row under its former holding.
        if (former?.rendition === asset.rendition) outdated.delete(path);
        current.add(path);
      }
      await this.#deps.db.batch(batch);
    }
    const deletions = [...outdated].flatMap(([path, row]) =>
      deletionOf(title.id, path, { ...row, own: row.own && !current.has(path) }),
    );
    await this.#deps.db.batch([...deletions, put(`title!${title.id}`, title)]);
    this.#titles.set(title.id, title);
    await this.retire();
  }

  async #removeTitle(id: string): Promise<void> {
    const rows = await this.#rowsOf(id);
    const deletions = [...rows].flatMap(([path, row]) => deletionOf(id, path, row));
    await this.#deps.db.batch([...deletions, { type: 'del', key: `title!${id}` }]);
    this.#titles.delete(id);
    await this.retire();
  }

  /** Rows of a title by asset path. */
  async #rowsOf(title: string): Promise<Map<string, TitleRow>> {
    const rows = new Map<string, TitleRow>();
    for await (const value of this.#deps.db.values({ gte: `holding!${title}:`, lt: `holding!${title};` })) {
      const path = value as string;
      const catalogued = await this.get(path);
      if (catalogued === null) continue;
      const { asset } = catalogued;
      rows.set(path, { version: versionOf(asset), rendition: asset.rendition, own: catalogued.title === title });
    }
    return rows;
  }

  async *#assetPages(title: string): AsyncGenerator<z.infer<typeof assetPage>> {
    for (let offset: number | null = 0; offset !== null;) {
      const page: z.infer<typeof assetPage> = await this.#call(
        `/v1/titles/${title}/assets?offset=${offset}`,
        assetPage,
      );
      if (page.next !== null && page.next <= offset)
        throw new Fault('peer_invalid', `fill says that asset ${page.next} of ${title} follows ${offset}`);
      yield page;
      offset = page.next;
    }
  }

  #call<S extends z.ZodType>(path: string, answer: S): Promise<z.infer<S>> {
    return call({ url: this.#deps.fill + path, token: this.#deps.token, answer });
  }
}

interface TitleRow {
  readonly version: string;
  readonly rendition: string;
  /** False where another title has taken over the path, such as the same title imported again under another id. */
  readonly own: boolean;
}

type Batch = ({ type: 'put'; key: string; value: unknown } | { type: 'del'; key: string })[];

const put = (key: string, value: unknown): Batch[number] => ({ type: 'put', key, value });

const deletionOf = (title: string, path: string, row: TitleRow): Batch => [
  { type: 'del', key: `holding!${holdingOf(title, row.rendition)}!${path}` },
  ...(row.own ? ([{ type: 'del', key: `asset!${path}` }] as const) : []),
  put(`retired!${path}`, path),
];

/**
 * The version under which the store keeps a catalogued asset. It names the bytes: an origin may have sent others under the same entity
 * tag when the title was imported again, and blocks of both must not become one asset.
 */
export function versionOf({ etag, digest }: CatalogAsset): string {
  const bytes = digest.root.slice(0, 32);
  return etag === `"${bytes}"` ? etag : `"${bytes}-${etag.slice(1, -1)}"`;
}

/** What the store needs to know of a catalogued asset, without a request to the origin. */
export function assetMetaOf(asset: CatalogAsset, holding: HoldingId): AssetMeta {
  return {
    key: asset.path,
    version: versionOf(asset),
    bytes: asset.bytes,
    headers: {
      etag: asset.etag,
      'content-type': asset.contentType,
      'cache-control': CACHE_CONTROL,
      ...(asset.lastModified === null ? {} : { 'last-modified': asset.lastModified }),
    },
    generatedAtMs: null,
    holding,
  };
}
