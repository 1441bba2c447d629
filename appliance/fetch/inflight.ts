// Fetches under way. A flight brings a stretch of missing blocks of one asset version in one upstream range; each block
// lands in a buffer that any number of readers follow, and is then checked, stored and let go. A flight belongs to no
// client: readers come and go, it ends what it began.

import { createHash } from 'node:crypto';
import { DIGEST_CHUNK_BYTES } from '../../protocol/catalog.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import type { Log } from '../../runtime/log.ts';
import { BLOCK_BYTES, blockBytes } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import { consume } from '../../runtime/backpressure.ts';
import { PendingBlock } from './pending-block.ts';
import type { Counters } from '../metrics.ts';
import { discardBody, originFault, type OriginBytes, type Origin, type PoolName } from './origin.ts';
import { isStrong } from '../http/precondition.ts';
import type { Entry } from '../store/volume.ts';

/** Blocks of one upstream range. */
export const FETCH_BLOCKS_MAX = 8;
/** Landed blocks of one flight that wait for the disk; then the origin waits. */
const STORING_MAX = 8;
const ATTEMPTS_MAX = 2;

/** What bytes of an entry must satisfy. */
export interface IntegrityCheck {
  /** sha256 per 1 MiB where the asset is catalogued. */
  readonly digests: readonly string[] | null;
  /** Entity tag to demand of the origin; null where it has none of its own. */
  readonly originTag: string | null;
}

export interface InflightDeps {
  readonly cache: Cache;
  readonly origin: Origin;
  readonly integrityOf: (entry: Entry) => Promise<IntegrityCheck>;
  /** Whether a plan brings the holding anyway: what viewers fetch of it is stored unasked. */
  readonly isPlanned?: (holding: HoldingId) => boolean;
  readonly counters: Counters;
  readonly log: Log;
}

/** What is done is let go at once: an origin that ignores ranges makes one flight of a whole film. */
interface UpstreamFetch {
  readonly entry: Entry;
  /** Of the request that it began with. */
  readonly headers: Readonly<Record<string, string>>;
  readonly pool: PoolName;
  /** Byte of the asset that lands next. */
  at: number;
  /** Byte behind the last one wanted. */
  readonly end: number;
  /** By number, until they are stored or given up. */
  readonly pendingBlocks: Map<number, PendingBlock>;
  /** Blocks in doubt on the volume of which nothing has been written yet. */
  readonly intended: Set<number>;
  /** Settled once they are on disk or refused; null while admission keeps the asset out. */
  intents: Promise<void> | null;
  readonly stores: Promise<void>[];
}

export class Inflight {
  readonly #deps: InflightDeps;
  readonly #pending = new Map<Entry, Map<number, PendingBlock>>();
  readonly #admitted = new WeakSet<Entry>();

  constructor(deps: InflightDeps) {
    this.#deps = deps;
  }

  /** From now on what viewers fetch of the entry is stored, and what has begun to be fetched as far as it has not landed. */
  admit(entry: Entry): void {
    this.#admitted.add(entry);
  }

  /**
   * Whether what viewers fetch of the entry is stored. An asset of which there are blocks was admitted once; one without a
   * version of its own cannot be read on from anywhere else.
   */
  isStored(entry: Entry): boolean {
    return !hasStrongValidator(entry) || this.#admitted.has(entry) || entry.blocks.count > 0 || this.#isPlanned(entry);
  }

