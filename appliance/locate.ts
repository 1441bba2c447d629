// Which stored answer fits an ask, and whether it still holds: the storekeeper's half of RFC 9111. Asks for the same thing
// at the same time cost one request to the origin; its answer begins an entry, brings one up to date, or passes by.

import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Clock } from '../runtime/clock.ts';
import { KEY_CHARS_MAX } from './asset-key.ts';
import { BLOCK_BYTES } from './block-file.ts';
import type { Cache } from './cache.ts';
import { updatedFields } from './fields.ts';
import { bornMs, whyUnstorable } from './freshness.ts';
import { FLIGHT_BLOCKS_MAX, isSealed, type Inflight } from './inflight.ts';
import type { Ask, Forward, Told } from './link.ts';
import type { Bytes, Origin, Relay } from './origin.ts';
import { isStrong } from './precondition.ts';
import type { AssetMeta, Entry } from './store.ts';
import { assetKeyOf, variantKey, Variants } from './variants.ts';
import { varyNames } from './freshness.ts';

/** An answer without a strong entity tag is kept only whole, and waits in memory until it is. */
export const WHOLE_BYTES_MAX = 64 * 2 ** 20;
/** How long an answer that may not be stored is remembered, so that the next request passes at once. */
const PASS_REMEMBERED_MS = 60_000;
const PASS_REMEMBERED_MAX = 10_000;
/** Reasons that lie in who asks: the next one may be luckier. */
const OF_THE_ASKER = new Set(['authorization', 'cookie']);
/** Looks at a thing that keeps changing under the asker. */
const LOOKS_MAX = 4;

export type Located =
  | { readonly kind: 'entry'; readonly entry: Entry; readonly validated: boolean; readonly forward: Forward | null }
  | (Relay & { readonly forward: Forward })
  | { readonly kind: 'pass'; readonly reason: string }
  | { readonly kind: 'absent' };

export interface LocateDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  /** In a fleet: the catalog's word on a key, null where it is not catalogued. Absent stand-alone. */
  readonly catalogued: ((key: string) => Promise<AssetMeta | null>) | null;
  readonly standsFor: boolean;
  readonly clock: Clock;
}

/** A first answer, and what is to be made of it. */
interface Sealing {
  readonly answer: Bytes;
  readonly reason: Forward['reason'];
  readonly admitted: boolean;
}

interface UnderWay {
  readonly located: Promise<Located>;
  /** Nobody's credentials went with it: whatever comes back is for everybody. */
  readonly plain: boolean;
}

export class Locate {
  readonly #deps: LocateDeps;
  readonly #variants = new Variants();
  readonly #underWay = new Map<string, UnderWay>();
  readonly #passing = new LRUCache<string, string>({ max: PASS_REMEMBERED_MAX, ttl: PASS_REMEMBERED_MS });

  constructor(deps: LocateDeps) {
    this.#deps = deps;
    for (const entry of deps.cache.entries())
      if (entry.key.includes(' ')) this.#variants.learn(entry.key, entry.headers);
  }

