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
import { Landing } from './pending-block.ts';
import type { Tally } from '../metrics.ts';
import { discard, originFault, type Bytes, type Origin, type PoolName } from './origin.ts';
import { isStrong } from '../http/precondition.ts';
import type { Entry } from '../store/volume.ts';

/** Blocks of one upstream range. */
export const FLIGHT_BLOCKS_MAX = 8;
/** Landed blocks of one flight that wait for the disk; then the origin waits. */
const STORING_MAX = 8;
const ATTEMPTS_MAX = 2;

/** What bytes of an entry must satisfy. */
export interface Terms {
  /** sha256 per 1 MiB where the asset is catalogued. */
  readonly digests: readonly string[] | null;
  /** Entity tag to demand of the origin; null where it has none of its own. */
  readonly originTag: string | null;
}

export interface InflightDeps {
  readonly cache: Cache;
  readonly origin: Origin;
  readonly termsOf: (entry: Entry) => Promise<Terms>;
  /** Whether a plan brings the holding anyway: what viewers fetch of it is stored unasked. */
  readonly planned?: (holding: HoldingId) => boolean;
  readonly tally: Tally;
  readonly log: Log;
}

/** What is done is let go at once: an origin that ignores ranges makes one flight of a whole film. */
interface Flight {
  readonly entry: Entry;
  /** Of the request that it began with. */
  readonly headers: Readonly<Record<string, string>>;
  readonly pool: PoolName;
  /** Byte of the asset that lands next. */
  at: number;
  /** Byte behind the last one wanted. */
  readonly end: number;
  /** By number, until they are stored or given up. */
  readonly landings: Map<number, Landing>;
  /** Blocks in doubt on the volume of which nothing has been written yet. */
  readonly intended: Set<number>;
  /** Settled once they are on disk or refused; null while admission keeps the asset out. */
  intents: Promise<void> | null;
  readonly stores: Promise<void>[];
}

