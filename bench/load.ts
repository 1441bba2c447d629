// Question: what is the tail latency of a server at 70 % of its capacity, and what CPU time and memory do thousands of paced clients
// cost? Decision it informs: how a worker schedules its clients, and how much it writes ahead to a slow one.

import { systemClock } from '../runtime/clock.ts';
import {
  absolute,
  ratioAtMost,
  compareWithPeers,
  interleave,
  median,
  type Bench,
  type Finding,
  type Parameters,
} from './bench.ts';
import { numberedUrls, warmUp, writeAssets } from './assets.ts';
import { startClients } from './client-pool.ts';
import { startDelayedOrigin, type DelayedOrigin } from './delayed-origin.ts';
import { h2load, type FixedRateResult } from './h2load.ts';
import {
  peersOf,
  startLarder,
  startNginxCache,
  startNginxStatic,
  startVarnish,
  type Contestant,
} from './contestants.ts';
import { processTreeUsage } from './process-usage.ts';
import { withTestbed, type Testbed } from './testbed.ts';

const CAPACITY_SHARE = 0.7;
const RANGE_BYTES = 65_536;
/** Requests of each paced client that are measured, after its first one. */
const MEASURED_ROUNDS = 1;
const MIB = 2 ** 20;

export const load: Bench = {
  name: 'load',
  question: 'latency at 70 % of capacity, and the cost of paced clients',
  packages: ['nginx', 'nghttp2-client', 'varnish'],
  small: {
    rounds: 1,
    seconds: 0.4,
    clients: 16,
    assets: 4,
    assetMiB: 4,
    readers: 40,
    readerMbps: 4,
    rangeKiB: 128,
    missPercent: 5,
  },
  large: {
    rounds: 10,
    seconds: 5,
    clients: 64,
    assets: 16,
    assetMiB: 16,
    // A fifth of a player's bit rate: the core of the clients can read no more for all of them.
    readers: 5_000,
    readerMbps: 0.8,
    rangeKiB: 1_024,
    missPercent: 5,
  },
  run: async (parameters, log) => {
    const latency = await withTestbed((testbed) => latencyAtRate(testbed, parameters, log));
    const pacedLoad = await withTestbed((testbed) => pacedLoadCost(testbed, parameters, log));
    const none = latency.peers.slice(pacedLoad.peers.length).map(() => null);
    return {
      peers: latency.peers,
      findings: [
        ...latency.findings,
        ...pacedLoad.findings.map((each) => ({ ...each, peers: [...each.peers, ...none] })),
      ],
      notes: [...latency.notes, ...pacedLoad.notes],
    };
  },
};

type PartialOutcome = {
  readonly peers: ReturnType<typeof peersOf>;
  readonly findings: Finding[];
  readonly notes: string[];
};

async function latencyAtRate(
  testbed: Testbed,
  parameters: Parameters,
  log: (progress: string) => void,
): Promise<PartialOutcome> {
  const root = testbed.makeDirectory('root');
  const assets = parameters['assets']!;
  writeAssets(root, assets, RANGE_BYTES);
  const origin = await startNginxStatic(testbed, { root });
  const contestants = [
    await startLarder(testbed, { origin: origin.url }),
    await startNginxCache(testbed, { origin: origin.url }),
    await startVarnish(testbed, { origin: origin.url }),
    origin,
  ];
  for (const { url } of contestants) await warmUp(numberedUrls(`${url}/asset-`, assets));
  const runLoad = (url: string, rate: number): Promise<FixedRateResult> =>
    h2load({
      url,
      directory: testbed.directory,
      paths: numberedUrls('/asset-', assets),
      range: null,
      seconds: parameters['seconds']!,
      clients: parameters['clients']!,
      rate,
    });
  const capacity = await interleave(
    { rounds: Math.min(3, parameters['rounds']!), contestants, log: (progress) => log(`capacity: ${progress}`) },
    async ({ url }) => (await runLoad(url, 0)).requestsPerSecond,
  );
  const capacityOf = (name: string): number => median(capacity.get(name)!);
  const rate = CAPACITY_SHARE * Math.min(capacityOf('larder'), Math.max(capacityOf('nginx'), capacityOf('varnish')));
  const reached: number[] = [];
  const samples = await interleave(
    { rounds: parameters['rounds']!, contestants, log: (progress) => log(`latency: ${progress}`) },
    async ({ name, url }) => {
      const result = await runLoad(url, rate);
      if (result.failures.length > 0)
        throw new Error(`${name}: ${result.failures.length} failed requests, such as ${result.failures[0]}`);
      if (name === 'larder') reached.push(result.requestsPerSecond);
      return result.p99Ms;
    },
  );
  const peers = peersOf(contestants);
  return {
    peers,
    findings: [
      compareWithPeers({ what: 'capacity', unit: 'req/s', better: 'more', samples: capacity, peers, bar: null }),
      compareWithPeers({ what: 'p99 at 70 % load', unit: 'ms', better: 'less', samples, peers, bar: ratioAtMost(1.1) }),
    ],
    notes: [
      `The load is ${Math.round(rate)} requests of 64 KiB per second, ${CAPACITY_SHARE * 100} % of the capacity of Larder or of the best cache, whichever is lower; ${Math.round(median(reached))} were reached.`,
    ],
  };
}

