// Runs and the plans in force, in memory and on disk. A run and its plans are one batch; progress is written as it comes.
// A run ends when each of its appliances is done, failed or closed.

import type { FillPlan, FillProgress, Run } from '../../protocol/plan.ts';
import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import type { FillMetrics } from '../metrics.ts';
import type { Scope } from '../plan/planning.ts';
import {
  hasEnded,
  plannedProgress,
  settled,
  supersede,
  waitingProgress,
  withProgress,
  type Part,
  type RunRecord,
} from './run-record.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, ordered, range, under, type State, type Write } from '../state.ts';

export const RUNS_KEPT = 500;
export const RUNS_RUNNING_MAX = 1_000;

export interface RunsDeps {
  readonly state: State;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

export interface NewRun {
  readonly scope: Scope;
  readonly trigger: Run['trigger'];
  readonly parts: readonly Part[];
  readonly plans: readonly FillPlan[];
}

/** Why a part ended without the appliance saying so. */
export interface Ending {
  readonly state: 'failed' | 'closed';
  readonly code: string;
  readonly message: string;
}

export class Runs {
  readonly #deps: RunsDeps;
  /** Every change reads, writes to disk and only then shows: one at a time. */
  readonly #exclusively = mutex();
  readonly #records = new Map<string, RunRecord>();
  readonly #plans = new Map<string, FillPlan>();
  /** The last window opening that each appliance was planned for. */
  readonly #opened = new Map<string, number>();
  /** Monotonic instant of the last sign of life, by run and appliance; a restart begins the wait anew. */
  readonly #heard = new Map<string, number>();
  #lastNumber = 0;

  private constructor(deps: RunsDeps) {
    this.#deps = deps;
  }

  static async open(deps: RunsDeps): Promise<Runs> {
    const runs = new Runs(deps);
    for (const record of await under<RunRecord>(deps.state, 'run')) {
      runs.#records.set(record.run.id, record);
      runs.#lastNumber = Math.max(runs.#lastNumber, record.number);
      if (record.run.state !== 'running') continue;
      for (const appliance of Object.keys(record.parts)) runs.#hear(record.run.id, appliance);
    }
    for (const plan of await under<FillPlan>(deps.state, 'plan')) runs.#plans.set(plan.appliance, plan);
    for await (const [key, value] of deps.state.iterator(range('opened')))
      runs.#opened.set(key.slice('opened!'.length), Number(value));
    deps.metrics.set('larder_fill_runs_running', runs.running().length);
    return runs;
  }

  nextId(): string {
    return `r${this.#lastNumber + 1}`;
  }

