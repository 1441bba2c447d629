// Which stored response fits a request, and whether it may be served: the storekeeper's half of RFC 9111. Requests for the same thing
// at the same time cost one request to the origin; its response starts an entry, updates one, or is passed on as it is.
//
//   lookup.ts           stored, in the negative cache, in the catalog, or another's lookup to join; else the origin
//   first-response.ts   the origin is asked for something new: what its response becomes
//   revalidation.ts     the origin is asked whether what is stored still holds; stale-if-error is decided there
//   negative-cache.ts   errors and redirects with a lifetime
//   invalidations.ts    responses that were requested before an invalidation

import { Fault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { forEachAtMost } from '../../runtime/semaphore.ts';
import { KEY_CHARS_MAX } from '../http/asset-key.ts';
import { generatedAtMsOf } from '../http/freshness.ts';
import { primaryKeyOf, VariantIndex } from '../http/vary.ts';
import type { CacheUpdate, FetchRequest } from '../link/messages.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import type { AssetMeta, Entry } from '../store/volume.ts';
import { FirstResponses, type OriginLookup } from './first-response.ts';
import { hasStrongValidator, type Inflight } from './inflight.ts';
import { InvalidationEpochs } from './invalidations.ts';
import { joinedResult, type LookupResult } from './lookup-result.ts';
import { NegativeCache } from './negative-cache.ts';
import { isAnonymous, isOnlyIfCached, mayShare } from './origin-request.ts';
import type { Origin } from './origin.ts';
import { Revalidations } from './revalidation.ts';

/** Attempts to join the lookup of another request before a request asks the origin for itself. */
const JOINS_MAX = 4;

export interface LookupDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  /** In a fleet: what the catalog says of a key, null when it is not catalogued. Null stand-alone. */
  readonly catalogued: ((key: string) => Promise<AssetMeta | null>) | null;
  readonly reverseProxy: boolean;
  readonly clock: Clock;
}

/** What is to be purged: one asset, assets whose keys begin with a prefix, or those of a title. */
export type PurgeSelection =
  | { readonly kind: 'asset'; readonly key: string }
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'title'; readonly title: string };

export interface Purgeable {
  readonly entries: readonly Entry[];
  /** Of the assets that the entries are variants of. */
  readonly keys: readonly string[];
  /** Keys of assets for which an error or a redirect is remembered. */
  readonly errors: readonly string[];
}

/** Assets of one purge that are removed at once. */
const REMOVALS_MAX = 16;

interface OngoingLookup {
  readonly result: Promise<LookupResult>;
  /** The request to the origin carries nobody's credentials. */
  readonly anonymous: boolean;
}

export class Lookup {
  readonly #deps: LookupDeps;
  readonly #variants = new VariantIndex();
  readonly #negative: NegativeCache;
  readonly #epochs = new InvalidationEpochs();
  readonly #ongoing = new Map<string, OngoingLookup>();
  readonly #first: FirstResponses;
  readonly #revalidations: Revalidations;

  constructor(deps: LookupDeps) {
    this.#deps = deps;
    this.#negative = new NegativeCache(deps.clock);
    for (const entry of deps.cache.entries())
      if (entry.key !== primaryKeyOf(entry.key)) this.#variants.record(entry.key, entry.headers);
    this.#first = new FirstResponses({ ...deps, variants: this.#variants, epochs: this.#epochs });
    this.#revalidations = new Revalidations({ ...deps, first: this.#first, epochs: this.#epochs });
  }

