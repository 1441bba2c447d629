// Imports as jobs: accepted, queued, run one after another. An accepted job survives `kill -9`: a job that had not ended starts
// again with the service. A failed import leaves the catalog unchanged.

import type { ImportProgress, ImportRequest } from '../../protocol/answers.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { normalizedPath } from '../../protocol/asset-path.ts';
import { assetPath, id as titleId, PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { Log } from '../../runtime/log.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, readAll, sortableNumber, type Database, type WriteOperation } from '../database.ts';
import type { FillMetrics } from '../metrics.ts';
import { NO_COUNTS, ProgressTracker, type ProgressCounts } from './import-progress.ts';
import { baseOf, importTitle, type ImportTitleDeps } from './import-title.ts';

/** Jobs that have not ended. */
const UNFINISHED_MAX = 100;
export const ENDED_IMPORTS_MAX = 200;
export const RECORD_RETRY_MS = 1_000;

interface ImportQueueDeps extends ImportTitleDeps {
  readonly database: Database;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

/** A job as it is on disk. Records are immutable: a change makes a new one, which is shown once it is on disk. */
interface ImportJob {
  readonly number: number;
  readonly url: string;
  readonly title: string;
  /** Asset path of the manifest. */
  readonly path: string;
  readonly state: ImportProgress['state'];
  readonly revision: number | null;
  readonly fault: ImportProgress['fault'];
  /** Final counts; zero while the job runs. */
  readonly counts: ProgressCounts;
}

type ImportOutcome = Pick<ImportJob, 'state' | 'revision' | 'fault'>;

export class ImportQueue {
  readonly #deps: ImportQueueDeps;
  /** Changes of jobs, one at a time. */
  readonly #exclusively = mutex();
  /** Imports, one at a time and in order of submission. */
  readonly #inTurn = mutex();
  /** By number. */
  readonly #jobs = new Map<number, ImportJob>();
  readonly #stop = new AbortController();
  #lastNumber = 0;
  #current: { readonly number: number; readonly tracker: ProgressTracker } | null = null;

  private constructor(deps: ImportQueueDeps) {
    this.#deps = deps;
  }

  /** Reads the jobs and starts those that had not ended. */
  static async open(deps: ImportQueueDeps): Promise<ImportQueue> {
    const queue = new ImportQueue(deps);
    for (const job of await readAll<ImportJob>(deps.database, 'import')) {
      queue.#apply(job);
      if (job.state === 'running') queue.#enqueue(job);
    }
    return queue;
  }

  /** Resolves with the job's id once it is on disk. Throws `body_invalid`, `state_conflict` or `overloaded`. */
  async submit(request: ImportRequest): Promise<string> {
    const path = manifestPath(this.#deps.origin, request.url);
    const title = request.title ?? titleIdFor(path);
    this.#deps.catalog.assertBaseFree(title, baseOf(path));
    const job = await this.#exclusively(() => this.#create({ url: request.url, title, path }));
    this.#enqueue(job);
    return idOf(job);
  }

  /** Throws `not_found`. */
  progress(id: string): ImportProgress {
    const job = this.#jobs.get(Number(/^i(\d{1,12})$/.exec(id)?.[1] ?? Number.NaN));
    if (job === undefined)
      throw new Fault(
        'not_found',
        `no import "${id}" is known; the last is ${this.#lastNumber === 0 ? 'none' : `i${this.#lastNumber}`}`,
        { help: '`larder catalog ls` shows what was imported; importing again is safe.' },
      );
    const counts = job.number === this.#current?.number ? this.#current.tracker.counts() : job.counts;
    const { url, title, state, revision, fault } = job;
    return { protocol: PROTOCOL_VERSION, id: idOf(job), url, title, state, ...counts, revision, fault };
  }

  /** Aborts the running import; it starts again with the service. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#inTurn(async () => undefined);
  }

  async #create(task: Pick<ImportJob, 'url' | 'title' | 'path'>): Promise<ImportJob> {
    const unfinished = [...this.#jobs.values()].filter((job) => job.state === 'running').length;
    if (unfinished >= UNFINISHED_MAX)
      throw new Fault('overloaded', `${UNFINISHED_MAX} imports are waiting, the maximum`);
    const number = this.#lastNumber + 1;
    const job: ImportJob = { number, ...task, state: 'running', revision: null, fault: null, counts: NO_COUNTS };
    const dropped = this.#endedBeyondLimit();
    await commit(this.#deps.database, [
      putJob(job),
      ...dropped.map((old): WriteOperation => ({ type: 'del', key: keyOf(old) })),
    ]);
    for (const old of dropped) this.#jobs.delete(old.number);
    this.#apply(job);
    return job;
  }

  #apply(job: ImportJob): void {
    this.#jobs.set(job.number, job);
    this.#lastNumber = Math.max(this.#lastNumber, job.number);
  }

  /** The oldest ended jobs beyond `ENDED_IMPORTS_MAX`. */
  #endedBeyondLimit(): ImportJob[] {
    const ended = [...this.#jobs.values()].filter((job) => job.state !== 'running');
    return ended.slice(0, Math.max(0, ended.length - ENDED_IMPORTS_MAX));
  }

  #enqueue(job: ImportJob): void {
    void this.#inTurn(() => this.#run(job));
  }

  async #run(job: ImportJob): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const tracker = new ProgressTracker();
    this.#current = { number: job.number, tracker };
    const outcome = await this.#import(job, tracker);
    if (outcome === null) return;
    await this.#recordOutcome({ ...job, ...outcome, counts: tracker.counts() });
    this.#current = null;
  }

  /** Null if the service is closing. */
  async #import(job: ImportJob, tracker: ProgressTracker): Promise<ImportOutcome | null> {
    const { signal } = this.#stop;
    const { metrics, log, catalog } = this.#deps;
    let outcome: ImportOutcome;
    try {
      const { title, changed } = await importTitle({ title: job.title, path: job.path, tracker, signal }, this.#deps);
      metrics.add('larder_fill_imports_total', 1, { outcome: changed ? 'changed' : 'unchanged' });
      metrics.set('larder_fill_catalog_revision', catalog.revision);
      metrics.set('larder_fill_titles', catalog.titles.length);
      log.info({ title: title.id, revision: title.revision, changed, bytes: tracker.bytesFetched }, 'imported');
      outcome = { state: 'done', revision: title.revision, fault: null };
    } catch (error) {
      if (signal.aborted) return null;
      metrics.add('larder_fill_imports_total', 1, { outcome: 'failed' });
      const what = isFault(error) ? { code: error.code, reason: error.message } : { err: error };
      log.warn({ title: job.title, url: job.url, ...what }, 'import failed');
      outcome = { state: 'failed', revision: null, fault: shownFault(error) };
    }
    const { bytesFetched, assetsDone, assetsUnchanged } = tracker;
    metrics.add('larder_fill_import_bytes_total', bytesFetched);
    metrics.add('larder_fill_import_assets_total', assetsUnchanged, { outcome: 'unchanged' });
    metrics.add('larder_fill_import_assets_total', assetsDone - assetsUnchanged, { outcome: 'fetched' });
    return outcome;
  }

  /**
   * A job has ended once its outcome is on disk, because what a caller has seen must hold after a restart. Until the write
   * succeeds the job is shown as running and the queue waits: nothing could be published meanwhile. A restart runs it again.
   */
  async #recordOutcome(ended: ImportJob): Promise<void> {
    const { database, log, clock } = this.#deps;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        return await this.#exclusively(async () => {
          await commit(database, [putJob(ended)]);
          this.#apply(ended);
        });
      } catch (error) {
        log.error({ err: error, import: idOf(ended) }, 'the outcome of the import could not be written; trying again');
        await clock.sleep(RECORD_RETRY_MS, signal).catch(() => undefined);
      }
    }
  }
}

