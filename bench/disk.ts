// Question: how long do requests for cached assets wait while others wait for a slow disk?
// Decision it informs: which reads may be synchronous, and how a worker distinguishes hot files from cold ones.
//
// The files are on a real block device, whose reads the kernel throttles (cgroup v1, blkio) for the contestant alone.

import { existsSync, mkdirSync, readdirSync, readlinkSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { numberedUrls, warmUp, writeAssets } from './assets.ts';
import { startClients } from './client-pool.ts';
import { absolute, median, type Bench, type Finding, type Parameters } from './bench.ts';
import { h2load } from './h2load.ts';
import { evictFromPageCache, pinInPageCache } from './page-cache.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, type Contestant } from './contestants.ts';
import { processTreePids } from './process-usage.ts';
import { withTestbed, type Testbed } from './testbed.ts';

const BLKIO = '/sys/fs/cgroup/blkio';
const MIB = 2 ** 20;
const HOT_BYTES = 65_536;
/** Includes what a cache adds to the asset. */
const HOT_FILE_BYTES_MAX = 2 * HOT_BYTES;
const SLOWDOWN_MAX = 1.5;

export const disk: Bench = {
  name: 'disk',
  question: 'latency of hot assets while others wait for a disk of a few MB/s',
  packages: ['nginx', 'nghttp2-client'],
  small: {
    rounds: 1,
    seconds: 0.4,
    hotAssets: 8,
    coldAssets: 8,
    coldMiB: 8,
    coldReaders: 8,
    diskMBps: 8,
    rate: 200,
    memoryMiB: 16,
  },
  large: {
    rounds: 10,
    seconds: 4,
    hotAssets: 64,
    coldAssets: 32,
    coldMiB: 16,
    coldReaders: 32,
    diskMBps: 8,
    rate: 2_000,
    memoryMiB: 32,
  },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      if (!canThrottle())
        throw new Fault(
          'config_invalid',
          `the bench throttles a disk by ${BLKIO}: run it as root, with cgroup v1 and TMPDIR on a disk`,
        );
      const root = testbed.makeDirectory('root');
      writeAssets(root, parameters['hotAssets']!, HOT_BYTES);
      const cold = testbed.makeDirectory('root/cold');
      writeAssets(cold, parameters['coldAssets']!, parameters['coldMiB']! * MIB);
      const origin = await startNginxStatic(testbed, { root });
      const contestants = [
        // Its memory tier has room for the hot assets, and not for the cold ones.
        await startLarder(testbed, { origin: origin.url, flags: ['--memory-bytes', `${parameters['memoryMiB']!}MiB`] }),
        await startNginxCache(testbed, { origin: origin.url, aio: true }),
      ];
      const samples: LatencySample[][] = contestants.map(() => []);
      for (const contestant of contestants) {
        await warmUp(numberedUrls(`${contestant.url}/asset-`, parameters['hotAssets']!));
        await warmUp(numberedUrls(`${contestant.url}/cold/asset-`, parameters['coldAssets']!));
      }
      // Hot files stay in memory, even if the machine reclaims page cache.
      testbed.defer(pinInPageCache(testbed.directory, HOT_FILE_BYTES_MAX));
      for (const contestant of contestants) throttle(testbed, contestant, parameters['diskMBps']! * 1e6);
      for (let round = 0; round < parameters['rounds']!; round += 1) {
        for (const [at, contestant] of contestants.entries())
          samples[at]!.push(await sampleLatency(testbed, contestant, parameters));
        log(`round ${round + 1} of ${parameters['rounds']}`);
      }
      return { peers: peersOf(contestants), findings: findingsOf(samples) };
    }),
};

/** Whether a bench can throttle a disk on this machine. */
export const canThrottle = (): boolean =>
  process.getuid?.() === 0 &&
  existsSync(join(BLKIO, 'blkio.throttle.read_bps_device')) &&
  blockDeviceOf(tmpdir()) !== null;

interface LatencySample {
  readonly aloneMs: number;
  readonly withColdMs: number;
  readonly coldBytes: number;
}

async function sampleLatency(testbed: Testbed, contestant: Contestant, parameters: Parameters): Promise<LatencySample> {
  const hot = parameters['hotAssets']!;
  const measureP99 = async (): Promise<number> => {
    const result = await h2load({
      url: contestant.url,
      directory: testbed.directory,
      paths: numberedUrls('/asset-', hot),
      range: null,
      seconds: parameters['seconds']!,
      clients: 16,
      rate: parameters['rate']!,
    });
    if (result.failures.length > 0)
      throw new Error(`${contestant.name}: ${result.failures.length} failed requests, such as ${result.failures[0]}`);
    return result.p99Ms;
  };
  await evictFromPageCache(testbed.directory);
  await warmUp(numberedUrls(`${contestant.url}/asset-`, hot));
  const aloneMs = await measureP99();
  const pool = startClients(testbed, {
    url: contestant.url,
    mode: 'paced',
    clients: parameters['coldReaders']!,
    path: '/cold/asset-{}',
    assets: parameters['coldAssets']!,
    assetBytes: parameters['coldMiB']! * MIB,
    rangeBytes: MIB,
    bytesPerSecond: 1e9,
  });
  await pool.ready;
  const before = await pool.counts();
  const withColdMs = await measureP99();
  const after = await pool.counts();
  await pool.close();
  return { aloneMs, withColdMs, coldBytes: after.bodyBytes - before.bodyBytes };
}

function findingsOf(samples: readonly (readonly LatencySample[])[]): Finding[] {
  const row = (what: string, unit: string, pick: (sample: LatencySample) => number): Finding => {
    const [own, ...peers] = samples.map((each) => median(each.map(pick)));
    return { ...absolute(what, unit, own!, null), peers };
  };
  const slowdown = row('slowdown by cold reads', 'times', ({ withColdMs, aloneMs }) => withColdMs / aloneMs);
  return [
    row('hot p99 alone', 'ms', ({ aloneMs }) => aloneMs),
    row('hot p99 with cold reads', 'ms', ({ withColdMs }) => withColdMs),
    { ...slowdown, bar: { of: 'larder', at: 'most', value: SLOWDOWN_MAX } },
    row('bytes of cold reads', 'MB', ({ coldBytes }) => coldBytes / 1e6),
  ];
}

/** Limits what the process tree of a contestant reads from the device of the testbed. */
function throttle(testbed: Testbed, { name, server }: Contestant, bytesPerSecond: number): void {
  const group = join(BLKIO, `larder-bench-${process.pid}-${name}`);
  mkdirSync(group);
  testbed.defer(() => rmdirSync(group));
  writeFileSync(join(group, 'blkio.throttle.read_bps_device'), `${blockDeviceOf(testbed.directory)} ${bytesPerSecond}`);
  for (const pid of processTreePids(server.pid)) writeFileSync(join(group, 'cgroup.procs'), String(pid));
}

/** `major:minor` of the whole disk, because the kernel does not throttle partitions; null if the files are on no disk. */
function blockDeviceOf(path: string): string | null {
  const { dev } = statSync(path);
  const number = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  if (!existsSync(`/sys/dev/block/${number}`)) return null;
  if (!existsSync(`/sys/dev/block/${number}/partition`)) return number;
  const whole = basename(dirname(readlinkSync(`/sys/dev/block/${number}`)));
  return readdirSync('/sys/dev/block').find((each) => basename(readlinkSync(`/sys/dev/block/${each}`)) === whole)!;
}
