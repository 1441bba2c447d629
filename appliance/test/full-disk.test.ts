// A real disk that is full: blocks pass through without being stored, no reader loses a byte, and storing resumes when there
// is room again.

import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { sendRequest } from './http-client.ts';
import { expectFallback } from './metrics.ts';
import { noise, RunningAppliance, ScriptedOrigin } from './rig.ts';

const MB = 2 ** 20;
const isRoot = process.getuid?.() === 0;
let appliance: RunningAppliance;
let origin: ScriptedOrigin;
let mounted: string | null = null;

afterEach(async () => {
  if (appliance.process.exitCode === null) await appliance.killAll('SIGKILL');
  if (mounted !== null) execFileSync('umount', ['-l', mounted]);
  mounted = null;
  await appliance.stop();
  await origin.stop();
});

test.skipIf(!isRoot)(
  'on a full disk blocks pass through unstored (store_full_pass), and are stored again once there is room',
  async () => {
    origin = await ScriptedOrigin.start();
    const film = origin.put('/film', noise(20 * MB));
    const isServed = async (path: string, bytes: Buffer): Promise<boolean> =>
      (await sendRequest(appliance.port, { path })).body.equals(bytes);
    appliance = await RunningAppliance.start({ origin: origin.url });
    await appliance.killAll('SIGTERM');
    // A disk of 8 MB below a store that was given 10 GB.
    const [store] = appliance.stores();
    rmSync(store!, { recursive: true });
    mkdirSync(store!);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', store!]);
    mounted = store!;
    await appliance.start();
    for (let count = 0; count < 3; count += 1) expect(await isServed('/film', film)).toBe(true);
    await expectFallback(appliance, 'store_full_pass');
    // Another program fills the disk to the last byte, so that the index has no room either; then its file goes.
    const filler = join(store!, 'of-another-program');
    for (let bytes = statfsSync(store!).bavail * 4096; bytes > 4096; bytes = statfsSync(store!).bavail * 4096)
      writeFileSync(filler, Buffer.alloc(bytes), { flag: 'a' });
    const other = origin.put('/other', noise(3 * MB, 5));
    for (let count = 0; count < 3; count += 1) expect(await isServed('/other', other)).toBe(true);
    execFileSync('mount', ['-o', 'remount,size=64m', store!]);
    rmSync(filler);
    await appliance.until(async () => {
      expect(await isServed('/other', other)).toBe(true);
      origin.requests.length = 0;
      expect(await isServed('/other', other)).toBe(true);
      return origin.requests.length === 0;
    });
  },
);
