// The record of a run: pure functions from one record to the next. A run ends when each of its appliances is done, failed or
// closed.

import { PROTOCOL_VERSION } from '../../protocol/ids.ts';
import type { FillPlan, FillProgress, Run } from '../../protocol/plan.ts';

/** What is known of one appliance's part in a run besides its progress. */
export interface Part {
  readonly appliance: string;
  readonly site: string;
  /** The appliance's window for this run; null for a run with `--now`. */
  readonly opensAt: number | null;
  readonly closesAt: number | null;
  /** Set when a later run's plan took the place of this one's: its progress no longer counts. */
  readonly superseded: boolean;
}

export interface RunRecord {
  readonly number: number;
  readonly run: Run;
  readonly parts: Readonly<Record<string, Part>>;
}

const ENDED = new Set<FillProgress['state']>(['done', 'failed', 'closed']);

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

/** What is shown before the appliance has spoken. */
export const plannedProgress = (plan: FillPlan, at: string): FillProgress => ({
  ...NO_PROGRESS,
  run: plan.run,
  plan: plan.id,
  appliance: plan.appliance,
  bytesTotal: plan.addBytes,
  renditionsTotal: plan.add.length,
  at,
});

export const hasEnded = (progress: FillProgress): boolean => ENDED.has(progress.state);

export function withProgress(record: RunRecord, progress: FillProgress): RunRecord {
  const appliances = record.run.appliances.map((p) => (p.appliance === progress.appliance ? progress : p));
  return { ...record, run: { ...record.run, appliances } };
}

/** Null where none of its parts is replaced. */
export function supersede(record: RunRecord, plans: readonly FillPlan[], at: string): RunRecord | null {
  const taken = new Set(plans.map((plan) => plan.appliance));
  const lost = record.run.appliances.filter((p) => taken.has(p.appliance) && p.plan !== '' && !hasEnded(p));
  if (lost.length === 0) return null;
  const closed = lost.reduce((r, p) => withProgress(r, { ...p, state: 'closed', bytesPerSecond: 0, at }), record);
  const parts = Object.fromEntries(
    Object.entries(closed.parts).map(([id, part]) => [id, taken.has(id) ? { ...part, superseded: true } : part]),
  );
  return { ...closed, parts };
}

/** Sums, and the end where every appliance has ended. */
export function settled(record: RunRecord, at: string): RunRecord {
  const { appliances } = record.run;
  const bytesTotal = appliances.reduce((total, p) => total + p.bytesTotal, 0);
  const bytesDone = appliances.reduce((total, p) => total + p.bytesDone, 0);
  const run = { ...record.run, bytesTotal, bytesDone };
  if (!appliances.every(hasEnded)) return { ...record, run };
  const state = appliances.some((p) => p.state === 'failed')
    ? 'failed'
    : appliances.some((p) => p.state === 'closed')
      ? 'closed'
      : 'done';
  return { ...record, run: { ...run, state, endedAt: run.endedAt ?? at } };
}

/** Before the appliance's window has opened. */
export const waitingProgress = (run: string, appliance: string, at: string): FillProgress => ({
  ...NO_PROGRESS,
  run,
  appliance,
  at,
});
