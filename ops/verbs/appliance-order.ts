// What drain and resume share: the order is given to steering, and rides the answer to the appliance's next heartbeat.

import { fleetAppliance, stateOrder, type FleetAppliance, type StateOrder } from '../../protocol/decision.ts';
import { findAppliance } from './appliance-show.ts';
import { poll, type Services } from '../ask.ts';
import { z } from 'zod';

const CONFIRM_MS = 8_000;
const LOOK_MS = 250;

/** Sends the order and waits, bounded, until steering shows it. */
export async function orderState(services: Services, id: string, order: StateOrder): Promise<FleetAppliance> {
  // Asked first, so that a mistyped name is answered with the names there are.
  await findAppliance(services, id);
  await services.steering(`/v1/appliances/${encodeURIComponent(id)}/state`, z.unknown(), {
    method: 'PUT',
    body: stateOrder.parse(order),
  });
  const wanted = order.state === 'draining';
  const scheduled = order.at !== null && Date.parse(order.at) > Date.now();
  const seen = await poll(
    async () => {
      const { appliance } = await findAppliance(services, id);
      return scheduled || (appliance.draining !== null) === wanted ? appliance : null;
    },
    { everyMs: LOOK_MS, signal: AbortSignal.timeout(CONFIRM_MS) },
  );
  return fleetAppliance.parse(seen ?? (await findAppliance(services, id)).appliance);
}