export class Inflight {
  readonly #deps: InflightDeps;
  readonly #landings = new Map<Entry, Map<number, Landing>>();
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
    return !isSealed(entry) || this.#admitted.has(entry) || entry.blocks.count > 0 || this.#isPlanned(entry);
  }

  #isPlanned(entry: Entry): boolean {
    return (
      this.#deps.cache.isPinned(entry) || (entry.holding !== null && (this.#deps.planned?.(entry.holding) ?? false))
    );
  }

  has(entry: Entry, number: number): boolean {
    return this.#landings.get(entry)?.has(number) ?? false;
  }

  /** Follows the block if it is on its way. */
  join(entry: Entry, number: number): Landing | null {
    const landing = this.#landings.get(entry)?.get(number);
    return landing === undefined || landing.fault !== null ? null : landing;
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
      readonly answer?: Bytes;
    },
  ): Landing {
    const landings: Landing[] = [];
    const most = spec.answer === undefined ? FLIGHT_BLOCKS_MAX : Number.POSITIVE_INFINITY;
    for (let number = spec.number; number <= spec.lastWanted && landings.length < most; number += 1) {
      if (number > spec.number && (entry.blocks.has(number) || this.has(entry, number)) && spec.answer === undefined)
        break;
      landings.push(new Landing(number, blockBytes(entry.bytes, number)));
    }
    // Too long to be held for a reader.
    if (landings.length > FLIGHT_BLOCKS_MAX) this.admit(entry);
    if (!this.isStored(entry)) for (const [at, landing] of landings.slice(1).entries()) landings[at]!.chain(landing);
    const known = this.#landings.get(entry) ?? new Map<number, Landing>();
    this.#landings.set(entry, known);
    for (const landing of landings)
      if ((known.get(landing.number)?.fault ?? null) !== null || !known.has(landing.number))
        known.set(landing.number, landing);
    entry.flights += 1;
    const flight: Flight = {
      entry,
      headers: spec.headers ?? {},
      pool: spec.pool,
      at: spec.number * BLOCK_BYTES,
      end: landings.at(-1)!.number * BLOCK_BYTES + landings.at(-1)!.bytes,
      landings: new Map(landings.map((landing) => [landing.number, landing])),
      intended: new Set(),
      intents: null,
      stores: [],
    };
    void this.#fly(flight, spec.answer ?? null);
    return landings[0]!;
  }

  async #fly(flight: Flight, answer: Bytes | null): Promise<void> {
    const { entry, landings, stores } = flight;
    try {
      if (flight.pool === 'fill' || this.isStored(entry)) flight.intents = this.#intend(flight);
      const [{ digests, originTag }] = await Promise.all([this.#deps.termsOf(entry), flight.intents]);
      for (const landing of landings.values()) landing.take(flight.intended.has(landing.number));
      await this.#land(flight, {
        answer,
        originTag,
        onLanded: (landing) => this.#settleBlock(flight, landing, digests),
      });
      if (!isSealed(entry)) for (const landing of landings.values()) stores.push(this.#store(flight, landing));
    } catch (error) {
      if (answer !== null) discard(answer.body);
      const fault = isFault(error) ? error : originFault(error, entry.key);
      this.#deps.tally.add('larder_faults_total', 1, { code: fault.code });
      if (fault.code === 'version_gone' || !isSealed(entry)) await this.#deps.cache.drop(entry);
      for (const landing of landings.values()) if (landing.landed < landing.bytes) landing.fail(fault);
    }
    await Promise.all(stores);
    entry.volume.abandon(entry, [...flight.intended]);
    for (const landing of landings.values()) this.#forget(flight, landing);
    entry.flights -= 1;
    // Nothing of it could be stored, so nothing would ever evict it.
    if (entry.flights === 0 && entry.blocks.count === 0) await this.#deps.cache.drop(entry);
  }

  #forget(flight: Flight, landing: Landing): void {
    flight.landings.delete(landing.number);
    const known = this.#landings.get(flight.entry);
    if (known?.get(landing.number) === landing) known.delete(landing.number);
    if (known?.size === 0) this.#landings.delete(flight.entry);
  }

  /** Where the volume takes no intents nothing of the flight is stored. */
  async #intend(flight: Flight): Promise<void> {
    const { entry } = flight;
    if (entry.dropped) return;
    const numbers = [...flight.landings.keys()];
    try {
      await entry.volume.intend(entry, numbers);
      for (const number of numbers) flight.intended.add(number);
    } catch (error) {
      entry.volume.abandon(entry, numbers);
      this.#passed(error);
    }
  }

  /** The origin forbids by now to store what it once let be stored. */
  #giveUp(flight: Flight): void {
    flight.entry.volume.abandon(flight.entry, [...flight.intended]);
    flight.intended.clear();
  }

  /** Fills the landings in order from one upstream range, resumed once where it breaks off. */
  async #land(
    flight: Flight,
    spec: {
      readonly answer: Bytes | null;
      readonly originTag: string | null;
      /** Null where the next block may land at once. */
      readonly onLanded: (landing: Landing) => Promise<void> | null;
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
          !isSealed(entry) ||
          ['version_gone', 'origin_refused', 'digest_mismatch'].includes(fault.code)
        )
          throw fault;
      }
    }
  }

  async #ask(
    { entry, pool, headers }: Flight,
    spec: { readonly first: number; readonly last: number; readonly ifMatch: string | null },
  ): Promise<Bytes> {
    const answer = await this.#deps.origin.fetch(pool, { ...spec, key: entry.key, headers, signal: null });
    if (answer.kind === 'relay') {
      discard(answer.body);
      throw new Fault('origin_refused', `${entry.key}: the origin answered ${answer.status}`, {
        detail: { status: answer.status },
      });
    }
    if (answer.total !== null && answer.total !== entry.bytes) {
      discard(answer.body);
      throw new Fault('version_gone', `${entry.key} has ${answer.total} bytes at the origin now, not ${entry.bytes}`);
    }
    return answer;
  }

  /** A landed block: verified at once, stored behind the readers' backs. */
  #settleBlock(flight: Flight, landing: Landing, digests: readonly string[] | null): Promise<void> | null {
    const { entry, stores } = flight;
    if (digests !== null && !digestsMatch(landing, digests)) {
      const fault = new Fault(
        'digest_mismatch',
        `${entry.key}: block ${landing.number} from the origin is not what the catalog says`,
      );
      landing.reject(fault);
      throw fault;
    }
    // Without a version of its own an asset is stored whole or not at all: see #fly.
    if (!isSealed(entry)) return null;
    stores.push(this.#store(flight, landing));
    return stores[stores.length - STORING_MAX] ?? null;
  }

  async #store(flight: Flight, landing: Landing): Promise<void> {
    const { entry } = flight;
    const { cache } = this.#deps;
    const { number } = landing;
    let stored = false;
    try {
      // Somebody else may have asked for it while it was on its way.
      if (this.isStored(entry)) flight.intents ??= this.#intend(flight);
      await flight.intents;
      if (flight.pool !== 'fill' && !this.#isPlanned(entry))
        this.#deps.tally.add('larder_admission_blocks_total', 1, { outcome: flight.intents ? 'admitted' : 'refused' });
      if (!flight.intended.has(number) || entry.dropped) return;
      if (!(await cache.reserve(entry, landing.bytes))) throw new Fault('disk_full', 'no room can be made');
      if (entry.dropped || entry.blocks.has(number)) cache.release(entry, landing.bytes);
      else {
        flight.intended.delete(number);
        await cache.store(entry, number, landing.payload);
        stored = !entry.dropped;
      }
    } catch (error) {
      this.#passed(error);
    } finally {
      this.#forget(flight, landing);
      landing.finish(stored);
    }
  }

  #passed(error: unknown): void {
    if (!isFault(error)) throw error;
    this.#deps.tally.add('larder_fallback_total', 1, { name: 'store_full_pass' });
    if (error.code !== 'disk_full') this.#deps.log.error({ err: error }, 'block passes through unstored');
  }
}

/** A version that the origin can be asked for again by name; otherwise blocks of two answers must never meet. */
export const isSealed = (entry: Entry): boolean => isStrong(entry.version);

/** Bytes of the origin's, in order. Null where the next ones may land at once. */
function landInto(
  flight: Flight,
  bytes: Buffer,
  onLanded: (landing: Landing) => Promise<void> | null,
): Promise<void> | null {
  for (let from = 0; from < bytes.length && flight.at < flight.end;) {
    const landing = flight.landings.get(Math.floor(flight.at / BLOCK_BYTES))!;
    const take = Math.min(bytes.length - from, landing.bytes - landing.landed);
    landing.append(bytes.subarray(from, from + take));
    from += take;
    flight.at += take;
    const waits = landing.landed === landing.bytes ? onLanded(landing) : null;
    if (waits !== null) return waits.then(() => landInto(flight, bytes.subarray(from), onLanded) ?? undefined);
  }
  return null;
}

function digestsMatch(landing: Landing, digests: readonly string[]): boolean {
  const firstChunk = (landing.number * BLOCK_BYTES) / DIGEST_CHUNK_BYTES;
  for (let at = 0; at * DIGEST_CHUNK_BYTES < landing.bytes; at += 1) {
    const chunk = landing.payload.subarray(at * DIGEST_CHUNK_BYTES, (at + 1) * DIGEST_CHUNK_BYTES);
    if (createHash('sha256').update(chunk).digest('hex') !== digests[firstChunk + at]) return false;
  }
  return true;
}
