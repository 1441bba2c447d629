// Question: how much CPU does a MiB take that comes from the origin, goes to a client and is stored, compared with nginx slice?
// Decision it informs: how often bytes of a miss are copied, and between which processes.
// In a fleet every MiB is digested before anybody gets it: that may cost what sha256 costs, and nothing else.
//
// What a cache leaves dirty in the page cache is written to disk by kernel threads. A sync makes that part of the round, and their CPU
// time is added to the contestant's: Larder writes every block through by itself. Before each round all files leave the page cache, so that
// the pages of new ones are such as have been used before, as in a machine that has served for a day. In a virtual machine, pages that nobody has used
// lately cost nginx 2.5 ms of CPU a MiB more.

import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Agent, request } from 'undici';
import { systemClock } from '../runtime/clock.ts';
import { writeAssets } from './assets.ts';
import {
  compareWithPeers,
  interleave,
  median,
  ratioAtMost,
  type Bench,
  type Parameters,
  type Samples,
} from './bench.ts';
import { startClients } from './client-pool.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, type Contestant } from './contestants.ts';
import { startFleet } from './fleet.ts';
import { evictFromPageCache } from './page-cache.ts';
import { processTreeUsage, writebackCpuMs } from './process-usage.ts';
import { CLIENT_CORE, withTestbed, type PinnedProcess, type Testbed } from './testbed.ts';

const CPU_RATIO_MAX = 1.2;
const MIB = 2 ** 20;

const run = promisify(execFile);

export const miss: Bench = {
  name: 'miss',
  question: 'CPU of a MiB that is fetched, served and stored, its way to the disk included',
  packages: ['nginx'],
  small: { pairs: 1, warmUps: 1, clients: 2, assetMiB: 4 },
  large: { pairs: 10, warmUps: 8, clients: 16, assetMiB: 16 },
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
      const bytes = assetMiB * MIB;
      const measure = (contestant: Contestant): Promise<number> =>
        cpuMsOfMisses(testbed, contestant, { clients, bytes });
      // The first misses of a process open its connections; Larder compiles its code as it runs, unlike its peers.
      for (const contestant of contestants) await measure(contestant);
      for (let count = 1; count < parameters['warmUps']!; count += 1) await measure(contestants[0]!);
      const samples = await interleave({ rounds: parameters['pairs']!, contestants, log }, async (contestant) => {
        const cpuMs = await measure(contestant);
        return cpuMs / (clients * assetMiB);
      });
      await testbed.stop(contestants[0]!.server);
      const catalogued = await cataloguedMisses({ testbed, parameters, root, origin, nginx: contestants[1]!, log });
      const sha256Ms = cpuMsOfSha256();
      const peers = peersOf(contestants);
      const finding = { unit: 'CPU ms/MiB', better: 'less', peers } as const;
      const most = CPU_RATIO_MAX * median(catalogued.get('nginx')!) + sha256Ms;
      return {
        peers,
        findings: [
          compareWithPeers({ ...finding, what: 'a miss', samples, bar: ratioAtMost(CPU_RATIO_MAX) }),
          compareWithPeers({
            ...{ ...finding, what: 'a catalogued miss', samples: catalogued },
            bar: { of: 'larder', at: 'most', value: most },
          }),
        ],
        notes: [`sha256 of a MiB takes ${sha256Ms.toFixed(2)} ms of CPU; the bar of a catalogued miss includes it.`],
      };
    }),
};

