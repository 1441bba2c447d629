// The record of a run, and pure functions from one record to the next. A run ends when each of its appliances is done, failed
// or closed.

import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan, FillProgress, Run } from '../../protocol/plan.ts';

/** An appliance that takes part in a run; its progress is in the run itself. */
export interface Participant {
  readonly appliance: string;
  readonly site: string;
  /** The appliance's window for this run; null for a run with `--now`. */
  readonly opensAt: number | null;
  readonly closesAt: number | null;
  /** Set when the plan of a later run has replaced this run's plan: progress no longer counts. */
  readonly superseded: boolean;
}

export interface RunRecord {
  readonly number: number;
  readonly run: Run;
  /** By appliance. */
  readonly participants: Readonly<Record<string, Participant>>;
}

/** A record as it is on disk, where layout 1 names the participants `parts`. */
export interface StoredRun extends Omit<RunRecord, 'participants'> {
  readonly parts: RunRecord['participants'];
}

export const toStored = ({ number, run, participants }: RunRecord): StoredRun => ({ number, run, parts: participants });

export const fromStored = ({ number, run, parts }: StoredRun): RunRecord => ({ number, run, participants: parts });

const ENDED_STATES = new Set<FillProgress['state']>(['done', 'failed', 'closed']);

const NO_PROGRESS = {
  protocol: PROTOCOL_VERSION,
  plan: '',
  state: 'waiting',
  bytesTotal: 0,
  bytesDone: 0,
  bytesResumed: 0,
  renditionsTotal: 0,
  renditionsDone: 0,
  bytesPerSecond: 0,
  faults: [],
} satisfies Partial<FillProgress>;

/** Progress of an appliance that has no plan yet: its window has not opened. */
export const waitingProgress = (runId: string, appliance: string, at: string): FillProgress => ({
  ...NO_PROGRESS,
  run: runId,
  appliance,
  at,
});

/** Progress of an appliance that has a plan, until its first report. */
export const plannedProgress = (plan: FillPlan, at: string): FillProgress => ({
  ...NO_PROGRESS,
  run: plan.run,
  plan: plan.id,
  appliance: plan.appliance,
  bytesTotal: plan.addBytes,
  renditionsTotal: plan.add.length,
  at,
});

export const hasEnded = (progress: FillProgress): boolean => ENDED_STATES.has(progress.state);

/** True for a participant that waits for its window. */
export const hasNoPlan = (progress: FillProgress): boolean => progress.plan === '';

export function withProgress(record: RunRecord, progress: FillProgress): RunRecord {
  const appliances = record.run.appliances.map((p) => (p.appliance === progress.appliance ? progress : p));
  return { ...record, run: { ...record.run, appliances } };
}

/** Closes the participants whose plans are replaced by `plans`. Null if there are none. */
export function supersede(record: RunRecord, plans: readonly FillPlan[], at: string): RunRecord | null {
  const replanned = new Set(plans.map((plan) => plan.appliance));
  const replaced = record.run.appliances.filter((p) => replanned.has(p.appliance) && !hasNoPlan(p) && !hasEnded(p));
  if (replaced.length === 0) return null;
  const closed = replaced.reduce((r, p) => withProgress(r, { ...p, state: 'closed', bytesPerSecond: 0, at }), record);
  const participants = Object.fromEntries(
    Object.entries(closed.participants).map(([id, participant]) => [
      id,
      replanned.has(id) ? { ...participant, superseded: true } : participant,
    ]),
  );
  return { ...closed, participants };
}

/** Sums the progress of the appliances, and ends the run once all of them have ended. */
export function summarize(record: RunRecord, at: string): RunRecord {
  const { appliances } = record.run;
  const bytesTotal = appliances.reduce((total, p) => total + p.bytesTotal, 0);
  const bytesDone = appliances.reduce((total, p) => total + p.bytesDone, 0);
  const run = { ...record.run, bytesTotal, bytesDone };
  if (!appliances.every(hasEnded)) return { ...record, run };
  return { ...record, run: { ...run, state: endState(appliances), endedAt: run.endedAt ?? at } };
}

function endState(appliances: readonly FillProgress[]): Run['state'] {
  if (appliances.some((p) => p.state === 'failed')) return 'failed';
  return appliances.some((p) => p.state === 'closed') ? 'closed' : 'done';
}
