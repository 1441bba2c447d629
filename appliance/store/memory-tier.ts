// The memory tier: blocks that are read again and again, in memory that the storekeeper writes and all workers map. Bytes in it were
// checked on their way in, and nothing but the storekeeper can change them, so that they are served without another check.
//
// A missed block is received here, and stays for the readers that follow close behind: for those that are slower than the disk, and for
// the next ones. An eighth of the tier is for such blocks, on probation, first in, first out. A block that is read again moves on to the
// rest of the tier, where the policy decides what stays; so does one that was on disk and is read twice.
//
// The slots of a block are chosen, filled and only then announced, so that no worker reads what is being written; what it reads of a
// arriving block it is told chunk by chunk (link/server.ts). A block leaves when it is evicted, or when it leaves the disk: the workers are
// told to forget it, and its slots are used again only when all of them have confirmed or ended (link/server.ts kills the one that does
// neither). A worker never holds on to a slot across a turn of its event loop, so that a confirmation means that it reads there no more.

import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { Semaphore } from '../../runtime/semaphore.ts';
import type { Counters } from '../metrics.ts';
import { BLOCK_BYTES, blockBytes, CHUNK_BYTES } from './block-file.ts';
import { hashPart, RotatingBloomFilter } from './bloom-filter.ts';
import type { RunGeometry, RunKey } from './eviction-policy.ts';
import type { BlockMemory, ReceiveBuffer } from './receive-buffer.ts';
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
/** For blocks that arrive or have just arrived. */
const PROBATION_SHARE = 1 / 8;
/** Of that share, free for blocks that arrive: what is evicted is free only once all workers have confirmed. */
const ARRIVAL_SHARE = 1 / 4;
/** Of that share, evicted at once: each eviction is a message to every worker, and one back. */
const EVICTED_SHARE = 1 / 16;
/** Ten seconds of misses at 0.2 Gb/s: memory that was used a moment ago is faster than memory that never was. */
const PROBATION_BYTES_MAX = 256 * 2 ** 20;
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

/** The shared memory: see io/shared-memory.ts. */
export interface SharedSlots {
  readonly slots: number;
  slot(slot: number): Buffer;
  generation(slot: number): number;
  /** To be called before other bytes are written to a slot. Returns its new generation. */
  renew(slot: number): number;
}

export interface MemoryTierDeps {
  readonly volumes: readonly Pick<Volume, 'entry' | 'read'>[];
  readonly memory: SharedSlots;
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
  readonly #resident = new Map<RunKey, ResidentBlock>();
  /** Resident blocks that nobody has read since they arrived, oldest first. */
  readonly #probation = new Map<RunKey, ResidentBlock>();
  /** The other resident blocks. */
  readonly #policy = new Lru(GEOMETRY);
  /** Slots that were used before, and the lowest of those that never were. */
  readonly #freeSlots: number[] = [];
  #unusedSlot = 0;
  /** Slots for probation, blocks that arrive included, and of all others, each until they are free again. */
  readonly #probationSlots: SlotCount;
  readonly #protectedSlots: SlotCount;
  /** Slots of probation on their way out. */
  #leavingSlots = 0;
  readonly #busy = new Set<RunKey>();
  readonly #fills = new Semaphore({ permits: FILLS_MAX });
  readonly #read: RotatingBloomFilter;
  /** When the next block may be evicted, monotonic. */
  #evictableMs = 0;
  #closed = false;

  constructor(deps: MemoryTierDeps) {
    this.#deps = deps;
    const { slots } = deps.memory;
    const probationMax = Math.floor(slots * PROBATION_SHARE);
    // In a small tier not even one block would fit.
    this.#probationSlots = { used: 0, max: probationMax < BLOCK_BYTES / SLOT_BYTES ? 0 : probationMax };
    this.#protectedSlots = { used: 0, max: slots - this.#probationSlots.max };
    this.#read = new RotatingBloomFilter({ generationKeys: () => 4 * slots, seed: deps.seed });
  }

