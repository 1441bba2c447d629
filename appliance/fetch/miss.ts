// What happens when a worker does not find a block on disk: the asset version is looked up, then its bytes are streamed while they
// arrive, with read-ahead for readers that go on.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { Clock } from '../../runtime/clock.ts';
import { LIMITS } from '../limits.ts';
import type { Forward } from '../http/cache-status.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { Counters } from '../metrics.ts';
import type { Admission } from '../store/admission.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import { hashKey } from '../store/bloom-filter.ts';
import type { Cache } from '../store/cache.ts';
import { sliceOf, type BlockMemory, type BlockSlice } from '../store/receive-buffer.ts';
import type { Entry } from '../store/volume.ts';
import { FETCH_BLOCKS_MAX, hasStrongValidator, type Inflight } from './inflight.ts';
import type { LookupResult } from './lookup-result.ts';
import type { Lookup } from './lookup.ts';
import { isOnlyIfCached } from './origin-request.ts';
import { SLICE_BYTES_MAX, type PendingBlock } from './pending-block.ts';
import { ReadAhead } from './read-ahead.ts';

/** Blocks that are fetched ahead of a reader: one upstream fetch at least, more for one that is fast. */
const READ_AHEAD_BLOCKS_MAX = 16 * FETCH_BLOCKS_MAX;

export type MissResult =
  | {
      readonly kind: 'asset';
      readonly entry: Entry;
      readonly validated: boolean;
      readonly forward: Forward | null;
      readonly body: BlockStream | null;
    }
  | Exclude<LookupResult, { readonly kind: 'entry' }>;

/** Ended early by `return`. */
export interface BlockStream extends AsyncIterableIterator<Buffer | BlockSlice> {
  return(value?: undefined): Promise<IteratorResult<Buffer | BlockSlice>>;
}

export interface MissDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly lookup: Lookup;
  readonly admission: Admission;
  /** Stand-alone, a version that is gone may be replaced by its successor, and only versions with a strong validator be continued. */
  readonly alone: boolean;
  /** A block that is on disk and, as it has just arrived or is read often, in memory. */
  readonly resident: (entry: Entry, number: number) => BlockMemory | null;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly counters: Counters;
}

/** Filled in by a stream before its first byte. */
interface ForwardSlot {
  forward: Forward | null;
}

interface RequestedBytes {
  readonly from: number;
  readonly to: number;
  readonly headers: FetchRequest['headers'];
}

export class Miss {
  readonly #deps: MissDeps;
  #unstoredBytes = 0;

  constructor(deps: MissDeps) {
    this.#deps = deps;
  }

