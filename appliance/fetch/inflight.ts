// Upstream fetches under way. A fetch brings adjacent missing blocks of one asset version in one range request. Each block arrives in a
// buffer that any number of readers follow, then it is verified, stored and dropped from memory. A fetch belongs to no client: readers
// come and go, and it finishes what it began.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import { consume } from '../../runtime/backpressure.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { isStrong } from '../http/precondition.ts';
import { LIMITS } from '../limits.ts';
import type { Counters } from '../metrics.ts';
import { BLOCK_BYTES, blockBytes } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import type { ReceiveBuffer } from '../store/receive-buffer.ts';
import type { Entry } from '../store/volume.ts';
import { Mismatches } from './mismatches.ts';
import { discardBody, originFault, type Origin, type OriginBytes, type PoolName } from './origin.ts';
import { PendingBlock } from './pending-block.ts';

/** Blocks of one upstream range. */
export const FETCH_BLOCKS_MAX = 8;
/** Received blocks of one fetch that wait for the disk; beyond them the origin has to wait. */
const STORING_MAX = 8;
const ATTEMPTS_MAX = 2;
/** Faults that a second attempt would meet again. */
const FINAL_FAULTS: ReadonlySet<string> = new Set(['version_gone', 'origin_refused', 'digest_mismatch']);

/** What the bytes of an entry must satisfy. */
export interface IntegrityCheck {
  /** sha256 of each MiB of a catalogued asset, and so of each block. */
  readonly digests: readonly string[] | null;
  /** The entity tag that the origin's response must bear; null when the version has no tag of the origin's. */
  readonly originTag: string | null;
}

export interface InflightDeps {
  readonly cache: Cache;
  readonly origin: Origin;
  readonly integrityOf: (entry: Entry) => Promise<IntegrityCheck>;
  /** Whether the current plan wants the holding here: what viewers fetch of it is stored without asking admission. */
  readonly isPlanned?: (holding: HoldingId) => boolean;
  /** Where a block of so many bytes arrives. */
  readonly receive: (bytes: number) => ReceiveBuffer;
  readonly clock: Pick<Clock, 'monotonic' | 'setInterval' | 'clear'>;
  readonly counters: Counters;
  readonly log: Log;
}

/** Blocks are dropped as soon as they are stored: an origin that ignores ranges makes one fetch of a whole film. */
interface UpstreamFetch {
  readonly entry: Entry;
  /** Fields of the request that started it. */
  readonly headers: Readonly<Record<string, string>>;
  readonly pool: PoolName;
  /** Position in the asset of the byte that arrives next. */
  at: number;
  /** Position behind the last byte wanted. */
  readonly end: number;
  /** By number, until they are stored or given up. */
  readonly blocks: Map<number, PendingBlock>;
  /** Blocks with an intent on the volume of which nothing has been written yet. */
  readonly intended: Set<number>;
  /** Settled once the intents are on disk or refused; null while admission keeps the asset out. */
  intents: Promise<void> | null;
  readonly stores: Promise<void>[];
}

export class Inflight {
  readonly #deps: InflightDeps;
  readonly #pending = new Map<Entry, Map<number, PendingBlock>>();
  readonly #admitted = new WeakSet<Entry>();
  /** Blocks that are being fetched. */
  #blocks = 0;
  #fetchMs: number | null = null;
  readonly mismatches: Mismatches;

  constructor(deps: InflightDeps) {
    this.#deps = deps;
    this.mismatches = new Mismatches(deps.clock);
  }

  /** From now on what viewers fetch of the entry is stored, including what is being fetched and has not arrived. */
  admit(entry: Entry): void {
    this.#admitted.add(entry);
  }

  /**
   * Whether what viewers fetch of the entry is stored. An entry that has blocks was admitted before; one without a strong validator
   * could not be continued from anywhere else.
   */
  isStored(entry: Entry): boolean {
    return !hasStrongValidator(entry) || this.#admitted.has(entry) || entry.blocks.count > 0 || this.#isPlanned(entry);
  }

