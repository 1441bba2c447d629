// The frame of both demos: a fleet is prepared, something is done with it, and however that ends, by its own end, a fault,
// Ctrl-C, SIGTERM or a closed terminal, the fleet is gone before the status is returned.

import { EXIT } from '../../runtime/process.ts';
import { DemoFleet, type FleetSpec } from './fleet.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export async function onStage(spec: FleetSpec, work: (fleet: DemoFleet) => Promise<number>): Promise<number> {
  const fleet = await DemoFleet.prepare(spec);
  let resolveSignal: (status: number) => void = () => undefined;
  const signalled = new Promise<number>((resolve) => {
    resolveSignal = resolve;
  });
  let asked = false;
  const onSignal = (): void => {
    // Asked twice: leave at once; the warden ends what is left.
    if (asked) process.exit(EXIT.interrupted);
    asked = true;
    resolveSignal(EXIT.interrupted);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const working = work(fleet);
    // Whatever it meets after an interruption is of no interest any more.
    working.catch(() => undefined);
    return await Promise.race([working, signalled]);
  } finally {
    await fleet.close();
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