  #isPlanned(entry: Entry): boolean {
    return (
      this.#deps.cache.isPinned(entry) || (entry.holding !== null && (this.#deps.isPlanned?.(entry.holding) ?? false))
    );
  }

  has(entry: Entry, number: number): boolean {
    return this.#pending.get(entry)?.has(number) ?? false;
  }

  /** Follows the block if it is on its way. */
  join(entry: Entry, number: number): PendingBlock | null {
    const pending = this.#pending.get(entry)?.get(number);
    return pending === undefined || pending.fault !== null ? null : pending;
  }

  /**
   * Starts to fetch `number` and the missing blocks right behind it, up to `lastWanted`, in one upstream range.
   * `answer` hands over a response that is already open at `number`.
   */
  start(
    entry: Entry,
    spec: {
      readonly number: number;
      readonly lastWanted: number;
      readonly pool: PoolName;
      readonly headers?: Readonly<Record<string, string>>;
      readonly answer?: OriginBytes;
    },
  ): PendingBlock {
    const pendingBlocks: PendingBlock[] = [];
    const most = spec.answer === undefined ? FETCH_BLOCKS_MAX : Number.POSITIVE_INFINITY;
    for (let number = spec.number; number <= spec.lastWanted && pendingBlocks.length < most; number += 1) {
      if (number > spec.number && (entry.blocks.has(number) || this.has(entry, number)) && spec.answer === undefined)
        break;
      pendingBlocks.push(new PendingBlock(number, blockBytes(entry.bytes, number)));
    }
    // Too long to be held for a reader.
    if (pendingBlocks.length > FETCH_BLOCKS_MAX) this.admit(entry);
    if (!this.isStored(entry))
      for (const [at, pending] of pendingBlocks.slice(1).entries()) pendingBlocks[at]!.chain(pending);
    const known = this.#pending.get(entry) ?? new Map<number, PendingBlock>();
    this.#pending.set(entry, known);
    for (const pending of pendingBlocks)
      if ((known.get(pending.number)?.fault ?? null) !== null || !known.has(pending.number))
        known.set(pending.number, pending);
    entry.fetches += 1;
    const flight: UpstreamFetch = {
      entry,
      headers: spec.headers ?? {},
      pool: spec.pool,
      at: spec.number * BLOCK_BYTES,
      end: pendingBlocks.at(-1)!.number * BLOCK_BYTES + pendingBlocks.at(-1)!.bytes,
      pendingBlocks: new Map(pendingBlocks.map((pending) => [pending.number, pending])),
      intended: new Set(),
      intents: null,
      stores: [],
    };
    void this.#fly(flight, spec.answer ?? null);
    return pendingBlocks[0]!;
  }

  async #fly(flight: UpstreamFetch, answer: OriginBytes | null): Promise<void> {
    const { entry, pendingBlocks, stores } = flight;
    try {
      if (flight.pool === 'fill' || this.isStored(entry)) flight.intents = this.#intend(flight);
      const [{ digests, originTag }] = await Promise.all([this.#deps.integrityOf(entry), flight.intents]);
      for (const pending of pendingBlocks.values()) pending.decide(flight.intended.has(pending.number));
      await this.#land(flight, {
        answer,
        originTag,
        onLanded: (pending) => this.#settleBlock(flight, pending, digests),
      });
      if (!hasStrongValidator(entry))
        for (const pending of pendingBlocks.values()) stores.push(this.#store(flight, pending));
    } catch (error) {
      if (answer !== null) discardBody(answer.body);
      const fault = isFault(error) ? error : originFault(error, entry.key);
      this.#deps.counters.add('larder_faults_total', 1, { code: fault.code });
      if (fault.code === 'version_gone' || !hasStrongValidator(entry)) await this.#deps.cache.removeEntry(entry);
      for (const pending of pendingBlocks.values()) if (pending.received < pending.bytes) pending.fail(fault);
    }
    await Promise.all(stores);
    entry.volume.abandon(entry, [...flight.intended]);
    for (const pending of pendingBlocks.values()) this.#forget(flight, pending);
    entry.fetches -= 1;
    // Nothing of it could be stored, so nothing would ever evict it.
    if (entry.fetches === 0 && entry.blocks.count === 0) await this.#deps.cache.removeEntry(entry);
  }

  #forget(flight: UpstreamFetch, pending: PendingBlock): void {
    flight.pendingBlocks.delete(pending.number);
    const known = this.#pending.get(flight.entry);
    if (known?.get(pending.number) === pending) known.delete(pending.number);
    if (known?.size === 0) this.#pending.delete(flight.entry);
  }

  /** Where the volume takes no intents nothing of the flight is stored. */
  async #intend(flight: UpstreamFetch): Promise<void> {
    const { entry } = flight;
    if (entry.removed) return;
    const numbers = [...flight.pendingBlocks.keys()];
    try {
      await entry.volume.intend(entry, numbers);
      for (const number of numbers) flight.intended.add(number);
    } catch (error) {
      entry.volume.abandon(entry, numbers);
      this.#passed(error);
    }
  }

  /** The origin forbids by now to store what it once let be stored. */
  #giveUp(flight: UpstreamFetch): void {
    flight.entry.volume.abandon(flight.entry, [...flight.intended]);
    flight.intended.clear();
  }

  /** Fills the landings in order from one upstream range, resumed once where it breaks off. */
  async #land(
    flight: UpstreamFetch,
    spec: {
      readonly answer: OriginBytes | null;
      readonly originTag: string | null;
      /** Null where the next block may land at once. */
      readonly onLanded: (pending: PendingBlock) => Promise<void> | null;
    },
  ): Promise<void> {
    const { entry, pool, end } = flight;
    const first = flight.at;
    for (let attempt = 1; flight.at < end; attempt += 1) {
      try {
        const answer =
          attempt === 1 && spec.answer !== null
            ? spec.answer
            : await this.#ask(flight, { first: flight.at, last: end - 1, ifMatch: spec.originTag });
        if (answer.unstorable !== null && spec.originTag !== null) this.#giveUp(flight);
        let position = answer.first;
        await consume(answer.body, (chunk) => {
          this.#deps.origin.countBytes(pool, chunk.length);
          // An origin that ignores ranges sends from 0: what was not asked for is carved away.
          const from = Math.min(chunk.length, Math.max(0, flight.at - position));
          position += chunk.length;
          const waits = landInto(flight, chunk.subarray(from), spec.onLanded);
          // Reading to the end of an exact answer keeps the connection; only a longer one is cut off.
          const more = (): boolean => flight.at < end || (answer.last !== null && answer.last < end);
          return waits === null ? more() : waits.then(more);
        });
        if (flight.at < end)
          throw new Fault(
            'origin_protocol_error',
            `${entry.key}: the origin ended after ${flight.at - first} of ${end - first} bytes`,
          );
      } catch (error) {
        const fault = isFault(error) ? error : originFault(error, entry.key);
        if (
          attempt >= ATTEMPTS_MAX ||
          !hasStrongValidator(entry) ||
          ['version_gone', 'origin_refused', 'digest_mismatch'].includes(fault.code)
        )
          throw fault;
      }
    }
  }

  async #ask(
    { entry, pool, headers }: UpstreamFetch,
    spec: { readonly first: number; readonly last: number; readonly ifMatch: string | null },
  ): Promise<OriginBytes> {
    const answer = await this.#deps.origin.fetch(pool, { ...spec, key: entry.key, headers, signal: null });
    if (answer.kind === 'relay') {
      discardBody(answer.body);
      throw new Fault('origin_refused', `${entry.key}: the origin answered ${answer.status}`, {
        detail: { status: answer.status },
      });
    }
    if (answer.total !== null && answer.total !== entry.bytes) {
      discardBody(answer.body);
      throw new Fault('version_gone', `${entry.key} has ${answer.total} bytes at the origin now, not ${entry.bytes}`);
    }
    return answer;
  }

  /** A landed block: verified at once, stored behind the readers' backs. */
  #settleBlock(flight: UpstreamFetch, pending: PendingBlock, digests: readonly string[] | null): Promise<void> | null {
    const { entry, stores } = flight;
    if (digests !== null && !digestsMatch(pending, digests)) {
      const fault = new Fault(
        'digest_mismatch',
        `${entry.key}: block ${pending.number} from the origin is not what the catalog says`,
      );
      pending.reject(fault);
      throw fault;
    }
    // Without a version of its own an asset is stored whole or not at all: see #fly.
    if (!hasStrongValidator(entry)) return null;
    stores.push(this.#store(flight, pending));
    return stores[stores.length - STORING_MAX] ?? null;
  }

  async #store(flight: UpstreamFetch, pending: PendingBlock): Promise<void> {
    const { entry } = flight;
    const { cache } = this.#deps;
    const { number } = pending;
    let stored = false;
    try {
      // Somebody else may have asked for it while it was on its way.
      if (this.isStored(entry)) flight.intents ??= this.#intend(flight);
      await flight.intents;
      if (flight.pool !== 'fill' && !this.#isPlanned(entry))
        this.#deps.counters.add('larder_admission_blocks_total', 1, {
          outcome: flight.intents ? 'admitted' : 'refused',
        });
      if (!flight.intended.has(number) || entry.removed) return;
      if (!(await cache.reserve(entry, pending.bytes))) throw new Fault('disk_full', 'no room can be made');
      if (entry.removed || entry.blocks.has(number)) cache.release(entry, pending.bytes);
      else {
        flight.intended.delete(number);
        await cache.store(entry, number, pending.payload);
        stored = !entry.removed;
      }
    } catch (error) {
      this.#passed(error);
    } finally {
      this.#forget(flight, pending);
      pending.finish(stored);
    }
  }

  #passed(error: unknown): void {
    if (!isFault(error)) throw error;
    this.#deps.counters.add('larder_fallback_total', 1, { name: 'store_full_pass' });
    if (error.code !== 'disk_full') this.#deps.log.error({ err: error }, 'block passes through unstored');
  }
}

