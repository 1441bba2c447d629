// Question: how long do readers of a hot set wait while others wait for a slow disk?
// Decision it informs: which reads may be synchronous, and how a worker knows cold from hot.
//
// A real file system on a real block device, its reads throttled by the kernel (cgroup v1, blkio) for the contestant alone.

import { existsSync, mkdirSync, readdirSync, readlinkSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Fault } from '../protocol/faults.ts';
import { startAudience } from './audience.ts';
import { alone, median, type Bench, type Finding, type Parameters } from './bench.ts';
import { h2load } from './h2load.ts';
import { writeAssets } from './hot-ranges.ts';
import { dropPages, holdPages } from './page-cache.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, type Contestant } from './peers.ts';
import { pidsOf } from './proc.ts';
import { withRing, type Ring } from './ring.ts';
import { numbered, warm } from './warm.ts';

const BLKIO = '/sys/fs/cgroup/blkio';
const MIB = 2 ** 20;
const HOT_BYTES = 65_536;
/** With what a cache writes around it. */
const HOT_FILE_BYTES_MAX = 2 * HOT_BYTES;
const WAITING_BAR = 1.5;

export const disk: Bench = {
  name: 'disk',
  question: 'hot readers while cold readers wait for a disk of a few MB/s',
  packages: ['nginx', 'nghttp2-client'],
  small: { rounds: 1, seconds: 0.4, hotAssets: 8, coldAssets: 8, coldMiB: 8, coldReaders: 8, diskMBps: 8, rate: 200 },
  large: {
    rounds: 10,
    seconds: 4,
    hotAssets: 64,
    coldAssets: 32,
    coldMiB: 16,
    coldReaders: 32,
    diskMBps: 8,
    rate: 2_000,
  },
  run: (parameters, say) =>
    withRing(async (ring) => {
      if (!canThrottle())
        throw new Fault(
          'config_invalid',
          `the bench throttles a disk by ${BLKIO}: run it as root, with cgroup v1 and TMPDIR on a disk`,
        );
      const root = ring.room('root');
      writeAssets(root, parameters['hotAssets']!, HOT_BYTES);
      const cold = ring.room('root/cold');
      writeAssets(cold, parameters['coldAssets']!, parameters['coldMiB']! * MIB);
      const origin = await startNginxStatic(ring, { root });
      const contestants = [
        await startLarder(ring, { origin: origin.url }),
        await startNginxCache(ring, { origin: origin.url, aio: true }),
      ];
      const samples: Sample[][] = contestants.map(() => []);
      for (const contestant of contestants) {
        await warm(numbered(`${contestant.url}/asset-`, parameters['hotAssets']!));
        await warm(numbered(`${contestant.url}/cold/asset-`, parameters['coldAssets']!));
      }
      // Hot is what is in memory, whatever else this machine does with its own.
      ring.defer(holdPages(ring.directory, HOT_FILE_BYTES_MAX));
      for (const contestant of contestants) throttle(ring, contestant, parameters['diskMBps']! * 1e6);
      for (let round = 0; round < parameters['rounds']!; round += 1) {
        for (const [at, contestant] of contestants.entries())
          samples[at]!.push(await hotBesideCold(ring, contestant, parameters));
        say(`round ${round + 1} of ${parameters['rounds']}`);
      }
      return { peers: peersOf(contestants), findings: findingsOf(samples) };
    }),
};

/** Whether this machine lets a bench throttle a disk. */
export const canThrottle = (): boolean =>
  process.getuid?.() === 0 && existsSync(join(BLKIO, 'blkio.throttle.read_bps_device')) && deviceOf(tmpdir()) !== null;

interface Sample {
  readonly aloneMs: number;
  readonly besideMs: number;
  readonly coldBytes: number;
}

async function hotBesideCold(ring: Ring, contestant: Contestant, parameters: Parameters): Promise<Sample> {
  const hot = parameters['hotAssets']!;
  const ask = async (): Promise<number> => {
    const result = await h2load({
      url: contestant.url,
      directory: ring.directory,
      paths: numbered('/asset-', hot),
      range: null,
      seconds: parameters['seconds']!,
      clients: 16,
      rate: parameters['rate']!,
    });
    if (result.failures.length > 0)
      throw new Error(`${contestant.name}: ${result.failures.length} failed requests, such as ${result.failures[0]}`);
    return result.p99Ms;
  };
  await dropPages(ring.directory);
  await warm(numbered(`${contestant.url}/asset-`, hot));
  const aloneMs = await ask();
  const audience = startAudience(ring, {
    url: contestant.url,
    manner: 'paced',
    readers: parameters['coldReaders']!,
    path: '/cold/asset-{}',
    assets: parameters['coldAssets']!,
    assetBytes: parameters['coldMiB']! * MIB,
    rangeBytes: MIB,
    bytesPerSecond: 1e9,
  });
  await audience.ready;
  const before = await audience.counts();
  const besideMs = await ask();
  const after = await audience.counts();
  await audience.leave();
  return { aloneMs, besideMs, coldBytes: after.bodyBytes - before.bodyBytes };
}

function findingsOf(samples: readonly (readonly Sample[])[]): Finding[] {
  const row = (what: string, unit: string, pick: (sample: Sample) => number): Finding => {
    const [own, ...peers] = samples.map((each) => median(each.map(pick)));
    return { ...alone(what, unit, own!, null), peers };
  };
  const slower = row('beside cold ÷ alone', 'times', ({ besideMs, aloneMs }) => besideMs / aloneMs);
  return [
    row('hot p99 alone', 'ms', ({ aloneMs }) => aloneMs),
    row('hot p99 beside cold', 'ms', ({ besideMs }) => besideMs),
    { ...slower, bar: { of: 'larder', at: 'most', value: WAITING_BAR } },
    row('read by the cold', 'MB', ({ coldBytes }) => coldBytes / 1e6),
  ];
}

/** The kernel's own limit on what this process tree reads of the device below the ring. */
function throttle(ring: Ring, { name, running }: Contestant, bytesPerSecond: number): void {
  const group = join(BLKIO, `larder-bench-${process.pid}-${name}`);
  mkdirSync(group);
  ring.defer(() => rmdirSync(group));
  writeFileSync(join(group, 'blkio.throttle.read_bps_device'), `${deviceOf(ring.directory)} ${bytesPerSecond}`);
  for (const pid of pidsOf(running.pid)) writeFileSync(join(group, 'cgroup.procs'), String(pid));
}

/** `major:minor` of the whole disk, for the kernel throttles no partition; null where the files are on none. */
function deviceOf(path: string): string | null {
  const { dev } = statSync(path);
  const number = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  if (!existsSync(`/sys/dev/block/${number}`)) return null;
  if (!existsSync(`/sys/dev/block/${number}/partition`)) return number;
  const whole = basename(dirname(readlinkSync(`/sys/dev/block/${number}`)));
  return readdirSync('/sys/dev/block').find((each) => basename(readlinkSync(`/sys/dev/block/${each}`)) === whole)!;
}
