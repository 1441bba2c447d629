// What happens when a worker does not find a block on disk: locate the asset version, then stream its bytes while they
// land, reading ahead for those who want more.

import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { Fault, isFault } from '../protocol/faults.ts';
import type { Admission } from './admission.ts';
import { KEY_CHARS_MAX } from './asset-key.ts';
import { BLOCK_BYTES } from './block-file.ts';
import type { Cache } from './cache.ts';
import { nameOf } from './filter.ts';
import { FLIGHT_BLOCKS_MAX, isSealed, type Inflight, type Landing } from './inflight.ts';
import type { Ask } from './link.ts';
import type { Tally } from './metrics.ts';
import type { Bytes, Origin, Relay } from './origin.ts';
import type { AssetMeta, Entry } from './store.ts';

/** An answer without a strong entity tag is kept only whole, and waits in memory until it is. */
export const WHOLE_BYTES_MAX = 64 * 2 ** 20;
/** How long an answer that may not be stored is remembered, so that the next request passes at once. */
const PASS_REMEMBERED_MS = 60_000;
const PASS_REMEMBERED_MAX = 10_000;
/** What readers of assets that are not admitted hold in memory at once; when it is used up, the disk takes their blocks after all. */
const HELD_BYTES_MAX = 256 * 2 ** 20;

export type Opened =
  | {
      readonly kind: 'asset';
      readonly entry: Entry;
      readonly fresh: boolean;
      /** Whether what is fetched of the asset is stored: admission may refuse it. */
      readonly stored: boolean;
      readonly body: AsyncGenerator<Buffer> | null;
    }
  | Relay
  | { readonly kind: 'pass'; readonly reason: string };

type Located =
  | { readonly kind: 'entry'; readonly entry: Entry; readonly fresh: boolean }
  | Relay
  | { readonly kind: 'pass'; readonly reason: string };

export interface MissDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly origin: Origin;
  /** In a fleet: the catalog's word on a key, null where it is not catalogued. Absent stand-alone. */
  readonly catalogued: ((key: string) => Promise<AssetMeta | null>) | null;
  readonly admission: Admission;
  readonly tally: Tally;
}

export class Miss {
  readonly #deps: MissDeps;
  readonly #locating = new Map<string, Promise<Located>>();
  #heldBytes = 0;
  readonly #passing = new LRUCache<string, string>({ max: PASS_REMEMBERED_MAX, ttl: PASS_REMEMBERED_MS });

  constructor(deps: MissDeps) {
    this.#deps = deps;
  }

