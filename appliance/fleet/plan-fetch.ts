// Fetches what a plan adds and the store lacks: renditions in the order of the plan, and of each as many ranges at once as the plan
// allows, of one big asset or of many small ones. Each chunk is verified against the catalog's digests before it is stored.

import { Fault } from '../../protocol/faults.ts';
import { holdingOf, type HoldingId } from '../../protocol/ids.ts';
import type { CatalogAsset } from '../../protocol/catalog.ts';
import type { FillItem, FillPlan } from '../../protocol/plan.ts';
import type { Clock } from '../../runtime/clock.ts';
import { forEachAtMost, Semaphore } from '../../runtime/semaphore.ts';
import { FETCH_BLOCKS_MAX, type Inflight } from '../fetch/inflight.ts';
import type { Counters } from '../metrics.ts';
import { assetDiskBytes, blockBytes, blockCount, BLOCK_BYTES } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import type { Entry } from '../store/volume.ts';
import { assetMetaOf, type Catalog } from './catalog.ts';
import type { FillProgressTracker } from './fill-progress.ts';
import { RateLimit } from './rate-limit.ts';

/** Attempts per asset within one plan. */
const ATTEMPTS_MAX = 3;
const RETRY_MS = 500;
/** Not reported as a failure: the next window resumes the plan. */
const WINDOW_CLOSED = new Fault('state_conflict', 'the window closed before the asset was whole');

export interface PlanFetchDeps {
  readonly plan: FillPlan;
  readonly tracker: FillProgressTracker;
  readonly planBytes: number;
  readonly rateBitsPerSecond: number | null;
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly isPinned: (holding: HoldingId) => boolean;
  /** Resolves when the pin is persisted and in force. */
  readonly pin: (holding: HoldingId) => Promise<void>;
  readonly stopped: () => boolean;
}

export class PlanFetch {
  readonly #deps: PlanFetchDeps;
  readonly #rateLimit: RateLimit;
  /** Ranges under way. */
  readonly #ranges: Semaphore;

  constructor(deps: PlanFetchDeps) {
    this.#deps = deps;
    this.#rateLimit = new RateLimit(lowest(deps.plan.rateBitsPerSecond, deps.rateBitsPerSecond), deps.clock);
    this.#ranges = new Semaphore({ permits: deps.plan.concurrency });
  }

  /** Whether no further fetch may start: the window of the plan has closed or the filler was stopped. */
  get closed(): boolean {
    const { plan, stopped, clock } = this.#deps;
    return stopped() || (plan.closesAt !== null && clock.now() >= Date.parse(plan.closesAt));
  }

  async run(): Promise<void> {
    const { plan, tracker } = this.#deps;
    for (const item of plan.add) {
      if (this.closed) return;
      if (await this.#fetchRendition(item)) tracker.renditionsDone += 1;
    }
  }

  /** True when every byte of the rendition is on disk and pinned. */
  async #fetchRendition(item: FillItem): Promise<boolean> {
    const { plan, tracker, catalog, pin } = this.#deps;
    const assets = await catalog.assetsOf(item.holding);
    const rejection = this.#rejectionOf(item, assets);
    if (rejection !== null) {
      tracker.addFault(item.holding, rejection.code, rejection.message);
      return false;
    }
    await pin(item.holding);
    let complete = true;
    await forEachAtMost(plan.concurrency, assets, async ({ path }) => {
      const fault = this.closed ? WINDOW_CLOSED : await this.#fetchAsset(path);
      if (fault !== null) complete = false;
      if (fault !== null && fault !== WINDOW_CLOSED) tracker.addFault(path, fault.code, fault.message);
    });
    return complete;
  }

  /** Why an item cannot be filled at all; null where it can. */
  #rejectionOf(item: FillItem, assets: readonly CatalogAsset[]): Fault | null {
    const { cache, planBytes, isPinned } = this.#deps;
    if (assets.length === 0) return new Fault('not_found', `the catalog knows no asset of ${item.holding}`);
    if (isPinned(item.holding)) return null;
    const pinnedBytes = cache.usage().reduce((sum, use) => sum + use.pinnedBytes, 0);
    const neededBytes = assets.reduce((sum, asset) => sum + assetDiskBytes(asset.bytes), 0);
    if (pinnedBytes + neededBytes <= planBytes) return null;
    return new Fault('plan_impossible', `${neededBytes} bytes do not fit: ${pinnedBytes} of ${planBytes} are pinned`);
  }

  /** Null when the asset is completely on disk, in the version that the catalog has at the moment of each attempt. */
  async #fetchAsset(path: string): Promise<Fault | null> {
    const { catalog, cache, clock } = this.#deps;
    for (let attempt = 1; ; attempt += 1) {
      const catalogued = await catalog.get(path);
      if (catalogued === null) return new Fault('not_found', `${path} left the catalog`);
      const { asset, title } = catalogued;
      const entry = await cache.ensureEntry(assetMetaOf(asset, holdingOf(title, asset.rendition)));
      const fault = await this.#fetchMissingBlocks(entry);
      const final = fault === null || fault === WINDOW_CLOSED || fault.spec.retry === 'never';
      if (final || attempt >= ATTEMPTS_MAX) return fault;
      await clock.sleep(RETRY_MS * attempt);
    }
  }

  async #fetchMissingBlocks(entry: Entry): Promise<Fault | null> {
    let failure: Fault | null = null;
    await forEachAtMost(this.#deps.plan.concurrency, rangesOf(entry), async (range) => {
      const fault = await this.#ranges.run(async () => failure ?? this.#fetchRange(entry, range));
      failure ??= fault;
    });
    return failure;
  }

  async #fetchRange(entry: Entry, { first, last }: BlockRange): Promise<Fault | null> {
    for (let number = first; number <= last; number += 1) {
      if (entry.blocks.has(number)) continue;
      if (this.closed) return WINDOW_CLOSED;
      const fault = await this.#fetchBlock(entry, number, last);
      if (fault !== null) return fault;
    }
    return null;
  }

  /** Fetches a block, with those up to `lastWanted` in the same request. A fetch of it that is under way is joined. */
  async #fetchBlock(entry: Entry, number: number, lastWanted: number): Promise<Fault | null> {
    const { inflight, counters } = this.#deps;
    if (!inflight.has(entry, number))
      await this.#rateLimit.acquire(Math.min(entry.bytes, (lastWanted + 1) * BLOCK_BYTES) - number * BLOCK_BYTES);
    // While this waited for the rate limit, a viewer's miss may have stored the block or started to fetch it.
    if (entry.blocks.has(number)) return null;
    const pending = inflight.join(entry, number) ?? inflight.start(entry, { number, lastWanted, pool: 'fill' });
    await pending.done;
    if (pending.fault !== null) return pending.fault;
    if (!entry.blocks.has(number))
      return new Fault('disk_full', `${entry.key}: block ${number} arrived but could not be stored`);
    counters.add('larder_fill_bytes_total', blockBytes(entry.bytes, number));
    return null;
  }
}

interface BlockRange {
  readonly first: number;
  readonly last: number;
}

/** An asset in ranges of one upstream fetch each. */
function* rangesOf(entry: Entry): Generator<BlockRange> {
  const last = blockCount(entry.bytes) - 1;
  for (let first = 0; first <= last; first += FETCH_BLOCKS_MAX)
    yield { first, last: Math.min(last, first + FETCH_BLOCKS_MAX - 1) };
}

function lowest(a: number | null, b: number | null): number | null {
  if (a === null) return b;
  return b === null ? a : Math.min(a, b);
}
