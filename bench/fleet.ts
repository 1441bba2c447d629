// A fleet of one appliance for benches: steering and fill on the core of the clients, the appliance on that of the contestants.

import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { run, type FillProgress } from '../protocol/plan.ts';
import { packageRoot } from '../runtime/paths.ts';
import { CLIENT_CORE, freePort, SERVER_CORE, waitForResponse, type PinnedProcess, type Testbed } from './testbed.ts';

const APPLIANCE = 'box';

const execute = promisify(execFile);

export interface BenchFleet {
  readonly url: string;
  readonly appliance: PinnedProcess;
  importTitle(url: string, id: string): Promise<void>;
  /** Fills an imported title. Returns the final progress of the appliance. */
  fill(title: string): Promise<FillProgress>;
}

/** `flags` are those of the appliance. */
export async function startFleet(
  testbed: Testbed,
  spec: { readonly origin: string; readonly flags?: readonly string[] },
): Promise<BenchFleet> {
  const home = testbed.makeDirectory('fleet');
  const larder = join(packageRoot, 'dist', 'larder.js');
  const [steering, fill, video, admin] = await Promise.all(
    (['steering', 'fill', 'video', 'admin'] as const).map(async () => `127.0.0.1:${await freePort()}`),
  );
  const [toSteering, toFill] = [
    ['--steering', `http://${steering}`],
    ['--fill', `http://${fill}`],
  ] as const;
  const key = ['--fleet-key', join(home, 'fleet.key')];
  const start = async (
    name: string,
    { core, ready, args }: { readonly core: number; readonly ready: string; readonly args: readonly string[] },
  ): Promise<PinnedProcess> => {
    mkdirSync(join(home, name));
    const common = ['--origin', spec.origin, '--state', join(home, name), ...key];
    const started = testbed.spawn(name, core, [process.execPath, larder, ...args, ...common]);
    await waitForResponse(`http://${ready}`, started);
    return started;
  };
  await start('fill', {
    ...{ core: CLIENT_CORE, ready: `${fill}/healthz` },
    args: ['fill', 'serve', '--listen', fill!, ...toSteering],
  });
  await start('steering', {
    ...{ core: CLIENT_CORE, ready: `${steering}/healthz` },
    args: ['steering', 'run', '--listen', steering!, ...toFill],
  });
  const appliance = await start('appliance', {
    ...{ core: SERVER_CORE, ready: `${admin}/readyz` },
    args: [
      ...['appliance', 'run', '--id', APPLIANCE, '--site', 'site', '--workers', '1'],
      ...['--listen', video!, '--advertise', `http://${video}`, '--admin', admin!],
      ...['--store', join(home, 'store'), '--store-bytes', '20GB'],
      ...[...toSteering, ...toFill, ...(spec.flags ?? [])],
    ],
  });
  const verb = async (...args: readonly string[]): Promise<string> => {
    const { stdout } = await execute(process.execPath, [larder, ...args, ...toSteering, ...toFill, ...key, '--json']);
    return stdout;
  };
  return {
    url: `http://${video}`,
    appliance,
    importTitle: async (url, id) => void (await verb('catalog', 'import', url, '--title', id)),
    fill: async (title) => {
      const ended = run.parse(JSON.parse(await verb('fill', 'run', '--now', '--title', title)));
      const progress = ended.appliances.find((each) => each.appliance === APPLIANCE);
      if (progress?.state !== 'done') throw new Error(`the fill of ${title} ended ${progress?.state}`);
      return progress;
    },
  };
}
