// Imports as jobs: accepted, queued, run one after another, kept until they end. An accepted import survives `kill -9`: it
// starts again with the service. One that fails leaves the catalog as it was.

import type { ImportProgress, ImportRequest } from '../../protocol/answers.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { assetPath, id as titleId, PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { Log } from '../../runtime/log.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { baseOf, importTitle, type ImportDeps } from './import-title.ts';
import type { FillMetrics } from '../metrics.ts';
import { NO_COUNTS, Tally, type Counts } from './import-progress.ts';
import { commit, ordered, under, type State, type Write } from '../state.ts';

export const QUEUE_MAX = 100;
export const IMPORTS_KEPT = 200;
export const RECORD_RETRY_MS = 1_000;

export interface ImportsDeps extends ImportDeps {
  readonly state: State;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

/** A job as it is on disk; a change makes a new record. */
interface Job {
  readonly number: number;
  readonly url: string;
  readonly title: string;
  readonly path: string;
  readonly state: ImportProgress['state'];
  readonly revision: number | null;
  readonly fault: ImportProgress['fault'];
  /** Final counts; zero while the job runs. */
  readonly counts: Counts;
}

type Outcome = Pick<Job, 'state' | 'revision' | 'fault'>;

export class Imports {
  readonly #deps: ImportsDeps;
  /** Changes of jobs are written first and shown then, one at a time. */
  readonly #exclusively = mutex();
  /** One import runs at a time, in the order of submission. */
  readonly #inTurn = mutex();
  readonly #jobs = new Map<number, Job>();
  readonly #stop = new AbortController();
  #lastNumber = 0;
  #current: { readonly number: number; readonly tally: Tally } | null = null;

  private constructor(deps: ImportsDeps) {
    this.#deps = deps;
  }

  /** Reads the jobs and starts those that had not ended. */
  static async open(deps: ImportsDeps): Promise<Imports> {
    const imports = new Imports(deps);
    for (const job of await under<Job>(deps.state, 'import')) {
      imports.#apply(job);
      if (job.state === 'running') imports.#enqueue(job);
    }
    return imports;
  }

