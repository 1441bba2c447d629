// Imports as jobs: accepted, queued, run one after another, kept until they end. An accepted import survives `kill -9`: it
// starts again with the service. One that fails leaves the catalog as it was.

import type { ImportProgress, ImportRequest } from '../../protocol/answers.ts';
import { Fault, isFault } from '../../protocol/faults.ts';
import { assetPath, id as titleId, PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { Log } from '../../runtime/log.ts';
import { baseOf, importTitle, type ImportDeps } from './import-title.ts';
import type { FillMetrics } from '../metrics.ts';
import { NO_COUNTS, Tally, type Counts } from './import-progress.ts';
import { commit, ordered, under, type State, type Write } from '../state.ts';

export const QUEUE_MAX = 100;
export const IMPORTS_KEPT = 200;

export interface ImportsDeps extends ImportDeps {
  readonly state: State;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

interface Job {
  readonly number: number;
  readonly url: string;
  readonly title: string;
  readonly path: string;
  state: ImportProgress['state'];
  revision: number | null;
  fault: ImportProgress['fault'];
  /** As it ended. */
  counts: Counts;
}

export class Imports {
  readonly #deps: ImportsDeps;
  readonly #jobs = new Map<number, Job>();
  readonly #stop = new AbortController();
  #working: Promise<void> = Promise.resolve();
  #lastNumber = 0;
  #current: { readonly job: Job; readonly tally: Tally } | null = null;

  private constructor(deps: ImportsDeps) {
    this.#deps = deps;
  }

  /** Reads the jobs and starts those that had not ended. */
  static async open(deps: ImportsDeps): Promise<Imports> {
    const imports = new Imports(deps);
    for (const job of await under<Job>(deps.state, 'import')) {
      imports.#jobs.set(job.number, job);
      imports.#lastNumber = Math.max(imports.#lastNumber, job.number);
      if (job.state === 'running') imports.#enqueue(job);
    }
    return imports;
  }

  /** Resolves with the job's id once it is on disk. */
  async submit(request: ImportRequest): Promise<string> {
    const path = pathUnder(this.#deps.origin, request.url);
    const title = request.title ?? titleOf(path);
    this.#deps.catalog.assertBaseFree(title, baseOf(path));
    const waiting = [...this.#jobs.values()].filter((job) => job.state === 'running').length;
    if (waiting >= QUEUE_MAX) throw new Fault('overloaded', `${QUEUE_MAX} imports are waiting, the maximum`);
    const number = (this.#lastNumber += 1);
    const job: Job = {
      number,
      url: request.url,
      title,
      path,
      state: 'running',
      revision: null,
      fault: null,
      counts: NO_COUNTS,
    };
    await commit(this.#deps.state, [put(job), ...this.#prune()]);
    this.#jobs.set(number, job);
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
    const counts = job === this.#current?.job ? this.#current.tally.counts() : job.counts;
    const { url, title, state, revision, fault } = job;
    return {
      protocol: PROTOCOL_VERSION,
      id: idOf(job),
      url,
      title,
      state,
      ...counts,
      revision,
      fault,
    };
  }

  /** Breaks off the running import; it stays accepted and starts again with the service. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#working;
  }

  #enqueue(job: Job): void {
    this.#working = this.#working.then(() => this.#run(job));
  }

  async #run(job: Job): Promise<void> {
    const { signal } = this.#stop;
    if (signal.aborted) return;
    const { metrics, log, catalog } = this.#deps;
    const tally = new Tally();
    this.#current = { job, tally };
    try {
      const { title, changed } = await importTitle({ title: job.title, path: job.path, tally, signal }, this.#deps);
      job.revision = title.revision;
      job.state = 'done';
      metrics.add('larder_fill_imports_total', 1, { outcome: changed ? 'changed' : 'unchanged' });
      metrics.set('larder_fill_catalog_revision', catalog.revision);
      metrics.set('larder_fill_titles', catalog.titles.length);
      log.info({ title: title.id, revision: title.revision, changed, bytes: tally.bytesFetched }, 'imported');
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      job.fault = faultOf(error);
      job.state = 'failed';
      metrics.add('larder_fill_imports_total', 1, { outcome: 'failed' });
      const what = isFault(error) ? { code: error.code, reason: error.message } : { err: error };
      log.warn({ title: job.title, url: job.url, ...what }, 'import failed');
    }
    job.counts = tally.counts();
    this.#current = null;
    metrics.add('larder_fill_import_bytes_total', tally.bytesFetched);
    metrics.add('larder_fill_import_assets_total', tally.assetsUnchanged, { outcome: 'unchanged' });
    metrics.add('larder_fill_import_assets_total', tally.assetsDone - tally.assetsUnchanged, {
      outcome: 'fetched',
    });
    await commit(this.#deps.state, [put(job)]).catch((error: unknown) =>
      log.error({ err: error }, 'import not recorded'),
    );
  }

  #prune(): Write[] {
    const ended = [...this.#jobs.values()].filter((job) => job.state !== 'running');
    return ended.slice(0, Math.max(0, ended.length - IMPORTS_KEPT)).map((job) => {
      this.#jobs.delete(job.number);
      return { type: 'del', key: keyOf(job) };
    });
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
