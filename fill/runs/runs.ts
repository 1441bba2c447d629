// All runs and the current plan of each appliance, in memory and on disk. A run and its plans are written in one batch, progress
// as it is reported. Memory changes only after the commit, one change at a time.

import { Fault } from '../../protocol/faults.ts';
import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan, FillProgress, Run } from '../../protocol/plan.ts';
import type { Clock } from '../../runtime/clock.ts';
import type { Log } from '../../runtime/log.ts';
import { mutex } from '../../runtime/semaphore.ts';
import { commit, prefixRange, readAll, sortableNumber, type Database, type WriteOperation } from '../database.ts';
import type { FillMetrics } from '../metrics.ts';
import type { RunScope } from '../plan/fleet-plans.ts';
import {
  fromStored,
  hasEnded,
  plannedProgress,
  summarize,
  supersede,
  toStored,
  waitingProgress,
  withProgress,
  type Participant,
  type RunRecord,
  type StoredRun,
} from './run-record.ts';

export const ENDED_RUNS_MAX = 500;
const RUNNING_MAX = 1_000;
/** The protocol's limit of faults in one progress report. */
const FAULTS_MAX = 20;

interface RunsDeps {
  readonly database: Database;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: FillMetrics;
}

interface NewRun {
  readonly scope: RunScope;
  readonly trigger: Run['trigger'];
  /** Participants without a plan wait for their window. */
  readonly participants: readonly Participant[];
  readonly plans: readonly FillPlan[];
}

/** Why an appliance is given up in a run without having reported its end. */
export interface TerminationReason {
  readonly state: 'failed' | 'closed';
  readonly code: string;
  readonly message: string;
}

export class Runs {
  readonly #deps: RunsDeps;
  readonly #exclusively = mutex();
  readonly #records = new Map<string, RunRecord>();
  /** The current plan of each appliance. */
  readonly #plans = new Map<string, FillPlan>();
  /** Opening of the last window that each appliance was planned for. */
  readonly #plannedOpenings = new Map<string, number>();
  /** Monotonic instant of the last plan or report, by `run!appliance`. A restart counts as a sign of life. */
  readonly #lastSeen = new Map<string, number>();
  #lastNumber = 0;

  private constructor(deps: RunsDeps) {
    this.#deps = deps;
  }

  static async open(deps: RunsDeps): Promise<Runs> {
    const { database, metrics } = deps;
    const runs = new Runs(deps);
    for (const stored of await readAll<StoredRun>(database, 'run')) {
      const record = fromStored(stored);
      runs.#records.set(record.run.id, record);
      runs.#lastNumber = Math.max(runs.#lastNumber, record.number);
      if (record.run.state !== 'running') continue;
      for (const appliance of Object.keys(record.participants)) runs.#markSeen(record.run.id, appliance);
    }
    for (const plan of await readAll<FillPlan>(database, 'plan')) runs.#plans.set(plan.appliance, plan);
    for await (const [key, value] of database.iterator(prefixRange('opened')))
      runs.#plannedOpenings.set(key.slice('opened!'.length), Number(value));
    metrics.set('larder_fill_runs_running', runs.running().length);
    return runs;
  }