  /** Resolves with the job's id once it is on disk. */
  async submit(request: ImportRequest): Promise<string> {
    const path = pathUnder(this.#deps.origin, request.url);
    const title = request.title ?? titleOf(path);
    this.#deps.catalog.assertBaseFree(title, baseOf(path));
    const job = await this.#exclusively(() => this.#create({ url: request.url, title, path }));
    this.#enqueue(job);
    return idOf(job);
  }

  progress(id: string): ImportProgress {
    const job = this.#jobs.get(Number(/^i(\d{1,12})$/.exec(id)?.[1] ?? Number.NaN));
    if (job === undefined)
      throw new Fault(
        'not_found',
        `no import "${id}" is known; the last is ${this.#lastNumber === 0 ? 'none' : `i${this.#lastNumber}`}`,
        { help: '`larder catalog ls` shows what was imported; importing again is safe.' },
      );
    const counts = job.number === this.#current?.number ? this.#current.tally.counts() : job.counts;
    const { url, title, state, revision, fault } = job;
    return { protocol: PROTOCOL_VERSION, id: idOf(job), url, title, state, ...counts, revision, fault };
  }

  /** Breaks off the running import; it stays accepted and starts again with the service. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#inTurn(async () => undefined);
  }

  async #create(task: Pick<Job, 'url' | 'title' | 'path'>): Promise<Job> {
    const waiting = [...this.#jobs.values()].filter((job) => job.state === 'running').length;
    if (waiting >= QUEUE_MAX) throw new Fault('overloaded', `${QUEUE_MAX} imports are waiting, the maximum`);
    const number = this.#lastNumber + 1;
    const job: Job = { number, ...task, state: 'running', revision: null, fault: null, counts: NO_COUNTS };
    const dropped = this.#endedBeyondLimit();
    await commit(this.#deps.state, [put(job), ...dropped.map((old): Write => ({ type: 'del', key: keyOf(old) }))]);
    for (const old of dropped) this.#jobs.delete(old.number);
    this.#apply(job);
    return job;
  }

  #apply(job: Job): void {
    this.#jobs.set(job.number, job);
    this.#lastNumber = Math.max(this.#lastNumber, job.number);
  }

  #enqueue(job: Job): void {
    void this.#inTurn(() => this.#run(job));
  }

  async #run(job: Job): Promise<void> {
    const { signal } = this.#stop;
    if (signal.aborted) return;
    const tally = new Tally();
    this.#current = { number: job.number, tally };
    const outcome = await this.#import(job, tally);
    if (outcome === null) return;
    await this.#record({ ...job, ...outcome, counts: tally.counts() });
    this.#current = null;
  }

  /** Null where the service stops. */
  async #import(job: Job, tally: Tally): Promise<Outcome | null> {
    const { signal } = this.#stop;
    const { metrics, log, catalog } = this.#deps;
    const outcome = await importTitle({ title: job.title, path: job.path, tally, signal }, this.#deps).then(
      ({ title, changed }): Outcome => {
        metrics.add('larder_fill_imports_total', 1, { outcome: changed ? 'changed' : 'unchanged' });
        metrics.set('larder_fill_catalog_revision', catalog.revision);
        metrics.set('larder_fill_titles', catalog.titles.length);
        log.info({ title: title.id, revision: title.revision, changed, bytes: tally.bytesFetched }, 'imported');
        return { state: 'done', revision: title.revision, fault: null };
      },
      (error: unknown): Outcome | null => {
        if (signal.aborted) return null;
        metrics.add('larder_fill_imports_total', 1, { outcome: 'failed' });
        const what = isFault(error) ? { code: error.code, reason: error.message } : { err: error };
        log.warn({ title: job.title, url: job.url, ...what }, 'import failed');
        return { state: 'failed', revision: null, fault: faultOf(error) };
      },
    );
    if (outcome === null) return null;
    metrics.add('larder_fill_import_bytes_total', tally.bytesFetched);
    metrics.add('larder_fill_import_assets_total', tally.assetsUnchanged, { outcome: 'unchanged' });
    metrics.add('larder_fill_import_assets_total', tally.assetsDone - tally.assetsUnchanged, { outcome: 'fetched' });
    return outcome;
  }

  /**
   * A job ends when its outcome is on disk: what a caller has seen must hold after a restart. Until the write succeeds the
   * job is shown as running and the queue waits, since no import could be published meanwhile. A restart runs it again.
   */
  async #record(ended: Job): Promise<void> {
    const { state, log, clock } = this.#deps;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        return await this.#exclusively(async () => {
          await commit(state, [put(ended)]);
          this.#apply(ended);
        });
      } catch (error) {
        log.error({ err: error, import: idOf(ended) }, 'the outcome of the import could not be written; trying again');
        await clock.sleep(RECORD_RETRY_MS, signal).catch(() => undefined);
      }
    }
  }

  /** The oldest ended jobs beyond `IMPORTS_KEPT`. */
  #endedBeyondLimit(): Job[] {
    const ended = [...this.#jobs.values()].filter((job) => job.state !== 'running');
    return ended.slice(0, Math.max(0, ended.length - IMPORTS_KEPT));
  }
}

/** Asset path of a URL below the origin's base URL. */
function pathUnder(origin: string, url: string): string {
  const base = new URL(`${origin}/`);
  const asked = new URL(url);
  if (asked.origin !== base.origin || !asked.pathname.startsWith(base.pathname))
    throw new Fault('body_invalid', `body.url is ${url}: a title must lie below the origin of fill, ${origin}/`, {
      detail: { field: 'body.url' },
    });
  const path = asked.pathname.slice(base.pathname.length - 1);
  const valid = assetPath.safeParse(path);
  if (asked.search !== '' || asked.hash !== '' || !valid.success || path.endsWith('/'))
    throw new Fault(
      'body_invalid',
      `body.url is ${url}: the URL of a manifest file without query or fragment is expected`,
      {
        detail: { field: 'body.url' },
      },
    );
  return path;
}

/** The folder's name, or the file's where the manifest lies at the top. */
function titleOf(path: string): string {
  const words = path.split('/').filter((word) => word !== '');
  const word = words.length > 1 ? words.at(-2)! : words[0]!.replace(/\.[^.]*$/, '');
  const id = word.toLowerCase();
  if (titleId.safeParse(id).success) return id;
  throw new Fault('body_invalid', `body.title: no title id can be made of "${word}"; give one with --title`, {
    detail: { field: 'body.title' },
  });
}

function faultOf(error: unknown): NonNullable<ImportProgress['fault']> {
  const fault = isFault(error) ? error : new Fault('internal', 'the import failed inside Larder', { cause: error });
  return { code: fault.code, message: fault.message, help: fault.help };
}

const idOf = (job: Job): string => `i${job.number}`;
const keyOf = (job: Job): string => `import!${ordered(job.number)}`;
const put = (job: Job): Write => ({ type: 'put', key: keyOf(job), value: job });
