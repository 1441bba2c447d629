// Question: how much CPU does a MiB take that comes from the origin, goes to a client and is stored, compared with nginx slice?
// Decision it informs: how often bytes of a miss are copied, and between which processes.
//
// What a cache leaves dirty in the page cache is written to disk by kernel threads. A sync makes that part of the round, and their CPU
// time is added to the contestant's: Larder writes every block through by itself.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { writeAssets } from './assets.ts';
import { compareWithPeers, interleave, ratioAtMost, type Bench } from './bench.ts';
import { startClients } from './client-pool.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, type Contestant } from './contestants.ts';
import { processTreeUsage, writebackCpuMs } from './process-usage.ts';
import { CLIENT_CORE, withTestbed, type Testbed } from './testbed.ts';

const CPU_RATIO_MAX = 1.2;
const MIB = 2 ** 20;

const run = promisify(execFile);

export const miss: Bench = {
  name: 'miss',
  question: 'CPU of a MiB that is fetched, served and stored, its way to the disk included',
  packages: ['nginx'],
  small: { pairs: 1, clients: 2, assetMiB: 4 },
  large: { pairs: 10, clients: 16, assetMiB: 16 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const [clients, assetMiB] = [parameters['clients']!, parameters['assetMiB']!];
      const root = testbed.makeDirectory('root');
      writeAssets(root, 1, assetMiB * MIB);
      const origin = await startNginxStatic(testbed, { root, core: CLIENT_CORE });
      const contestants = [
        await startLarder(testbed, { origin: origin.url }),
        await startNginxCache(testbed, { origin: origin.url }),
      ];
      const measure = (contestant: Contestant): Promise<number> =>
        cpuMsOfMisses(testbed, contestant, { clients, bytes: assetMiB * MIB });
      // The first misses of a process open its connections and compile its code.
      for (const contestant of contestants) await measure(contestant);
      const samples = await interleave({ rounds: parameters['pairs']!, contestants, log }, async (contestant) => {
        const cpuMs = await measure(contestant);
        return cpuMs / (clients * assetMiB);
      });
      const peers = peersOf(contestants);
      const finding = { what: 'a miss', unit: 'CPU ms/MiB', better: 'less', samples, peers } as const;
      return { peers, findings: [compareWithPeers({ ...finding, bar: ratioAtMost(CPU_RATIO_MAX) })] };
    }),
};

/** Each client reads an asset of its own that nobody has requested before. */
async function cpuMsOfMisses(
  testbed: Testbed,
  { name, url, server }: Contestant,
  { clients, bytes }: { readonly clients: number; readonly bytes: number },
): Promise<number> {
  await run('sync', ['-f', testbed.directory]);
  const cpuMs = (): number => processTreeUsage(server.pid).cpuMs + writebackCpuMs();
  const before = cpuMs();
  const pool = startClients(testbed, { url, clients, missShare: 1, missPath: '/asset-0?{}' });
  const { errors, bodyBytes } = await pool.ready;
  await pool.close();
  if (errors > 0 || bodyBytes !== clients * bytes)
    throw new Error(`${name}: ${errors} errors, ${bodyBytes} of ${clients * bytes} bytes`);
  await run('sync', ['-f', testbed.directory]);
  return cpuMs() - before;
}
