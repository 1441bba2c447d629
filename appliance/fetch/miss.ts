// What happens when a worker does not find a block on disk: locate the asset version, then stream its bytes while they
// land, reading ahead for those who want more.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { Admission } from '../store/admission.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import { hashKey } from '../store/bloom-filter.ts';
import { FETCH_BLOCKS_MAX, hasStrongValidator, type Inflight } from './inflight.ts';
import type { PendingBlock } from './pending-block.ts';
import type { FetchRequest, Forward } from '../link/messages.ts';
import type { Lookup } from './lookup.ts';
import type { LookupResult } from './lookup-result.ts';
import type { Counters } from '../metrics.ts';
import type { Entry } from '../store/volume.ts';

/** What readers of assets that are not admitted hold in memory at once; beyond it the disk takes their blocks after all. */
const HELD_BYTES_MAX = 256 * 2 ** 20;
/** Blocks fetched ahead of a reader: a flight at first, more the longer it reads on. */
const AHEAD_BLOCKS_MAX = 4 * FETCH_BLOCKS_MAX;

export type MissResult =
  | {
      readonly kind: 'asset';
      readonly entry: Entry;
      readonly validated: boolean;
      readonly forward: Forward | null;
      readonly body: Stream | null;
    }
  | Exclude<LookupResult, { readonly kind: 'entry' }>;

/** Left by `return`. */
export interface Stream extends AsyncIterableIterator<Buffer> {
  return(value?: undefined): Promise<IteratorResult<Buffer>>;
}

export interface MissDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly lookup: Lookup;
  readonly admission: Admission;
  /** Stand-alone: a version that went away may be replaced by its successor, and only sealed ones be fetched in parts. */
  readonly alone: boolean;
  readonly counters: Counters;
}