/** A version that the origin can be asked for again by name; otherwise blocks of two answers must never meet. */
export const hasStrongValidator = (entry: Entry): boolean => isStrong(entry.version);

/** Bytes of the origin's, in order. Null where the next ones may land at once. */
function landInto(
  flight: UpstreamFetch,
  bytes: Buffer,
  onLanded: (pending: PendingBlock) => Promise<void> | null,
): Promise<void> | null {
  for (let from = 0; from < bytes.length && flight.at < flight.end;) {
    const pending = flight.pendingBlocks.get(Math.floor(flight.at / BLOCK_BYTES))!;
    const take = Math.min(bytes.length - from, pending.bytes - pending.received);
    pending.append(bytes.subarray(from, from + take));
    from += take;
    flight.at += take;
    const waits = pending.received === pending.bytes ? onLanded(pending) : null;
    if (waits !== null) return waits.then(() => landInto(flight, bytes.subarray(from), onLanded) ?? undefined);
  }
  return null;
}

function digestsMatch(pending: PendingBlock, digests: readonly string[]): boolean {
  const firstChunk = (pending.number * BLOCK_BYTES) / DIGEST_CHUNK_BYTES;
  for (let at = 0; at * DIGEST_CHUNK_BYTES < pending.bytes; at += 1) {
    const chunk = pending.payload.subarray(at * DIGEST_CHUNK_BYTES, (at + 1) * DIGEST_CHUNK_BYTES);
    if (createHash('sha256').update(chunk).digest('hex') !== digests[firstChunk + at]) return false;
  }
  return true;
}