/** Asset path of a manifest's URL, which must lie below the origin's base URL. */
function manifestPath(origin: string, manifestUrl: string): string {
  const detail = { field: 'body.url' };
  const base = new URL(`${origin}/`);
  const url = new URL(manifestUrl);
  if (url.origin !== base.origin || !url.pathname.startsWith(base.pathname))
    throw new Fault(
      'body_invalid',
      `body.url is ${manifestUrl}: a title must lie below the origin of fill, ${origin}/`,
      { detail },
    );
  const path = normalizedPath(url.pathname.slice(base.pathname.length - 1));
  if (typeof path !== 'string')
    throw new Fault('body_invalid', `body.url is ${manifestUrl}: it ${path.problem}`, { detail });
  if (url.search !== '' || url.hash !== '' || !assetPath.safeParse(path).success || path.endsWith('/'))
    throw new Fault(
      'body_invalid',
      `body.url is ${manifestUrl}: the URL of a manifest file without query or fragment is expected`,
      { detail },
    );
  return path;
}

/** The name of the manifest's folder, or of the manifest itself if it has none. */
function titleIdFor(path: string): string {
  const names = path.split('/').filter((name) => name !== '');
  const name = names.length > 1 ? names.at(-2)! : names[0]!.replace(/\.[^.]*$/, '');
  const id = name.toLowerCase();
  if (titleId.safeParse(id).success) return id;
  throw new Fault('body_invalid', `body.title: no title id can be made of "${name}"; give one with --title`, {
    detail: { field: 'body.title' },
  });
}

function shownFault(error: unknown): NonNullable<ImportProgress['fault']> {
  const fault = isFault(error) ? error : new Fault('internal', 'the import failed inside Larder', { cause: error });
  return { code: fault.code, message: fault.message, help: fault.help };
}

const idOf = (job: ImportJob): string => `i${job.number}`;
const keyOf = (job: ImportJob): string => `import!${sortableNumber(job.number)}`;
const putJob = (job: ImportJob): WriteOperation => ({ type: 'put', key: keyOf(job), value: job });
