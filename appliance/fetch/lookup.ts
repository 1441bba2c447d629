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
import { Changes } from './invalidations.ts';
import { updatedFields } from '../http/headers.ts';
import { withResponseTimeout } from '../../runtime/backpressure.ts';
import { bornMs, varyNames, whyUnstorable } from '../http/freshness.ts';
import { isSealed, type Inflight } from './inflight.ts';
import type { Ask, Forward, Told } from '../link/messages.ts';
import { forwarded, relayed, relayOf, servedStale, shared, type Located } from './lookup-result.ts';
import { discard, type Bytes, type Origin, type Relay } from './origin.ts';
import {
  askerOf,
  cookieOf,
  isPlain,
  mayShare,
  OF_THE_ASKER,
  passName,
  readAlong,
  upTo,
  validatorsOf,
  wantedBlocks,
  weak,
} from './origin-request.ts';
import { Remembered } from './negative-cache.ts';
import type { AssetMeta, Entry } from '../store/volume.ts';
import { assetKeyOf, variantKey, Variants } from '../http/vary.ts';

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

export interface LocateDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  /** In a fleet: the catalog's word on a key, null where it is not catalogued. Absent stand-alone. */
  readonly catalogued: ((key: string) => Promise<AssetMeta | null>) | null;
  readonly standsFor: boolean;
  readonly clock: Clock;
}

interface UnderWay {
  readonly located: Promise<Located>;
  /** Nobody's credentials went with it. */
  readonly plain: boolean;
}

/** An ask that goes to the origin. */
interface Question {
  readonly ask: Ask;
  /** What is fetched may be stored. */
  readonly admitted: boolean;
  /** How many changes had been told of when it began. */
  readonly since: number;
}

/** A first answer, and what is to be made of it. */
interface Sealing {
  readonly answer: Bytes;
  readonly reason: Forward['reason'];
}

