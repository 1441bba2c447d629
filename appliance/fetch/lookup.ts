// Which stored answer fits an ask, and whether it still holds: the storekeeper's half of RFC 9111. Asks for the same thing
// at the same time cost one request to the origin; its answer begins an entry, brings one up to date, or goes on as it is.

import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { KEY_CHARS_MAX } from '../http/asset-key.ts';
import { BLOCK_BYTES, fitsHead } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import { InvalidationEpochs } from './invalidations.ts';
import { updatedHeaders } from '../http/headers.ts';
import { withResponseTimeout } from '../../runtime/backpressure.ts';
import { generatedAtMsOf, varyNames, unstorableReason } from '../http/freshness.ts';
import { hasStrongValidator, type Inflight } from './inflight.ts';
import type { FetchRequest, Forward, CacheUpdate } from '../link/messages.ts';
import {
  forwardOf,
  relayResult,
  fullBodyRelay,
  staleResult,
  joinedResult,
  type LookupResult,
} from './lookup-result.ts';
import { discardBody, type OriginBytes, type Origin, type OriginRelay } from './origin.ts';
import {
  credentialsOf,
  setCookieOf,
  isAnonymous,
  mayShare,
  REQUEST_DEPENDENT,
  bypassKey,
  teeUpTo,
  readUpTo,
  conditionalHeaders,
  requestedBlocks,
  weakTag,
} from './origin-request.ts';
import { NegativeCache } from './negative-cache.ts';
import type { AssetMeta, Entry } from '../store/volume.ts';
import { primaryKeyOf, variantKey, VariantIndex } from '../http/vary.ts';

/** An answer without a strong entity tag, or without a length, is kept only whole, and waits in memory until it is. */
export const WHOLE_BYTES_MAX = 64 * 2 ** 20;
/** How long an answer that may not be stored is remembered, so that the next request passes at once. */
const PASS_REMEMBERED_MS = 60_000;
const PASS_REMEMBERED_MAX = 10_000;
/** An origin that failed is not asked again for so long where what is stored may be served meanwhile. */
const FAILING_MS = 5_000;
/** How long an origin may take to begin its answer where what is stored may be served instead. */
const PATIENCE_MS = 3_000;
/** Looks at a thing that keeps changing under the asker. */
const LOOKS_MAX = 4;

export interface LookupDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  /** In a fleet: the catalog's word on a key, null where it is not catalogued. Absent stand-alone. */
  readonly catalogued: ((key: string) => Promise<AssetMeta | null>) | null;
  readonly reverseProxy: boolean;
  readonly clock: Clock;
}

interface OngoingLookup {
  readonly result: Promise<LookupResult>;
  /** Nobody's credentials went with it. */
  readonly plain: boolean;
}

/** An ask that goes to the origin. */
interface OriginLookup {
  readonly ask: FetchRequest;
  /** What is fetched may be stored. */
  readonly admitted: boolean;
  /** How many changes had been told of when it began. */
  readonly since: number;
}

/** A first answer, and what is to be made of it. */
interface FirstResponse {
  readonly answer: OriginBytes;
  readonly reason: Forward['reason'];
}

