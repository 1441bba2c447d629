// Runs work with a demo fleet. The fleet is closed before the exit status is returned, whether the work ends by itself, by a
// fault, by Ctrl-C, by SIGTERM or with its terminal.

import { EXIT } from '../../runtime/process.ts';
import { DemoFleet, type FleetSpec } from './fleet.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Resolves to the exit status: that of `work`, or 130 after a signal. */
export async function withDemoFleet(spec: FleetSpec, work: (fleet: DemoFleet) => Promise<number>): Promise<number> {
  const fleet = await DemoFleet.prepare(spec);
  let resolveSignal: (status: number) => void = () => undefined;
  const signalled = new Promise<number>((resolve) => {
    resolveSignal = resolve;
  });
  let interrupted = false;
  const onSignal = (): void => {
    // A second signal ends this process at once, and the reaper cleans up.
    if (interrupted) process.exit(EXIT.interrupted);
    interrupted = true;
    resolveSignal(EXIT.interrupted);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const working = work(fleet);
    // Errors of work that was interrupted are ignored.
    working.catch(() => undefined);
    return await Promise.race([working, signalled]);
  } finally {
    await fleet.close();
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
