// Whether an appliance may be given plays, and why not. Pure: what heartbeats and probes said, and the time, come in.
// A refused connection is an answer (nobody listens); silence may be the network's, so it needs a second witness.

import type { ApplianceState, Health } from '../protocol/heartbeat.ts';
import { formatDuration } from '../protocol/units.ts';

/** Probes in a row. Two good ones to come back from silence: hysteresis against flapping. */
export const PROBE_MISSES_MAX = 2;
export const PROBE_HITS_BACK = 2;

/** Self-preservation: below this share of leases alive, and with silence on probes too, steering is the one cut off. */
export const FREEZE_EXPECTED_MIN = 10;
export const FREEZE_ALIVE_SHARE = 0.85;
/** An appliance counts as expected for so long after its lease; then its absence is the truth, and a freeze ends. */
export const EXPECTED_MS = 3_600_000;

export type ProbeResult = 'answered' | 'refused' | 'missed';

export interface Probing {
  readonly standing: 'untried' | 'ok' | 'refused' | 'silent';
  /** In a row. */
  readonly hits: number;
  readonly misses: number;
}

export const UNTRIED: Probing = { standing: 'untried', hits: 0, misses: 0 };

export function afterProbe(before: Probing, result: ProbeResult): Probing {
  if (result === 'refused') return { standing: 'refused', hits: 0, misses: 0 };
  if (result === 'answered') {
    const hits = before.hits + 1;
    const back = before.standing !== 'silent' || hits >= PROBE_HITS_BACK;
    return { standing: back ? 'ok' : 'silent', hits, misses: 0 };
  }
  const misses = before.misses + 1;
  const silent = misses >= PROBE_MISSES_MAX && before.standing !== 'refused';
  return { standing: silent ? 'silent' : before.standing, hits: 0, misses };
}

/** What is known of one appliance; everything that a judgement needs. */
export interface Condition {
  /** Until the lease ends; negative once it has. */
  readonly leaseLeftMs: number;
  readonly url: string;
  readonly probing: Probing;
  readonly state: ApplianceState;
  readonly health: Health;
  /** Drained by the operator, at this moment. */
  readonly drained: boolean;
  readonly connections: number;
  readonly connectionsMax: number;
}

export interface Judgement {
  readonly liveness: 'alive' | 'expired' | 'refused';
  /** Null: it may be given plays. Else the reason, as a person reads it. */
  readonly refusal: string | null;
  /** True where a running play should move away from it too; a full one keeps the viewers it has. */
  readonly leave: boolean;
}

export function judge(condition: Condition, frozen: boolean): Judgement {
  const { probing, leaseLeftMs, url } = condition;
  const liveness = probing.standing === 'refused' ? 'refused' : leaseLeftMs <= 0 && !frozen ? 'expired' : 'alive';
  const gone = goneReason(condition, frozen);
  if (gone !== null) return { liveness, refusal: gone, leave: true };
  if (probing.standing === 'silent' && !frozen)
    return { liveness, refusal: `${PROBE_MISSES_MAX} probes of ${url} in a row got no answer`, leave: true };
  if (condition.connections >= condition.connectionsMax)
    return {
      liveness,
      // No count that changes with each heartbeat: history would take a row for every one.
      refusal: `it is full: all of its ${condition.connectionsMax} connections are taken`,
      leave: false,
    };
  return { liveness, refusal: null, leave: false };
}

export const lapsed = (agoMs: number): string => `its lease ended ${formatDuration(agoMs)} ago`;

function goneReason({ probing, leaseLeftMs, url, state, health, drained }: Condition, frozen: boolean): string | null {
  if (probing.standing === 'refused') return `nobody listens at ${url}`;
  if (leaseLeftMs <= 0 && !frozen) return lapsed(-leaseLeftMs);
  if (drained) return 'the operator drained it';
  if (state === 'starting' || state === 'draining' || state === 'stopped') return `it says that it is ${state}`;
  if (health.level === 'red') return `its health is red: ${health.causes.join('; ') || 'no cause given'}`;
  return null;
}

/**
 * True when so many expected appliances have vanished in silence at once that steering's own network is the likelier
 * cause: leases and silence are then ignored, refusals still count.
 */
export function isFrozen(conditions: readonly Pick<Condition, 'leaseLeftMs' | 'probing'>[]): boolean {
  const expected = conditions.filter(({ leaseLeftMs }) => leaseLeftMs > -EXPECTED_MS);
  if (expected.length < FREEZE_EXPECTED_MIN) return false;
  const vanished = expected.filter(
    ({ leaseLeftMs, probing }) => leaseLeftMs <= 0 && (probing.standing === 'silent' || probing.standing === 'untried'),
  );
  return expected.length - vanished.length < expected.length * FREEZE_ALIVE_SHARE;
}
