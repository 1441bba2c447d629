// The appliance's copy of the catalog, pulled from fill by revision and kept on disk: what it may serve in a fleet, which
// version, which digests. With fill gone the last copy stays in force.

import { z } from 'zod';
import { assetPage, catalogPage, type CatalogAsset, type Title } from '../../protocol/catalog.ts';
import { Fault } from '../../protocol/faults.ts';
import { holdingOf, type HoldingId } from '../../protocol/ids.ts';
import { call } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';
import { PersistedValue, stateFault, type StateDb } from './state.ts';

/** An unknown key may be a title imported a moment ago: it is looked for again, at most this often. */
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
  /** Assets that came, changed or left: another version that is cached must go. */
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
  #triedAt = Number.NEGATIVE_INFINITY;

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

  title(id: string): Title | null {
    return this.#titles.get(id) ?? null;
  }

  /** What the copy says now; fill is not asked. */
  known(key: string): Promise<CataloguedAsset | null> {
    return this.#get(key);
  }

  /** Null where the key is not catalogued, even after asking fill again. */
  async find(key: string): Promise<CataloguedAsset | null> {
    const known = await this.#get(key);
    if (known !== null) return known;
    if (this.#deps.clock.monotonic() - this.#triedAt < RECHECK_MS && this.#syncing === null) return null;
    return (await this.sync()) ? this.#get(key) : null;
  }

  /** Assets of a holding, in path order. */
  async assetsOf(holding: HoldingId): Promise<CatalogAsset[]> {
    const found: CatalogAsset[] = [];
    for await (const path of this.#deps.db.values({ gte: `holding!${holding}!`, lt: `holding!${holding}"` })) {
      const catalogued = await this.#get(path as string);
      if (catalogued !== null) found.push(catalogued.asset);
    }
    return found;
  }

  /**
   * Tells of keys whose cached version may have to go. They are written down together with the change, so that a crash
   * forgets none; call it before anything is served.
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

  /** Pulls what is new. False where fill could not be reached. */
  sync(): Promise<boolean> {
    this.#triedAt = this.#deps.clock.monotonic();
    this.#syncing ??= this.#pull().finally(() => {
      this.#syncing = null;
    });
    return this.#syncing;
  }

  async #pull(): Promise<boolean> {
    try {
      for (;;) {
        const page = await this.#call(`/v1/catalog?since=${this.#revision.value}`, catalogPage);
        for (const title of page.titles) await this.#take(title);
        for (const id of page.removed) await this.#remove(id);
        if (page.more && page.revision <= this.#revision.value)
          throw new Fault('peer_invalid', `fill says that more follows, but stays at revision ${page.revision}`);
        if (page.revision > this.#revision.value) await this.#revision.set(page.revision);
        if (!page.more) return true;
      }
    } catch (error) {
      const { code, message } = stateFault(error);
      this.#deps.counters.add('larder_fallback_total', 1, { name: 'fill_down_catalog_kept' });
      this.#deps.log.warn(
        { err: { code, message }, revision: this.#revision.value },
        'catalog cannot be pulled, the last copy stays in force',
      );
      return false;
    }
  }

  /**
   * Replaces a title: its new assets first, so that at no moment a valid asset is unknown. Written again from the start
   * after a crash, because the revision comes last.
   */
  async #take(title: Title): Promise<void> {
    const gone = await this.#rowsOf(title.id);
    const taken = new Set<string>();
    for (let offset: number | null = 0; offset !== null;) {
      const page: z.infer<typeof assetPage> = await this.#call(
        `/v1/titles/${title.id}/assets?offset=${offset}`,
        assetPage,
      );
      if (page.next !== null && page.next <= offset)
        throw new Fault('peer_invalid', `fill says that asset ${page.next} of ${title.id} follows ${offset}`);
      const batch: Batch = [];
      for (const asset of page.assets) {
        const { path } = asset;
        const old = gone.get(path);
        batch.push(
          put(`asset!${path}`, { asset, title: title.id, revision: page.revision } satisfies CataloguedAsset),
          put(`holding!${holdingOf(title.id, asset.rendition)}!${path}`, path),
        );
        if (old?.etag !== asset.etag) batch.push(put(`retired!${path}`, path));
        // The asset may have moved to another rendition: its old row under the holding goes, the new one comes.
        if (old?.rendition === asset.rendition) gone.delete(path);
        taken.add(path);
      }
      await this.#deps.db.batch(batch);
      offset = page.next;
    }
    const left = [...gone].flatMap(([path, row]) =>
      leave(title.id, path, { ...row, own: row.own && !taken.has(path) }),
    );
    await this.#deps.db.batch([...left, put(`title!${title.id}`, title)]);
    this.#titles.set(title.id, title);
    await this.retire();
  }

  async #remove(id: string): Promise<void> {
    const rows = await this.#rowsOf(id);
    const left = [...rows].flatMap(([path, row]) => leave(id, path, row));
    await this.#deps.db.batch([...left, { type: 'del', key: `title!${id}` }]);
    this.#titles.delete(id);
    await this.retire();
  }

  /** Rows of a title by asset path. */
  async #rowsOf(title: string): Promise<Map<string, Row>> {
    const rows = new Map<string, Row>();
    for await (const path of this.#deps.db.values({ gte: `holding!${title}:`, lt: `holding!${title};` })) {
      const known = await this.#get(path as string);
      if (known !== null)
        rows.set(path as string, {
          etag: known.asset.etag,
          rendition: known.asset.rendition,
          own: known.title === title,
        });
    }
    return rows;
  }

  async #get(key: string): Promise<CataloguedAsset | null> {
    const found = storedAsset.safeParse(await this.#deps.db.get(`asset!${key}`));
    return found.success ? found.data : null;
  }

  #call<S extends z.ZodType>(path: string, answer: S): Promise<z.infer<S>> {
    return call({ url: this.#deps.fill + path, token: this.#deps.token, answer });
  }
}

interface Row {
  readonly etag: string;
  readonly rendition: string;
  /** False where another title took the path over, as one imported anew under another id does. */
  readonly own: boolean;
}

type Batch = ({ type: 'put'; key: string; value: unknown } | { type: 'del'; key: string })[];

const put = (key: string, value: unknown): Batch[number] => ({ type: 'put', key, value });

const leave = (title: string, path: string, row: Row): Batch => [
  { type: 'del', key: `holding!${holdingOf(title, row.rendition)}!${path}` },
  ...(row.own ? ([{ type: 'del', key: `asset!${path}` }] as const) : []),
  put(`retired!${path}`, path),
];

/** Header fields of a catalogued asset; the origin need not be asked for them. */
export function catalogHeaders(asset: CatalogAsset): Record<string, string> {
  return {
    etag: asset.etag,
    'content-type': asset.contentType,
    'cache-control': CACHE_CONTROL,
    ...(asset.lastModified === null ? {} : { 'last-modified': asset.lastModified }),
  };
}
