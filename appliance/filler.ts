// A night at the appliance: pull the plan, fetch what is missing, verify each MiB against the catalog's digests, pin,
// report. What is on disk is never fetched again, so a filler that was killed goes on where it was.

import { PROTOCOL_VERSION, type HoldingId } from '../protocol/ids.ts';
import { Fault, isFault } from '../protocol/faults.ts';
import { fillPlan, type FillItem, type FillPlan, type FillProgress } from '../protocol/plan.ts';
import type { CatalogAsset } from '../protocol/catalog.ts';
import { z } from 'zod';
import { call } from '../runtime/client.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { blockBytes, blockCount, BLOCK_BYTES, diskBytesOf } from './block-file.ts';
import type { Cache } from './cache.ts';
import { headersOf, type Catalog } from './catalog.ts';
import { FLIGHT_BLOCKS_MAX, type Inflight } from './inflight.ts';
import type { Tally } from './metrics.ts';
import { RateLimit } from './rate-limit.ts';
import { Kept, type StateDb } from './state.ts';
import type { AssetMeta, Entry } from './store.ts';

const PULL_MS = 60_000;
const REPORT_MS = 1_000;
const FAULTS_REPORTED_MAX = 20;
/** A block that did not make it is tried again this often within one plan. */
const ATTEMPTS_MAX = 3;
const RETRY_MS = 500;

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
  readonly tally: Tally;
  readonly log: Log;
}

export class Filler {
  readonly #deps: FillerDeps;
  readonly #pinned: Kept<HoldingId[]>;
  /** Last word on the last plan, until fill has taken it. */
  readonly #unreported: Kept<FillProgress | null>;
  readonly #finished: Kept<string | null>;
  #running: Promise<void> | null = null;
  #again = false;
  #stopped = false;
  #timer: NodeJS.Timeout | null = null;
  #progress: FillProgress | null = null;

  private constructor(
    deps: FillerDeps,
    kept: { pinned: Kept<HoldingId[]>; unreported: Kept<FillProgress | null>; finished: Kept<string | null> },
  ) {
    this.#deps = deps;
    this.#pinned = kept.pinned;
    this.#unreported = kept.unreported;
    this.#finished = kept.finished;
  }

  static async open(deps: FillerDeps): Promise<Filler> {
    return new Filler(deps, {
      pinned: await Kept.load<HoldingId[]>(deps.db, 'pinned', []),
      unreported: await Kept.load<FillProgress | null>(deps.db, 'progress-unreported', null),
      finished: await Kept.load<string | null>(deps.db, 'plan-finished', null),
    });
  }

