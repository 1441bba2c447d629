// The memory tier: blocks that are read again and again, in memory that the storekeeper writes and all workers map. Bytes in it were
// checked on their way in, and nothing but the storekeeper can change them, so that they are served without another check.
//
// A block enters on its second read. Its slots are chosen, filled and only then announced, so that no worker reads what is being written.
// A block leaves when the policy evicts it, or when it leaves the disk: the workers are told to forget it, and its slots are used again
// only when all of them have confirmed or ended (link/server.ts kills the one that does neither). A worker never holds on to a slot
// across a turn of its event loop, so that a confirmation means that it reads there no more.

import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { Counters } from '../metrics.ts';
import { BLOCK_BYTES, blockBytes, CHUNK_BYTES } from './block-file.ts';
import { hashPart, RotatingBloomFilter } from './bloom-filter.ts';
import type { RunGeometry, RunKey } from './eviction-policy.ts';
import { Lru } from './lru.ts';
import type { Entry, Volume } from './volume.ts';

export const SLOT_BYTES = CHUNK_BYTES;
const GEOMETRY: RunGeometry = { unitBytes: SLOT_BYTES, runBytesMax: BLOCK_BYTES };
/** Blocks that are read from disk into the tier at once, and that wait for it. A busy tier misses a touch, and gets the next. */
const FILLS_MAX = 2;
const FILLS_WAITING_MAX = 256;
/**
 * A full tier is replaced no faster than once in this time: where more is read again and again than fits, every read would evict what
 * the next one wants, and filling would cost more than the tier saves.
 */
const REPLACEMENT_MS = 180_000;
/** Bytes a second at which also a small tier may be replaced. */
const REPLACEMENT_RATE_MIN = 8 * 2 ** 20;
/** Blocks of one asset that a key of the policy can tell apart; blocks behind 2 TiB stay on disk. */
const BLOCKS_PER_ASSET = 2 ** 21;
const IDS_MAX = 2 ** 32;

/** A block in the tier, as workers learn it. */
export interface ResidentBlock {
  readonly volume: number;
  readonly id: number;
  readonly number: number;
  /** Of the asset: an id alone may have named another one before a crash. */
  readonly key: string;
  readonly version: string;
  readonly bytes: number;
  /** Where its chunks lie, in order, as numbers of slots. */
  readonly slots: readonly number[];
}

export type BlockName = Pick<ResidentBlock, 'volume' | 'id' | 'number'>;

export interface MemoryTierDeps {
  readonly volumes: readonly Pick<Volume, 'entry' | 'read'>[];
  /** The shared memory. */
  readonly memory: { readonly bytes: number; write(at: number, from: Buffer): void };
  /** Tells the workers where a block is. */
  readonly announce: (block: ResidentBlock) => void;
  /** Resolves when no worker reads these blocks in the tier any more. */
  readonly withdraw: (blocks: readonly BlockName[]) => Promise<void>;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
  /** Secret, so that clients cannot choose blocks that collide. */
  readonly seed: number;
}

export class MemoryTier {
  readonly #deps: MemoryTierDeps;
  readonly #policy = new Lru(GEOMETRY);
  readonly #resident = new Map<RunKey, ResidentBlock>();
  readonly #freeSlots: number[] = [];
  readonly #filling = new Set<RunKey>();
  readonly #fills = new Semaphore({ permits: FILLS_MAX });
  readonly #read: RotatingBloomFilter;
  /** When the next block may be evicted, monotonic. */
  #evictableMs = 0;
  #closed = false;

  constructor(deps: MemoryTierDeps) {
    this.#deps = deps;
    const slots = Math.floor(deps.memory.bytes / SLOT_BYTES);
    // The lowest is taken first, so that the slots of a block are neighbours while nothing was evicted.
    for (let slot = slots - 1; slot >= 0; slot -= 1) this.#freeSlots.push(slot);
    this.#read = new RotatingBloomFilter({ generationKeys: () => 4 * slots, seed: deps.seed });
  }

  /** Bytes in use. */
  get bytes(): number {
    return this.#policy.bytes;
  }

  blocks(): IterableIterator<ResidentBlock> {
    return this.#resident.values();
  }