  running(): RunRecord[] {
    return [...this.#records.values()].filter((record) => record.run.state === 'running');
  }

  /** Newest first. */
  list(max: number): Run[] {
    return [...this.#records.values()]
      .sort((a, b) => b.number - a.number)
      .slice(0, max)
      .map((record) => record.run);
  }

  get(id: string): RunRecord {
    const record = this.#records.get(id);
    if (record !== undefined) return record;
    const last = this.#lastNumber === 0 ? 'there has been none' : `the last is r${this.#lastNumber}`;
    throw new Fault('not_found', `no run "${id}" is known; ${last}`, { help: '`larder fill status` lists the runs.' });
  }

  planOf(appliance: string): FillPlan | null {
    return this.#plans.get(appliance) ?? null;
  }

  openedAt(appliance: string): number | null {
    return this.#opened.get(appliance) ?? null;
  }

  silentMs(run: string, appliance: string): number {
    return this.#deps.clock.monotonic() - (this.#heard.get(`${run}!${appliance}`) ?? 0);
  }

  /** Begins a run. Parts without a plan wait for their window. */
  create(what: NewRun): Promise<Run> {
    return this.#exclusively(() => this.#create(what));
  }

  /** Adds appliances to a run, or gives waiting ones their plan. */
  join(id: string, parts: readonly Part[], plans: readonly FillPlan[]): Promise<Run> {
    return this.#exclusively(() => this.#join(id, parts, plans));
  }

  /** From an appliance. What comes too late changes nothing: the run has ended, or another plan is in force. */
  progress(report: FillProgress): Promise<Run> {
    return this.#exclusively(() => this.#progress(report));
  }

  /** Ends one appliance's part from outside: it vanished, its window closed. */
  end(id: string, appliance: string, how: Ending): Promise<Run> {
    return this.#exclusively(() => this.#end(id, appliance, how));
  }

  async #create(what: NewRun): Promise<Run> {
    if (this.running().length >= RUNS_RUNNING_MAX)
      throw new Fault('overloaded', `${RUNS_RUNNING_MAX} runs are under way, the maximum`);
    const number = this.#lastNumber + 1;
    const id = `r${number}`;
    const appliances = what.parts.map((part) => waitingProgress(id, part.appliance, this.#at()));
    const record: RunRecord = {
      number,
      run: {
        protocol: PROTOCOL_VERSION,
        id,
        trigger: what.trigger,
        ...what.scope,
        state: 'running',
        createdAt: this.#at(),
        endedAt: null,
        closesAt: null,
        bytesTotal: 0,
        bytesDone: 0,
        appliances,
      },
      parts: Object.fromEntries(what.parts.map((part) => [part.appliance, part])),
    };
    return this.#install(record, what.plans);
  }

  async #join(id: string, parts: readonly Part[], plans: readonly FillPlan[]): Promise<Run> {
    const { number, run, parts: before } = this.get(id);
    const fresh = parts
      .filter((part) => before[part.appliance] === undefined)
      .map((part) => waitingProgress(id, part.appliance, this.#at()));
    return this.#install(
      {
        number,
        run: { ...run, appliances: [...run.appliances, ...fresh] },
        parts: { ...before, ...Object.fromEntries(parts.map((part) => [part.appliance, part])) },
      },
      plans,
    );
  }

  async #progress(report: FillProgress): Promise<Run> {
    const record = this.get(report.run);
    const part = record.parts[report.appliance];
    if (part === undefined)
      throw new Fault('not_found', `appliance ${report.appliance} takes no part in run ${report.run}`);
    const plan = this.#plans.get(report.appliance);
    // An appliance still at an older plan is alive, and comes to the one in force when it is through.
    if (plan !== undefined) this.#hear(plan.run, report.appliance);
    if (record.run.state !== 'running' || part.superseded || plan?.id !== report.plan) return record.run;
    return this.#save(withProgress(record, report));
  }

  async #end(id: string, appliance: string, how: Ending): Promise<Run> {
    const record = this.get(id);
    const before = record.run.appliances.find((p) => p.appliance === appliance)!;
    if (hasEnded(before)) return record.run;
    const fault = { asset: '', code: how.code, message: how.message };
    const faults = how.state === 'failed' ? [...before.faults.slice(0, 19), fault] : before.faults;
    return this.#save(withProgress(record, { ...before, state: how.state, bytesPerSecond: 0, faults, at: this.#at() }));
  }

  /** Writes the run with its plans in one batch; parts of other runs that these plans replace are closed. */
  async #install(record: RunRecord, plans: readonly FillPlan[]): Promise<Run> {
    const at = this.#at();
    const planned = plans.reduce((r, plan) => withProgress(r, plannedProgress(plan, at)), record);
    const closes = plans.map((plan) => plan.closesAt).filter((closesAt) => closesAt !== null);
    const next = { ...planned, run: { ...planned.run, closesAt: closes.sort().at(-1) ?? planned.run.closesAt } };
    const superseded = this.running()
      .filter((other) => other.run.id !== record.run.id)
      .map((other) => supersede(other, plans, at))
      .filter((other) => other !== null);
    const records = [...superseded, next].map((changed) => settled(changed, at));
    const opened = Object.values(next.parts).filter(
      (part) => part.opensAt !== null && plans.some((p) => p.appliance === part.appliance),
    );
    const dropped = this.#endedBeyondLimit();
    await commit(this.#deps.state, [
      ...records.map(put),
      ...plans.map((plan): Write => ({ type: 'put', key: `plan!${plan.appliance}`, value: plan })),
      ...opened.map((part): Write => ({ type: 'put', key: `opened!${part.appliance}`, value: part.opensAt })),
      ...dropped.map((old): Write => ({ type: 'del', key: keyOf(old) })),
    ]);
    for (const old of dropped) this.#records.delete(old.run.id);
    for (const plan of plans) {
      this.#plans.set(plan.appliance, plan);
      this.#hear(record.run.id, plan.appliance);
      this.#deps.metrics.add('larder_fill_planned_bytes_total', plan.addBytes);
    }
    for (const part of opened) this.#opened.set(part.appliance, part.opensAt!);
    for (const changed of records) this.#keep(changed);
    return this.get(record.run.id).run;
  }

  async #save(record: RunRecord): Promise<Run> {
    const next = settled(record, this.#at());
    const { key, value } = put(next);
    await this.#deps.state.put(key, value, { sync: next.run.state !== 'running' });
    return this.#keep(next);
  }

  #keep(record: RunRecord): Run {
    const before = this.#records.get(record.run.id);
    this.#records.set(record.run.id, record);
    this.#lastNumber = Math.max(this.#lastNumber, record.number);
    this.#deps.metrics.set('larder_fill_runs_running', this.running().length);
    if (record.run.state !== 'running' && before?.run.state !== record.run.state) {
      this.#deps.metrics.add('larder_fill_runs_total', 1, { state: record.run.state });
      this.#deps.log.info({ run: record.run.id, state: record.run.state, bytes: record.run.bytesDone }, 'run ended');
      for (const appliance of Object.keys(record.parts)) this.#heard.delete(`${record.run.id}!${appliance}`);
    }
    return record.run;
  }

  /** The oldest ended runs beyond `RUNS_KEPT`. */
  #endedBeyondLimit(): RunRecord[] {
    const ended = [...this.#records.values()]
      .filter((r) => r.run.state !== 'running')
      .sort((a, b) => a.number - b.number);
    return ended.slice(0, Math.max(0, ended.length - RUNS_KEPT));
  }

  #hear(run: string, appliance: string): void {
    this.#heard.set(`${run}!${appliance}`, this.#deps.clock.monotonic());
  }

  #at(): string {
    return new Date(this.#deps.clock.now()).toISOString();
  }
}

const keyOf = (record: RunRecord): string => `run!${ordered(record.number)}`;
const put = (record: RunRecord): Write & { type: 'put' } => ({ type: 'put', key: keyOf(record), value: record });
