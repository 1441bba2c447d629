// Starts a demo fleet with the sample titles imported and filled, for tests of players.

import { DemoFleet } from '../ops/demo/fleet.ts';
import { fillNow, importTitles } from '../ops/demo/scenario.ts';
import { SILENT_PROGRESS } from '../ops/progress.ts';

export async function startFilledFleet(): Promise<DemoFleet> {
  const fleet = await DemoFleet.prepare({ port: null, fillRate: null, ports: 'any', keep: false });
  try {
    await fleet.start();
    await importTitles(fleet, SILENT_PROGRESS);
    await fillNow(fleet, SILENT_PROGRESS);
    return fleet;
  } catch (error) {
    await fleet.close();
    throw error;
  }
}
