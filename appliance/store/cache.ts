// The cache joins volumes, eviction and pins under one budget: what is on disk, what is about to be and what workers
// still hold open never exceeds --store-bytes. Eviction decides, the volume deletes, this file does the sums.

import { isFault } from '../../protocol/faults.ts';
import type { HoldingId } from '../../protocol/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { freeBytes, newVolumeBudget, usageOf, type VolumeBudget, type VolumeUsage } from './volume-budget.ts';
import { assetDiskBytes, BLOCK_BYTES, blockBytes, blockCount, diskBytesOf } from './block-file.ts';
import {
  RUN_BLOCKS,
  runAsset,
  runFirstBlock,
  runKey,
  type EvictionPolicy,
  type StableRunId,
  type RunKey,
} from './eviction.ts';
import type { Counters } from '../metrics.ts';
import { BITS } from './bitmap.ts';
import type { AssetMeta, Entry, Volume } from './volume.ts';

/** How long a reservation waits for workers to close what was evicted. */
const CLOSE_WAIT_MS = 1_000;
/** Evictions under way on one volume. */
const LEAVING_MAX = 256;

/** What workers must forget; resolves when none of them has it open any more. */
export interface Invalidation {
  readonly keys: readonly string[];
  readonly blocks: readonly { readonly volume: number; readonly id: number; readonly number: number }[];
}
export type BroadcastInvalidation = (forgotten: Invalidation) => Promise<void>;

export interface CacheDeps {
  readonly volumes: readonly Volume[];
  readonly storeBytes: number;
  readonly pinned: ReadonlySet<HoldingId>;
  /** The order in which what is not pinned leaves a volume; least recently used if absent. */
  readonly newPolicy?: (nameOf: StableRunId) => EvictionPolicy;
  readonly broadcast: BroadcastInvalidation;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

export class Cache {
  readonly #deps: CacheDeps;
  readonly #budgets: readonly VolumeBudget[];
  readonly #byKey = new Map<string, Entry>();
  #pinned: ReadonlySet<HoldingId>;
  readonly #holdings = new Map<HoldingId, Set<Entry>>();
  /** Payload bytes present per holding: what inventory is made of. */
  readonly #held = new Map<HoldingId, number>();
  #changes = 0;
  readonly #touched = new Set<Entry>();