export class Lookup {
  readonly #deps: LookupDeps;
  readonly #variants = new VariantIndex();
  readonly #negativeCache: NegativeCache;
  readonly #underWay = new Map<string, OngoingLookup>();
  readonly #passing = new LRUCache<string, string>({ max: PASS_REMEMBERED_MAX, ttl: PASS_REMEMBERED_MS });
  readonly #failing = new LRUCache<string, { readonly status: number | null }>({
    max: PASS_REMEMBERED_MAX,
    ttl: FAILING_MS,
  });
  readonly #changes = new InvalidationEpochs();

  constructor(deps: LookupDeps) {
    this.#deps = deps;
    this.#negativeCache = new NegativeCache(deps.clock);
    for (const entry of deps.cache.entries())
      if (entry.key.includes(' ')) this.#variants.record(entry.key, entry.headers);
  }

  /** `admitted`: what is fetched may be stored. Throws the fault to answer with. */
  async lookUp(ask: FetchRequest, admitted: boolean): Promise<LookupResult> {
    for (let look = 1; ; look += 1) {
      const stored = await this.#stored(ask);
      if (stored !== null && (ask.validate === null || younger(stored, ask.validate.generatedAtMs)))
        return { kind: 'entry', entry: stored, validated: false, forward: null };
      const negative = stored === null ? this.#negativeCache.find(ask) : null;
      if (negative !== null) return negative;
      if (ask.onlyIfCached) return { kind: 'not-cached' };
      if (this.#deps.catalogued !== null) return this.#inCatalog(ask);
      const question = { ask, admitted, since: this.#changes.epoch };
      const other = this.#joinable(ask);
      if (other === null || look > LOOKS_MAX) return this.#lead(question, stored);
      const plain = other.plain && isAnonymous(ask);
      const result = await other.result.catch((error: unknown) => (plain ? Promise.reject(error) : null));
      if (result === null) continue;
      // An answer for nobody else is asked for again, by each for himself; another variant is looked for.
      const mayHave = result.kind !== 'relay' || result.forward.stored || (plain && mayShare(result));
      if (!mayHave) return this.#lead(question, stored);
      if (result.kind !== 'entry') return result;
      if (result.entry.key === this.#keyOf(ask)) return joinedResult(result, ask.validate !== null);
    }
  }

  /** A worker saw the asset change, or heard what a HEAD says of it. */
  async applyUpdate(told: CacheUpdate): Promise<void> {
    const { cache, clock } = this.#deps;
    if (told.kind === 'changed') {
      this.#changes.record(told.keys);
      for (const asset of told.keys) {
        this.#negativeCache.invalidate(asset);
        for (const key of this.#variants.storedKeys(asset)) {
          this.#underWay.delete(key);
          const entry = cache.find(key);
          if (entry !== null) await cache.removeEntry(entry);
        }
      }
      return;
    }
    const entry = cache.find(this.#variants.variantKeyFor(told.key, told.headers));
    if (entry === null || this.#deps.catalogued !== null) return;
    const { answer } = told;
    const same =
      (answer['last-modified'] === undefined || answer['last-modified'] === entry.headers['last-modified']) &&
      (answer['content-length'] === undefined || Number(answer['content-length']) === entry.bytes);
    const headers = { date: new Date(clock.now()).toUTCString(), ...answer };
    const news = { headers, generatedAtMs: generatedAtMsOf(headers, told) };
    if (!same || this.#freshen(entry, news, told.headers) === 'other') await cache.removeEntry(entry);
  }

  #keyOf(ask: FetchRequest): string {
    return ask.expected === null ? this.#variants.variantKeyFor(ask.key, ask.headers) : ask.key;
  }

  /** An unsealed asset of which a block was evicted cannot be completed: it leaves and is fetched anew. */
  async #stored(ask: FetchRequest): Promise<Entry | null> {
    const { cache, inflight } = this.#deps;
    const entry = cache.find(this.#keyOf(ask));
    if (entry === null || hasStrongValidator(entry) || entry.generatedAtMs === null || ask.from === 'suffix')
      return entry;
    const number = Math.floor(ask.from / BLOCK_BYTES);
    if (ask.from >= entry.bytes || entry.blocks.has(number) || inflight.has(entry, number)) return entry;
    await cache.removeEntry(entry);
    return null;
  }

  async #inCatalog(ask: FetchRequest): Promise<LookupResult> {
    const meta = await this.#deps.catalogued!(ask.key);
    if (meta === null) throw new Fault('asset_uncatalogued', `${ask.key.slice(0, 200)} is not in the catalog`);
    const entry = await this.#deps.cache.ensureEntry(meta);
    return { kind: 'entry', entry, validated: true, forward: null };
  }

  /** A fetch with somebody's authorization is shared only once its answer says that it may be. */
  #joinable(ask: FetchRequest): OngoingLookup | null {
    return ask.headers['authorization'] === undefined ? (this.#underWay.get(this.#keyOf(ask)) ?? null) : null;
  }

  #lead(question: OriginLookup, stored: Entry | null): Promise<LookupResult> {
    const { ask } = question;
    const name = this.#keyOf(ask);
    const result = this.#atOrigin(question, stored).then((each) => this.#learn(question, each));
    if (ask.headers['authorization'] !== undefined || this.#underWay.has(name)) return result;
    const underWay = { result, plain: isAnonymous(ask) };
    this.#underWay.set(name, underWay);
    return result.finally(() => {
      if (this.#underWay.get(name) === underWay) this.#underWay.delete(name);
    });
  }

  /** An error or a redirect that is kept is the last word: what was stored before leaves. */
  async #learn(question: OriginLookup, result: LookupResult): Promise<LookupResult> {
    const { ask } = question;
    const stored = this.#deps.cache.find(this.#keyOf(ask));
    const isOvertaken = result.kind === 'relay' && stored !== null && younger(stored, result.generatedAtMs);
    if (isOvertaken || this.#isOld(question)) return result;
    const learnt = this.#negativeCache.store(ask, result);
    if (learnt.kind === 'relay' && learnt.forward.stored && stored !== null) await this.#deps.cache.removeEntry(stored);
    return learnt;
  }

  async #atOrigin(question: OriginLookup, stored: Entry | null): Promise<LookupResult> {
    const { ask } = question;
    const reason = ask.key.length > KEY_CHARS_MAX ? 'key too long' : this.#passing.get(bypassKey(ask));
    if (reason !== undefined) return { kind: 'bypass', reason };
    if (stored !== null) return this.#validate(question, stored);
    return this.#first(question, this.#variants.varies(primaryKeyOf(ask.key)) ? 'vary-miss' : 'uri-miss');
  }

  async #first(question: OriginLookup, reason: Forward['reason']): Promise<LookupResult> {
    const { ask } = question;
    const { first, last } = requestedBlocks(ask);
    const answer = await this.#fetch(ask, { first, last });
    if (answer.kind === 'bytes') return this.#seal(question, { answer, reason });
    if (answer.status !== 416) return relayResult(ask, answer, reason);
    discardBody(answer.body);
    // Beyond the end: block 0 says how long the asset is. An empty asset has no satisfiable range at all.
    const start = first === 0 ? null : await this.#fetch(ask, { first: 0, last: 0 });
    if (start?.kind === 'bytes') return this.#seal(question, { answer: start, reason });
    if (start !== null && start.status !== 416) return relayResult(ask, start, reason);
    if (start !== null) discardBody(start.body);
    return { kind: 'bypass', reason: 'empty' };
  }

  /** RFC 9111 4.3: the origin is asked whether what is stored still holds, and for the bytes wanted where it does not. */
  async #validate(question: OriginLookup, stored: Entry): Promise<LookupResult> {
    const { cache } = this.#deps;
    const { ask } = question;
    const mayServe = (status: number | null): boolean =>
      !stored.removed && (status === null ? ask.validate!.ifUnreachable : ask.validate!.ifFailing);
    const failing = this.#failing.get(stored.key);
    if (failing !== undefined && mayServe(failing.status)) return staleResult(stored, failing.status);
    let answer: OriginBytes | OriginRelay;
    const unless = conditionalHeaders(stored);
    try {
      const fetch = (signal: AbortSignal | null): Promise<OriginBytes | OriginRelay> =>
        this.#fetch(ask, requestedBlocks(ask), { unless, signal });
      answer = await (mayServe(null) ? withResponseTimeout(PATIENCE_MS, fetch) : fetch(null));
    } catch (error) {
      const away = isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');
      if (!away) throw error;
      this.#failing.set(stored.key, { status: null });
      if (mayServe(null)) return staleResult(stored, null);
      throw new Fault('validation_failed', `${ask.key} is stale and the origin is away`, { cause: error });
    }
    if (answer.kind === 'bytes') {
      if (answer.unstorable !== null && !REQUEST_DEPENDENT.has(answer.unstorable)) await cache.removeEntry(stored);
      return this.#seal(question, { answer, reason: 'stale' });
    }
    if (answer.status >= 500) this.#failing.set(stored.key, { status: answer.status });
    if (answer.status >= 500 && mayServe(answer.status)) {
      discardBody(answer.body);
      return staleResult(stored, answer.status);
    }
    if (answer.status === 404 || answer.status === 410) await cache.removeEntry(stored);
    if (answer.status !== 304 && answer.status !== 416) return relayResult(ask, answer, 'stale');
    discardBody(answer.body);
    const holds = answer.status === 304 && !stored.removed && !this.#isOld(question);
    if (holds && this.#freshen(stored, answer, ask.headers) !== 'other')
      return { kind: 'entry', entry: stored, validated: true, forward: forwardOf('stale', 304) };
    await cache.removeEntry(stored);
    return this.#first(question, 'stale');
  }

  /**
   * `other`: the news are of another version or variant, or forbid to store it. `theirs`: they are for him alone who
   * asked, whose answer is the stored one all the same.
   */
  #freshen(
    stored: Entry,
    news: { readonly headers: Readonly<Record<string, string>>; readonly generatedAtMs: number },
    asker: Readonly<Record<string, string>>,
  ): 'fresh' | 'theirs' | 'other' {
    const etag = news.headers['etag'];
    if (etag !== undefined && weakTag(etag) !== weakTag(stored.headers['etag'] ?? '')) return 'other';
    const headers = updatedHeaders(stored.headers, news.headers, this.#deps.reverseProxy);
    if (varyNames(headers)?.join() !== varyNames(stored.headers)?.join()) return 'other';
    if (!fitsHead({ ...stored, headers })) return 'other';
    const unstorable = unstorableReason({ ...headers, ...setCookieOf(news.headers) }, credentialsOf(asker));
    if (unstorable !== null) return REQUEST_DEPENDENT.has(unstorable) ? 'theirs' : 'other';
    this.#failing.delete(stored.key);
    this.#deps.cache.updateMetadata(stored, { headers, generatedAtMs: news.generatedAtMs });
    return 'fresh';
  }

  #fetch(
    ask: FetchRequest,
    blocks: { readonly first: number; readonly last: number },
    only: { readonly unless?: Readonly<Record<string, string>>; readonly signal: AbortSignal | null } = {
      signal: null,
    },
  ): Promise<OriginBytes | OriginRelay> {
    return this.#deps.origin.fetch('miss', {
      key: ask.key,
      first: blocks.first * BLOCK_BYTES,
      last: (blocks.last + 1) * BLOCK_BYTES - 1,
      ifMatch: null,
      headers: ask.headers,
      ...only,
    });
  }

  /** Turns a first answer into an entry with a flight that goes on reading it, or lets the request pass. */
  async #seal(question: OriginLookup, sealing: FirstResponse): Promise<LookupResult> {
    const { answer } = sealing;
    try {
      const { total, etag } = answer;
      if (answer.unstorable !== null) return this.#pass(question, sealing, answer.unstorable);
      if (this.#isOld(question)) return this.#pass(question, sealing, null);
      if (total === 0) return this.#pass(question, sealing, 'empty');
      if (total === null || answer.last === null) return await this.#unmeasured(question, sealing);
      if (etag !== null) return await this.#begin(question, { ...sealing, bytes: total, version: etag });
      if (total > WHOLE_BYTES_MAX) return this.#pass(question, sealing, 'no strong validator');
      const isWhole = answer.first === 0 && answer.last === total - 1;
      const whole = isWhole ? answer : await this.#refetchWhole(question.ask, answer);
      if (whole.kind === 'relay') return relayResult(question.ask, whole, sealing.reason);
      const partial = whole.first !== 0 || whole.total === null || whole.last !== whole.total - 1;
      if (whole.unstorable !== null || partial)
        return this.#pass(question, { ...sealing, answer: whole }, whole.unstorable ?? 'not whole');
      return await this.#begin(question, { ...sealing, answer: whole, bytes: whole.total, version: newVersion() });
    } catch (error) {
      discardBody(answer.body);
      throw error;
    }
  }

  #refetchWhole({ key, headers }: FetchRequest, partial: OriginBytes): Promise<OriginBytes | OriginRelay> {
    discardBody(partial.body);
    return this.#deps.origin.fetch('miss', { key, first: 0, last: null, ifMatch: null, headers, signal: null });
  }

  async #begin(
    { ask, admitted, since }: OriginLookup,
    spec: FirstResponse & { readonly bytes: number; readonly version: string },
  ): Promise<LookupResult> {
    const { answer, bytes, version, reason } = spec;
    const { cache, inflight } = this.#deps;
    const { headers, generatedAtMs } = answer;
    const key = variantKey(primaryKeyOf(ask.key), varyNames(headers)!, ask.headers);
    if (!fitsHead({ key, version, headers, holding: null }))
      return this.#pass({ ask, admitted, since }, spec, 'fields too long');
    for (const stale of this.#variants.record(key, headers)) {
      const entry = cache.find(stale);
      if (entry !== null) await cache.removeEntry(entry);
    }
    const entry = await cache.ensureEntry({ key, version, bytes, headers, generatedAtMs, holding: null });
    cache.updateMetadata(entry, { headers, generatedAtMs });
    if (admitted) inflight.admit(entry);
    const number = Math.floor(answer.first / BLOCK_BYTES);
    // The version that is stored already, or on its way: an origin that knows no conditions sent it again.
    if (entry.blocks.has(number) || inflight.has(entry, number)) {
      discardBody(answer.body);
      return { kind: 'entry', entry, validated: true, forward: forwardOf(reason, answer.status) };
    }
    const lastWanted = Math.floor(answer.last! / BLOCK_BYTES);
    const pending = inflight.start(entry, { number, lastWanted, pool: 'miss', headers: ask.headers, answer });
    await pending.decided;
    const forward = { reason, status: answer.status, stored: pending.storable, collapsed: false };
    return { kind: 'entry', entry, validated: true, forward };
  }

  /** A length that only the end tells: whole it becomes an asset; who asked for all of it reads along. */
  async #unmeasured(question: OriginLookup, sealing: FirstResponse): Promise<LookupResult> {
    const { answer, reason } = sealing;
    // Without framing an end and a break look alike.
    if (answer.status !== 200 || !answer.framed) return this.#pass(question, sealing, 'length unknown');
    const keep = (body: Buffer): Promise<LookupResult> => {
      const measured = { ...answer, first: 0, last: body.length - 1, total: body.length, body: Readable.from([body]) };
      const version = answer.etag ?? newVersion();
      return this.#begin(question, { answer: measured, reason, bytes: body.length, version });
    };
    if (question.ask.wantsFullBody) {
      const body = teeUpTo(answer.body, WHOLE_BYTES_MAX, async (whole) => {
        if (!this.#isOld(question)) await keep(whole);
      });
      return { ...fullBodyRelay(answer), body, forward: forwardOf(reason, answer.status) };
    }
    const whole = await readUpTo(answer.body, WHOLE_BYTES_MAX);
    if (!Buffer.isBuffer(whole)) await whole.return(undefined);
    else if (whole.length > 0) return keep(whole);
    return this.#pass(question, sealing, 'length unknown');
  }

  /** Whether the asset changed after the question was asked. */
  #isOld({ ask, since }: OriginLookup): boolean {
    return this.#changes.isInvalidatedSince(primaryKeyOf(ask.key), since);
  }

  /** What is not kept is not asked for twice either, where the answer at hand is what was asked for. */
  #pass({ ask }: OriginLookup, { answer, reason: forward }: FirstResponse, reason: string | null): LookupResult {
    if (reason !== null) this.#passing.set(bypassKey(ask), reason);
    const whole =
      answer.first === 0 && (answer.total === null ? answer.status === 200 : answer.last === answer.total - 1);
    if (ask.wantsFullBody && whole) return { ...fullBodyRelay(answer), forward: forwardOf(forward, answer.status) };
    discardBody(answer.body);
    return { kind: 'bypass', reason: reason ?? 'changed' };
  }
}

const younger = (entry: Entry, generatedAtMs: number): boolean =>
  entry.generatedAtMs === null || entry.generatedAtMs > generatedAtMs;

/** A name of our own for an answer without one. */
const newVersion = (): string => `whole:${randomBytes(8).toString('hex')}`;