  /** `admitted`: what is fetched may be stored. Throws the fault to answer with. */
  async lookUp(request: FetchRequest, admitted: boolean): Promise<LookupResult> {
    for (let joins = 1; ; joins += 1) {
      const stored = await this.#storedFor(request);
      if (stored !== null && (request.revalidate === null || isYounger(stored, request.revalidate.generatedAtMs)))
        return { kind: 'entry', entry: stored, validated: false, forward: null };
      const negative = stored === null ? this.#negative.find(request) : null;
      if (negative !== null) return negative;
      if (isOnlyIfCached(request)) return { kind: 'not-cached' };
      if (this.#deps.catalogued !== null) return this.#fromCatalog(request);
      const lookup: OriginLookup = { request, admitted, epoch: this.#epochs.epoch };
      const other = this.#joinable(request);
      if (other === null || joins > JOINS_MAX) return this.#lead(lookup, stored);
      const anonymous = other.anonymous && isAnonymous(request);
      const result = await other.result.catch((error: unknown) => (anonymous ? Promise.reject(error) : null));
      if (result === null) continue;
      // A response for nobody else is requested again, by each client for itself; another variant is looked up again.
      const maySend = result.kind !== 'relay' || result.forward.stored || (anonymous && mayShare(result));
      if (!maySend) return this.#lead(lookup, stored);
      if (result.kind !== 'entry') return result;
      if (result.entry.key === this.#storageKey(request)) return joinedResult(result, request.revalidate !== null);
    }
  }

  /** A worker forwarded a request that invalidates assets, or a HEAD whose response describes one. */
  async applyUpdate(update: CacheUpdate): Promise<void> {
    if (update.kind === 'invalidate') await this.#invalidate(update.keys);
    else await this.#updateFromHead(update);
  }

  /**
   * What a purge removes, or would remove: every variant of the asset, or of the assets below the prefix or of the title, and errors that are
   * remembered for them.
   */
  purgeable(selection: PurgeSelection): Purgeable {
    const { cache } = this.#deps;
    const selects = selectorOf(selection);
    // One that is being removed may still be known to a worker.
    const entries = [...new Set([...cache.entries(), ...cache.removing()])].filter(selects);
    const errors = [...this.#negative.keys()].filter((key) => selects({ key, holding: null }));
    return { entries, errors, keys: [...new Set(entries.map(({ key }) => primaryKeyOf(key)))] };
  }

  /** Resolves when no worker serves any of it, and no response that was requested before can bring it back. */
  async purge(selection: PurgeSelection): Promise<Purgeable> {
    const purged = this.purgeable(selection);
    if (selection.kind === 'asset') this.#epochs.record([selection.key]);
    else this.#epochs.recordAll();
    for (const key of purged.errors) this.#negative.invalidate(key);
    this.#ongoing.clear();
    await forEachAtMost(REMOVALS_MAX, purged.entries, (entry) => this.#deps.cache.removeEntry(entry));
    return purged;
  }

  async #invalidate(primaryKeys: readonly string[]): Promise<void> {
    const { cache } = this.#deps;
    this.#epochs.record(primaryKeys);
    for (const primaryKey of primaryKeys) {
      this.#negative.invalidate(primaryKey);
      for (const key of [...this.#ongoing.keys()]) if (primaryKeyOf(key) === primaryKey) this.#ongoing.delete(key);
      for (const key of this.#variants.storedKeys(primaryKey)) {
        const entry = cache.find(key);
        if (entry !== null) await cache.removeEntry(entry);
      }
    }
  }

  /** RFC 9111 4.3.5: the fields of a HEAD's response update the stored one, unless they contradict it. */
  async #updateFromHead(update: CacheUpdate & { readonly kind: 'head' }): Promise<void> {
    const { cache, clock, catalogued } = this.#deps;
    const entry = cache.find(this.#variants.variantKeyFor(update.key, update.headers));
    if (entry === null || catalogued !== null) return;
    const { answer } = update;
    const agrees =
      (answer['last-modified'] === undefined || answer['last-modified'] === entry.headers['last-modified']) &&
      (answer['content-length'] === undefined || Number(answer['content-length']) === entry.bytes);
    const headers = { date: new Date(clock.now()).toUTCString(), ...answer };
    const response = { headers, generatedAtMs: generatedAtMsOf(headers, update) };
    if (!agrees || this.#revalidations.updateEntry(entry, response, update.headers) === 'other')
      await cache.removeEntry(entry);
  }

  /** The key under which the response to this request is stored, as far as the variants seen so far tell. */
  #storageKey({ expected, key, headers }: FetchRequest): string {
    return expected === null ? this.#variants.variantKeyFor(key, headers) : key;
  }

  /** An entry without a strong validator that lost a block cannot be completed: it is removed and fetched anew. */
  async #storedFor(request: FetchRequest): Promise<Entry | null> {
    const { cache, inflight } = this.#deps;
    const { from } = request;
    const entry = await cache.findConfirmed(this.#storageKey(request));
    if (entry === null || hasStrongValidator(entry) || entry.generatedAtMs === null || from === 'suffix') return entry;
    const number = Math.floor(from / BLOCK_BYTES);
    if (from >= entry.bytes || entry.blocks.has(number) || inflight.has(entry, number)) return entry;
    await cache.removeEntry(entry);
    return null;
  }

  async #fromCatalog({ key }: FetchRequest): Promise<LookupResult> {
    const meta = await this.#deps.catalogued!(key);
    if (meta === null) throw new Fault('asset_uncatalogued', `${key.slice(0, 200)} is not in the catalog`);
    const entry = await this.#deps.cache.ensureEntry(meta);
    return { kind: 'entry', entry, validated: true, forward: null };
  }

  /** A fetch that carries somebody's authorization is shared only once its response says that it may be. */
  #joinable(request: FetchRequest): OngoingLookup | null {
    if (request.headers['authorization'] !== undefined) return null;
    return this.#ongoing.get(this.#storageKey(request)) ?? null;
  }

  /** Asks the origin; others may join. */
  #lead(lookup: OriginLookup, stored: Entry | null): Promise<LookupResult> {
    const { request } = lookup;
    const key = this.#storageKey(request);
    const result = this.#askOrigin(lookup, stored).then((each) => this.#storeNegative(lookup, each));
    if (request.headers['authorization'] !== undefined || this.#ongoing.has(key)) return result;
    const ongoing = { result, anonymous: isAnonymous(request) };
    this.#ongoing.set(key, ongoing);
    return result.finally(() => {
      if (this.#ongoing.get(key) === ongoing) this.#ongoing.delete(key);
    });
  }

  async #askOrigin(lookup: OriginLookup, stored: Entry | null): Promise<LookupResult> {
    const { key } = lookup.request;
    if (key.length > KEY_CHARS_MAX) return { kind: 'bypass', reason: 'key too long' };
    const unstorable = this.#first.whyUnstorable(lookup.request);
    if (unstorable !== null) return { kind: 'bypass', reason: unstorable };
    if (stored !== null) return this.#revalidations.revalidate(lookup, stored);
    return this.#first.fetch(lookup, this.#variants.varies(primaryKeyOf(key)) ? 'vary-miss' : 'uri-miss');
  }

  /** An error or a redirect that is stored replaces the entry that was stored before. */
  async #storeNegative(lookup: OriginLookup, result: LookupResult): Promise<LookupResult> {
    const { cache } = this.#deps;
    const { request } = lookup;
    const entry = cache.find(this.#storageKey(request));
    const isSuperseded = result.kind === 'relay' && entry !== null && isYounger(entry, result.generatedAtMs);
    if (isSuperseded || this.#epochs.isInvalidatedSince(primaryKeyOf(request.key), lookup.epoch)) return result;
    const marked = this.#negative.store(request, result);
    if (marked.kind === 'relay' && marked.forward.stored && entry !== null) await cache.removeEntry(entry);
    return marked;
  }
}

const isYounger = (entry: Entry, generatedAtMs: number): boolean =>
  entry.generatedAtMs === null || entry.generatedAtMs > generatedAtMs;

function selectorOf(
  selection: PurgeSelection,
): (asset: { readonly key: string; readonly holding: string | null }) => boolean {
  switch (selection.kind) {
    case 'asset':
      return ({ key }) => primaryKeyOf(key) === selection.key;
    case 'prefix':
      return ({ key }) => key.startsWith(selection.prefix);
    case 'title':
      return ({ holding }) => holding !== null && holding.startsWith(`${selection.title}:`);
  }
}