  /** The id that `create` gives to the next run. */
  nextId(): string {
    return idOf(this.#lastNumber + 1);
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

  /** Throws `not_found`. */
  get(runId: string): RunRecord {
    const record = this.#records.get(runId);
    if (record !== undefined) return record;
    const last = this.#lastNumber === 0 ? 'there has been none' : `the last is ${idOf(this.#lastNumber)}`;
    throw new Fault('not_found', `no run "${runId}" is known; ${last}`, {
      help: '`larder fill status` lists the runs.',
    });
  }

  currentPlan(applianceId: string): FillPlan | null {
    return this.#plans.get(applianceId) ?? null;
  }

  /** Opening of the last window that the appliance was planned for. */
  plannedOpening(applianceId: string): number | null {
    return this.#plannedOpenings.get(applianceId) ?? null;
  }

  /** Time since the appliance last gave a sign of life in a run. */
  silentMs(runId: string, applianceId: string): number {
    return this.#deps.clock.monotonic() - (this.#lastSeen.get(`${runId}!${applianceId}`) ?? 0);
  }

  /** Starts a run. Throws `overloaded`. */
  create(newRun: NewRun): Promise<Run> {
    return this.#exclusively(() => this.#create(newRun));
  }

  /** Adds participants to a run, or gives plans to those that waited for their window. */
  addParticipants(runId: string, participants: readonly Participant[], plans: readonly FillPlan[]): Promise<Run> {
    return this.#exclusively(() => this.#addParticipants(runId, participants, plans));
  }

  /**
   * Records what an appliance reports. A report that comes too late changes nothing: the run has ended, or the appliance has
   * another plan now.
   */
  recordProgress(progress: FillProgress): Promise<Run> {
    return this.#exclusively(() => this.#recordProgress(progress));
  }

  /** Ends an appliance's participation without its own report: it vanished, or its window closed. */
  terminate(runId: string, applianceId: string, reason: TerminationReason): Promise<Run> {
    return this.#exclusively(() => this.#terminate(runId, applianceId, reason));
  }

  async #create({ scope, trigger, participants, plans }: NewRun): Promise<Run> {
    if (this.running().length >= RUNNING_MAX)
      throw new Fault('overloaded', `${RUNNING_MAX} runs are under way, the maximum`);
    const number = this.#lastNumber + 1;
    const id = idOf(number);
    const at = this.#timestamp();
    const run: Run = {
      protocol: PROTOCOL_VERSION,
      id,
      trigger,
      ...scope,
      state: 'running',
      createdAt: at,
      endedAt: null,
      closesAt: null,
      bytesTotal: 0,
      bytesDone: 0,
      appliances: participants.map(({ appliance }) => waitingProgress(id, appliance, at)),
    };
    return this.#commitPlans({ number, run, participants: byAppliance(participants) }, plans);
  }

  async #addParticipants(
    runId: string,
    participants: readonly Participant[],
    plans: readonly FillPlan[],
  ): Promise<Run> {
    const { number, run, participants: existing } = this.get(runId);
    const added = participants
      .filter(({ appliance }) => existing[appliance] === undefined)
      .map(({ appliance }) => waitingProgress(runId, appliance, this.#timestamp()));
    return this.#commitPlans(
      {
        number,
        run: { ...run, appliances: [...run.appliances, ...added] },
        participants: { ...existing, ...byAppliance(participants) },
      },
      plans,
    );
  }

  async #recordProgress(progress: FillProgress): Promise<Run> {
    const record = this.get(progress.run);
    const participant = record.participants[progress.appliance];
    if (participant === undefined)
      throw new Fault('not_found', `appliance ${progress.appliance} takes no part in run ${progress.run}`);
    const plan = this.#plans.get(progress.appliance);
    // An appliance that still carries out an older plan is alive, and pulls its current plan when it is through.
    if (plan !== undefined) this.#markSeen(plan.run, progress.appliance);
    const isLate = record.run.state !== 'running' || participant.superseded || plan?.id !== progress.plan;
    return isLate ? record.run : this.#commitRecord(withProgress(record, progress));
  }

  async #terminate(runId: string, applianceId: string, { state, code, message }: TerminationReason): Promise<Run> {
    const record = this.get(runId);
    const progress = record.run.appliances.find((p) => p.appliance === applianceId)!;
    if (hasEnded(progress)) return record.run;
    const fault = { asset: '', code, message };
    const faults = state === 'failed' ? [...progress.faults.slice(0, FAULTS_MAX - 1), fault] : progress.faults;
    const ended = { ...progress, state, bytesPerSecond: 0, faults, at: this.#timestamp() };
    return this.#commitRecord(withProgress(record, ended));
  }