  /** Bytes in use. */
  get bytes(): number {
    return (this.#probationSlots.used + this.#protectedSlots.used) * SLOT_BYTES;
  }

  blocks(): IterableIterator<ResidentBlock> {
    return this.#resident.values();
  }

  /** A worker has read the block. */
  touch(block: BlockName): void {
    const key = this.#keyOf(block);
    if (this.#closed || key === null || this.#busy.has(key)) return;
    if (this.#probation.has(key)) return this.#enqueue(key, () => this.#protect(key));
    if (this.#resident.has(key)) return this.#policy.touch(key);
    const hash = hashPart(block.id * this.#deps.volumes.length + block.volume, block.number);
    const again = this.#read.has(hash);
    this.#read.add(hash);
    if (again) this.#enqueue(key, () => this.#fill(key, block));
  }

  /** Room for a block that is about to arrive. Null while there is none. */
  receive(bytes: number): ReceiveBuffer | null {
    const count = Math.ceil(bytes / SLOT_BYTES);
    if (this.#closed) return null;
    const hasRoom = this.#probationSlots.used + count <= this.#probationSlots.max;
    if (hasRoom) this.#probationSlots.used += count;
    // Also without room: else there would be none for the next block either.
    void this.#evictFromProbation();
    if (!hasRoom) return null;
    const slots = this.#takeSlots(count);
    return {
      ...this.#memoryOf(slots, bytes),
      keep: (entry, number) => this.#admit(entry, number, slots),
      release: () => this.#free(this.#probationSlots, slots),
    };
  }

  /** The block, if it is here. */
  find(entry: Entry, number: number): BlockMemory | null {
    const key = this.#keyOf({ volume: entry.volume.number, id: entry.id, number });
    const resident = key === null ? undefined : this.#resident.get(key);
    return resident === undefined ? null : this.#memoryOf(resident.slots, resident.bytes);
  }

  /** Nothing is written any more: whoever reads here may not be reachable from now on. */
  close(): void {
    this.#closed = true;
  }

  /** Forgets blocks that leave the disk. Their slots are used again after `done`, by when no worker may read them any more. */
  remove(blocks: readonly BlockName[]): { readonly done: () => void } {
    return { done: this.#forget(blocks.flatMap((block) => this.#keyOf(block) ?? [])) };
  }

  #enqueue(key: RunKey, work: () => Promise<void>): void {
    if (this.#busy.size >= FILLS_WAITING_MAX) return;
    this.#busy.add(key);
    void this.#fills.run(work).finally(() => this.#busy.delete(key));
  }

  /** A block of so many bytes in these slots, as long as nothing else is written to them. */
  #memoryOf(slots: readonly number[], bytes: number): BlockMemory {
    const { memory } = this.#deps;
    const generations = slots.map((slot) => memory.generation(slot));
    return {
      chunks: slots.map((slot, at) => memory.slot(slot).subarray(0, bytes - at * SLOT_BYTES)),
      slots: slots.map((slot, at) => ({ slot, generation: generations[at]! })),
      holds: (at) => memory.generation(slots[at]!) === generations[at],
    };
  }

  /** Slots that are counted as used already. */
  #takeSlots(count: number): number[] {
    return Array.from({ length: count }, () => {
      const slot = this.#freeSlots.pop() ?? this.#unusedSlot++;
      this.#deps.memory.renew(slot);
      return slot;
    });
  }

  #free(of: SlotCount, slots: readonly number[]): void {
    of.used -= slots.length;
    // Slots of a block that were neighbours are so again for the next.
    this.#freeSlots.push(...slots.toReversed());
  }

  /** A block has arrived and is on disk. */
  #admit(entry: Entry, number: number, slots: readonly number[]): void {
    const block = { volume: entry.volume.number, id: entry.id, number };
    const key = this.#keyOf(block);
    if (this.#closed || key === null || this.#resident.has(key) || !isPresent(entry, number))
      return this.#free(this.#probationSlots, slots);
    const resident = residentBlock(entry, number, slots);
    this.#resident.set(key, resident);
    this.#probation.set(key, resident);
    this.#deps.counters.add('larder_memory_blocks_total', 1, { event: 'received' });
    this.#deps.announce(resident);
  }

  /** Moves a block on, because it was read again. */
  async #protect(key: RunKey): Promise<void> {
    const slots = this.#probation.get(key)?.slots.length ?? 0;
    if (!(await this.#makeRoom(slots))) return;
    // Evicted meanwhile.
    if (!this.#probation.delete(key)) return void (this.#protectedSlots.used -= slots);
    this.#probationSlots.used -= slots;
    this.#policy.append(key, slots * SLOT_BYTES);
    this.#deps.counters.add('larder_memory_blocks_total', 1, { event: 'filled' });
  }

  async #fill(key: RunKey, block: BlockName): Promise<void> {
    const { volumes, memory, announce, counters, log } = this.#deps;
    const { volume, id, number } = block;
    const entry = volumes[volume]?.entry(id);
    if (!isPresent(entry, number)) return;
    try {
      const count = Math.ceil(blockBytes(entry.bytes, number) / SLOT_BYTES);
      if (!(await this.#makeRoom(count))) return;
      const slots = this.#takeSlots(count);
      const payload = await entry.volume.read(entry, number).catch((error: unknown) => {
        this.#free(this.#protectedSlots, slots);
        throw error;
      });
      // Removed meanwhile: the workers were told so before they could be told of this.
      const isGone = payload === null || this.#closed || !isPresent(entry, number) || this.#resident.has(key);
      if (isGone) return this.#free(this.#protectedSlots, slots);
      for (const [at, slot] of slots.entries()) payload.copy(memory.slot(slot), 0, at * SLOT_BYTES);
      const resident = residentBlock(entry, number, slots);
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

  /** Counts so many slots as used, for which what was read longest ago is evicted. False when the tier is too small, or has been replaced fast enough. */
  async #makeRoom(count: number): Promise<boolean> {
    const { clock, memory } = this.#deps;
    if (this.#protectedSlots.used + count > this.#protectedSlots.max) {
      const nowMs = clock.monotonic();
      if (nowMs < this.#evictableMs) return false;
      const bytesPerMs = Math.max((memory.slots * SLOT_BYTES) / REPLACEMENT_MS, REPLACEMENT_RATE_MIN / 1_000);
      this.#evictableMs = nowMs + (count * SLOT_BYTES) / bytesPerMs;
    }
    for (let excess; (excess = this.#protectedSlots.used + count - this.#protectedSlots.max) > 0;) {
      const victims: RunKey[] = [];
      while (excess > 0) {
        const victim = this.#policy.evict();
        if (victim === null) break;
        excess -= this.#resident.get(victim)!.slots.length;
        victims.push(victim);
      }
      if (victims.length === 0) return false;
      await this.#evict(victims);
    }
    this.#protectedSlots.used += count;
    return true;
  }

  /** Evicts blocks whose next readers have had their time, before their slots are needed. */
  async #evictFromProbation(): Promise<void> {
    const victims: RunKey[] = [];
    const { used, max } = this.#probationSlots;
    const most = Math.min(max * (1 - ARRIVAL_SHARE), PROBATION_BYTES_MAX / SLOT_BYTES);
    let excess = used - this.#leavingSlots - most;
    if (excess <= 0) return;
    excess += max * EVICTED_SHARE;
    for (const [key, { slots }] of this.#probation) {
      victims.push(key);
      excess -= slots.length;
      if (excess <= 0) break;
    }
    if (victims.length > 0) await this.#evict(victims);
  }

  async #evict(keys: readonly RunKey[]): Promise<void> {
    const blocks = keys.map((key) => this.#resident.get(key)!);
    this.#deps.counters.add('larder_memory_blocks_total', keys.length, { event: 'evicted' });
    const free = this.#forget(keys);
    await this.#deps.withdraw(blocks);
    free();
  }

  /** The slots are free once the function that is returned has been called. */
  #forget(keys: readonly RunKey[]): () => void {
    const onProbation: number[] = [];
    const others: number[] = [];
    for (const key of keys) {
      const resident = this.#resident.get(key);
      if (resident === undefined) continue;
      this.#resident.delete(key);
      const wasOnProbation = this.#probation.delete(key);
      (wasOnProbation ? onProbation : others).push(...resident.slots);
      if (!wasOnProbation) this.#policy.subtract(key, resident.slots.length * SLOT_BYTES);
    }
    this.#leavingSlots += onProbation.length;
    return () => {
      this.#leavingSlots -= onProbation.length;
      this.#free(this.#probationSlots, onProbation);
      this.#free(this.#protectedSlots, others);
    };
  }

  /** Null for a block that the policy has no key for. */
  #keyOf({ volume, id, number }: BlockName): RunKey | null {
    const asset = id * this.#deps.volumes.length + volume;
    return asset < IDS_MAX && number < BLOCKS_PER_ASSET ? asset * BLOCKS_PER_ASSET + number : null;
  }
}

interface SlotCount {
  used: number;
  readonly max: number;
}

const residentBlock = (entry: Entry, number: number, slots: readonly number[]): ResidentBlock => ({
  ...{ volume: entry.volume.number, id: entry.id, number, key: entry.key, version: entry.version, slots },
  bytes: blockBytes(entry.bytes, number),
});

const isPresent = (entry: Entry | undefined, number: number): entry is Entry =>
  entry !== undefined && !entry.removed && entry.blocks.has(number);