  #isPlanned(entry: Entry): boolean {
    return (
      this.#deps.cache.isPinned(entry) || (entry.holding !== null && (this.#deps.isPlanned?.(entry.holding) ?? false))
    );
  }

  /** How many blocks are being fetched. */
  get blocks(): number {
    return this.#blocks;
  }

  /** The shortest time of late that an upstream fetch of `FETCH_BLOCKS_MAX` took; null before there was one. */
  get fetchMs(): number | null {
    return this.#fetchMs;
  }

  has(entry: Entry, number: number): boolean {
    return this.#pending.get(entry)?.has(number) ?? false;
  }

  /** The block if it is being fetched; null when it is not, or the fetch has failed. */
  join(entry: Entry, number: number): PendingBlock | null {
    const block = this.#pending.get(entry)?.get(number);
    return block === undefined || block.fault !== null ? null : block;
  }

  /**
   * Starts to fetch block `number` and the missing blocks right behind it, up to `lastWanted`, in one upstream range. `response` hands
   * over a response that is already open at `number`. Returns the first block.
   */
  start(
    entry: Entry,
    spec: {
      readonly number: number;
      readonly lastWanted: number;
      readonly pool: PoolName;
      readonly headers?: Readonly<Record<string, string>>;
      readonly response?: OriginBytes;
    },
  ): PendingBlock {
    const blocks = this.#newBlocks(entry, spec);
    // A longer fetch would be held in memory for its readers.
    if (blocks.length > FETCH_BLOCKS_MAX) this.admit(entry);
    if (!this.isStored(entry)) for (const [at, block] of blocks.slice(1).entries()) blocks[at]!.chain(block);
    this.#register(entry, blocks);
    this.#blocks += blocks.length;
    entry.fetches += 1;
    const last = blocks.at(-1)!;
    const fetch: UpstreamFetch = {
      entry,
      headers: spec.headers ?? {},
      pool: spec.pool,
      at: spec.number * BLOCK_BYTES,
      end: last.number * BLOCK_BYTES + last.bytes,
      blocks: new Map(blocks.map((block) => [block.number, block])),
      intended: new Set(),
      intents: null,
      stores: [],
    };
    void this.#run(fetch, spec.response ?? null);
    return blocks[0]!;
  }

  #newBlocks(
    entry: Entry,
    spec: { readonly number: number; readonly lastWanted: number; readonly response?: OriginBytes },
  ): PendingBlock[] {
    const isOpen = spec.response !== undefined;
    const most = isOpen ? LIMITS.openFetchBlocksMax : FETCH_BLOCKS_MAX;
    const blocks: PendingBlock[] = [];
    for (let number = spec.number; number <= spec.lastWanted && blocks.length < most; number += 1) {
      const isKnown = entry.blocks.has(number) || this.has(entry, number);
      if (number > spec.number && isKnown && !isOpen) break;
      blocks.push(new PendingBlock(number, blockBytes(entry.bytes, number)));
    }
    return blocks;
  }

  /** A block that is being fetched already stays the one to join, unless its fetch has failed. */
  #register(entry: Entry, blocks: readonly PendingBlock[]): void {
    const pending = this.#pending.get(entry) ?? new Map<number, PendingBlock>();
    this.#pending.set(entry, pending);
    for (const block of blocks) {
      const other = pending.get(block.number);
      if (other === undefined || other.fault !== null) pending.set(block.number, block);
    }
  }

  async #run(fetch: UpstreamFetch, response: OriginBytes | null): Promise<void> {
    const { entry, blocks, stores } = fetch;
    try {
      if (fetch.pool === 'fill' || this.isStored(entry)) fetch.intents = this.#writeIntents(fetch);
      const [{ digests, originTag }] = await Promise.all([this.#deps.integrityOf(entry), fetch.intents]);
      for (const block of blocks.values())
        block.decide({ storable: fetch.intended.has(block.number), digested: digests !== null });
      const onReceived = (block: PendingBlock): Promise<void> | null => this.#onReceived(fetch, block, digests);
      await this.#receive(fetch, { response, originTag, onReceived });
      if (!hasStrongValidator(entry)) for (const block of blocks.values()) stores.push(this.#store(fetch, block));
    } catch (error) {
      if (response !== null) discardBody(response.body);
      const fault = isFault(error) ? error : originFault(error, entry.key);
      this.#deps.counters.add('larder_faults_total', 1, { code: fault.code });
      if (fault.code === 'version_gone' || !hasStrongValidator(entry)) await this.#deps.cache.removeEntry(entry);
      for (const block of blocks.values()) if (block.received < block.bytes) block.fail(fault);
    }
    await Promise.all(stores);
    await this.#finish(fetch);
  }

  async #finish(fetch: UpstreamFetch): Promise<void> {
    const { entry, blocks, intended } = fetch;
    entry.volume.abandon(entry, [...intended]);
    for (const block of [...blocks.values()]) {
      this.#drop(fetch, block);
      block.finish({ stored: false, kept: null });
    }
    entry.fetches -= 1;
    // An entry of which nothing could be stored would never be evicted.
    if (entry.fetches === 0 && entry.blocks.count === 0) await this.#deps.cache.removeEntry(entry);
  }

  #drop(fetch: UpstreamFetch, block: PendingBlock): void {
    if (fetch.blocks.delete(block.number)) this.#blocks -= 1;
    const pending = this.#pending.get(fetch.entry);
    if (pending?.get(block.number) === block) pending.delete(block.number);
    if (pending?.size === 0) this.#pending.delete(fetch.entry);
  }

  /** When the volume takes no intents, nothing of the fetch is stored. */
  async #writeIntents(fetch: UpstreamFetch): Promise<void> {
    const { entry } = fetch;
    if (entry.removed) return;
    const numbers = [...fetch.blocks.keys()];
    try {
      await entry.volume.intend(entry, numbers);
      for (const number of numbers) fetch.intended.add(number);
    } catch (error) {
      entry.volume.abandon(entry, numbers);
      this.#countUnstored(error);
    }
  }

  /** The origin forbids now to store what it allowed to be stored before. */
  #abandonIntents(fetch: UpstreamFetch): void {
    fetch.entry.volume.abandon(fetch.entry, [...fetch.intended]);
    fetch.intended.clear();
  }

  /** Fills the blocks in order from one upstream range, resumed once when it breaks off. */
  async #receive(
    fetch: UpstreamFetch,
    spec: {
      readonly response: OriginBytes | null;
      readonly originTag: string | null;
      /** Null when the next block may follow at once. */
      readonly onReceived: (block: PendingBlock) => Promise<void> | null;
    },
  ): Promise<void> {
    const { entry, end } = fetch;
    const first = fetch.at;
    const startedMs = this.#deps.clock.monotonic();
    let { response: open } = spec;
    let wasShort = false;
    for (let attempt = 1; fetch.at < end;) {
      try {
        const response = open ?? (await this.#request(fetch, spec.originTag));
        open = null;
        if (response.unstorable !== null && spec.originTag !== null) this.#abandonIntents(fetch);
        await this.#consume(fetch, response, spec.onReceived);
        if (isShort(fetch, response)) {
          wasShort = true;
          continue;
        }
        if (fetch.at < end)
          throw new Fault(
            'origin_protocol_error',
            `${entry.key}: the origin ended after ${fetch.at - first} of ${end - first} bytes`,
          );
        const isWhole =
          attempt === 1 && !wasShort && spec.response === null && end - first === FETCH_BLOCKS_MAX * BLOCK_BYTES;
        if (isWhole) this.#recordTime(this.#deps.clock.monotonic() - startedMs);
      } catch (error) {
        const fault = isFault(error) ? error : originFault(error, entry.key);
        open = null;
        if (attempt >= ATTEMPTS_MAX || !hasStrongValidator(entry) || FINAL_FAULTS.has(fault.code)) throw fault;
        attempt += 1;
      }
    }
  }

  #recordTime(ms: number): void {
    // A path that has become slower is believed after a while.
    this.#fetchMs = Math.min(ms, (this.#fetchMs ?? ms) * 1.05);
  }

  async #consume(
    fetch: UpstreamFetch,
    response: OriginBytes,
    onReceived: (block: PendingBlock) => Promise<void> | null,
  ): Promise<void> {
    const { pool, end } = fetch;
    const { origin, clock } = this.#deps;
    let position = response.first;
    let bytes = 0;
    let isWaiting = false;
    const watch = clock.setInterval(() => {
      // While the store is slower than the origin, the origin is not to blame.
      if (bytes < LIMITS.slowOriginBytesMin && !isWaiting) response.body.destroy(tooSlow(fetch.entry));
      bytes = 0;
    }, LIMITS.slowOriginMs);
    // Reading an exact response to its end keeps the connection; only a longer one is cut off.
    const wantsMore = (): boolean => fetch.at < end || (response.last !== null && response.last < end);
    const onChunk = (chunk: Buffer): boolean | Promise<boolean> => {
      origin.countBytes(pool, chunk.length);
      bytes += chunk.length;
      // An origin that ignores ranges sends from byte 0: what was not asked for is skipped.
      const from = Math.min(chunk.length, Math.max(0, fetch.at - position));
      position += chunk.length;
      const pending = this.#fillBlocks(fetch, chunk.subarray(from), onReceived);
      if (pending === null) return wantsMore();
      isWaiting = true;
      return pending.then(() => {
        isWaiting = false;
        bytes = LIMITS.slowOriginBytesMin;
        return wantsMore();
      });
    };
    try {
      await consume(response.body, onChunk);
    } finally {
      clock.clear(watch);
    }
  }

  /** Copies bytes of the origin into the blocks, in order. Null when the next bytes may follow at once. */
  #fillBlocks(
    fetch: UpstreamFetch,
    bytes: Buffer,
    onReceived: (block: PendingBlock) => Promise<void> | null,
  ): Promise<void> | null {
    for (let from = 0; from < bytes.length && fetch.at < fetch.end;) {
      const block = fetch.blocks.get(Math.floor(fetch.at / BLOCK_BYTES))!;
      const count = Math.min(bytes.length - from, block.bytes - block.received);
      block.append(bytes.subarray(from, from + count), this.#deps.receive);
      from += count;
      fetch.at += count;
      const pending = block.received === block.bytes ? onReceived(block) : null;
      if (pending !== null)
        return pending.then(() => this.#fillBlocks(fetch, bytes.subarray(from), onReceived) ?? undefined);
    }
    return null;
  }

  async #request({ entry, pool, headers, at, end }: UpstreamFetch, ifMatch: string | null): Promise<OriginBytes> {
    const { key } = entry;
    const number = Math.floor(at / BLOCK_BYTES);
    if (this.mismatches.isPaused(entry, number)) throw digestMismatch(entry, number);
    const response = await this.#deps.origin.fetch(pool, {
      key,
      first: at,
      last: end - 1,
      ifMatch,
      headers,
      signal: null,
    });
    if (response.kind === 'relay') {
      discardBody(response.body);
      throw new Fault('origin_refused', `${key}: the origin answered ${response.status}`, {
        detail: { status: response.status },
      });
    }
    if (response.total !== null && response.total !== entry.bytes) {
      discardBody(response.body);
      throw new Fault('version_gone', `${key} has ${response.total} bytes at the origin now, not ${entry.bytes}`);
    }
    return response;
  }

  /** Verifies a received block at once, which lets its readers have it, and stores it. */
  #onReceived(fetch: UpstreamFetch, block: PendingBlock, digests: readonly string[] | null): Promise<void> | null {
    const { entry, stores } = fetch;
    if (digests !== null && block.digest() !== digests[block.number]) {
      this.mismatches.mark(entry, block.number);
      const fault = digestMismatch(entry, block.number);
      block.reject(fault);
      throw fault;
    }
    if (digests !== null) this.mismatches.clear(entry, block.number);
    block.release();
    // Without a strong validator an asset is stored as a whole or not at all: see #run.
    if (!hasStrongValidator(entry)) return null;
    stores.push(this.#store(fetch, block));
    return stores[stores.length - STORING_MAX] ?? null;
  }

  async #store(fetch: UpstreamFetch, block: PendingBlock): Promise<void> {
    const { entry } = fetch;
    let stored = false;
    try {
      // Another request may have had the asset admitted meanwhile.
      if (this.isStored(entry)) fetch.intents ??= this.#writeIntents(fetch);
      await fetch.intents;
      if (fetch.pool !== 'fill' && !this.#isPlanned(entry)) this.#countAdmission(fetch);
      if (!fetch.intended.has(block.number) || entry.removed) return;
      stored = await this.#write(fetch, block);
    } catch (error) {
      this.#countUnstored(error);
    } finally {
      this.#drop(fetch, block);
      // A fill is for tomorrow.
      block.finish({ stored, kept: stored && fetch.pool !== 'fill' ? entry : null });
    }
  }

  async #write({ entry, intended }: UpstreamFetch, { number, bytes, payload }: PendingBlock): Promise<boolean> {
    const { cache } = this.#deps;
    if (!(await cache.reserve(entry, bytes))) throw new Fault('disk_full', 'no room can be made');
    if (entry.removed || entry.blocks.has(number)) {
      cache.release(entry, bytes);
      return false;
    }
    intended.delete(number);
    await cache.store(entry, number, payload);
    return !entry.removed;
  }

  #countAdmission({ intents }: UpstreamFetch): void {
    const outcome = intents === null ? 'refused' : 'admitted';
    this.#deps.counters.add('larder_admission_blocks_total', 1, { outcome });
  }

  #countUnstored(error: unknown): void {
    if (!isFault(error)) throw error;
    this.#deps.counters.add('larder_fallback_total', 1, { name: 'store_full_pass' });
    if (error.code !== 'disk_full') this.#deps.log.error({ err: error }, 'block passes through unstored');
  }
}

/** RFC 9110 15.3.7: an origin may send less than it was asked for. Then it is asked for the rest. */
const isShort = ({ entry, at, end }: UpstreamFetch, { first, last }: OriginBytes): boolean =>
  last !== null &&
  last < end - 1 &&
  at === last + 1 &&
  last + 1 - first >= LIMITS.shortRangeBytesMin &&
  hasStrongValidator(entry);

const tooSlow = ({ key }: Entry): Fault =>
  new Fault(
    'origin_timeout',
    `${key}: the origin sent less than ${LIMITS.slowOriginBytesMin} bytes in ${LIMITS.slowOriginMs / 1_000} s`,
  );

const digestMismatch = ({ key }: Entry, number: number): Fault =>
  new Fault('digest_mismatch', `${key}: block ${number} from the origin is not what the catalog says`);

/** Whether the origin can be asked again for this version by name; otherwise blocks of two responses must never be combined. */
export const hasStrongValidator = (entry: Entry): boolean => isStrong(entry.version);