  /** `admitted`: what is fetched may be stored. Throws the fault to answer with. */
  async locate(ask: Ask, admitted: boolean): Promise<Located> {
    for (let look = 1; ; look += 1) {
      const stored = await this.#stored(ask);
      if (stored !== null && (ask.validate === null || younger(stored, ask.validate.bornMs)))
        return { kind: 'entry', entry: stored, validated: false, forward: null };
      if (ask.storedOnly) return { kind: 'absent' };
      if (this.#deps.catalogued !== null) return this.#inCatalog(ask);
      const other = this.#joinable(ask);
      if (other === null || look > LOOKS_MAX) return this.#lead(ask, stored, admitted);
      const located = await other.located.catch((error: unknown) => (other.plain ? Promise.reject(error) : null));
      if (located === null) continue;
      // Another variant, or an answer that was made for somebody else: look again.
      if (located.kind === 'entry') {
        if (located.entry.key === this.#keyOf(ask)) return shared(located, ask.validate !== null);
      } else if (other.plain && isPlain(ask)) return located;
      else return this.#lead(ask, stored, admitted);
    }
  }

  /** A worker saw the asset change, or heard what a HEAD says of it. */
  async told(told: Told): Promise<void> {
    const { cache, clock } = this.#deps;
    if (told.kind === 'changed') {
      for (const asset of told.keys)
        for (const key of this.#variants.keysOf(asset)) {
          const entry = cache.find(key);
          if (entry !== null) await cache.drop(entry);
        }
      return;
    }
    const entry = cache.find(this.#variants.keyFor(told.key, told.headers));
    if (entry === null || this.#deps.catalogued !== null) return;
    const { answer } = told;
    const same =
      (answer['etag'] === undefined || answer['etag'] === entry.headers['etag']) &&
      (answer['last-modified'] === undefined || answer['last-modified'] === entry.headers['last-modified']) &&
      (answer['content-length'] === undefined || Number(answer['content-length']) === entry.bytes);
    if (!same) return cache.drop(entry);
    const headers = { date: new Date(clock.now()).toUTCString(), ...answer };
    this.#freshen(entry, { headers, bornMs: bornMs(headers, told) });
  }

  #keyOf(ask: Ask): string {
    return ask.known === null ? this.#variants.keyFor(ask.key, ask.headers) : ask.key;
  }

  /** An unsealed asset of which a block was evicted cannot be completed: it leaves and is fetched anew. */
  async #stored(ask: Ask): Promise<Entry | null> {
    const { cache, inflight } = this.#deps;
    const entry = cache.find(this.#keyOf(ask));
    if (entry === null || isSealed(entry) || entry.bornMs === null || ask.from === 'suffix') return entry;
    const number = Math.floor(ask.from / BLOCK_BYTES);
    if (ask.from >= entry.bytes || entry.blocks.has(number) || inflight.has(entry, number)) return entry;
    await cache.drop(entry);
    return null;
  }

  async #inCatalog(ask: Ask): Promise<Located> {
    const meta = await this.#deps.catalogued!(ask.key);
    if (meta === null) throw new Fault('asset_uncatalogued', `${ask.key.slice(0, 200)} is not in the catalog`);
    const entry = await this.#deps.cache.admit(meta);
    return { kind: 'entry', entry, validated: true, forward: null };
  }

  /** A fetch with somebody's authorization is shared only once its answer says that it may be. */
  #joinable(ask: Ask): UnderWay | null {
    return ask.headers['authorization'] === undefined ? (this.#underWay.get(this.#keyOf(ask)) ?? null) : null;
  }

  #lead(ask: Ask, stored: Entry | null, admitted: boolean): Promise<Located> {
    const name = this.#keyOf(ask);
    const located = this.#atOrigin(ask, stored, admitted);
    if (ask.headers['authorization'] !== undefined || this.#underWay.has(name)) return located;
    this.#underWay.set(name, { located, plain: isPlain(ask) });
    return located.finally(() => this.#underWay.delete(name));
  }

  async #atOrigin(ask: Ask, stored: Entry | null, admitted: boolean): Promise<Located> {
    const reason = ask.key.length > KEY_CHARS_MAX ? 'key too long' : this.#passing.get(assetKeyOf(ask.key));
    if (reason !== undefined) return { kind: 'pass', reason };
    if (stored !== null) return this.#validate(ask, stored, admitted);
    const variant = this.#variants.has(assetKeyOf(ask.key));
    return this.#first(ask, variant ? 'vary-miss' : 'uri-miss', admitted);
  }

  async #first(ask: Ask, reason: Forward['reason'], admitted: boolean): Promise<Located> {
    const { first, last } = wantedBlocks(ask);
    const answer = await this.#fetch(ask, { first, last });
    if (answer.kind === 'bytes') return this.#seal(ask, { answer, reason, admitted });
    if (answer.status !== 416) return relayed(answer, reason);
    // Beyond the end: block 0 says how long the asset is. An empty asset has no satisfiable range at all.
    const start = first === 0 ? answer : await this.#fetch(ask, { first: 0, last: 0 });
    if (start.kind === 'bytes') return this.#seal(ask, { answer: start, reason, admitted });
    return start.status === 416 ? { kind: 'pass', reason: 'empty' } : relayed(start, reason);
  }

  /** RFC 9111 4.3: the origin is asked whether what is stored still holds, and for the bytes wanted where it does not. */
  async #validate(ask: Ask, stored: Entry, admitted: boolean): Promise<Located> {
    const { cache } = this.#deps;
    const validation = ask.validate!;
    const unless = validatorsOf(stored);
    if (unless === null) {
      await cache.drop(stored);
      return this.#first(ask, 'stale', admitted);
    }
    let answer: Bytes | Relay;
    try {
      answer = await this.#fetch(ask, wantedBlocks(ask), unless);
    } catch (error) {
      const away = isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');
      if (away && validation.ifUnreachable && !stored.dropped) return servedStale(stored, null);
      throw away
        ? new Fault('validation_failed', `${ask.key} is stale and the origin is away`, { cause: error })
        : error;
    }
    if (answer.kind === 'bytes') return this.#seal(ask, { answer, reason: 'stale', admitted });
    if (answer.status === 304 && !stored.dropped && this.#freshen(stored, answer))
      return { kind: 'entry', entry: stored, validated: true, forward: forwarded('stale', 304) };
    if (answer.status === 304 || answer.status === 416) {
      await cache.drop(stored);
      return this.#first(ask, 'stale', admitted);
    }
    if (answer.status >= 500 && validation.ifFailing && !stored.dropped) return servedStale(stored, answer.status);
    if (answer.status === 404 || answer.status === 410) await cache.drop(stored);
    return relayed(answer, 'stale');
  }

  /** False where the news are of another version, or forbid to store it. */
  #freshen(
    stored: Entry,
    news: { readonly headers: Readonly<Record<string, string>>; readonly bornMs: number },
  ): boolean {
    const etag = news.headers['etag'];
    if (isStrong(etag ?? null) && isSealed(stored) && etag !== stored.version) return false;
    const headers = updatedFields(stored.headers, news.headers, this.#deps.standsFor);
    if (whyUnstorable(headers, { authorization: false, cookie: false }) !== null) return false;
    this.#deps.cache.freshen(stored, { headers, bornMs: news.bornMs });
    return true;
  }

  #fetch(
    ask: Ask,
    blocks: { readonly first: number; readonly last: number },
    unless?: Readonly<Record<string, string>>,
  ): Promise<Bytes | Relay> {
    return this.#deps.origin.fetch('miss', {
      key: ask.key,
      first: blocks.first * BLOCK_BYTES,
      last: (blocks.last + 1) * BLOCK_BYTES - 1,
      ifMatch: null,
      headers: ask.headers,
      ...(unless === undefined ? {} : { unless }),
      signal: null,
    });
  }

  /** Turns a first answer into an entry with a flight that goes on reading it, or lets the request pass. */
  async #seal(ask: Ask, spec: Sealing): Promise<Located> {
    const { answer, reason } = spec;
    const { total, etag } = answer;
    if (answer.unstorable !== null) return this.#pass(ask, answer, answer.unstorable);
    if (total === null || answer.last === null) return this.#pass(ask, answer, 'length unknown');
    if (total === 0) return this.#pass(ask, answer, 'empty');
    if (etag !== null) return this.#begin(ask, { ...spec, bytes: total, version: etag });
    if (total > WHOLE_BYTES_MAX) return this.#pass(ask, answer, 'no strong validator');
    const whole = answer.first === 0 && answer.last === total - 1 ? answer : await this.#refetchWhole(ask, answer);
    if (whole.kind === 'relay') return relayed(whole, reason);
    if (whole.unstorable !== null || whole.first !== 0 || whole.total === null || whole.last !== whole.total - 1)
      return this.#pass(ask, whole, 'not whole');
    const version = `whole:${randomBytes(8).toString('hex')}`;
    return this.#begin(ask, { ...spec, answer: whole, bytes: whole.total, version });
  }

  #refetchWhole(ask: Ask, partial: Bytes): Promise<Bytes | Relay> {
    discard(partial);
    const { key, headers } = ask;
    return this.#deps.origin.fetch('miss', { key, first: 0, last: null, ifMatch: null, headers, signal: null });
  }

  async #begin(ask: Ask, spec: Sealing & { readonly bytes: number; readonly version: string }): Promise<Located> {
    const { answer } = spec;
    const { cache, inflight } = this.#deps;
    const { headers, bornMs: born } = answer;
    const key = variantKey(assetKeyOf(ask.key), varyNames(headers)!, ask.headers);
    for (const stale of this.#variants.learn(key, headers)) {
      const entry = cache.find(stale);
      if (entry !== null) await cache.drop(entry);
    }
    const entry = await cache.admit({
      key,
      version: spec.version,
      bytes: spec.bytes,
      headers,
      bornMs: born,
      holding: null,
    });
    cache.freshen(entry, { headers, bornMs: born });
    if (spec.admitted) inflight.admit(entry);
    const number = Math.floor(answer.first / BLOCK_BYTES);
    // The version that is stored already, or on its way: an origin that knows no conditions sent it again.
    if (entry.blocks.has(number) || inflight.has(entry, number)) {
      discard(answer);
      return { kind: 'entry', entry, validated: true, forward: forwarded(spec.reason, answer.status) };
    }
    const landing = inflight.start(entry, {
      number,
      lastWanted: Math.floor(answer.last! / BLOCK_BYTES),
      pool: 'miss',
      headers: ask.headers,
      answer,
    });
    await landing.taken;
    const forward = { reason: spec.reason, status: answer.status, stored: landing.kept, collapsed: false };
    return { kind: 'entry', entry, validated: true, forward };
  }

  #pass(ask: Ask, answer: Bytes, reason: string): Located {
    discard(answer);
    if (!OF_THE_ASKER.has(reason)) this.#passing.set(assetKeyOf(ask.key), reason);
    return { kind: 'pass', reason };
  }
}

