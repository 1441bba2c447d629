// The catalog: titles with integer revisions. A title's revision is the catalog revision at which it last changed, so that
// "what changed since" is one comparison and no clock is involved. Titles are held in memory; their assets, with digests,
// are only on disk.

import {
  ASSET_PAGE_MAX,
  CATALOG_PAGE_TITLES,
  type AssetPage,
  type CatalogAsset,
  type CatalogPage,
  type Title,
} from '../protocol/catalog.ts';
import type { TitleSummary } from '../protocol/answers.ts';
import { Fault } from '../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../protocol/ids.ts';
import { mutex } from '../runtime/semaphore.ts';
import { commit, prefixRange, readAll, sortableNumber, type Database, type WriteOperation } from './database.ts';

const TITLES_MAX = 10_000;
/** Pages end early at this size, far below the 64 MiB that a client accepts. */
const PAGE_BYTES_MAX = 8 * 2 ** 20;

/** An imported title; the catalog assigns its revision. */
export type TitleDraft = Omit<Title, 'revision'>;

export interface PublishResult {
  readonly title: Title;
  /** False if the catalog already held exactly this title and these assets. */
  readonly changed: boolean;
}

interface CatalogChange {
  readonly title: string;
  readonly removed: boolean;
}

export class Catalog {
  readonly #database: Database;
  /** Changes, and reads of assets: while a change is being committed, memory and disk differ. */
  readonly #exclusively = mutex();
  readonly #titles = new Map<string, Title>();
  /** By revision, ascending. A title occurs once, at its latest revision. */
  readonly #changes = new Map<number, CatalogChange>();
  #revision = 0;

  private constructor(database: Database) {
    this.#database = database;
  }