  constructor(deps: CacheDeps) {
    this.#deps = deps;
    this.#pinned = deps.pinned;
    const limitBytes = Math.floor(deps.storeBytes / deps.volumes.length);
    this.#budgets = deps.volumes.map((volume) => newVolumeBudget(volume, limitBytes, deps.newPolicy));
    for (const budget of this.#budgets) this.#adopt(budget);
    // The limit may be lower than it was.
    for (const budget of this.#budgets) void this.#inTurn(budget, () => this.#makeRoom(budget, 0));
  }

  find(key: string): Entry | null {
    return this.#byKey.get(key) ?? null;
  }

  /** Counts up with every block that comes or goes: whoever caches a view of the inventory compares it. */
  get changes(): number {
    return this.#changes;
  }

  get assets(): number {
    return this.#byKey.size;
  }

  entries(): IterableIterator<Entry> {
    return this.#byKey.values();
  }

  heldBytes(holding: HoldingId): number {
    return this.#held.get(holding) ?? 0;
  }

  usage(): VolumeUsage[] {
    return this.#budgets.map(usageOf);
  }

  /** The entry for a sealed version; an entry of another version of the key leaves. */
  async ensureEntry(meta: AssetMeta): Promise<Entry> {
    // While another version leaves somebody else may have admitted the key: look again after each wait.
    for (let before = this.#byKey.get(meta.key); before !== undefined; before = this.#byKey.get(meta.key)) {
      if (before.version === meta.version && before.bytes === meta.bytes && before.holding === meta.holding)
        return before;
      await this.removeEntry(before);
    }
    const budget = this.#roomiest();
    const entry = budget.volume.create(meta, this.#deps.clock.now());
    this.#byKey.set(meta.key, entry);
    this.#join(budget, entry);
    return entry;
  }

  /**
   * Makes room for payload bytes on the entry's volume, evicting if it must. False: no room can be made, so the bytes
   * pass through. True obliges the caller to `store` or `release`.
   */
  reserve(entry: Entry, payloadBytes: number): Promise<boolean> {
    const budget = this.#budgetOf(entry);
    return this.#inTurn(budget, () => this.#makeRoom(budget, diskBytesOf(payloadBytes)));
  }

  release(entry: Entry, payloadBytes: number): void {
    this.#budgetOf(entry).reservedBytes -= diskBytesOf(payloadBytes);
  }

  /** Writes a reserved block. Throws `disk_full` or `disk_failed`; the reservation is gone either way. */
  async store(entry: Entry, number: number, payload: Buffer): Promise<void> {
    const budget = this.#budgetOf(entry);
    try {
      await entry.volume.write(entry, number, payload);
    } finally {
      budget.reservedBytes -= diskBytesOf(payload.length);
    }
    if (entry.dropped) return;
    this.#count(budget, entry, number, 1);
    this.#deps.counters.add('larder_blocks_stored_total');
  }

  /** Whether blocks `first` to `last` of an entry are on disk. */
  arePresent(spec: {
    readonly volume: number;
    readonly id: number;
    readonly first: number;
    readonly last: number;
  }): boolean {
    const entry = this.#budgets[spec.volume]?.volume.entry(spec.id);
    for (let number = spec.first; number <= spec.last; number += 1)
      if (entry?.blocks.has(number) !== true) return false;
    return true;
  }

  touch(volume: number, run: RunKey): void {
    const budget = this.#budgets[volume];
    const entry = budget?.volume.entry(runAsset(run));
    if (budget === undefined || entry === undefined) return;
    entry.touchedMs = this.#deps.clock.now();
    this.#touched.add(entry);
    budget.policy.touch(run);
  }

  /** The origin said that the stored version holds, and what its fields are now. */
  updateMetadata(entry: Entry, news: { readonly headers: Entry['headers']; readonly generatedAtMs: number }): void {
    entry.headers = news.headers;
    entry.generatedAtMs = news.generatedAtMs;
    entry.volume.update(entry);
  }

  /** Removes a block that is not what the index says. */
  async discardBlock(entry: Entry, number: number): Promise<void> {
    if (entry.dropped || !entry.blocks.has(number)) return;
    this.#deps.counters.add('larder_blocks_discarded_total');
    await this.#take(this.#budgetOf(entry), entry, [number]);
  }

  /** Takes an asset version out of the cache. Its readers end on what they have open. */
  async removeEntry(entry: Entry): Promise<void> {
    if (entry.dropped) return;
    const budget = this.#budgetOf(entry);
    const numbers = [...entry.blocks];
    let bytes = 0;
    for (const number of numbers) bytes += this.#count(budget, entry, number, -1);
    if (this.#byKey.get(entry.key) === entry) this.#byKey.delete(entry.key);
    this.#part(budget, entry);
    await this.#leave(budget, bytes, entry.volume.drop(entry), {
      keys: [entry.key],
      blocks: numbers.map((number) => ({ volume: budget.volume.number, id: entry.id, number })),
    });
  }

  isPinned(entry: Entry): boolean {
    return entry.holding !== null && this.#pinned.has(entry.holding);
  }

  /** Pinned holdings leave the eviction order; unpinned ones join it as most recently used. */
  setPinned(pinned: ReadonlySet<HoldingId>): void {
    const changed = differing(pinned, this.#pinned).flatMap((holding) => [...(this.#holdings.get(holding) ?? [])]);
    const place = (sign: 1 | -1): void => {
      for (const entry of changed) {
        for (const number of entry.blocks) this.#place(this.#budgetOf(entry), entry, number, sign);
      }
    };
    place(-1);
    this.#pinned = pinned;
    place(1);
  }

  /** Saves recency and whatever else is pending. */
  async flush(): Promise<void> {
    for (const entry of this.#touched) entry.volume.touch(entry);
    this.#touched.clear();
    await Promise.all(this.#budgets.map((budget) => budget.volume.flush()));
  }

  #join(budget: VolumeBudget, entry: Entry): void {
    if (entry.holding === null) return;
    budget.promisedBytes += assetDiskBytes(entry.bytes);
    const members = this.#holdings.get(entry.holding);
    if (members === undefined) this.#holdings.set(entry.holding, new Set([entry]));
    else members.add(entry);
  }

  #part(budget: VolumeBudget, entry: Entry): void {
    if (entry.holding === null) return;
    budget.promisedBytes -= assetDiskBytes(entry.bytes);
    const members = this.#holdings.get(entry.holding);
    members?.delete(entry);
    if (members?.size === 0) this.#holdings.delete(entry.holding);
  }

  #budgetOf(entry: Entry): VolumeBudget {
    return this.#budgets[entry.volume.number]!;
  }

  /** Counting what is still to come of catalogued assets: a fill admits many before the first of them is whole. */
  #roomiest(): VolumeBudget {
    const taken = (budget: VolumeBudget): number =>
      Math.max(budget.promisedBytes, budget.pinnedBytes + budget.policy.bytes);
    return this.#budgets.reduce((best, budget) => (taken(budget) < taken(best) ? budget : best));
  }

  /** Takes over what a volume found at start, oldest first; of two versions of a key the one used last wins. */
  #adopt(budget: VolumeBudget): void {
    const entries = [...budget.volume.entries()].sort((a, b) => a.touchedMs - b.touchedMs);
    budget.policy.reserve(entries.reduce((sum, { blocks }) => sum + blocks.occupiedRuns, 0));
    for (const entry of entries) {
      const other = this.#byKey.get(entry.key);
      const keep = other === undefined || other.touchedMs <= entry.touchedMs ? entry : other;
      this.#byKey.set(entry.key, keep);
      this.#join(budget, entry);
      this.#countAll(budget, entry);
      const loser = keep === entry ? other : entry;
      if (loser !== undefined)
        void this.removeEntry(loser).catch((error: unknown) =>
          this.#deps.log.error({ err: error }, 'duplicate asset cannot be dropped'),
        );
    }
  }