  /** Throws the fault to answer with. */
  async open(ask: Ask): Promise<Opened> {
    // A suffix comes back as a range of the asset, and a stalled reader from where it was: one request counts once.
    const admitted = ask.again !== true && ask.from !== 'suffix' && this.#deps.admission.ask(nameOf(ask.key));
    for (let attempt = 1; ; attempt += 1) {
      const located = await this.#locate(ask, admitted);
      if (located.kind !== 'entry') return located;
      const { entry, fresh } = located;
      if (admitted || this.#heldBytes >= HELD_BYTES_MAX) this.#deps.inflight.admit(entry);
      const stored = this.#deps.inflight.isStored(entry);
      // Another version, or a first contact that needs the length: the worker decides with the asset in hand.
      const other = ask.known !== null && ask.known.version !== entry.version;
      if (other || ask.from === 'suffix' || ask.from >= entry.bytes)
        return { kind: 'asset', entry, fresh, stored, body: null };
      // A worker that has not looked for the block in this entry finds it on disk.
      if (!isEntry(ask.known, entry) && entry.blocks.has(Math.floor(ask.from / BLOCK_BYTES)))
        return { kind: 'asset', entry, fresh, stored, body: null };
      const stream = this.#stream(entry, ask.from, Math.min(ask.to ?? entry.bytes, entry.bytes));
      try {
        return { kind: 'asset', entry, fresh, stored, body: await primed(stream) };
      } catch (error) {
        // Nothing has been sent yet, so a version that went away may be replaced by its successor.
        if (
          !isFault(error) ||
          error.code !== 'version_gone' ||
          ask.known !== null ||
          this.#deps.catalogued !== null ||
          attempt > 1
        )
          throw error;
      }
    }
  }

  async #locate(ask: Ask, admitted: boolean): Promise<Located> {
    const known = this.#deps.cache.find(ask.key);
    if (known !== null && !(await this.#isBroken(known, ask.from)))
      return { kind: 'entry', entry: known, fresh: false };
    const under = this.#locating.get(ask.key);
    if (under !== undefined) return under;
    const locating = (
      this.#deps.catalogued === null ? this.#locateAtOrigin(ask, admitted) : this.#locateInCatalog(ask.key)
    ).finally(() => this.#locating.delete(ask.key));
    this.#locating.set(ask.key, locating);
    return locating;
  }

  /** An unsealed asset of which a block was evicted cannot be completed: it leaves and is fetched anew. */
  async #isBroken(entry: Entry, from: number | 'suffix'): Promise<boolean> {
    if (isSealed(entry) || from === 'suffix') return false;
    const number = Math.floor(from / BLOCK_BYTES);
    if (from >= entry.bytes || entry.blocks.has(number) || this.#deps.inflight.has(entry, number)) return false;
    await this.#deps.cache.drop(entry);
    return true;
  }

  async #locateInCatalog(key: string): Promise<Located> {
    const meta = await this.#deps.catalogued!(key);
    if (meta === null) throw new Fault('asset_uncatalogued', `${key.slice(0, 200)} is not in the catalog`);
    return { kind: 'entry', entry: await this.#deps.cache.admit(meta), fresh: false };
  }

  async #locateAtOrigin(ask: Ask, admitted: boolean): Promise<Located> {
    const reason = ask.key.length > KEY_CHARS_MAX ? 'key too long' : this.#passing.get(ask.key);
    if (reason !== undefined) return { kind: 'pass', reason };
    const firstBlock = ask.from === 'suffix' ? 0 : Math.floor(ask.from / BLOCK_BYTES);
    const lastBlock = Math.min(
      firstBlock + FLIGHT_BLOCKS_MAX - 1,
      ask.to === null ? Number.POSITIVE_INFINITY : Math.max(firstBlock, Math.floor((ask.to - 1) / BLOCK_BYTES)),
    );
    const answer = await this.#fetch(ask.key, firstBlock, ask.from === 'suffix' ? firstBlock : lastBlock);
    if (answer.kind === 'bytes') return this.#seal(ask.key, answer, admitted);
    if (answer.status !== 416) return answer;
    // Beyond the end: block 0 says how long the asset is. An empty asset has no satisfiable range at all.
    const start = firstBlock === 0 ? answer : await this.#fetch(ask.key, 0, 0);
    if (start.kind === 'bytes') return this.#seal(ask.key, start, admitted);
    return start.status === 416 ? { kind: 'pass', reason: 'empty' } : start;
  }

  #fetch(key: string, firstBlock: number, lastBlock: number): Promise<Bytes | Relay> {
    return this.#deps.origin.fetch('miss', {
      key,
      first: firstBlock * BLOCK_BYTES,
      last: (lastBlock + 1) * BLOCK_BYTES - 1,
      ifMatch: null,
      signal: null,
    });
  }

  /** Turns a first answer into an entry with a flight that goes on reading it, or lets the request pass. */
  async #seal(key: string, answer: Bytes, admitted: boolean): Promise<Located> {
    const { total, etag } = answer;
    if (answer.unstorable !== null) return this.#pass(key, answer, answer.unstorable);
    if (total === null || answer.last === null) return this.#pass(key, answer, 'length unknown');
    if (total === 0) return this.#pass(key, answer, 'empty');
    const meta = { key, bytes: total, headers: answer.headers, holding: null };
    if (etag !== null) return this.#begin({ ...meta, version: etag }, answer, admitted);
    if (total > WHOLE_BYTES_MAX) return this.#pass(key, answer, 'no strong validator');
    const whole = answer.first === 0 && answer.last === total - 1 ? answer : await this.#refetchWhole(key, answer);
    if (whole.kind === 'relay') return whole;
    if (whole.unstorable !== null || whole.first !== 0 || whole.total === null || whole.last !== whole.total - 1)
      return this.#pass(key, whole, 'not whole');
    return this.#begin(
      { ...meta, bytes: whole.total, headers: whole.headers, version: `whole:${randomBytes(8).toString('hex')}` },
      whole,
      admitted,
    );
  }

  #refetchWhole(key: string, partial: Bytes): Promise<Bytes | Relay> {
    discard(partial);
    return this.#deps.origin.fetch('miss', { key, first: 0, last: null, ifMatch: null, signal: null });
  }

  async #begin(meta: AssetMeta, answer: Bytes, admitted: boolean): Promise<Located> {
    const entry = await this.#deps.cache.admit(meta);
    if (admitted) this.#deps.inflight.admit(entry);
    this.#deps.inflight.start(entry, {
      number: Math.floor(answer.first / BLOCK_BYTES),
      lastWanted: Math.floor(answer.last! / BLOCK_BYTES),
      pool: 'miss',
      answer,
    });
    return { kind: 'entry', entry, fresh: true };
  }

  #pass(key: string, answer: Bytes, reason: string): Located {
    discard(answer);
    this.#passing.set(key, reason);
    return { kind: 'pass', reason };
  }

  /** Bytes [from, to), block by block, until one that was not asked for first is on disk. */
  async *#stream(entry: Entry, from: number, to: number): AsyncGenerator<Buffer> {
    const heldBytes = this.#deps.inflight.isStored(entry) ? 0 : Math.min(to - from, FLIGHT_BLOCKS_MAX * BLOCK_BYTES);
    this.#heldBytes += heldBytes;
    try {
      yield* this.#blocks(entry, from, to);
    } finally {
      this.#heldBytes -= heldBytes;
    }
  }

  async *#blocks(entry: Entry, from: number, to: number): AsyncGenerator<Buffer> {
    let held: Landing | null = null;
    for (let at = from; at < to;) {
      const number = Math.floor(at / BLOCK_BYTES);
      const base = number * BLOCK_BYTES;
      const end = Math.min(to, base + BLOCK_BYTES);
      let landing: Landing | null = held ?? this.#deps.inflight.join(entry, number);
      if (landing === null && entry.blocks.has(number)) {
        if (at !== from) return;
        const payload = await this.#reread(entry, number);
        if (payload !== null) {
          yield payload.subarray(at - base, end - base);
          at = end;
          continue;
        }
      }
      const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
      landing ??= this.#deps.inflight.join(entry, number);
      // What has no version of its own comes from one answer: another may be of other bytes.
      if (landing === null && !this.#mayRefetch(entry))
        throw new Fault('version_gone', `${entry.key} broke off and has no version to ask for again`);
      landing ??= this.#deps.inflight.start(entry, { number, lastWanted, pool: 'miss' });
      this.#readAhead(entry, number, lastWanted);
      yield* landing.follow(at - base, end - base);
      held = landing.next;
      at = end;
    }
  }

  /** Catalogued bytes are known by their digests, others by the entity tag that the origin is asked for. */
  #mayRefetch(entry: Entry): boolean {
    return isSealed(entry) || this.#deps.catalogued !== null;
  }

  /** One flight beyond the block being read, in parallel, for readers who want that much of what is stored. */
  #readAhead(entry: Entry, number: number, lastWanted: number): void {
    if (!this.#mayRefetch(entry) || !this.#deps.inflight.isStored(entry)) return;
    const horizon = Math.min(lastWanted, number + FLIGHT_BLOCKS_MAX);
    for (let ahead = number + 1; ahead <= horizon; ahead += 1) {
      if (entry.blocks.has(ahead) || this.#deps.inflight.has(entry, ahead)) continue;
      this.#deps.inflight.start(entry, { number: ahead, lastWanted, pool: 'miss' });
      return;
    }
  }

  /** The index says present, the worker says no: the file decides, and a damaged one leaves. */
  async #reread(entry: Entry, number: number): Promise<Buffer | null> {
    try {
      const payload = await entry.volume.read(entry, number);
      if (payload !== null) return payload;
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#deps.tally.add('larder_faults_total', 1, { code: error.code });
    }
    this.#deps.tally.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await this.#deps.cache.discard(entry, number);
    return null;
  }
}

const isEntry = (known: Ask['known'], entry: Entry): boolean =>
  known !== null && known.id === entry.id && known.volume === entry.volume.number;

function discard(answer: Bytes): void {
  answer.body.on('error', () => undefined).destroy();
}

/** Waits for the first bytes, so that a fault can still be answered as one. */
async function primed(stream: AsyncGenerator<Buffer>): Promise<AsyncGenerator<Buffer>> {
  const first = await stream.next();
  return (async function* () {
    try {
      if (!first.done) yield first.value;
      yield* stream;
    } finally {
      // Who leaves at the first piece has not begun with the rest.
      await stream.return(undefined);
    }
  })();
}