  static async open(database: Database): Promise<Catalog> {
    const catalog = new Catalog(database);
    catalog.#revision = Number((await database.get('meta!revision')) ?? 0);
    for (const title of await readAll<Title>(database, 'title')) catalog.#titles.set(title.id, title);
    for await (const [key, value] of database.iterator(prefixRange('change')))
      catalog.#changes.set(Number(key.slice('change!'.length)), value as CatalogChange);
    return catalog;
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

  /** Throws `not_found`, naming the titles that exist. */
  get(id: string): Title {
    const title = this.find(id);
    if (title !== null) return title;
    const ids = [...this.#titles.keys()].sort();
    const shown = ids.slice(0, 20).join(', ') + (ids.length > 20 ? `, … ${ids.length} in all` : '');
    throw new Fault(
      'not_found',
      `no title "${id}" is in the catalog; ${ids.length === 0 ? 'it is empty' : `there are ${shown}`}`,
    );
  }

  /** Whether the title exists and has the rendition; any rendition if that is null. */
  has(id: string, rendition: string | null): boolean {
    const title = this.find(id);
    return title !== null && (rendition === null || title.renditions.some((r) => r.id === rendition));
  }

  summaries(): TitleSummary[] {
    return [...this.#titles.values()]
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .map(({ manifests, renditions, ...title }) => ({
        ...title,
        renditions: renditions.length,
        assets: renditions.reduce((total, r) => total + r.assets, 0),
        dialects: manifests.map((m) => m.dialect),
      }));
  }

  page(since: number): CatalogPage {
    // A reader with a later revision followed a catalog that was lost: it starts again.
    const from = since > this.#revision ? 0 : since;
    const titles: Title[] = [];
    const removed: string[] = [];
    let bytes = 0;
    let last = from;
    for (const [revision, change] of this.#changes) {
      if (revision <= from) continue;
      const title = change.removed ? null : this.#titles.get(change.title)!;
      const size = title === null ? 0 : estimatedPageBytes(title);
      const full = titles.length === CATALOG_PAGE_TITLES || (titles.length > 0 && bytes + size > PAGE_BYTES_MAX);
      if (full) return { protocol: PROTOCOL_VERSION, revision: last, titles, removed, more: true };
      if (title === null) removed.push(change.title);
      else titles.push(title);
      bytes += size;
      last = revision;
    }
    return { protocol: PROTOCOL_VERSION, revision: this.#revision, titles, removed, more: false };
  }

  /** Throws `not_found`. */
  assetPage(id: string, offset: number): Promise<AssetPage> {
    return this.#exclusively(() => this.#readAssetPage(id, offset));
  }

  /** All assets of a title's current revision; none if there is no such title. */
  assets(id: string): Promise<CatalogAsset[]> {
    return this.#exclusively(() => this.#readAssets(id));
  }

  /** Throws `state_conflict` if another title has this base, one above it or one below it. */
  assertBaseFree(id: string, base: string): void {
    for (const title of this.#titles.values()) {
      if (title.id === id) {
        if (title.base === base) continue;
        throw new Fault(
          'state_conflict',
          `title ${id} lies at ${title.base}, this manifest at ${base}; give another --title, or remove ${id} first`,
        );
      }
      if (base.startsWith(title.base) || title.base.startsWith(base))
        throw new Fault(
          'state_conflict',
          `${base} belongs to title ${title.id} (${title.base}); import it with --title ${title.id}, or keep titles apart`,
        );
    }
  }

  /** Replaces a title in one batch: a reader sees the old revision or the new one, each with all its assets. */
  publish(draft: TitleDraft, assets: readonly CatalogAsset[]): Promise<PublishResult> {
    return this.#exclusively(() => this.#publish(draft, assets));
  }

  remove(id: string): Promise<void> {
    return this.#exclusively(async () => {
      const title = this.get(id);
      const revision = this.#revision + 1;
      const change = { title: id, removed: true };
      await commit(this.#database, [...(await this.#deletions(title)), ...this.#changeWrites(revision, change)]);
      this.#applyChange(revision, change);
      this.#titles.delete(id);
    });
  }

  async #publish(draft: TitleDraft, assets: readonly CatalogAsset[]): Promise<PublishResult> {
    this.assertBaseFree(draft.id, draft.base);
    const previous = this.find(draft.id);
    if (previous === null && this.#titles.size >= TITLES_MAX)
      throw new Fault('overloaded', `the catalog holds ${TITLES_MAX} titles, its maximum`);
    if (previous !== null && (await this.#isUnchanged(previous, draft, assets)))
      return { title: previous, changed: false };
    const revision = this.#revision + 1;
    const title: Title = { ...draft, revision };
    const change = { title: title.id, removed: false };
    await commit(this.#database, [
      ...(previous === null ? [] : await this.#deletions(previous)),
      { type: 'put', key: `title!${title.id}`, value: title },
      ...assets.map((asset, n): WriteOperation => {
        return { type: 'put', key: `${assetPrefix(title.id, revision)}!${sortableNumber(n)}`, value: asset };
      }),
      ...this.#changeWrites(revision, change),
    ]);
    this.#applyChange(revision, change);
    this.#titles.set(title.id, title);
    return { title, changed: true };
  }

  async #isUnchanged(previous: Title, draft: TitleDraft, assets: readonly CatalogAsset[]): Promise<boolean> {
    const comparable = (title: TitleDraft): string =>
      JSON.stringify([title.name, title.base, title.durationS, title.renditions, title.manifests]);
    if (comparable(previous) !== comparable(draft)) return false;
    return JSON.stringify(await this.#readAssets(previous.id)) === JSON.stringify(assets);
  }

  async #readAssetPage(id: string, offset: number): Promise<AssetPage> {
    const title = this.get(id);
    const prefix = assetPrefix(id, title.revision);
    const assets: CatalogAsset[] = [];
    let bytes = 0;
    let more = false;
    const keys = { gte: `${prefix}!${sortableNumber(offset)}`, lt: prefixRange(prefix).lt };
    for await (const [, value] of this.#database.iterator(keys)) {
      const asset = value as CatalogAsset;
      bytes += 500 + 70 * asset.digest.chunks.length;
      more = assets.length === ASSET_PAGE_MAX || (assets.length > 0 && bytes > PAGE_BYTES_MAX);
      if (more) break;
      assets.push(asset);
    }
    const next = more ? offset + assets.length : null;
    return { protocol: PROTOCOL_VERSION, title: id, revision: title.revision, assets, next };
  }

  async #readAssets(id: string): Promise<CatalogAsset[]> {
    const title = this.find(id);
    return title === null ? [] : readAll<CatalogAsset>(this.#database, assetPrefix(id, title.revision));
  }

  async #deletions(title: Title): Promise<WriteOperation[]> {
    const operations: WriteOperation[] = [{ type: 'del', key: `title!${title.id}` }];
    for await (const key of this.#database.keys(prefixRange(assetPrefix(title.id, title.revision))))
      operations.push({ type: 'del', key });
    return operations;
  }

  #changeWrites(revision: number, change: CatalogChange): WriteOperation[] {
    const older = [...this.#changes].filter(([, c]) => c.title === change.title);
    return [
      { type: 'put', key: 'meta!revision', value: revision },
      { type: 'put', key: `change!${sortableNumber(revision)}`, value: change },
      ...older.map(([at]): WriteOperation => ({ type: 'del', key: `change!${sortableNumber(at)}` })),
    ];
  }

  #applyChange(revision: number, change: CatalogChange): void {
    for (const [at, older] of this.#changes) if (older.title === change.title) this.#changes.delete(at);
    this.#changes.set(revision, change);
    this.#revision = revision;
  }
}

const assetPrefix = (title: string, revision: number): string => `asset!${title}!${sortableNumber(revision)}`;

/** Manifests make up most of a title. Twice their length allows for JSON escapes and for characters of several bytes. */
const estimatedPageBytes = (title: Title): number =>
  title.manifests.reduce((total, manifest) => total + 2 * manifest.text.length, 1000);