export class Locate {
  readonly #deps: LocateDeps;
  readonly #variants = new Variants();
  readonly #remembered: Remembered;
  readonly #underWay = new Map<string, UnderWay>();
  readonly #passing = new LRUCache<string, string>({ max: PASS_REMEMBERED_MAX, ttl: PASS_REMEMBERED_MS });
  readonly #failing = new LRUCache<string, { readonly status: number | null }>({
    max: PASS_REMEMBERED_MAX,
    ttl: FAILING_MS,
  });
  readonly #changes = new Changes();

  constructor(deps: LocateDeps) {
    this.#deps = deps;
    this.#remembered = new Remembered(deps.clock);
    for (const entry of deps.cache.entries())
      if (entry.key.includes(' ')) this.#variants.learn(entry.key, entry.headers);
  }

  /** `admitted`: what is fetched may be stored. Throws the fault to answer with. */
  async locate(ask: Ask, admitted: boolean): Promise<Located> {
    for (let look = 1; ; look += 1) {
      const stored = await this.#stored(ask);
      if (stored !== null && (ask.validate === null || younger(stored, ask.validate.bornMs)))
        return { kind: 'entry', entry: stored, validated: false, forward: null };
      const remembered = stored === null ? this.#remembered.find(ask) : null;
      if (remembered !== null) return remembered;
      if (ask.storedOnly) return { kind: 'absent' };
      if (this.#deps.catalogued !== null) return this.#inCatalog(ask);
      const question = { ask, admitted, since: this.#changes.count };
      const other = this.#joinable(ask);
      if (other === null || look > LOOKS_MAX) return this.#lead(question, stored);
      const plain = other.plain && isPlain(ask);
      const located = await other.located.catch((error: unknown) => (plain ? Promise.reject(error) : null));
      if (located === null) continue;
      // An answer for nobody else is asked for again, by each for himself; another variant is looked for.
      const mayHave = located.kind !== 'relay' || located.forward.stored || (plain && mayShare(located));
      if (!mayHave) return this.#lead(question, stored);
      if (located.kind !== 'entry') return located;
      if (located.entry.key === this.#keyOf(ask)) return shared(located, ask.validate !== null);
    }
  }

  /** A worker saw the asset change, or heard what a HEAD says of it. */
  async told(told: Told): Promise<void> {
    const { cache, clock } = this.#deps;
    if (told.kind === 'changed') {
      this.#changes.add(told.keys);
      for (const asset of told.keys) {
        this.#remembered.forget(asset);
        for (const key of this.#variants.keysOf(asset)) {
          this.#underWay.delete(key);
          const entry = cache.find(key);
          if (entry !== null) await cache.drop(entry);
        }
      }
      return;
    }
    const entry = cache.find(this.#variants.keyFor(told.key, told.headers));
    if (entry === null || this.#deps.catalogued !== null) return;
    const { answer } = told;
    const same =
      (answer['last-modified'] === undefined || answer['last-modified'] === entry.headers['last-modified']) &&
      (answer['content-length'] === undefined || Number(answer['content-length']) === entry.bytes);
    const headers = { date: new Date(clock.now()).toUTCString(), ...answer };
    const news = { headers, bornMs: bornMs(headers, told) };
    if (!same || this.#freshen(entry, news, told.headers) === 'other') await cache.drop(entry);
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

  #lead(question: Question, stored: Entry | null): Promise<Located> {
    const { ask } = question;
    const name = this.#keyOf(ask);
    const located = this.#atOrigin(question, stored).then((each) => this.#learn(question, each));
    if (ask.headers['authorization'] !== undefined || this.#underWay.has(name)) return located;
    const underWay = { located, plain: isPlain(ask) };
    this.#underWay.set(name, underWay);
    return located.finally(() => {
      if (this.#underWay.get(name) === underWay) this.#underWay.delete(name);
    });
  }

  /** An error or a redirect that is kept is the last word: what was stored before leaves. */
  async #learn(question: Question, located: Located): Promise<Located> {
    const { ask } = question;
    const stored = this.#deps.cache.find(this.#keyOf(ask));
    const isOvertaken = located.kind === 'relay' && stored !== null && younger(stored, located.bornMs);
    if (isOvertaken || this.#isOld(question)) return located;
    const learnt = this.#remembered.learn(ask, located);
    if (learnt.kind === 'relay' && learnt.forward.stored && stored !== null) await this.#deps.cache.drop(stored);
    return learnt;
  }

  async #atOrigin(question: Question, stored: Entry | null): Promise<Located> {
    const { ask } = question;
    const reason = ask.key.length > KEY_CHARS_MAX ? 'key too long' : this.#passing.get(passName(ask));
    if (reason !== undefined) return { kind: 'pass', reason };
    if (stored !== null) return this.#validate(question, stored);
    return this.#first(question, this.#variants.has(assetKeyOf(ask.key)) ? 'vary-miss' : 'uri-miss');
  }

  async #first(question: Question, reason: Forward['reason']): Promise<Located> {
    const { ask } = question;
    const { first, last } = wantedBlocks(ask);
    const answer = await this.#fetch(ask, { first, last });
    if (answer.kind === 'bytes') return this.#seal(question, { answer, reason });
    if (answer.status !== 416) return relayed(ask, answer, reason);
    discard(answer.body);
    // Beyond the end: block 0 says how long the asset is. An empty asset has no satisfiable range at all.
    const start = first === 0 ? null : await this.#fetch(ask, { first: 0, last: 0 });
    if (start?.kind === 'bytes') return this.#seal(question, { answer: start, reason });
    if (start !== null && start.status !== 416) return relayed(ask, start, reason);
    if (start !== null) discard(start.body);
    return { kind: 'pass', reason: 'empty' };
  }

  /** RFC 9111 4.3: the origin is asked whether what is stored still holds, and for the bytes wanted where it does not. */
  async #validate(question: Question, stored: Entry): Promise<Located> {
    const { cache } = this.#deps;
    const { ask } = question;
    const mayServe = (status: number | null): boolean =>
      !stored.dropped && (status === null ? ask.validate!.ifUnreachable : ask.validate!.ifFailing);
    const failing = this.#failing.get(stored.key);
    if (failing !== undefined && mayServe(failing.status)) return servedStale(stored, failing.status);
    let answer: Bytes | Relay;
    const unless = validatorsOf(stored);
    try {
      const fetch = (signal: AbortSignal | null): Promise<Bytes | Relay> =>
        this.#fetch(ask, wantedBlocks(ask), { unless, signal });
      answer = await (mayServe(null) ? withResponseTimeout(PATIENCE_MS, fetch) : fetch(null));
    } catch (error) {
      const away = isFault(error) && (error.code === 'origin_unreachable' || error.code === 'origin_timeout');
      if (!away) throw error;
      this.#failing.set(stored.key, { status: null });
      if (mayServe(null)) return servedStale(stored, null);
      throw new Fault('validation_failed', `${ask.key} is stale and the origin is away`, { cause: error });
    }
    if (answer.kind === 'bytes') {
      if (answer.unstorable !== null && !OF_THE_ASKER.has(answer.unstorable)) await cache.drop(stored);
      return this.#seal(question, { answer, reason: 'stale' });
    }
    if (answer.status >= 500) this.#failing.set(stored.key, { status: answer.status });
    if (answer.status >= 500 && mayServe(answer.status)) {
      discard(answer.body);
      return servedStale(stored, answer.status);
    }
    if (answer.status === 404 || answer.status === 410) await cache.drop(stored);
    if (answer.status !== 304 && answer.status !== 416) return relayed(ask, answer, 'stale');
    discard(answer.body);
    const holds = answer.status === 304 && !stored.dropped && !this.#isOld(question);
    if (holds && this.#freshen(stored, answer, ask.headers) !== 'other')
      return { kind: 'entry', entry: stored, validated: true, forward: forwarded('stale', 304) };
    await cache.drop(stored);
    return this.#first(question, 'stale');
  }

  /**
   * `other`: the news are of another version or variant, or forbid to store it. `theirs`: they are for him alone who
   * asked, whose answer is the stored one all the same.
   */
  #freshen(
    stored: Entry,
    news: { readonly headers: Readonly<Record<string, string>>; readonly bornMs: number },
    asker: Readonly<Record<string, string>>,
  ): 'fresh' | 'theirs' | 'other' {
    const etag = news.headers['etag'];
    if (etag !== undefined && weak(etag) !== weak(stored.headers['etag'] ?? '')) return 'other';
    const headers = updatedFields(stored.headers, news.headers, this.#deps.standsFor);
    if (varyNames(headers)?.join() !== varyNames(stored.headers)?.join()) return 'other';
    if (!fitsHead({ ...stored, headers })) return 'other';
    const unstorable = whyUnstorable({ ...headers, ...cookieOf(news.headers) }, askerOf(asker));
    if (unstorable !== null) return OF_THE_ASKER.has(unstorable) ? 'theirs' : 'other';
    this.#failing.delete(stored.key);
    this.#deps.cache.freshen(stored, { headers, bornMs: news.bornMs });
    return 'fresh';
  }

  #fetch(
    ask: Ask,
    blocks: { readonly first: number; readonly last: number },
    only: { readonly unless?: Readonly<Record<string, string>>; readonly signal: AbortSignal | null } = {
      signal: null,
    },
  ): Promise<Bytes | Relay> {
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
  async #seal(question: Question, sealing: Sealing): Promise<Located> {
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
      if (whole.kind === 'relay') return relayed(question.ask, whole, sealing.reason);
      const partial = whole.first !== 0 || whole.total === null || whole.last !== whole.total - 1;
      if (whole.unstorable !== null || partial)
        return this.#pass(question, { ...sealing, answer: whole }, whole.unstorable ?? 'not whole');
      return await this.#begin(question, { ...sealing, answer: whole, bytes: whole.total, version: newVersion() });
    } catch (error) {
      discard(answer.body);
      throw error;
    }
  }

  #refetchWhole({ key, headers }: Ask, partial: Bytes): Promise<Bytes | Relay> {
    discard(partial.body);
    return this.#deps.origin.fetch('miss', { key, first: 0, last: null, ifMatch: null, headers, signal: null });
  }

  async #begin(
    { ask, admitted, since }: Question,
    spec: Sealing & { readonly bytes: number; readonly version: string },
  ): Promise<Located> {
    const { answer, bytes, version, reason } = spec;
    const { cache, inflight } = this.#deps;
    const { headers, bornMs: born } = answer;
    const key = variantKey(assetKeyOf(ask.key), varyNames(headers)!, ask.headers);
    if (!fitsHead({ key, version, headers, holding: null }))
      return this.#pass({ ask, admitted, since }, spec, 'fields too long');
    for (const stale of this.#variants.learn(key, headers)) {
      const entry = cache.find(stale);
      if (entry !== null) await cache.drop(entry);
    }
    const entry = await cache.admit({ key, version, bytes, headers, bornMs: born, holding: null });
    cache.freshen(entry, { headers, bornMs: born });
    if (admitted) inflight.admit(entry);
    const number = Math.floor(answer.first / BLOCK_BYTES);
    // The version that is stored already, or on its way: an origin that knows no conditions sent it again.
    if (entry.blocks.has(number) || inflight.has(entry, number)) {
      discard(answer.body);
      return { kind: 'entry', entry, validated: true, forward: forwarded(reason, answer.status) };
    }
    const lastWanted = Math.floor(answer.last! / BLOCK_BYTES);
    const landing = inflight.start(entry, { number, lastWanted, pool: 'miss', headers: ask.headers, answer });
    await landing.taken;
    const forward = { reason, status: answer.status, stored: landing.kept, collapsed: false };
    return { kind: 'entry', entry, validated: true, forward };
  }

  /** A length that only the end tells: whole it becomes an asset; who asked for all of it reads along. */
  async #unmeasured(question: Question, sealing: Sealing): Promise<Located> {
    const { answer, reason } = sealing;
    // Without framing an end and a break look alike.
    if (answer.status !== 200 || !answer.framed) return this.#pass(question, sealing, 'length unknown');
    const keep = (body: Buffer): Promise<Located> => {
      const measured = { ...answer, first: 0, last: body.length - 1, total: body.length, body: Readable.from([body]) };
      const version = answer.etag ?? newVersion();
      return this.#begin(question, { answer: measured, reason, bytes: body.length, version });
    };
    if (question.ask.takesWhole) {
      const body = readAlong(answer.body, WHOLE_BYTES_MAX, async (whole) => {
        if (!this.#isOld(question)) await keep(whole);
      });
      return { ...relayOf(answer), body, forward: forwarded(reason, answer.status) };
    }
    const whole = await upTo(answer.body, WHOLE_BYTES_MAX);
    if (!Buffer.isBuffer(whole)) await whole.return(undefined);
    else if (whole.length > 0) return keep(whole);
    return this.#pass(question, sealing, 'length unknown');
  }

  /** Whether the asset changed after the question was asked. */
  #isOld({ ask, since }: Question): boolean {
    return this.#changes.isAfter(assetKeyOf(ask.key), since);
  }

  /** What is not kept is not asked for twice either, where the answer at hand is what was asked for. */
  #pass({ ask }: Question, { answer, reason: forward }: Sealing, reason: string | null): Located {
    if (reason !== null) this.#passing.set(passName(ask), reason);
    const whole =
      answer.first === 0 && (answer.total === null ? answer.status === 200 : answer.last === answer.total - 1);
    if (ask.takesWhole && whole) return { ...relayOf(answer), forward: forwarded(forward, answer.status) };
    discard(answer.body);
    return { kind: 'pass', reason: reason ?? 'changed' };
  }
}

const younger = (entry: Entry, born: number): boolean => entry.bornMs === null || entry.bornMs > born;

/** A name of our own for an answer without one. */
const newVersion = (): string => `whole:${randomBytes(8).toString('hex')}`;