  /** A worker has read the block. */
  touch(block: BlockName): void {
    const key = this.#keyOf(block);
    if (this.#closed || key === null || this.#filling.has(key)) return;
    if (this.#resident.has(key)) return this.#policy.touch(key);
    const hash = hashPart(block.id * this.#deps.volumes.length + block.volume, block.number);
    const again = this.#read.has(hash);
    this.#read.add(hash);
    if (!again || this.#filling.size >= FILLS_WAITING_MAX) return;
    this.#filling.add(key);
    void this.#fills.run(() => this.#fill(key, block)).finally(() => this.#filling.delete(key));
  }

  /** Nothing is written any more: whoever reads here may not be reachable from now on. */
  close(): void {
    this.#closed = true;
  }

  /** Forgets blocks that leave the disk. Their slots are used again after `done`, by when no worker may read them any more. */
  remove(blocks: readonly BlockName[]): { readonly done: () => void } {
    const freed: ResidentBlock[] = [];
    for (const block of blocks) {
      const key = this.#keyOf(block);
      const resident = key === null ? undefined : this.#resident.get(key);
      if (key === null || resident === undefined) continue;
      this.#resident.delete(key);
      this.#policy.subtract(key, resident.slots.length * SLOT_BYTES);
      freed.push(resident);
    }
    return {
      done: () => {
        for (const { slots } of freed) this.#freeSlots.push(...slots);
      },
    };
  }

  async #fill(key: RunKey, block: BlockName): Promise<void> {
    const { volumes, memory, announce, counters, log } = this.#deps;
    const { volume, id, number } = block;
    const entry = volumes[volume]?.entry(id);
    if (!isPresent(entry, number)) return;
    try {
      const slots = await this.#takeSlots(Math.ceil(blockBytes(entry.bytes, number) / SLOT_BYTES));
      if (slots === null) return;
      const payload = await entry.volume.read(entry, number).catch((error: unknown) => {
        this.#freeSlots.push(...slots);
        throw error;
      });
      if (payload === null) return void this.#freeSlots.push(...slots);
      // Removed meanwhile: the workers were told so before they could be told of this.
      if (this.#closed || !isPresent(entry, number)) return void this.#freeSlots.push(...slots);
      for (const [at, slot] of slots.entries())
        memory.write(slot * SLOT_BYTES, payload.subarray(at * SLOT_BYTES, (at + 1) * SLOT_BYTES));
      const { version } = entry;
      const resident = { volume, id, number, key: entry.key, version, bytes: payload.length, slots };
      this.#resident.set(key, resident);
      this.#policy.append(key, slots.length * SLOT_BYTES);
      counters.add('larder_memory_blocks_total', 1, { event: 'filled' });
      announce(resident);
      await entry.volume.dropPages(entry, number);
    } catch (error) {
      // A block that cannot be read is found by its next reader, who has it fetched again.
      log.debug({ err: error, key: entry.key, number }, 'a block does not enter the memory tier');
    }
  }

  /** Null when the tier is too small, or has been replaced fast enough. */
  async #takeSlots(count: number): Promise<number[] | null> {
    const { clock, memory } = this.#deps;
    if (this.#freeSlots.length < count) {
      const nowMs = clock.monotonic();
      if (nowMs < this.#evictableMs) return null;
      const bytesPerMs = Math.max(memory.bytes / REPLACEMENT_MS, REPLACEMENT_RATE_MIN / 1_000);
      this.#evictableMs = nowMs + (count * SLOT_BYTES) / bytesPerMs;
    }
    while (this.#freeSlots.length < count) {
      const victims: BlockName[] = [];
      for (let freed = 0; this.#freeSlots.length + freed < count;) {
        const victim = this.#policy.evict();
        if (victim === null) break;
        const resident = this.#resident.get(victim)!;
        freed += resident.slots.length;
        victims.push(resident);
      }
      if (victims.length === 0) return null;
      this.#deps.counters.add('larder_memory_blocks_total', victims.length, { event: 'evicted' });
      const { done } = this.remove(victims);
      await this.#deps.withdraw(victims);
      done();
    }
    return this.#freeSlots.splice(this.#freeSlots.length - count, count).reverse();
  }

  /** Null for a block that the policy has no key for. */
  #keyOf({ volume, id, number }: BlockName): RunKey | null {
    const asset = id * this.#deps.volumes.length + volume;
    return asset < IDS_MAX && number < BLOCKS_PER_ASSET ? asset * BLOCKS_PER_ASSET + number : null;
  }
}

const isPresent = (entry: Entry | undefined, number: number): entry is Entry =>
  entry !== undefined && !entry.removed && entry.blocks.has(number);
