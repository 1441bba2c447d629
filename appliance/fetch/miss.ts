// What happens when a worker does not find a block on disk: locate the asset version, then stream its bytes while they
// land, reading ahead for those who want more.

import { Fault, isFault } from '../../protocol/faults.ts';
import type { Admission } from '../store/admission.ts';
import { BLOCK_BYTES } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import { nameOf } from '../store/bloom-filter.ts';
import { FLIGHT_BLOCKS_MAX, isSealed, type Inflight } from './inflight.ts';
import type { Landing } from './pending-block.ts';
import type { Ask, Forward } from '../link/messages.ts';
import type { Locate } from './lookup.ts';
import type { Located } from './lookup-result.ts';
import type { Tally } from '../metrics.ts';
import type { Entry } from '../store/volume.ts';

/** What readers of assets that are not admitted hold in memory at once; beyond it the disk takes their blocks after all. */
const HELD_BYTES_MAX = 256 * 2 ** 20;
/** Blocks fetched ahead of a reader: a flight at first, more the longer it reads on. */
const AHEAD_BLOCKS_MAX = 4 * FLIGHT_BLOCKS_MAX;

export type Opened =
  | {
      readonly kind: 'asset';
      readonly entry: Entry;
      readonly validated: boolean;
      readonly forward: Forward | null;
      readonly body: Stream | null;
    }
  | Exclude<Located, { readonly kind: 'entry' }>;

/** Left by `return`. */
export interface Stream extends AsyncIterableIterator<Buffer> {
  return(value?: undefined): Promise<IteratorResult<Buffer>>;
}

export interface MissDeps {
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly locate: Locate;
  readonly admission: Admission;
  /** Stand-alone: a version that went away may be replaced by its successor, and only sealed ones be fetched in parts. */
  readonly alone: boolean;
  readonly tally: Tally;
}

/** What a stream finds out before its first byte. */
interface Found {
  forward: Forward | null;
}

interface Wanted {
  readonly from: number;
  readonly to: number;
  readonly headers: Ask['headers'];
}

export class Miss {
  readonly #deps: MissDeps;
  #heldBytes = 0;

  constructor(deps: MissDeps) {
    this.#deps = deps;
  }

  /** Throws the fault to answer with. */
  async open(ask: Ask): Promise<Opened> {
    const { locate, inflight, admission } = this.#deps;
    // A suffix comes back as a range of the asset, and a stalled reader from where it was: one request counts once.
    const admitted = !ask.again && ask.from !== 'suffix' && admission.ask(nameOf(ask.key));
    for (let attempt = 1; ; attempt += 1) {
      const located = await locate.locate(ask, admitted);
      if (located.kind !== 'entry') return located;
      const { entry, validated, forward } = located;
      if (admitted || this.#heldBytes >= HELD_BYTES_MAX) inflight.admit(entry);
      const known = { kind: 'asset' as const, entry, validated, forward, body: null };
      // Another version, or a first contact that needs the length: the worker decides with the asset in hand.
      const other = ask.known !== null && ask.known.version !== entry.version;
      if (other || ask.from === 'suffix' || ask.from >= entry.bytes) return known;
      // A worker that has not looked for the block in this entry finds it on disk.
      const present = entry.blocks.has(Math.floor(ask.from / BLOCK_BYTES));
      if (!isEntry(ask.known, entry) && present) return known;
      if (ask.storedOnly) return present ? known : { kind: 'absent' };
      const found: Found = { forward };
      const stream = this.#stream(entry, ask, found);
      try {
        const body = await primed(stream);
        return { ...known, body, forward: found.forward };
      } catch (error) {
        // Nothing has been sent yet, so a version that went away may be replaced by its successor.
        if (!isFault(error) || error.code !== 'version_gone' || ask.known !== null || !this.#deps.alone || attempt > 1)
          throw error;
      }
    }
  }

  /** The bytes that are asked for, block by block, until one that was not asked for first is on disk. */
  async *#stream(entry: Entry, ask: Ask, found: Found): AsyncGenerator<Buffer> {
    const wanted = { from: ask.from as number, to: Math.min(ask.to ?? entry.bytes, entry.bytes), headers: ask.headers };
    const heldBytes = this.#deps.inflight.isStored(entry)
      ? 0
      : Math.min(wanted.to - wanted.from, FLIGHT_BLOCKS_MAX * BLOCK_BYTES);
    this.#heldBytes += heldBytes;
    try {
      yield* this.#blocks(entry, wanted, found);
    } finally {
      this.#heldBytes -= heldBytes;
    }
  }

  async *#blocks(entry: Entry, wanted: Wanted, found: Found): AsyncGenerator<Buffer> {
    const { inflight } = this.#deps;
    const { from, to, headers } = wanted;
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    let held: Landing | null = null;
    for (let at = from; at < to;) {
      const number = Math.floor(at / BLOCK_BYTES);
      const base = number * BLOCK_BYTES;
      const end = Math.min(to, base + BLOCK_BYTES);
      let landing: Landing | null = held ?? inflight.join(entry, number);
      if (landing === null && entry.blocks.has(number)) {
        if (at !== from) return;
        const payload = await this.#reread(entry, number);
        if (payload !== null) {
          yield payload.subarray(at - base, end - base);
          at = end;
          continue;
        }
        landing = inflight.join(entry, number);
      }
      const joined = landing !== null;
      // What has no version of its own comes from one answer: another may be of other bytes.
      if (landing === null && !this.#mayRefetch(entry))
        throw new Fault('version_gone', `${entry.key} broke off and has no version to ask for again`);
      landing ??= inflight.start(entry, { number, lastWanted, pool: 'miss', headers });
      // Held from here on, so that its buffer stays.
      const bytes = landing.follow(at - base, end - base);
      if (at === from) found.forward ??= await forwardOf(entry, landing, joined);
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
      held = at === end ? landing.next : null;
    }
  }

  /** Catalogued bytes are known by their digests, others by the entity tag that the origin is asked for. */
  #mayRefetch(entry: Entry): boolean {
    return isSealed(entry) || !this.#deps.alone;
  }

  /** Flights beyond the block being read, in parallel, for readers who want that much of what is stored. */
  #readAhead(entry: Entry, number: number, { from, to, headers }: Wanted): void {
    const { inflight } = this.#deps;
    if (!this.#mayRefetch(entry) || !inflight.isStored(entry)) return;
    const read = number - Math.floor(from / BLOCK_BYTES);
    const lastWanted = Math.floor((to - 1) / BLOCK_BYTES);
    const horizon = Math.min(lastWanted, number + Math.min(AHEAD_BLOCKS_MAX, FLIGHT_BLOCKS_MAX + 2 * read));
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
      this.#deps.tally.add('larder_faults_total', 1, { code: error.code });
    }
    this.#deps.tally.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await this.#deps.cache.discard(entry, number);
    return null;
  }
}

const isEntry = (known: Ask['known'], entry: Entry): boolean =>
  known !== null && known.id === entry.id && known.volume === entry.volume.number;

async function forwardOf(entry: Entry, landing: Landing, collapsed: boolean): Promise<Forward> {
  const reason = entry.blocks.count === 0 ? 'uri-miss' : 'partial';
  await landing.taken;
  return { reason, status: null, stored: landing.kept, collapsed };
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
