// The catalog: titles with integer revisions. A title's revision is the catalog revision at which it last changed, so that
// `since` is one comparison and no clock takes part. Titles live in memory, their assets with their digests on disk only.

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
import { commit, ordered, range, under, type State, type Write } from './state.ts';

export const TITLES_MAX = 10_000;
/** Pages end early at this size, far below what a client accepts. */
export const PAGE_BYTES_MAX = 8 * 2 ** 20;

/** What an import found; the catalog gives it a revision. */
export type TitleDraft = Omit<Title, 'revision'>;

export interface Published {
  readonly title: Title;
  /** False where the origin still has what the catalog had. */
  readonly changed: boolean;
}

type Change = { readonly title: string; readonly removed: boolean };

export class Catalog {
  readonly #state: State;
  readonly #exclusively = mutex();
  readonly #titles = new Map<string, Title>();
  /** Revisions in order; a title occurs once, at its latest. */
  readonly #changes = new Map<number, Change>();
  #revision = 0;

  private constructor(state: State) {
    this.#state = state;
  }

  static async open(state: State): Promise<Catalog> {
    const catalog = new Catalog(state);
    catalog.#revision = Number((await state.get('meta!revision')) ?? 0);
    for (const title of await under<Title>(state, 'title')) catalog.#titles.set(title.id, title);
    for await (const [key, value] of state.iterator(range('change')))
      catalog.#changes.set(Number(key.slice('change!'.length)), value as Change);
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

  /** Throws `not_found` naming what exists. */
  get(id: string): Title {
    const title = this.find(id);
    if (title !== null) return title;
    const known = [...this.#titles.keys()].sort();
    const shown = known.slice(0, 20).join(', ') + (known.length > 20 ? `, … ${known.length} in all` : '');
    throw new Fault(
      'not_found',
      `no title "${id}" is in the catalog; ${known.length === 0 ? 'it is empty' : `there are ${shown}`}`,
    );
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
    // A reader ahead of us followed a catalog that was lost; it starts again.
    const from = since > this.#revision ? 0 : since;
    const titles: Title[] = [];
    const removed: string[] = [];
    let bytes = 0;
    let last = from;
    for (const [revision, change] of this.#changes) {
      if (revision <= from) continue;
      const title = change.removed ? null : this.#titles.get(change.title)!;
      const size = title === null ? 0 : title.manifests.reduce((total, m) => total + 2 * m.text.length, 1000);
      const full = titles.length === CATALOG_PAGE_TITLES || (titles.length > 0 && bytes + size > PAGE_BYTES_MAX);
      if (full) return { protocol: PROTOCOL_VERSION, revision: last, titles, removed, more: true };
      if (title === null) removed.push(change.title);
      else titles.push(title);
      bytes += size;
      last = revision;
    }
    return { protocol: PROTOCOL_VERSION, revision: this.#revision, titles, removed, more: false };
  }

  /** Between changes: while one is committed, memory and disk differ. */
  assetPage(id: string, offset: number): Promise<AssetPage> {
    return this.#exclusively(() => this.#assetPage(id, offset));
  }

  /** Every asset of a title's present revision; empty where there is no such title. */
  assets(id: string): Promise<CatalogAsset[]> {
    return this.#exclusively(() => this.#assets(id));
  }

  /** Throws `state_conflict` where another title has this base, one above it or one below it. */
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

  /** One batch: a reader sees the old revision or the new one with all its assets. */
  publish(draft: TitleDraft, assets: readonly CatalogAsset[]): Promise<Published> {
    return this.#exclusively(async () => {
      this.assertBaseFree(draft.id, draft.base);
      const before = this.find(draft.id);
      if (before === null && this.#titles.size >= TITLES_MAX)
        throw new Fault('overloaded', `the catalog holds ${TITLES_MAX} titles, its maximum`);
      if (before !== null && (await this.#same(before, draft, assets))) return { title: before, changed: false };
      const revision = this.#revision + 1;
      const title: Title = { ...draft, revision };
      await commit(this.#state, [
        ...(await this.#forget(before)),
        { type: 'put', key: `title!${title.id}`, value: title },
        ...assets.map((asset, at): Write => {
          return { type: 'put', key: `${assetPrefix(title.id, revision)}!${ordered(at)}`, value: asset };
        }),
        ...this.#change(revision, { title: title.id, removed: false }),
      ]);
      this.#note(revision, { title: title.id, removed: false });
      this.#titles.set(title.id, title);
      return { title, changed: true };
    });
  }

  remove(id: string): Promise<void> {
    return this.#exclusively(async () => {
      const title = this.get(id);
      const revision = this.#revision + 1;
      const change = { title: id, removed: true };
      await commit(this.#state, [...(await this.#forget(title)), ...this.#change(revision, change)]);
      this.#note(revision, change);
      this.#titles.delete(id);
    });
  }

  async #assetPage(id: string, offset: number): Promise<AssetPage> {
    const title = this.get(id);
    const prefix = assetPrefix(id, title.revision);
    const assets: CatalogAsset[] = [];
    let bytes = 0;
    let more = false;
    const bounds = { gte: `${prefix}!${ordered(offset)}`, lt: range(prefix).lt };
    for await (const [, value] of this.#state.iterator(bounds)) {
      const asset = value as CatalogAsset;
      bytes += 500 + 70 * asset.digest.chunks.length;
      more = assets.length === ASSET_PAGE_MAX || (assets.length > 0 && bytes > PAGE_BYTES_MAX);
      if (more) break;
      assets.push(asset);
    }
    const next = more ? offset + assets.length : null;
    return { protocol: PROTOCOL_VERSION, title: id, revision: title.revision, assets, next };
  }

  async #assets(id: string): Promise<CatalogAsset[]> {
    const title = this.find(id);
    return title === null ? [] : under<CatalogAsset>(this.#state, assetPrefix(id, title.revision));
  }

  async #forget(title: Title | null): Promise<Write[]> {
    if (title === null) return [];
    const writes: Write[] = [{ type: 'del', key: `title!${title.id}` }];
    for await (const key of this.#state.keys(range(assetPrefix(title.id, title.revision))))
      writes.push({ type: 'del', key });
    return writes;
  }

  #change(revision: number, change: Change): Write[] {
    const older = [...this.#changes].filter(([, c]) => c.title === change.title);
    return [
      { type: 'put', key: 'meta!revision', value: revision },
      { type: 'put', key: `change!${ordered(revision)}`, value: change },
      ...older.map(([at]): Write => ({ type: 'del', key: `change!${ordered(at)}` })),
    ];
  }

  #note(revision: number, change: Change): void {
    for (const [at, older] of this.#changes) if (older.title === change.title) this.#changes.delete(at);
    this.#changes.set(revision, change);
    this.#revision = revision;
  }

  async #same(before: Title, draft: TitleDraft, assets: readonly CatalogAsset[]): Promise<boolean> {
    const plain = (title: TitleDraft): string =>
      JSON.stringify([title.name, title.base, title.durationS, title.renditions, title.manifests]);
    if (plain(before) !== plain(draft)) return false;
    return JSON.stringify(await this.#assets(before.id)) === JSON.stringify(assets);
  }
}

const assetPrefix = (title: string, revision: number): string => `asset!${title}!${ordered(revision)}`;
