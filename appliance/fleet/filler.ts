// A night at the appliance: pull the plan, fetch what is missing, verify each MiB against the catalog's digests, pin,
// report. What is on disk is never fetched again, so a filler that was killed goes on where it was.

import { holdingOf, type HoldingId } from '../../protocol/ids.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { fillPlan, type FillItem, type FillPlan, type FillProgress } from '../../protocol/plan.ts';
import type { CatalogAsset } from '../../protocol/catalog.ts';
import { z } from 'zod';
import { call } from '../../runtime/client.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { forEachAtMost } from '../../runtime/semaphore.ts';
import { assetDiskBytes, blockBytes, blockCount, BLOCK_BYTES } from '../store/block-file.ts';
import type { Cache } from '../store/cache.ts';
import { catalogHeaders, type Catalog } from './catalog.ts';
import { FillProgressTracker } from './fill-progress.ts';
import { FETCH_BLOCKS_MAX, type Inflight } from '../fetch/inflight.ts';
import type { Counters } from '../metrics.ts';
import { RateLimit } from './rate-limit.ts';
import { PersistedValue, stateFault, type StateDb } from './state.ts';
import type { AssetMeta, Entry } from '../store/volume.ts';

const PULL_MS = 60_000;
const REPORT_MS = 1_000;
/** A block that did not make it is tried again this often within one plan. */
const ATTEMPTS_MAX = 3;
const RETRY_MS = 500;
/** Not a failure: the window closed, and the next night goes on. */
const CLOSED = new Fault('state_conflict', 'the window closed before the asset was whole');

export interface FillerDeps {
  readonly appliance: string;
  readonly fill: string;
  readonly token: string;
  /** Most that plans may pin. */
  readonly planBytes: number;
  /** Cap of this appliance's own; the lower of it and the plan's counts. */
  readonly rateBitsPerSecond: number | null;
  readonly cache: Cache;
  readonly inflight: Inflight;
  readonly catalog: Catalog;
  readonly db: StateDb;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: Log;
}

export class Filler {
  readonly #deps: FillerDeps;
  readonly #pinned: PersistedValue<HoldingId[]>;
  /** Last word on the last plan, until fill has taken it. */
  readonly #unreported: PersistedValue<FillProgress | null>;
  readonly #finished: PersistedValue<string | null>;
  #running: Promise<void> | null = null;
  #again = false;
  #stopped = false;
  #timer: NodeJS.Timeout | null = null;
  #progress: FillProgress | null = null;
  #planned: ReadonlySet<HoldingId> = new Set();

  private constructor(
    deps: FillerDeps,
    kept: {
      pinned: PersistedValue<HoldingId[]>;
      unreported: PersistedValue<FillProgress | null>;
      finished: PersistedValue<string | null>;
    },
  ) {
    this.#deps = deps;
    this.#pinned = kept.pinned;
    this.#unreported = kept.unreported;
    this.#finished = kept.finished;
  }

  static async open(deps: FillerDeps): Promise<Filler> {
    return new Filler(deps, {
      pinned: await PersistedValue.load<HoldingId[]>(deps.db, 'pinned', []),
      unreported: await PersistedValue.load<FillProgress | null>(deps.db, 'progress-unreported', null),
      finished: await PersistedValue.load<string | null>(deps.db, 'plan-finished', null),
    });
  }

  /** What the last plans pinned; the cache must know before anything is evicted. */
  static async pinnedIn(db: StateDb): Promise<ReadonlySet<HoldingId>> {
    return new Set((await PersistedValue.load<HoldingId[]>(db, 'pinned', [])).value);
  }

  /** Whether the last plan that came wants it here. */
  isPlanned(holding: HoldingId): boolean {
    return this.#planned.has(holding);
  }

  get filling(): boolean {
    return this.#progress?.state === 'filling';
  }

  get pinned(): readonly HoldingId[] {
    return this.#pinned.value;
  }

  get progress(): FillProgress | null {
    return this.#progress;
  }

  start(): void {
    this.pull();
    this.#timer = setInterval(() => this.pull(), PULL_MS);
  }