/** Blocks of the first fetch: as far as the asker wants, no further than a flight goes. */
function wantedBlocks({ from, to }: Ask): { readonly first: number; readonly last: number } {
  if (from === 'suffix') return { first: 0, last: 0 };
  const first = Math.floor(from / BLOCK_BYTES);
  const wanted = to === null ? Number.POSITIVE_INFINITY : Math.max(first, Math.floor((to - 1) / BLOCK_BYTES));
  return { first, last: Math.min(first + FLIGHT_BLOCKS_MAX - 1, wanted) };
}

/** RFC 9110 13.1: the entity tag, weak or strong, else the date. */
function validatorsOf({ headers }: Entry): Record<string, string> | null {
  if (headers['etag'] !== undefined) return { 'if-none-match': headers['etag'] };
  if (headers['last-modified'] !== undefined) return { 'if-modified-since': headers['last-modified'] };
  return null;
}

const younger = (entry: Entry, born: number): boolean => entry.bornMs === null || entry.bornMs > born;

const isPlain = ({ headers }: Ask): boolean =>
  headers['cookie'] === undefined && headers['authorization'] === undefined;

/** Who asked for validation and joined one has the origin's word, too; who only missed judges for himself. */
const shared = (located: Located & { kind: 'entry' }, validating: boolean): Located => ({
  ...located,
  validated: located.validated && validating,
  forward: located.forward === null ? null : { ...located.forward, collapsed: true },
});

const forwarded = (reason: Forward['reason'], status: number | null): Forward => ({
  ...{ reason, status, stored: false, collapsed: false },
});

const relayed = (answer: Relay, reason: Forward['reason']): Located => ({
  ...answer,
  forward: forwarded(reason, answer.status),
});

const servedStale = (entry: Entry, status: number | null): Located => ({
  ...{ kind: 'entry', entry, validated: true, forward: forwarded('stale', status) },
});

function discard(answer: Bytes): void {
  answer.body.on('error', () => undefined).destroy();
}