  /** Writes a run with its plans in one batch, which also closes participants of other runs whose plans these replace. */
  async #commitPlans(record: RunRecord, plans: readonly FillPlan[]): Promise<Run> {
    const at = this.#timestamp();
    const superseded = this.running()
      .filter((other) => other.run.id !== record.run.id)
      .map((other) => supersede(other, plans, at))
      .filter((other) => other !== null);
    const changed = [...superseded, withPlans(record, plans, at)].map((r) => summarize(r, at));
    const openings = plannedOpenings(record, plans);
    const dropped = this.#endedBeyondLimit();
    await commit(this.#deps.database, [
      ...changed.map(putRecord),
      ...plans.map((plan): WriteOperation => ({ type: 'put', key: `plan!${plan.appliance}`, value: plan })),
      ...openings.map(([id, opensAt]): WriteOperation => ({ type: 'put', key: `opened!${id}`, value: opensAt })),
      ...dropped.map((old): WriteOperation => ({ type: 'del', key: keyOf(old) })),
    ]);
    for (const old of dropped) this.#records.delete(old.run.id);
    for (const plan of plans) this.#applyPlan(plan);
    for (const [id, opensAt] of openings) this.#plannedOpenings.set(id, opensAt);
    for (const r of changed) this.#applyRecord(r);
    return this.get(record.run.id).run;
  }

  async #commitRecord(record: RunRecord): Promise<Run> {
    const summarized = summarize(record, this.#timestamp());
    const { key, value } = putRecord(summarized);
    // Progress comes each second and may be lost to a power failure; the end of a run may not.
    await this.#deps.database.put(key, value, { sync: summarized.run.state !== 'running' });
    this.#applyRecord(summarized);
    return summarized.run;
  }

  #applyPlan(plan: FillPlan): void {
    this.#plans.set(plan.appliance, plan);
    this.#markSeen(plan.run, plan.appliance);
    this.#deps.metrics.add('larder_fill_planned_bytes_total', plan.addBytes);
  }

  #applyRecord(record: RunRecord): void {
    const { metrics, log } = this.#deps;
    const { id, state, bytesDone } = record.run;
    const before = this.#records.get(id);
    this.#records.set(id, record);
    this.#lastNumber = Math.max(this.#lastNumber, record.number);
    metrics.set('larder_fill_runs_running', this.running().length);
    if (state === 'running' || before?.run.state === state) return;
    metrics.add('larder_fill_runs_total', 1, { state });
    log.info({ run: id, state, bytes: bytesDone }, 'run ended');
    for (const appliance of Object.keys(record.participants)) this.#lastSeen.delete(`${id}!${appliance}`);
  }

  /** The oldest ended runs beyond `ENDED_RUNS_MAX`. */
  #endedBeyondLimit(): RunRecord[] {
    const ended = [...this.#records.values()]
      .filter((record) => record.run.state !== 'running')
      .sort((a, b) => a.number - b.number);
    return ended.slice(0, Math.max(0, ended.length - ENDED_RUNS_MAX));
  }

  #markSeen(runId: string, applianceId: string): void {
    this.#lastSeen.set(`${runId}!${applianceId}`, this.#deps.clock.monotonic());
  }

  #timestamp(): string {
    return new Date(this.#deps.clock.now()).toISOString();
  }
}

const idOf = (number: number): string => `r${number}`;
const keyOf = (record: RunRecord): string => `run!${sortableNumber(record.number)}`;
const putRecord = (record: RunRecord): WriteOperation & { type: 'put' } => ({
  type: 'put',
  key: keyOf(record),
  value: toStored(record),
});

const byAppliance = (participants: readonly Participant[]): RunRecord['participants'] =>
  Object.fromEntries(participants.map((participant) => [participant.appliance, participant]));

/** The record with its participants planned; the run closes with the last of its plans. */
function withPlans(record: RunRecord, plans: readonly FillPlan[], at: string): RunRecord {
  const planned = plans.reduce((r, plan) => withProgress(r, plannedProgress(plan, at)), record);
  const closings = plans.map((plan) => plan.closesAt).filter((closesAt) => closesAt !== null);
  return { ...planned, run: { ...planned.run, closesAt: closings.sort().at(-1) ?? planned.run.closesAt } };
}

/** Appliance and opening of each participant that is planned for a window. */
function plannedOpenings(record: RunRecord, plans: readonly FillPlan[]): (readonly [string, number])[] {
  return plans.flatMap(({ appliance }) => {
    const opensAt = record.participants[appliance]?.opensAt ?? null;
    return opensAt === null ? [] : [[appliance, opensAt] as const];
  });
}
