// The store: asset versions cut into blocks, kept on one or more volumes (one per disk) within a budget of bytes.
//
// This file joins volumes, eviction and pins. Bytes that are stored, reserved, or removed but still open in a worker never exceed
// --store-bytes together. The eviction policy chooses the victims, the volume deletes them, the cache keeps the accounts.
//
// Read in this order:
//   volume.ts                     the port of a volume; what an entry is
//   cache.ts, volume-budget.ts    reserve, store, evict, pin, remove; the accounts of one volume
//   eviction-policy.ts            what a policy is; lru.ts and s3-fifo.ts are two, on run-table.ts
//   admission.ts                  whether a miss is stored; bloom-filter.ts remembers recent requests
//   demand-policy.ts              which of these `--admission` selects
//   disk-volume.ts                a volume on disk: block-file.ts and layout.ts for its files; volume-index.ts, index-record.ts,
//                                 index-writer.ts and bitmap.ts for its index; recovery.ts for its start
//   scrub.ts                      looks for damaged blocks in the background
//   receive-buffer.ts             where the bytes of a block arrive
//   memory-tier.ts                what arrives and what is read again and again, in memory that workers map
//
// Other rooms use `Cache`, `Entry` and `AssetMeta`; `DiskVolume` and `demandPolicy` to compose a cache; `MemoryTier` for what is hot; receive-buffer.ts for what arrives;
// and, in workers, the readers of block-file.ts, `blockPath` and `NativeBuffer` to read blocks without the storekeeper.

import { isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import type { Clock, Timer } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { Counters } from '../metrics.ts';
import { BITS_SET } from './bitmap.ts';
import { assetDiskBytes, BLOCK_BYTES, blockBytes, blockCount, diskBytesOf, type BlockPayload } from './block-file.ts';
import {
  RUN_BLOCKS,
  runAsset,
  runFirstBlock,
  runKey,
  type EvictionPolicy,
  type HashRun,
  type RunKey,
} from './eviction-policy.ts';
import type { BlockName } from './memory-tier.ts';
import type { AssetMeta, Entry, Volume } from './volume.ts';
import { freeBytes, newVolumeBudget, usageOf, type VolumeBudget, type VolumeUsage } from './volume-budget.ts';

/** How long a reservation waits for workers to close evicted blocks. */
const CLOSE_WAIT_MS = 1_000;
/** Evictions under way on one volume. */
const EVICTIONS_MAX = 256;

/** What workers must drop from their metadata caches, and the blocks that they must close. */
export interface Removal {
  readonly keys: readonly string[];
  readonly blocks: readonly BlockName[];
}
/** Resolves when every worker has acknowledged. */
export type BroadcastRemoval = (removal: Removal) => Promise<void>;

export interface CacheDeps {
  readonly volumes: readonly Volume[];
  readonly storeBytes: number;
  readonly pinned: ReadonlySet<HoldingId>;
  /** The eviction policy of a volume; least recently used if absent. */
  readonly newPolicy?: (hashRun: HashRun) => EvictionPolicy;
  readonly broadcast: BroadcastRemoval;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

export class Cache {
  readonly #deps: CacheDeps;
  readonly #budgets: readonly VolumeBudget[];
  readonly #byKey = new Map<string, Entry>();
  #pinned: ReadonlySet<HoldingId>;
  readonly #byHolding = new Map<HoldingId, Set<Entry>>();
  /** Payload bytes present per holding, from which the inventory is derived. */
  readonly #heldBytes = new Map<HoldingId, number>();
  /** Entries whose recency the next flush saves. */
  readonly #touched = new Set<Entry>();
  readonly #removals = new Map<Entry, Promise<void>>();

  constructor(deps: CacheDeps) {
    this.#deps = deps;
    this.#pinned = deps.pinned;
    const limitBytes = Math.floor(deps.storeBytes / deps.volumes.length);
    this.#budgets = deps.volumes.map((volume) => newVolumeBudget(volume, limitBytes, deps.newPolicy));
    for (const budget of this.#budgets) this.#addVolume(budget);
    // --store-bytes may be lower than it was, so a volume may begin above its limit.
    for (const budget of this.#budgets) void budget.exclusively(() => this.#reserveBytes(budget, 0));
  }

  find(key: string): Entry | null {
    return this.#byKey.get(key) ?? null;
  }

  /** As `find`. An entry that the index had at start is compared with one of its blocks first, and removed if they disagree. */
  async findConfirmed(key: string): Promise<Entry | null> {
    const entry = this.find(key);
    if (entry === null || entry.confirmed || (await entry.volume.confirm(entry))) return entry;
    if (entry.removed) return this.find(key);
    this.#deps.log.error(
      { key, version: entry.version },
      'the index and the blocks of an asset disagree, it is removed',
    );
    this.#deps.counters.add('larder_fallback_total', 1, { name: 'block_damaged_refetch' });
    await this.removeEntry(entry);
    return null;
  }

  get assets(): number {
    return this.#byKey.size;
  }

  entries(): IterableIterator<Entry> {
    return this.#byKey.values();
  }

  heldBytes(holding: HoldingId): number {
    return this.#heldBytes.get(holding) ?? 0;
  }

  usage(): VolumeUsage[] {
    return this.#budgets.map(usageOf);
  }

  /** The entry for a sealed version, created if there is none. An entry of another version of the key is removed. */
  async ensureEntry(meta: AssetMeta): Promise<Entry> {
    // While the other version is removed another caller may create an entry of the key, so the loop looks it up again.
    for (let current = this.#byKey.get(meta.key); current !== undefined; current = this.#byKey.get(meta.key)) {
      if (current.version === meta.version && current.bytes === meta.bytes && current.holding === meta.holding)
        return current;
      await this.removeEntry(current);
    }
    const budget = this.#leastFullBudget();
    const entry = budget.volume.create(meta, this.#deps.clock.now());
    this.#byKey.set(meta.key, entry);
    this.#addToHolding(budget, entry);
    return entry;
  }

  /**
   * Reserves payload bytes on the entry's volume, evicting if necessary. False: no space can be made, and the bytes are passed
   * through unstored. After true the caller must `store` or `release` them.
   */
  reserve(entry: Entry, payloadBytes: number): Promise<boolean> {
    const budget = this.#budgetOf(entry);
    return budget.exclusively(() => this.#reserveBytes(budget, diskBytesOf(payloadBytes)));
  }

  release(entry: Entry, payloadBytes: number): void {
    this.#budgetOf(entry).reservedBytes -= diskBytesOf(payloadBytes);
  }

  /** Writes a reserved block and ends the reservation, also on failure. Throws `disk_full` or `disk_failed`. */
  async store(entry: Entry, number: number, payload: BlockPayload): Promise<void> {
    const budget = this.#budgetOf(entry);
    try {
      await entry.volume.write(entry, number, payload);
    } finally {
      budget.reservedBytes -= diskBytesOf(payload.bytes);
    }
    if (entry.removed) return;
    this.#accountBlock(budget, entry, number, 1);
    this.#deps.counters.add('larder_blocks_stored_total');
  }

  /** Whether blocks `first` to `last` of an entry are on disk. */
  arePresent(blocks: {
    readonly volume: number;
    readonly id: number;
    readonly first: number;
    readonly last: number;
  }): boolean {
    const entry = this.#budgets[blocks.volume]?.volume.entry(blocks.id);
    for (let number = blocks.first; number <= blocks.last; number += 1)
      if (entry?.blocks.has(number) !== true) return false;
    return true;
  }

  /** A worker has read the block. */
  touch({ volume, id, number }: BlockName): void {
    const budget = this.#budgets[volume];
    const entry = budget?.volume.entry(id);
    if (budget === undefined || entry === undefined) return;
    entry.touchedMs = this.#deps.clock.now();
    this.#touched.add(entry);
    budget.policy.touch(runKey(id, number));
  }

  /** Updates the header fields and the age of a stored version that the origin has validated. */
  updateMetadata(entry: Entry, fields: { readonly headers: Entry['headers']; readonly generatedAtMs: number }): void {
    entry.headers = fields.headers;
    entry.generatedAtMs = fields.generatedAtMs;
    entry.volume.update(entry);
  }

  /** Removes a block whose file is damaged or missing. */
  async discardBlock(entry: Entry, number: number): Promise<void> {
    if (entry.removed || !entry.blocks.has(number)) return;
    this.#deps.counters.add('larder_blocks_discarded_total');
    await this.#removeBlocks(this.#budgetOf(entry), entry, [number]);
  }

  /**
   * Removes an asset version. Its readers finish on the descriptors that they have open. Resolves when no worker knows it any more, also for
   * a version that is being removed already.
   */
  removeEntry(entry: Entry): Promise<void> {
    const pending = this.#removals.get(entry);
    if (pending !== undefined || entry.removed) return pending ?? Promise.resolve();
    const removal = this.#remove(entry).finally(() => this.#removals.delete(entry));
    this.#removals.set(entry, removal);
    return removal;
  }

  /** Versions that are being removed. */
  removing(): Iterable<Entry> {
    return this.#removals.keys();
  }

  async #remove(entry: Entry): Promise<void> {
    const budget = this.#budgetOf(entry);
    const numbers = [...entry.blocks];
    let bytes = 0;
    for (const number of numbers) bytes += this.#accountBlock(budget, entry, number, -1);
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key);
    this.#removeFromHolding(budget, entry);
    await this.#finishRemoval(budget, bytes, entry.volume.removeEntry(entry), {
      keys: [entry.key],
      blocks: numbers.map((number) => ({ volume: budget.volume.number, id: entry.id, number })),
    });
  }

  isPinned(entry: Entry): boolean {
    return entry.holding !== null && this.#pinned.has(entry.holding);
  }

  /** Withdraws the blocks of newly pinned holdings from eviction, and adds those of unpinned ones as most recently used. */
  setPinned(pinned: ReadonlySet<HoldingId>): void {
    const changed = symmetricDifference(pinned, this.#pinned).flatMap((holding) => [
      ...(this.#byHolding.get(holding) ?? []),
    ]);
    const accountChanged = (sign: 1 | -1): void => {
      for (const entry of changed)
        for (const number of entry.blocks) this.#accountOnVolume(this.#budgetOf(entry), entry, number, sign);
    };
    accountChanged(-1);
    this.#pinned = pinned;
    accountChanged(1);
  }

  /** Saves recency and all other pending changes. */
  async flush(): Promise<void> {
    for (const entry of this.#touched) entry.volume.touch(entry);
    this.#touched.clear();
    await Promise.all(this.#budgets.map((budget) => budget.volume.flush()));
  }

  #budgetOf(entry: Entry): VolumeBudget {
    return this.#budgets[entry.volume.number]!;
  }

  /** Counts the promised bytes of catalogued assets, because a fill creates many entries before the first is complete. */
  #leastFullBudget(): VolumeBudget {
    const usedBytes = (budget: VolumeBudget): number =>
      Math.max(budget.promisedBytes, budget.pinnedBytes + budget.policy.bytes);
    return this.#budgets.reduce((best, budget) => (usedBytes(budget) < usedBytes(best) ? budget : best));
  }

  /** Adds the entries that a volume had at start, oldest first. Of two versions of a key the more recently used one wins. */
  #addVolume(budget: VolumeBudget): void {
    const entries = [...budget.volume.entries()].sort((a, b) => a.touchedMs - b.touchedMs);
    budget.policy.reserve(entries.reduce((sum, { blocks }) => sum + blocks.occupiedRuns, 0));
    for (const entry of entries) {
      const other = this.#byKey.get(entry.key);
      const winner = other === undefined || other.touchedMs <= entry.touchedMs ? entry : other;
      this.#byKey.set(entry.key, winner);
      this.#addToHolding(budget, entry);
      this.#accountEntry(budget, entry);
      const loser = winner === entry ? other : entry;
      if (loser !== undefined)
        void this.removeEntry(loser).catch((error: unknown) =>
          this.#deps.log.error({ err: error, key: loser.key }, 'a duplicate asset cannot be removed'),
        );
    }
  }

  async #reserveBytes(budget: VolumeBudget, bytes: number): Promise<boolean> {
    if (!(await this.#startEvictions(budget, bytes))) return false;
    if (freeBytes(budget) < bytes) await this.#awaitEvictions(budget);
    if (freeBytes(budget) < bytes) return false;
    budget.reservedBytes += bytes;
    return true;
  }

  /** Evicts until enough bytes are free or being removed. False if nothing is left to evict. */
  async #startEvictions(budget: VolumeBudget, bytes: number): Promise<boolean> {
    while (freeBytes(budget) + budget.removingBytes < bytes) {
      const victim = budget.policy.evict();
      if (victim === null) return false;
      const eviction = this.#evict(budget, victim).finally(() => budget.evictions.delete(eviction));
      budget.evictions.add(eviction);
      if (budget.evictions.size >= EVICTIONS_MAX) await Promise.race(budget.evictions);
    }
    return true;
  }

  async #awaitEvictions(budget: VolumeBudget): Promise<void> {
    const { clock } = this.#deps;
    let timer: Timer | null = null;
    const timeout = new Promise<void>((resolve) => {
      timer = clock.setTimeout(resolve, CLOSE_WAIT_MS);
    });
    try {
      await Promise.race([Promise.all(budget.evictions), timeout]);
    } finally {
      clock.clear(timer);
    }
  }

  async #evict(budget: VolumeBudget, run: RunKey): Promise<void> {
    const entry = budget.volume.entry(runAsset(run));
    if (entry === undefined) return;
    const first = runFirstBlock(run);
    const numbers: number[] = [];
    for (let number = first; number < first + RUN_BLOCKS; number += 1)
      if (entry.blocks.has(number)) numbers.push(number);
    this.#deps.counters.add('larder_blocks_evicted_total', numbers.length);
    if (numbers.length === entry.blocks.count && entry.fetches === 0) await this.removeEntry(entry);
    else await this.#removeBlocks(budget, entry, numbers);
  }

  async #removeBlocks(budget: VolumeBudget, entry: Entry, numbers: readonly number[]): Promise<void> {
    let bytes = 0;
    for (const number of numbers) bytes += this.#accountBlock(budget, entry, number, -1);
    await this.#finishRemoval(budget, bytes, entry.volume.removeBlocks(entry, numbers), {
      keys: [],
      blocks: numbers.map((number) => ({ volume: budget.volume.number, id: entry.id, number })),
    });
  }

  /** Counts removed bytes against the budget until they are unlinked and no worker has them open. */
  async #finishRemoval(budget: VolumeBudget, bytes: number, removal: Promise<void>, removed: Removal): Promise<void> {
    const report = (error: unknown): void => {
      if (!isFault(error)) throw error;
      this.#deps.counters.add('larder_faults_total', 1, { code: error.code });
      this.#deps.log.error({ err: error, volume: budget.volume.directory }, 'blocks cannot be removed');
    };
    budget.removingBytes += bytes;
    try {
      // A volume unlinks the files even if its index cannot be written, so the workers must close them in either case.
      await removal.catch(report);
      await this.#deps.broadcast(removed).catch(report);
    } finally {
      budget.removingBytes -= bytes;
    }
  }

  #addToHolding(budget: VolumeBudget, entry: Entry): void {
    if (entry.holding === null) return;
    budget.promisedBytes += assetDiskBytes(entry.bytes);
    const entries = this.#byHolding.get(entry.holding);
    if (entries === undefined) this.#byHolding.set(entry.holding, new Set([entry]));
    else entries.add(entry);
  }

  #removeFromHolding(budget: VolumeBudget, entry: Entry): void {
    if (entry.holding === null) return;
    budget.promisedBytes -= assetDiskBytes(entry.bytes);
    const entries = this.#byHolding.get(entry.holding);
    entries?.delete(entry);
    if (entries?.size === 0) this.#byHolding.delete(entry.holding);
  }

  /** Adds all blocks of an entry to the accounts at once, a run at a time: a byte of the bitmap is a run. */
  #accountEntry(budget: VolumeBudget, entry: Entry): void {
    const { blocks, holding } = entry;
    if (blocks.count === 0) return;
    const last = blockCount(entry.bytes) - 1;
    // The last block of an asset may be shorter than the others.
    const missing = blocks.has(last) ? BLOCK_BYTES - blockBytes(entry.bytes, last) : 0;
    const missingOnDisk = missing === 0 ? 0 : diskBytesOf(BLOCK_BYTES) - diskBytesOf(BLOCK_BYTES - missing);
    const payloadBytes = blocks.count * BLOCK_BYTES - missing;
    if (holding !== null) this.#heldBytes.set(holding, this.heldBytes(holding) + payloadBytes);
    if (this.isPinned(entry)) {
      budget.pinnedBytes += blocks.count * diskBytesOf(BLOCK_BYTES) - missingOnDisk;
      return;
    }
    for (let run = 0; run < blocks.runs; run += 1) {
      const present = BITS_SET[blocks.run(run)]!;
      if (present === 0) continue;
      const shorter = run === Math.floor(last / RUN_BLOCKS) ? missingOnDisk : 0;
      budget.policy.append(runKey(entry.id, run * RUN_BLOCKS), present * diskBytesOf(BLOCK_BYTES) - shorter);
    }
  }

  /** Adds a block to all accounts (1) or subtracts it (−1). Returns its bytes on disk. */
  #accountBlock(budget: VolumeBudget, entry: Entry, number: number, sign: 1 | -1): number {
    if (entry.holding !== null) {
      const heldBytes = this.heldBytes(entry.holding) + sign * blockBytes(entry.bytes, number);
      if (heldBytes <= 0) this.#heldBytes.delete(entry.holding);
      else this.#heldBytes.set(entry.holding, heldBytes);
    }
    return this.#accountOnVolume(budget, entry, number, sign);
  }

  /** Counts a block as pinned or as evictable. */
  #accountOnVolume(budget: VolumeBudget, entry: Entry, number: number, sign: 1 | -1): number {
    const bytes = diskBytesOf(blockBytes(entry.bytes, number));
    const run = runKey(entry.id, number);
    if (this.isPinned(entry)) budget.pinnedBytes += sign * bytes;
    else if (sign === 1) budget.policy.add(run, bytes);
    else budget.policy.subtract(run, bytes);
    return bytes;
  }
}

const symmetricDifference = (a: ReadonlySet<HoldingId>, b: ReadonlySet<HoldingId>): HoldingId[] => [
  ...[...a].filter((holding) => !b.has(holding)),
  ...[...b].filter((holding) => !a.has(holding)),
];
