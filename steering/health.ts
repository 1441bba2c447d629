// Whether an appliance is eligible for plays, and the reason if it is not, from its heartbeats, its probes and the time. Pure.
// A refused connection proves that nobody listens; silence may be the network's fault, so it takes more evidence.

import type { ApplianceState, Health } from '../protocol/heartbeat.ts';
import { formatDuration } from '../protocol/units.ts';

/** Consecutive misses after which an appliance counts as silent. */
export const PROBE_MISSES_MAX = 2;
/** Consecutive answers that end silence. Two, so that an appliance at the threshold does not flap. */
export const PROBE_ANSWERS_TO_RECOVER = 2;

/** Appliances that must be expected before the fleet may freeze. */
export const FREEZE_EXPECTED_MIN = 10;
/** The fleet freezes when the share of expected appliances that have not silently vanished falls below this. */
export const FREEZE_ALIVE_SHARE = 0.85;
/** How long an appliance stays expected after its lease expired. Afterwards its absence is accepted, which ends a freeze. */
export const EXPECTED_MS = 3_600_000;

export type ProbeResult = 'answered' | 'refused' | 'missed';

export interface ProbeState {
  readonly reachability: 'untried' | 'ok' | 'refused' | 'silent';
  /** Consecutive answers. */
  readonly answers: number;
  /** Consecutive misses. */
  readonly misses: number;
}

export const UNPROBED: ProbeState = { reachability: 'untried', answers: 0, misses: 0 };

export function afterProbe(before: ProbeState, result: ProbeResult): ProbeState {
  if (result === 'refused') return { reachability: 'refused', answers: 0, misses: 0 };
  if (result === 'answered') {
    const answers = before.answers + 1;
    const recovered = before.reachability !== 'silent' || answers >= PROBE_ANSWERS_TO_RECOVER;
    return { reachability: recovered ? 'ok' : 'silent', answers, misses: 0 };
  }
  const misses = before.misses + 1;
  const silent = misses >= PROBE_MISSES_MAX && before.reachability !== 'refused';
  return { reachability: silent ? 'silent' : before.reachability, answers: 0, misses };
}

/** Everything about one appliance that its eligibility depends on. */
export interface Condition {
  /** Time until the lease ends; negative once it has. */
  readonly leaseLeftMs: number;
  readonly url: string;
  readonly probeState: ProbeState;
  readonly state: ApplianceState;
  readonly health: Health;
  /** Whether a drain ordered by the operator is in force. */
  readonly drained: boolean;
  readonly connections: number;
  readonly connectionsMax: number;
}

export interface Eligibility {
  readonly liveness: 'alive' | 'expired' | 'refused';
  /** The reason why it may not be given plays, as a person reads it; null if it may. */
  readonly refusal: string | null;
  /** Whether running plays should move to another pathway. A full appliance keeps the viewers that it has. */
  readonly steerAway: boolean;
}

export function eligibilityOf(condition: Condition, frozen: boolean): Eligibility {
  const liveness = livenessOf(condition, frozen);
  const unusable = unusableReason(condition, frozen);
  if (unusable !== null) return { liveness, refusal: unusable, steerAway: true };
  if (condition.connections >= condition.connectionsMax)
    return {
      liveness,
      // The sentence states no current count: history would store another row for every heartbeat.
      refusal: `it is full: all of its ${condition.connectionsMax} connections are taken`,
      steerAway: false,
    };
  return { liveness, refusal: null, steerAway: false };
}

function livenessOf({ probeState, leaseLeftMs }: Condition, frozen: boolean): Eligibility['liveness'] {
  if (probeState.reachability === 'refused') return 'refused';
  return leaseLeftMs <= 0 && !frozen ? 'expired' : 'alive';
}

export const leaseExpired = (agoMs: number): string => `its lease ended ${formatDuration(agoMs)} ago`;

function unusableReason(condition: Condition, frozen: boolean): string | null {
  const { probeState, leaseLeftMs, url, state, health, drained } = condition;
  if (probeState.reachability === 'refused') return `nobody listens at ${url}`;
  if (leaseLeftMs <= 0 && !frozen) return leaseExpired(-leaseLeftMs);
  if (drained) return 'the operator drained it';
  if (state === 'starting' || state === 'draining' || state === 'stopped') return `it says that it is ${state}`;
  if (health.level === 'red') return `its health is red: ${health.causes.join('; ') || 'no cause given'}`;
  if (probeState.reachability === 'silent' && !frozen)
    return `${PROBE_MISSES_MAX} probes of ${url} in a row got no answer`;
  return null;
}

/**
 * Self-preservation: true if so many expected appliances vanished in silence at once that steering itself is probably cut off.
 * Expired leases and silence are then ignored; refused connections still count.
 */
export function isFrozen(conditions: readonly Pick<Condition, 'leaseLeftMs' | 'probeState'>[]): boolean {
  const expected = conditions.filter(({ leaseLeftMs }) => leaseLeftMs > -EXPECTED_MS);
  if (expected.length < FREEZE_EXPECTED_MIN) return false;
  const vanished = expected.filter(
    ({ leaseLeftMs, probeState: { reachability } }) =>
      leaseLeftMs <= 0 && (reachability === 'silent' || reachability === 'untried'),
  );
  return expected.length - vanished.length < expected.length * FREEZE_ALIVE_SHARE;
}
