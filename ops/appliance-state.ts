// The state of an appliance, shared by the verbs `ls`, `show`, `drain` and `resume`: looking it up at steering, changing it, and
// naming it for an operator.

import { z } from 'zod';
import {
  fleet,
  fleetAppliance,
  stateOrder,
  type Fleet,
  type FleetAppliance,
  type StateOrder,
} from '../protocol/decision.ts';
import { Fault } from '../protocol/faults.ts';
import { systemClock } from '../runtime/clock.ts';
import type { ControlClient } from './control-client.ts';
import { poll } from './poll.ts';
import type { Tone } from './terminal.ts';

const CONFIRM_TIMEOUT_MS = 8_000;
const POLL_MS = 250;

/** Throws `not_found`, which lists the appliances that exist. */
export async function findAppliance(
  client: ControlClient,
  id: string,
): Promise<{ readonly appliance: FleetAppliance; readonly at: string }> {
  const answer: Fleet = await client.steering('/v1/fleet?inventory=1', fleet);
  const appliance = answer.appliances.find((row) => row.id === id);
  if (appliance !== undefined) return { appliance, at: answer.at };
  const ids = answer.appliances.map((row) => row.id).join(', ');
  throw new Fault('not_found', `no appliance is called "${id}"; steering knows ${ids === '' ? 'none' : ids}`);
}

/**
 * Orders an appliance to drain or to serve. Steering delivers the order with its response to the next heartbeat; resolves once
 * steering shows the new state, or after 8 s with the state shown then.
 */
export async function setApplianceState(client: ControlClient, id: string, order: StateOrder): Promise<FleetAppliance> {
  // Looked up first, so that the fault for a mistyped id lists the valid ones.
  await findAppliance(client, id);
  await client.steering(`/v1/appliances/${encodeURIComponent(id)}/state`, z.unknown(), {
    method: 'PUT',
    body: stateOrder.parse(order),
  });
  const draining = order.state === 'draining';
  const scheduled = order.at !== null && Date.parse(order.at) > systemClock.now();
  const confirmed = await poll(
    async () => {
      const { appliance } = await findAppliance(client, id);
      return scheduled || (appliance.draining !== null) === draining ? appliance : null;
    },
    { everyMs: POLL_MS, signal: AbortSignal.timeout(CONFIRM_TIMEOUT_MS) },
  );
  return fleetAppliance.parse(confirmed ?? (await findAppliance(client, id)).appliance);
}

/** Whether players are sent to the appliance, and if not, why. */
export function displayState(row: FleetAppliance, nowMs: number): string {
  if (row.liveness === 'refused') return 'gone';
  if (row.liveness === 'expired') return 'silent';
  return isDraining(row, nowMs) ? 'draining' : row.state;
}

export function stateTone(row: FleetAppliance, nowMs: number): Tone {
  if (row.liveness !== 'alive' || row.health.level === 'red') return 'bad';
  if (isDraining(row, nowMs) || row.health.level === 'yellow') return 'warn';
  return row.state === 'serving' || row.state === 'filling' ? 'good' : 'warn';
}

/** A drain may be scheduled. Until it begins the appliance receives plays. */
const isDraining = ({ draining }: FleetAppliance, nowMs: number): boolean =>
  draining !== null && Date.parse(draining.since) <= nowMs;
