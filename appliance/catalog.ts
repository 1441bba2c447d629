// The appliance's copy of the catalog, pulled from fill by revision and kept on disk: what it may serve in a fleet, which
// version, which digests. With fill gone the last copy stays in force.

import { z } from 'zod';
import { assetPage, catalogPage, type CatalogAsset, type Title } from '../protocol/catalog.ts';
import { isFault } from '../protocol/faults.ts';
import { holdingOf, type HoldingId } from '../protocol/ids.ts';
import { call } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import type { Tally } from './metrics.ts';
import { Kept, type StateDb } from './state.ts';

/** An unknown key may be a title imported a moment ago: it is looked for again, at most this often. */
const RECHECK_MS = 1_000;
const CACHE_CONTROL = 'public, max-age=3600';

export interface Catalogued {
  readonly asset: CatalogAsset;
  readonly title: string;
  readonly revision: number;
}

export interface CatalogDeps {
  readonly db: StateDb;
  readonly fill: string;
  readonly token: string;
  /** Assets that changed or left: their cached versions must go. */
  readonly onGone: (keys: readonly string[]) => Promise<void>;
  readonly tally: Tally;
  readonly clock: Clock;
  readonly log: Log;
}

const storedAsset = z.custom<Catalogued>((value) => typeof value === 'object' && value !== null);

export class Catalog {
  readonly #deps: CatalogDeps;
  readonly #revision: Kept<number>;
  readonly #titles = new Map<string, Title>();
  #syncing: Promise<boolean> | null = null;
  #triedAt = Number.NEGATIVE_INFINITY;

  private constructor(deps: CatalogDeps, revision: Kept<number>) {
    this.#deps = deps;
    this.#revision = revision;
  }

  static async open(deps: CatalogDeps): Promise<Catalog> {
    const catalog = new Catalog(deps, await Kept.load(deps.db, 'catalog-revision', 0));
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
  known(key: string): Promise<Catalogued | null> {
    return this.#get(key);
  }

  /** Null where the key is not catalogued, even after asking fill again. */
  async find(key: string): Promise<Catalogued | null> {
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
        if (page.revision > this.#revision.value) await this.#revision.set(page.revision);
        if (!page.more) return true;
      }
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#deps.tally.add('larder_fallback_total', 1, { name: 'fill_down_catalog_kept' });
      this.#deps.log.warn(
        { err: { code: error.code, message: error.message }, revision: this.#revision.value },
        'catalog cannot be pulled, the last copy stays in force',
      );
      return false;
    }
  }

  /** Replaces a title: its new assets first, so that at no moment a valid asset is unknown. */
  async #take(title: Title): Promise<void> {
    const before = await this.#assetVersions(title.id);
    const gone = new Map(before);
    const changed: string[] = [];
    for (let offset: number | null = 0; offset !== null;) {
      const page: z.infer<typeof assetPage> = await this.#call(
        `/v1/titles/${title.id}/assets?offset=${offset}`,
        assetPage,
      );
      const batch = page.assets.flatMap((asset) => {
        const catalogued: Catalogued = { asset, title: title.id, revision: page.revision };
        const old = gone.get(asset.path);
        if (old !== undefined && old.etag !== asset.etag) changed.push(asset.path);
        // The asset may have moved to another rendition: its old row under the holding goes, the new one comes.
        if (old !== undefined && old.rendition === asset.rendition) gone.delete(asset.path);
        return [
          { type: 'put' as const, key: `asset!${asset.path}`, value: catalogued },
          {
            type: 'put' as const,
            key: `holding!${holdingOf(title.id, asset.rendition)}!${asset.path}`,
            value: asset.path,
          },
        ];
      });
      await this.#deps.db.batch(batch);
      offset = page.next;
    }
    const current = await this.#assetVersions(title.id, title.revision);
    await this.#deps.db.batch([
      ...[...gone].flatMap(([path, old]) => [
        ...(current.has(path) ? [] : [{ type: 'del' as const, key: `asset!${path}` }]),
        { type: 'del' as const, key: `holding!${holdingOf(title.id, old.rendition)}!${path}` },
      ]),
      { type: 'put' as const, key: `title!${title.id}`, value: title },
    ]);
    this.#titles.set(title.id, title);
    await this.#deps.onGone([...changed, ...[...gone.keys()]]);
  }

  async #remove(id: string): Promise<void> {
    const assets = await this.#assetVersions(id);
    await this.#deps.db.batch([
      ...[...assets].flatMap(([path, { rendition }]) => [
        { type: 'del' as const, key: `asset!${path}` },
        { type: 'del' as const, key: `holding!${holdingOf(id, rendition)}!${path}` },
      ]),
      { type: 'del' as const, key: `title!${id}` },
    ]);
    this.#titles.delete(id);
    await this.#deps.onGone([...assets.keys()]);
  }

  /** By path, for assets of the title known so far; with a revision only those of it. */
  async #assetVersions(title: string, revision?: number): Promise<Map<string, { etag: string; rendition: string }>> {
    const versions = new Map<string, { etag: string; rendition: string }>();
    for await (const path of this.#deps.db.values({ gte: `holding!${title}:`, lt: `holding!${title};` })) {
      const known = await this.#get(path as string);
      if (known !== null && (revision === undefined || known.revision === revision))
        versions.set(path as string, { etag: known.asset.etag, rendition: known.asset.rendition });
    }
    return versions;
  }

  async #get(key: string): Promise<Catalogued | null> {
    const found = storedAsset.safeParse(await this.#deps.db.get(`asset!${key}`));
    return found.success ? found.data : null;
  }

  #call<S extends z.ZodType>(path: string, answer: S): Promise<z.infer<S>> {
    return call({ url: this.#deps.fill + path, token: this.#deps.token, answer });
  }
}

/** Header fields of a catalogued asset; the origin need not be asked for them. */
export function headersOf(asset: CatalogAsset): Record<string, string> {
  return {
    etag: asset.etag,
    'content-type': asset.contentType,
    'cache-control': CACHE_CONTROL,
    ...(asset.lastModified === null ? {} : { 'last-modified': asset.lastModified }),
  };
}