/** Misses of catalogued assets in a fleet that stores them, and of the same assets in nginx. Each round has a title of its own. */
async function cataloguedMisses(spec: {
  readonly testbed: Testbed;
  readonly parameters: Parameters;
  readonly root: string;
  readonly origin: Contestant;
  readonly nginx: Contestant;
  readonly log: (progress: string) => void;
}): Promise<Samples> {
  const { testbed, parameters, root, origin, nginx, log } = spec;
  const [clients, assetMiB] = [parameters['clients']!, parameters['assetMiB']!];
  const fleet = await startFleet(testbed, { origin: origin.url, flags: ['--admission', 'lru'] });
  const contestants = [{ name: 'larder', url: fleet.url, server: fleet.appliance }, nginx];
  const measure = async ({ url, server }: (typeof contestants)[0], title: string): Promise<number> => {
    const urls = Array.from({ length: clients }, (_, at) => `${url}/${title}/${at}.ts`);
    return cpuMsOf(testbed, server, async () => {
      const bytes = await Promise.all(urls.map(readWhole));
      if (bytes.some((each) => each !== assetMiB * MIB)) throw new Error(`${title}: a response is too short`);
    });
  };
  const putTitle = async (round: number): Promise<string> => {
    const title = `title-${round}`;
    writeTitle(root, title, clients);
    await fleet.importTitle(`${origin.url}/${title}/master.m3u8`, title);
    // The appliance asks for the catalog once a second when it does not know a key.
    while ((await request(`${fleet.url}/${title}/0.ts`, { method: 'HEAD' })).statusCode !== 200)
      await systemClock.sleep(100);
    return title;
  };
  let title = await putTitle(-1);
  for (const contestant of contestants) await measure(contestant, title);
  for (let count = 1; count < parameters['warmUps']!; count += 1)
    await measure(contestants[0]!, await putTitle(-1 - count));
  return interleave(
    { rounds: parameters['pairs']!, contestants, log: (progress) => log(`catalogued: ${progress}`) },
    async (contestant, round) => {
      if (contestant.name === 'larder') title = await putTitle(round);
      return (await measure(contestant, title)) / (clients * assetMiB);
    },
  );
}

/** Segments of a title are names of the one asset that the origin has. */
function writeTitle(root: string, title: string, segments: number): void {
  mkdirSync(join(root, title));
  const names = Array.from({ length: segments }, (_, at) => `${at}.ts`);
  for (const name of names) linkSync(join(root, 'asset-0'), join(root, title, name));
  const playlist = (...lines: readonly string[]): string => `#EXTM3U\n#EXT-X-VERSION:3\n${lines.join('\n')}\n`;
  writeFileSync(join(root, title, 'master.m3u8'), playlist('#EXT-X-STREAM-INF:BANDWIDTH=2000000', 'media.m3u8'));
  const media = names.map((name) => `#EXTINF:4,\n${name}`);
  writeFileSync(
    join(root, title, 'media.m3u8'),
    playlist('#EXT-X-TARGETDURATION:4', '#EXT-X-PLAYLIST-TYPE:VOD', ...media, '#EXT-X-ENDLIST'),
  );
}

/** How many bytes a client of its own receives. */
async function readWhole(url: string): Promise<number> {
  const dispatcher = new Agent();
  try {
    const { body, statusCode } = await request(url, { dispatcher });
    if (statusCode !== 200) throw new Error(`${url}: ${statusCode}`);
    let bytes = 0;
    for await (const chunk of body) bytes += (chunk as Buffer).length;
    return bytes;
  } finally {
    await dispatcher.destroy();
  }
}

function cpuMsOfSha256(): number {
  const block = randomBytes(MIB);
  const digest = (): unknown => createHash('sha256').update(block).digest();
  for (let count = 0; count < 50; count += 1) digest();
  const before = process.cpuUsage();
  for (let count = 0; count < 500; count += 1) digest();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000 / 500;
}

/** Each client reads an asset of its own that nobody has requested before. */
async function cpuMsOfMisses(
  testbed: Testbed,
  { name, url, server }: Contestant,
  { clients, bytes }: { readonly clients: number; readonly bytes: number },
): Promise<number> {
  return cpuMsOf(testbed, server, async () => {
    const pool = startClients(testbed, { url, clients, missShare: 1, missPath: '/asset-0?{}' });
    const { errors, bodyBytes } = await pool.ready;
    await pool.close();
    if (errors > 0 || bodyBytes !== clients * bytes)
      throw new Error(`${name}: ${errors} errors, ${bodyBytes} of ${clients * bytes} bytes`);
  });
}

/** CPU time of a contestant for a load, the way of its dirty pages to the disk included. */
async function cpuMsOf(testbed: Testbed, server: PinnedProcess, load: () => Promise<void>): Promise<number> {
  await evictFromPageCache(testbed.directory);
  const cpuMs = (): number => processTreeUsage(server.pid).cpuMs + writebackCpuMs();
  const before = cpuMs();
  await load();
  await run('sync', ['-f', testbed.directory]);
  return cpuMs() - before;
}
