// The demo's fleet with the sample titles imported and filled: where players begin.

import { DemoFleet } from '../ops/demo/fleet.ts';
import { fillNow, importTitles } from '../ops/demo/scenario.ts';

export const SILENT = { show: (): void => undefined, stop: (): void => undefined };

export async function startFilledFleet(): Promise<DemoFleet> {
  const fleet = await DemoFleet.prepare({ port: null, fillRate: null, ports: 'any', keep: false });
  try {
    await fleet.start();
    await importTitles(fleet, SILENT);
    await fillNow(fleet, SILENT);
    return fleet;
  } catch (error) {
    await fleet.close();
    throw error;
  }
}