async function pacedLoadCost(
  testbed: Testbed,
  parameters: Parameters,
  log: (progress: string) => void,
): Promise<PartialOutcome> {
  const origin = await startDelayedOrigin(testbed, { roundTripMs: 0, bytesPerSecond: 0 });
  const contestants = [
    await startLarder(testbed, { origin: origin.url }),
    await startNginxCache(testbed, { origin: origin.url }),
    await startVarnish(testbed, { origin: origin.url }),
  ];
  const assetBytes = parameters['assetMiB']! * MIB;
  for (const { url } of contestants) await warmUp(numberedUrls(`${url}/${assetBytes}/hot-`, parameters['assets']!));
  const resident = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  const onTime = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  const gigabits: number[] = [];
  const cpu = await interleave(
    { rounds: parameters['rounds']!, contestants, log: (progress) => log(`paced clients: ${progress}`) },
    async (contestant) => {
      const sample = await measurePacedLoad(testbed, contestant, origin, parameters);
      resident.get(contestant.name)!.push(sample.residentBytes / MIB);
      onTime.get(contestant.name)!.push(sample.onTimePercent);
      if (contestant.name === 'larder') gigabits.push(sample.gigabitsPerSecond);
      return sample.corePercentPerGigabit;
    },
  );
  const peers = peersOf(contestants);
  const punctual = absolute('clients on time', '%', median(onTime.get('larder')!), null);
  return {
    peers,
    findings: [
      compareWithPeers({
        what: 'CPU core per Gb/s',
        unit: '%',
        better: 'less',
        samples: cpu,
        peers,
        bar: ratioAtMost(1),
      }),
      compareWithPeers({
        what: 'resident memory',
        unit: 'MiB',
        better: 'less',
        samples: resident,
        peers,
        bar: ratioAtMost(1),
      }),
      { ...punctual, peers: peers.map(({ name }) => median(onTime.get(name)!)) },
    ],
    notes: [
      `${parameters['readers']} paced clients at ${parameters['readerMbps']} Mb/s request ranges of ${parameters['rangeKiB']} KiB, ${parameters['missPercent']} % of them not cached; ${median(gigabits).toFixed(1)} Gb/s in total.`,
    ],
  };
}

interface PacedLoadSample {
  readonly corePercentPerGigabit: number;
  readonly gigabitsPerSecond: number;
  readonly residentBytes: number;
  readonly onTimePercent: number;
}

async function measurePacedLoad(
  testbed: Testbed,
  { name, url, server }: Contestant,
  origin: DelayedOrigin,
  parameters: Parameters,
): Promise<PacedLoadSample> {
  const assetBytes = parameters['assetMiB']! * MIB;
  const rangeBytes = parameters['rangeKiB']! * 1_024;
  const bytesPerSecond = (parameters['readerMbps']! * 1e6) / 8;
  const requestMs = (rangeBytes / bytesPerSecond) * 1_000;
  const originBefore = await origin.counts();
  const pool = startClients(testbed, {
    url,
    mode: 'paced',
    clients: parameters['readers']!,
    path: `/${assetBytes}/hot-{}`,
    assets: parameters['assets']!,
    assetBytes,
    rangeBytes,
    bytesPerSecond,
    missShare: parameters['missPercent']! / 100,
    missPath: `/${assetBytes}/miss-${name}-{}`,
  });
  await pool.ready;
  await systemClock.sleep(requestMs);
  const [countsBefore, usageBefore, startMs] = [
    await pool.counts(),
    processTreeUsage(server.pid),
    systemClock.monotonic(),
  ];
  await systemClock.sleep(requestMs * MEASURED_ROUNDS);
  const [counts, usage, endMs] = [await pool.counts(), processTreeUsage(server.pid), systemClock.monotonic()];
  await pool.close();
  if (counts.errors > 0) throw new Error(`${name}: ${counts.errors} errors of its clients`);
  if ((await origin.counts()).requests === originBefore.requests) throw new Error(`${name}: no request was a miss`);
  const gigabits = ((counts.bodyBytes - countsBefore.bodyBytes) * 8) / 1e9;
  return {
    corePercentPerGigabit: ((usage.cpuMs - usageBefore.cpuMs) / 1_000 / gigabits) * 100,
    gigabitsPerSecond: gigabits / ((endMs - startMs) / 1_000),
    residentBytes: usage.residentBytes,
    onTimePercent: (counts.onTime / parameters['readers']!) * 100,
  };
}