  /** Throws the fault to answer with. */
  async open(request: FetchRequest): Promise<MissResult> {
    const { inflight, lookup } = this.#deps;
    const admitted = this.#admits(request);
    for (let attempt = 1; ; attempt += 1) {
      const result = await lookup.lookUp(request, admitted);
      if (result.kind !== 'entry') return result;
      const { entry, validated, forward } = result;
      if (admitted || this.#unstoredBytes >= LIMITS.unstoredBytesMax) inflight.admit(entry);
      const metadataOnly = { kind: 'asset' as const, entry, validated, forward, body: null };
      // The worker decides with the asset in hand when it is another version, or when the range depends on the length.
      const isOther = request.expected !== null && request.expected.version !== entry.version;
      if (isOther || request.from === 'suffix' || request.from >= entry.bytes) return metadataOnly;
      // A worker that has not looked for the block of this entry finds it on disk.
      const isPresent = entry.blocks.has(Math.floor(request.from / BLOCK_BYTES));
      if (isPresent && !isExpected(request, entry)) return metadataOnly;
      if (isOnlyIfCached(request)) return isPresent ? metadataOnly : { kind: 'not-cached' };
      const slot: ForwardSlot = { forward };
      try {
        const body = await primed(this.#stream(entry, request, slot));
        return { ...metadataOnly, body, forward: slot.forward };
      } catch (error) {
        // Nothing has been sent yet, so that a version that is gone may be replaced by its successor.
        const isGone = isFault(error) && error.code === 'version_gone';
        if (!isGone || request.expected !== null || !this.#deps.alone || attempt > 1) throw error;
      }
    }
  }

  /** A suffix comes back as a range of the asset, and a stalled reader from where it was: one client request counts once. */
  #admits({ continuation, from, key }: FetchRequest): boolean {
    return !continuation && from !== 'suffix' && this.#deps.admission.admits(hashKey(key));
  }

  /** The bytes requested, block by block, until a later block is on disk and not in memory, or the reader is slow. */
  async *#stream(entry: Entry, request: FetchRequest, slot: ForwardSlot): AsyncGenerator<Buffer | BlockSlice> {
    const from = request.from as number;
    const to = Math.min(request.to ?? entry.bytes, entry.bytes);
    const isStored = this.#deps.inflight.isStored(entry);
    const unstoredBytes = isStored ? 0 : Math.min(to - from, FETCH_BLOCKS_MAX * BLOCK_BYTES);
    this.#unstoredBytes += unstoredBytes;
    try {
      yield* this.#blocks(entry, { from, to, headers: request.headers }, slot);
    } finally {
      this.#unstoredBytes -= unstoredBytes;
    }
  }

  async *#blocks(entry: Entry, requested: RequestedBytes, slot: ForwardSlot): AsyncGenerator<Buffer | BlockSlice> {
    const { inflight } = this.#deps;
    const { from, to, headers } = requested;
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    const readAhead = new ReadAhead(this.#deps.clock);
    // The following block of an unstored fetch, which nobody else finds any more.
    let next: PendingBlock | null = null;
    for (let at = from; at < to;) {
      const number = Math.floor(at / BLOCK_BYTES);
      const base = number * BLOCK_BYTES;
      const end = Math.min(to, base + BLOCK_BYTES);
      let block: PendingBlock | null = next ?? inflight.join(entry, number);
      if (block === null && entry.blocks.has(number)) {
        if (at !== from) {
          const memory = readAhead.isSlow ? null : this.#deps.resident(entry, number);
          if (memory === null) return;
          this.#fetchAhead(entry, number, requested, readAhead);
          const taken = yield* slicesOf(memory, { from: at - base, to: end - base }, readAhead);
          at += taken;
          if (at < end) return;
          continue;
        }
        const payload = await this.#reread(entry, number);
        if (payload !== null) {
          yield payload.subarray(at - base, end - base);
          at = end;
          continue;
        }
        block = inflight.join(entry, number);
      }
      const joined = block !== null;
      // Without a strong validator, a second response may be of other bytes than the first.
      if (block === null && !this.#mayRefetch(entry))
        throw new Fault('version_gone', `${entry.key} broke off and has no version to ask for again`);
      block ??= inflight.start(entry, { number, lastWanted, pool: 'miss', headers });
      // Following begins before the next await, so that the buffer stays.
      const bytes = block.follow(at - base, end - base);
      if (at === from) slot.forward ??= await forwardOf(entry, block, joined);
      this.#fetchAhead(entry, number, requested, readAhead);
      try {
        for await (const slice of bytes) {
          at += slice.length;
          readAhead.sliceGiven();
          yield slice;
          readAhead.sliceTaken();
        }
      } catch (error) {
        // The origin refused the client that started the fetch: a client that joined it asks with its own fields.
        if (!joined || !isFault(error) || error.code !== 'origin_refused') throw error;
        next = null;
        continue;
      }
      // When the block ended early, its rest is on disk.
      next = at === end ? block.next : null;
    }
  }

  /** Catalogued bytes are verified by their digests, others by the entity tag that the origin is asked for. */
  #mayRefetch(entry: Entry): boolean {
    return hasStrongValidator(entry) || !this.#deps.alone;
  }

  /** Fetches what is to be stored ahead of a reader, in parallel requests of 8 MiB. */
  #fetchAhead(entry: Entry, number: number, { to, headers }: RequestedBytes, readAhead: ReadAhead): void {
    const { inflight } = this.#deps;
    if (!this.#mayRefetch(entry) || !inflight.isStored(entry)) return;
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    const wanted = Math.ceil(readAhead.bytesAhead(inflight.fetchMs ?? 0) / BLOCK_BYTES);
    const most = inflight.blocks < LIMITS.blocksInFlightMax ? READ_AHEAD_BLOCKS_MAX : FETCH_BLOCKS_MAX;
    const horizon = Math.min(lastWanted, number + Math.min(most, Math.max(FETCH_BLOCKS_MAX, wanted)));
    for (let ahead = number + 1; ahead <= horizon; ahead += 1)
      if (!entry.blocks.has(ahead) && !inflight.has(entry, ahead))
        inflight.start(entry, { number: ahead, lastWanted, pool: 'miss', headers });
  }

  /** The index says that the block is present, the worker that it is not: the file decides, and a damaged one is removed. */
  async #reread(entry: Entry, number: number): Promise<Buffer | null> {
    const { cache, counters } = this.#deps;
    try {
      const payload = await entry.volume.read(entry, number);
      if (payload !== null) return payload;
    } catch (error) {
      if (!isFault(error)) throw error;
      counters.add('larder_faults_total', 1, { code: error.code });
    }
    counters.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await cache.discardBlock(entry, number);
    return null;
  }
}

/** Returns how many bytes of the block the reader got before its slots had other bytes. */
function* slicesOf(
  memory: BlockMemory,
  { from, to }: { readonly from: number; readonly to: number },
  readAhead: ReadAhead,
): Generator<BlockSlice, number> {
  for (let at = from; at < to;) {
    const slice = sliceOf(memory, at, Math.min(to, at + SLICE_BYTES_MAX));
    if (slice === null) return at - from;
    readAhead.sliceGiven();
    yield slice;
    readAhead.sliceTaken();
    at += slice.length;
  }
  return to - from;
}

const isExpected = ({ expected }: FetchRequest, entry: Entry): boolean =>
  expected !== null && expected.id === entry.id && expected.volume === entry.volume.number;

async function forwardOf(entry: Entry, block: PendingBlock, collapsed: boolean): Promise<Forward> {
  const reason = entry.blocks.count === 0 ? 'uri-miss' : 'partial';
  await block.decided;
  return { reason, status: null, stored: block.storable, collapsed };
}

/** Waits for the first bytes, so that a fault can still be answered as one. */
async function primed(stream: AsyncGenerator<Buffer | BlockSlice>): Promise<BlockStream> {
  let first: IteratorResult<Buffer | BlockSlice> | null = await stream.next();
  const body: BlockStream = {
    next: async () => {
      const begun = first;
      first = null;
      return begun ?? stream.next();
    },
    return: () => stream.return(undefined),
    [Symbol.asyncIterator]: () => body,
  };
  return body;
}