  stop(): void {
    this.#stopped = true;
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  /** Looks for a plan now; while one is worked on, once more afterwards. */
  pull(): void {
    if (this.#running !== null) {
      this.#again = true;
      return;
    }
    this.#running = this.#night()
      .catch((error: unknown) => {
        const { code, message } = stateFault(error);
        if (code !== 'not_found') this.#deps.log.warn({ code, reason: message }, 'fill plan not carried out');
      })
      .finally(() => {
        this.#running = null;
        const again = this.#again && !this.#stopped;
        this.#again = false;
        if (again) this.pull();
      });
  }

  async #night(): Promise<void> {
    if (this.#unreported.value !== null) await this.#report(this.#unreported.value);
    const plan = await call({
      url: `${this.#deps.fill}/v1/plans/${this.#deps.appliance}`,
      token: this.#deps.token,
      answer: fillPlan,
    });
    if (plan.appliance !== this.#deps.appliance)
      throw new Fault('peer_invalid', `fill sent the plan of ${plan.appliance}`);
    if (plan.id === this.#finished.value) return;
    await this.#deps.catalog.sync();
    await this.#carryOut(plan);
  }

  async #carryOut(plan: FillPlan): Promise<void> {
    const { cache, clock, log, appliance } = this.#deps;
    const tracker = new FillProgressTracker(plan, {
      appliance,
      heldBytes: (holding) => cache.heldBytes(holding),
      clock,
    });
    const tell = (): void => void this.#report(this.#measure(tracker, 'filling')).catch(() => undefined);
    tell();
    const telling = setInterval(tell, REPORT_MS);
    log.info({ plan: plan.id, run: plan.run, add: plan.add.length, bytes: plan.addBytes }, 'filling');
    try {
      await this.#fetchAll(plan, tracker);
    } finally {
      clearInterval(telling);
    }
    // Stopped in the middle: the plan is found unfinished at the next start and gone on with.
    if (this.#stopped) return;
    const last = this.#measure(tracker, tracker.complete ? 'done' : this.#closed(plan) ? 'closed' : 'failed');
    log.info({ plan: plan.id, state: last.state, bytes: last.bytesDone, faults: last.faults }, 'fill ended');
    await this.#unreported.set(last);
    await this.#finished.set(plan.id);
    await this.#report(last);
  }

  async #fetchAll(plan: FillPlan, tracker: FillProgressTracker): Promise<void> {
    const limit = new RateLimit(lowest(plan.rateBitsPerSecond, this.#deps.rateBitsPerSecond), this.#deps.clock);
    // What is taken out makes room for what comes in; beyond keep, and add as it comes, nothing stays pinned.
    const wanted = new Set([...plan.keep, ...plan.add].map((item) => item.holding));
    this.#planned = wanted;
    const stays = this.#pinned.value.filter((holding) => wanted.has(holding));
    await this.#setPinned(new Set([...stays, ...plan.keep.map((item) => item.holding)]));
    for (const item of plan.add) {
      if (this.#closed(plan)) return;
      if (await this.#fetchItem({ plan, item, tracker, limit })) tracker.renditionsDone += 1;
    }
  }

  /** True when every byte of the rendition is on disk and pinned. */
  async #fetchItem(work: Work): Promise<boolean> {
    const { plan, item, tracker } = work;
    const assets = await this.#deps.catalog.assetsOf(item.holding);
    const refusal = this.#refusal(item, assets);
    if (refusal !== null) {
      tracker.fault(item.holding, refusal.code, refusal.message);
      return false;
    }
    await this.#setPinned(new Set([...this.#pinned.value, item.holding]));
    let complete = true;
    await forEachAtMost(plan.concurrency, assets, async (asset) => {
      const fault = this.#closed(plan) ? CLOSED : await this.#fetchAsset(work, asset.path);
      if (fault !== null) complete = false;
      if (fault !== null && fault !== CLOSED) tracker.fault(asset.path, fault.code, fault.message);
    });
    return complete;
  }

  /** Why an item cannot be taken in at all; null where it can. */
  #refusal(item: FillItem, assets: readonly CatalogAsset[]): Fault | null {
    if (assets.length === 0) return new Fault('not_found', `the catalog knows no asset of ${item.holding}`);
    if (this.#pinned.value.includes(item.holding)) return null;
    const pinnedBytes = this.#deps.cache.usage().reduce((sum, use) => sum + use.pinnedBytes, 0);
    const neededBytes = assets.reduce((sum, asset) => sum + assetDiskBytes(asset.bytes), 0);
    if (pinnedBytes + neededBytes <= this.#deps.planBytes) return null;
    return new Fault(
      'plan_impossible',
      `${neededBytes} bytes do not fit: ${pinnedBytes} of ${this.#deps.planBytes} are pinned`,
    );
  }

  /** Null when the asset is whole on disk. The plan names it, the catalog of the moment says which version is meant. */
  async #fetchAsset(work: Work, path: string): Promise<Fault | null> {
    for (let attempt = 1; ; attempt += 1) {
      const known = await this.#deps.catalog.known(path);
      if (known === null) return new Fault('not_found', `${path} left the catalog`);
      const { asset, title } = known;
      const entry = await this.#deps.cache.ensureEntry(assetMetaOf(asset, holdingOf(title, asset.rendition)));
      const fault = await this.#fetchMissing(work, entry);
      if (fault === null || fault === CLOSED || attempt >= ATTEMPTS_MAX || fault.spec.retry === 'never') return fault;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * attempt));
    }
  }

  async #fetchMissing(work: Work, entry: Entry): Promise<Fault | null> {
    const { inflight, counters } = this.#deps;
    const last = blockCount(entry.bytes) - 1;
    for (let number = 0; number <= last; number += 1) {
      if (entry.blocks.has(number)) continue;
      if (this.#closed(work.plan)) return CLOSED;
      const end = Math.min(last, number + FETCH_BLOCKS_MAX - 1);
      if (!inflight.has(entry, number))
        await work.limit.acquire(Math.min(entry.bytes, (end + 1) * BLOCK_BYTES) - number * BLOCK_BYTES);
      // A viewer's miss may have brought it meanwhile.
      if (entry.blocks.has(number)) continue;
      // A viewer may have asked for the same block meanwhile: then it is followed, not fetched twice.
      const pending = inflight.join(entry, number) ?? inflight.start(entry, { number, lastWanted: end, pool: 'fill' });
      await pending.done;
      if (pending.fault !== null) return pending.fault;
      if (!entry.blocks.has(number))
        return new Fault('disk_full', `${entry.key}: block ${number} arrived but could not be stored`);
      counters.add('larder_fill_bytes_total', blockBytes(entry.bytes, number));
    }
    return null;
  }

  /** Written down before it counts: what is pinned is never evicted. */
  async #setPinned(pinned: ReadonlySet<HoldingId>): Promise<void> {
    await this.#pinned.set([...pinned]);
    this.#deps.cache.setPinned(pinned);
  }

  #closed(plan: FillPlan): boolean {
    return this.#stopped || (plan.closesAt !== null && this.#deps.clock.now() >= Date.parse(plan.closesAt));
  }

  #measure(tracker: FillProgressTracker, state: FillProgress['state']): FillProgress {
    this.#progress = tracker.measured(state);
    return this.#progress;
  }

  async #report(progress: FillProgress): Promise<void> {
    try {
      await call({
        url: `${this.#deps.fill}/v1/runs/${progress.run}/progress`,
        method: 'POST',
        token: this.#deps.token,
        body: progress,
        answer: z.unknown(),
      });
    } catch (error) {
      // Fill forgot the run, or will not have this: there is nobody to tell.
      if (!isFault(error) || error.code === 'unreachable' || error.spec.status >= 500) throw error;
    }
    if (this.#unreported.value?.plan === progress.plan && progress.state !== 'filling')
      await this.#unreported.set(null);
  }
}

/** One rendition of one plan in work. */
interface Work {
  readonly plan: FillPlan;
  readonly item: FillItem;
  readonly tracker: FillProgressTracker;
  readonly limit: RateLimit;
}

export function assetMetaOf(asset: CatalogAsset, holding: HoldingId): AssetMeta {
  return {
    key: asset.path,
    version: asset.etag,
    bytes: asset.bytes,
    headers: catalogHeaders(asset),
    generatedAtMs: null,
    holding,
  };
}

function lowest(a: number | null, b: number | null): number | null {
  if (a === null) return b;
  return b === null ? a : Math.min(a, b);
}