  /** What the last plans pinned; the cache must know before anything is evicted. */
  static async pinnedIn(db: StateDb): Promise<ReadonlySet<HoldingId>> {
    return new Set((await Kept.load<HoldingId[]>(db, 'pinned', [])).value);
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
        if (!isFault(error)) throw error;
        if (error.code !== 'not_found')
          this.#deps.log.warn({ code: error.code, reason: error.message }, 'fill plan not pulled');
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
    const items = await Promise.all(
      plan.add.map(async (item) => ({ item, assets: await this.#deps.catalog.assetsOf(item.holding) })),
    );
    const progress = this.#begin(plan, items);
    const reporting = setInterval(() => void this.#report(this.#measured(progress)).catch(() => undefined), REPORT_MS);
    await this.#report(this.#measured(progress)).catch(() => undefined);
    this.#deps.log.info(
      {
        plan: plan.id,
        run: plan.run,
        add: plan.add.length,
        bytes: progress.bytesTotal,
        resumed: progress.bytesResumed,
      },
      'filling',
    );
    try {
      // What is taken out makes room for what comes in; nothing beyond keep, and add as it comes, stays pinned.
      const wanted = new Set([...plan.keep, ...plan.add].map((item) => item.holding));
      const kept = this.#pinned.value.filter((holding) => wanted.has(holding));
      await this.#setPinned(new Set([...kept, ...plan.keep.map((item) => item.holding)]));
      for (const { item, assets } of items) {
        if (this.#closed(plan)) break;
        if (await this.#fetchItem(plan, item, assets, progress)) progress.renditionsDone += 1;
      }
    } finally {
      clearInterval(reporting);
    }
    if (this.#stopped) return;
    const complete = progress.renditionsDone === progress.renditionsTotal;
    const state = complete ? 'done' : this.#closed(plan) ? 'closed' : 'failed';
    this.#deps.log.info(
      { plan: plan.id, state, bytes: progress.bytesDone, faults: progress.faults.length },
      'fill ended',
    );
    const last = this.#measured({ ...progress, state });
    this.#progress = last;
    await this.#unreported.set(last);
    await this.#finished.set(plan.id);
    await this.#report(last);
  }

  #begin(
    plan: FillPlan,
    items: readonly { readonly item: FillItem; readonly assets: readonly CatalogAsset[] }[],
  ): Progress {
    const held = items.reduce(
      (sum, { item }) => sum + Math.min(item.bytes, this.#deps.cache.heldBytes(item.holding)),
      0,
    );
    const progress: Progress = {
      protocol: PROTOCOL_VERSION,
      run: plan.run,
      plan: plan.id,
      appliance: this.#deps.appliance,
      state: 'filling',
      bytesTotal: items.reduce((sum, { item }) => sum + item.bytes, 0),
      bytesDone: held,
      bytesResumed: held,
      renditionsTotal: items.length,
      renditionsDone: 0,
      bytesPerSecond: 0,
      faults: [],
      at: new Date(this.#deps.clock.now()).toISOString(),
      startedMs: this.#deps.clock.monotonic(),
      limit: new RateLimit(lowest(plan.rateBitsPerSecond, this.#deps.rateBitsPerSecond), this.#deps.clock),
    };
    this.#progress = this.#measured(progress);
    return progress;
  }

  /** True when every byte of the rendition is on disk and pinned. */
  async #fetchItem(
    plan: FillPlan,
    item: FillItem,
    assets: readonly CatalogAsset[],
    progress: Progress,
  ): Promise<boolean> {
    const fault = (asset: string, code: string, message: string): false => {
      if (progress.faults.length < FAULTS_REPORTED_MAX)
        progress.faults.push({ asset: asset.slice(0, 1100), code, message: message.slice(0, 500) });
      return false;
    };
    if (assets.length === 0) return fault(item.holding, 'not_found', 'the catalog knows no asset of this rendition');
    const pinnedBytes = this.#deps.cache.use().reduce((sum, use) => sum + use.pinnedBytes, 0);
    const needed = assets.reduce(
      (sum, asset) => sum + diskBytesOf(asset.bytes) + (blockCount(asset.bytes) - 1) * diskBytesOf(0),
      0,
    );
    const held = this.#pinned.value.includes(item.holding);
    if (!held && pinnedBytes + needed > this.#deps.planBytes)
      return fault(
        item.holding,
        'plan_impossible',
        `${needed} bytes do not fit: ${pinnedBytes} of ${this.#deps.planBytes} are pinned`,
      );
    await this.#pin([item]);

    let complete = true;
    const queue = assets.values();
    const lane = async (): Promise<void> => {
      for (const asset of queue) {
        if (this.#closed(plan)) {
          complete = false;
          return;
        }
        const error = await this.#fetchAsset(plan, item, asset, progress);
        if (error !== null) complete = fault(asset.path, error.code, error.message);
      }
    };
    await Promise.all(Array.from({ length: plan.concurrency }, lane));
    return complete;
  }

  /** Null when the asset is whole on disk. */
  async #fetchAsset(plan: FillPlan, item: FillItem, asset: CatalogAsset, progress: Progress): Promise<Fault | null> {
    for (let attempt = 1; ; attempt += 1) {
      const entry = await this.#deps.cache.admit(metaOf(asset, item.holding));
      const fault = await this.#fetchMissing(plan, entry, progress);
      if (fault === null || attempt >= ATTEMPTS_MAX || fault.spec.retry === 'never' || this.#closed(plan)) return fault;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * attempt));
    }
  }

  async #fetchMissing(plan: FillPlan, entry: Entry, progress: Progress): Promise<Fault | null> {
    const last = blockCount(entry.bytes) - 1;
    for (let number = 0; number <= last; number += 1) {
      if (entry.blocks.has(number)) continue;
      if (this.#closed(plan)) return new Fault('state_conflict', 'the window closed before the asset was whole');
      const under = this.#deps.inflight.join(entry, number);
      const end = Math.min(last, number + FLIGHT_BLOCKS_MAX - 1);
      if (under === null)
        await progress.limit.take(Math.min(entry.bytes - number * BLOCK_BYTES, (end - number + 1) * BLOCK_BYTES));
      const landing =
        under ??
        this.#deps.inflight.join(entry, number) ??
        this.#deps.inflight.start(entry, { number, lastWanted: end, pool: 'fill' });
      await landing.done;
      if (landing.fault !== null) return landing.fault;
      if (!entry.blocks.has(number))
        return new Fault('disk_full', `${entry.key}: block ${number} arrived but could not be stored`);
      const bytes = blockBytes(entry.bytes, number);
      progress.bytesDone += bytes;
      this.#deps.tally.add('larder_fill_bytes_total', bytes);
    }
    return null;
  }

  /** The cache never evicts what is pinned; written down before it counts. */
  async #pin(items: readonly FillItem[]): Promise<void> {
    await this.#setPinned(new Set([...this.#pinned.value, ...items.map((item) => item.holding)]));
  }

  async #setPinned(pinned: ReadonlySet<HoldingId>): Promise<void> {
    await this.#pinned.set([...pinned]);
    this.#deps.cache.setPinned(pinned);
  }

  #closed(plan: FillPlan): boolean {
    return this.#stopped || (plan.closesAt !== null && this.#deps.clock.now() >= Date.parse(plan.closesAt));
  }

  #measured(progress: Progress): FillProgress {
    const { startedMs, limit: _limit, ...wire } = progress;
    const seconds = Math.max(0.001, (this.#deps.clock.monotonic() - startedMs) / 1000);
    const measured = {
      ...wire,
      faults: [...wire.faults],
      bytesPerSecond: (wire.bytesDone - wire.bytesResumed) / seconds,
      at: new Date(this.#deps.clock.now()).toISOString(),
    };
    this.#progress = measured;
    return measured;
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

/** What is reported, and what is needed to measure it. */
type Progress = { -readonly [K in keyof FillProgress]: FillProgress[K] } & {
  readonly startedMs: number;
  readonly limit: RateLimit;
};

export function metaOf(asset: CatalogAsset, holding: HoldingId): AssetMeta {
  return { key: asset.path, version: asset.etag, bytes: asset.bytes, headers: headersOf(asset), holding };
}

function lowest(a: number | null, b: number | null): number | null {
  if (a === null) return b;
  return b === null ? a : Math.min(a, b);
}