/** What a stream finds out before its first byte. */
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
  #heldBytes = 0;

  constructor(deps: MissDeps) {
    this.#deps = deps;
  }

  /** Throws the fault to answer with. */
  async open(ask: FetchRequest): Promise<MissResult> {
    const { lookup, inflight, admission } = this.#deps;
    // A suffix comes back as a range of the asset, and a stalled reader from where it was: one request counts once.
    const admitted = !ask.continuation && ask.from !== 'suffix' && admission.admits(hashKey(ask.key));
    for (let attempt = 1; ; attempt += 1) {
      const result = await lookup.lookUp(ask, admitted);
      if (result.kind !== 'entry') return result;
      const { entry, validated, forward } = result;
      if (admitted || this.#heldBytes >= HELD_BYTES_MAX) inflight.admit(entry);
      const known = { kind: 'asset' as const, entry, validated, forward, body: null };
      // Another version, or a first contact that needs the length: the worker decides with the asset in hand.
      const other = ask.expected !== null && ask.expected.version !== entry.version;
      if (other || ask.from === 'suffix' || ask.from >= entry.bytes) return known;
      // A worker that has not looked for the block in this entry finds it on disk.
      const present = entry.blocks.has(Math.floor(ask.from / BLOCK_BYTES));
      if (!isEntry(ask.expected, entry) && present) return known;
      if (ask.onlyIfCached) return present ? known : { kind: 'not-cached' };
      const found: ForwardSlot = { forward };
      const stream = this.#stream(entry, ask, found);
      try {
        const body = await primed(stream);
        return { ...known, body, forward: found.forward };
      } catch (error) {
        // Nothing has been sent yet, so a version that went away may be replaced by its successor.
        if (
          !isFault(error) ||
          error.code !== 'version_gone' ||
          ask.expected !== null ||
          !this.#deps.alone ||
          attempt > 1
        )
          throw error;
      }
    }
  }

  /** The bytes that are asked for, block by block, until one that was not asked for first is on disk. */
  async *#stream(entry: Entry, ask: FetchRequest, found: ForwardSlot): AsyncGenerator<Buffer> {
    const wanted = { from: ask.from as number, to: Math.min(ask.to ?? entry.bytes, entry.bytes), headers: ask.headers };
    const heldBytes = this.#deps.inflight.isStored(entry)
      ? 0
      : Math.min(wanted.to - wanted.from, FETCH_BLOCKS_MAX * BLOCK_BYTES);
    this.#heldBytes += heldBytes;
    try {
      yield* this.#blocks(entry, wanted, found);
    } finally {
      this.#heldBytes -= heldBytes;
    }
  }

  async *#blocks(entry: Entry, wanted: RequestedBytes, found: ForwardSlot): AsyncGenerator<Buffer> {
    const { inflight } = this.#deps;
    const { from, to, headers } = wanted;
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    let held: PendingBlock | null = null;
    for (let at = from; at < to;) {
      const number = Math.floor(at / BLOCK_BYTES);
      const base = number * BLOCK_BYTES;
      const end = Math.min(to, base + BLOCK_BYTES);
      let pending: PendingBlock | null = held ?? inflight.join(entry, number);
      if (pending === null && entry.blocks.has(number)) {
        if (at !== from) return;
        const payload = await this.#reread(entry, number);
        if (payload !== null) {
          yield payload.subarray(at - base, end - base);
          at = end;
          continue;
        }
        pending = inflight.join(entry, number);
      }
      const joined = pending !== null;
      // What has no version of its own comes from one answer: another may be of other bytes.
      if (pending === null && !this.#mayRefetch(entry))
        throw new Fault('version_gone', `${entry.key} broke off and has no version to ask for again`);
      pending ??= inflight.start(entry, { number, lastWanted, pool: 'miss', headers });
      // Held from here on, so that its buffer stays.
      const bytes = pending.follow(at - base, end - base);
      if (at === from) found.forward ??= await forwardOf(entry, pending, joined);
      this.#readAhead(entry, number, wanted);
      try {
        for await (const chunk of bytes) {
          at += chunk.length;
          yield chunk;
        }
      } catch (error) {
        // Refused to him who began the fetch: who joined it asks in his own name.
        if (!joined || !isFault(error) || error.code !== 'origin_refused') throw error;
        held = null;
        continue;
      }
      // Short of its end the rest of the block is on disk.
      held = at === end ? pending.next : null;
    }
  }

  /** Catalogued bytes are known by their digests, others by the entity tag that the origin is asked for. */
  #mayRefetch(entry: Entry): boolean {
    return hasStrongValidator(entry) || !this.#deps.alone;
  }

  /** Flights beyond the block being read, in parallel, for readers who want that much of what is stored. */
  #readAhead(entry: Entry, number: number, { from, to, headers }: RequestedBytes): void {
    const { inflight } = this.#deps;
    if (!this.#mayRefetch(entry) || !inflight.isStored(entry)) return;
    const read = number - Math.floor(from / BLOCK_BYTES);
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    const horizon = Math.min(lastWanted, number + Math.min(AHEAD_BLOCKS_MAX, FETCH_BLOCKS_MAX + 2 * read));
    for (let ahead = number + 1; ahead <= horizon; ahead += 1)
      if (!entry.blocks.has(ahead) && !inflight.has(entry, ahead))
        inflight.start(entry, { number: ahead, lastWanted, pool: 'miss', headers });
  }

  /** The index says present, the worker says no: the file decides, and a damaged one leaves. */
  async #reread(entry: Entry, number: number): Promise<Buffer | null> {
    try {
      const payload = await entry.volume.read(entry, number);
      if (payload !== null) return payload;
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#deps.counters.add('larder_faults_total', 1, { code: error.code });
    }
    this.#deps.counters.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await this.#deps.cache.discardBlock(entry, number);
    return null;
  }
}

const isEntry = (known: FetchRequest['expected'], entry: Entry): boolean =>
  known !== null && known.id === entry.id && known.volume === entry.volume.number;

async function forwardOf(entry: Entry, pending: PendingBlock, collapsed: boolean): Promise<Forward> {
  const reason = entry.blocks.count === 0 ? 'uri-miss' : 'partial';
  await pending.decided;
  return { reason, status: null, stored: pending.storable, collapsed };
}

/** Waits for the first bytes, so that a fault can still be answered as one. */
async function primed(stream: AsyncGenerator<Buffer>): Promise<Stream> {
  let first: IteratorResult<Buffer> | null = await stream.next();
  const body: Stream = {
    next: async () => {
      const begun = first;
      first = null;
      return begun ?? stream.next();
    },
    // Who leaves at the first piece has not begun with the rest.
    return: () => stream.return(undefined),
    [Symbol.asyncIterator]: () => body,
  };
  return body;
}