  /** Reservations of a volume take turns: each sees what the one before it left. */
  #inTurn<T>(budget: VolumeBudget, work: () => Promise<T>): Promise<T> {
    const turn = budget.queue.then(work);
    budget.queue = turn.catch(() => undefined);
    return turn;
  }

  async #makeRoom(budget: VolumeBudget, bytes: number): Promise<boolean> {
    while (freeBytes(budget) + budget.leavingBytes < bytes) {
      const victim = budget.policy.evict();
      if (victim === null) return false;
      const leaving = this.#evict(budget, victim).finally(() => budget.leaving.delete(leaving));
      budget.leaving.add(leaving);
      if (budget.leaving.size >= LEAVING_MAX) await Promise.race(budget.leaving);
    }
    if (freeBytes(budget) < bytes) {
      const timeout = new Promise((resolve) => setTimeout(resolve, CLOSE_WAIT_MS).unref());
      await Promise.race([Promise.all(budget.leaving), timeout]);
    }
    if (freeBytes(budget) < bytes) return false;
    budget.reservedBytes += bytes;
    return true;
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
    else await this.#take(budget, entry, numbers);
  }

  async #take(budget: VolumeBudget, entry: Entry, numbers: readonly number[]): Promise<void> {
    let bytes = 0;
    for (const number of numbers) bytes += this.#count(budget, entry, number, -1);
    await this.#leave(budget, bytes, entry.volume.remove(entry, numbers), {
      keys: [],
      blocks: numbers.map((number) => ({ volume: budget.volume.number, id: entry.id, number })),
    });
  }

  async #leave(budget: VolumeBudget, bytes: number, removal: Promise<void>, forgotten: Invalidation): Promise<void> {
    budget.leavingBytes += bytes;
    try {
      await removal;
      await this.#deps.broadcast(forgotten);
    } catch (error) {
      if (!isFault(error)) throw error;
      this.#deps.counters.add('larder_faults_total', 1, { code: error.code });
      this.#deps.log.error({ err: error, volume: budget.volume.directory }, 'removal failed');
    } finally {
      budget.leavingBytes -= bytes;
    }
  }

  /** Adds all blocks of an entry at once: a byte of its bitmap is a run. */
  #countAll(budget: VolumeBudget, entry: Entry): void {
    const { blocks, holding } = entry;
    if (blocks.count === 0) return;
    const last = blockCount(entry.bytes) - 1;
    const shorter = blocks.has(last) ? BLOCK_BYTES - blockBytes(entry.bytes, last) : 0;
    const shorterOnDisk = shorter === 0 ? 0 : diskBytesOf(BLOCK_BYTES) - diskBytesOf(BLOCK_BYTES - shorter);
    const payload = blocks.count * BLOCK_BYTES - shorter;
    if (holding !== null) this.#held.set(holding, (this.#held.get(holding) ?? 0) + payload);
    if (this.isPinned(entry)) budget.pinnedBytes += blocks.count * diskBytesOf(BLOCK_BYTES) - shorterOnDisk;
    else
      for (let run = 0; run < blocks.runs; run += 1) {
        const bits = BITS[blocks.run(run)]!;
        const tail = run === Math.floor(last / RUN_BLOCKS) ? shorterOnDisk : 0;
        if (bits > 0) budget.policy.append(runKey(entry.id, run * RUN_BLOCKS), bits * diskBytesOf(BLOCK_BYTES) - tail);
      }
    this.#changes += blocks.count;
  }

  /** Adds (1) or takes off (−1) a block in every sum. Returns its bytes on disk. */
  #count(budget: VolumeBudget, entry: Entry, number: number, sign: 1 | -1): number {
    this.#changes += 1;
    if (entry.holding !== null) {
      const left = (this.#held.get(entry.holding) ?? 0) + sign * blockBytes(entry.bytes, number);
      if (left <= 0) this.#held.delete(entry.holding);
      else this.#held.set(entry.holding, left);
    }
    return this.#place(budget, entry, number, sign);
  }

  #place(budget: VolumeBudget, entry: Entry, number: number, sign: 1 | -1): number {
    const bytes = diskBytesOf(blockBytes(entry.bytes, number));
    const key = runKey(entry.id, number);
    if (this.isPinned(entry)) budget.pinnedBytes += sign * bytes;
    else if (sign === 1) budget.policy.add(key, bytes);
    else budget.policy.subtract(key, bytes);
    return bytes;
  }
}

const differing = (a: ReadonlySet<HoldingId>, b: ReadonlySet<HoldingId>): HoldingId[] => [
  ...[...a].filter((holding) => !b.has(holding)),
  ...[...b].filter((holding) => !a.has(holding)),
];
