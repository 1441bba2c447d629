// Question: how long does a request wait on a server that is busy but not at its limit, and what does an evening's audience
// take of CPU and memory?
// Decision it informs: how a worker takes turns between readers, and how much it writes ahead of a slow one.

import { setTimeout as pause } from 'node:timers/promises';
import { alone, atMost, compare, interleave, median, type Bench, type Finding, type Parameters } from './bench.ts';
import { startAudience } from './audience.ts';
import { startDistant, type Distant } from './distant.ts';
import { h2load, type RatedResult } from './h2load.ts';
import { writeAssets } from './hot-ranges.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, startVarnish, type Contestant } from './peers.ts';
import { usageOf } from './proc.ts';
import { withRing, type Ring } from './ring.ts';
import { numbered, warm } from './warm.ts';

const CAPACITY_SHARE = 0.7;
const RANGE_BYTES = 65_536;
/** How often each reader asks while it is measured, after it has asked once. */
const ROUNDS_OF_READERS = 1;
const MIB = 2 ** 20;

export const load: Bench = {
  name: 'load',
  question: 'waiting at 70 % of capacity, and what an audience at its own pace takes',
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
    // A fifth of what they would like: one core reads no more than that for all of them.
    readers: 5_000,
    readerMbps: 0.8,
    rangeKiB: 1_024,
    missPercent: 5,
  },
  run: async (parameters, say) => {
    const waiting = await withRing((ring) => waitingTimes(ring, parameters, say));
    const audience = await withRing((ring) => audienceCost(ring, parameters, say));
    const none = waiting.peers.slice(audience.peers.length).map(() => null);
    return {
      peers: waiting.peers,
      findings: [
        ...waiting.findings,
        ...audience.findings.map((each) => ({ ...each, peers: [...each.peers, ...none] })),
      ],
      notes: [...waiting.notes, ...audience.notes],
    };
  },
};

type Part = { readonly peers: ReturnType<typeof peersOf>; readonly findings: Finding[]; readonly notes: string[] };

async function waitingTimes(ring: Ring, parameters: Parameters, say: (progress: string) => void): Promise<Part> {
  const root = ring.room('root');
  const assets = parameters['assets']!;
  writeAssets(root, assets, RANGE_BYTES);
  const origin = await startNginxStatic(ring, { root });
  const contestants = [
    await startLarder(ring, { origin: origin.url }),
    await startNginxCache(ring, { origin: origin.url }),
    await startVarnish(ring, { origin: origin.url }),
    origin,
  ];
  for (const { url } of contestants) await warm(numbered(`${url}/asset-`, assets));
  const ask = (url: string, rate: number): Promise<RatedResult> =>
    h2load({
      url,
      directory: ring.directory,
      paths: numbered('/asset-', assets),
      range: null,
      seconds: parameters['seconds']!,
      clients: parameters['clients']!,
      rate,
    });
  const capacity = await interleave(
    { rounds: Math.min(3, parameters['rounds']!), contestants, say: (progress) => say(`capacity: ${progress}`) },
    async ({ url }) => (await ask(url, 0)).requestsPerSecond,
  );
  const of = (name: string): number => median(capacity.get(name)!);
  const rate = CAPACITY_SHARE * Math.min(of('larder'), Math.max(of('nginx'), of('varnish')));
  const reached: number[] = [];
  const samples = await interleave(
    { rounds: parameters['rounds']!, contestants, say: (progress) => say(`at a rate: ${progress}`) },
    async ({ name, url }) => {
      const result = await ask(url, rate);
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
      compare({ what: 'capacity', unit: 'req/s', better: 'more', samples: capacity, peers, bar: null }),
      compare({ what: 'p99 at the rate', unit: 'ms', better: 'less', samples, peers, bar: atMost(1.1) }),
    ],
    notes: [
      `The rate is ${Math.round(rate)} requests of 64 KiB a second, ${CAPACITY_SHARE * 100} % of the lower capacity of Larder and the best cache; ${Math.round(median(reached))} were reached.`,
    ],
  };
}

async function audienceCost(ring: Ring, parameters: Parameters, say: (progress: string) => void): Promise<Part> {
  const distant = await startDistant(ring, { roundTripMs: 0, bytesPerSecond: 0 });
  const contestants = [
    await startLarder(ring, { origin: distant.url }),
    await startNginxCache(ring, { origin: distant.url }),
    await startVarnish(ring, { origin: distant.url }),
  ];
  const assetBytes = parameters['assetMiB']! * MIB;
  for (const { url } of contestants) await warm(numbered(`${url}/${assetBytes}/hot-`, parameters['assets']!));
  const resident = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  const onTime = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
  const gigabits: number[] = [];
  const cpu = await interleave(
    { rounds: parameters['rounds']!, contestants, say: (progress) => say(`audience: ${progress}`) },
    async (contestant) => {
      const seen = await attend(ring, contestant, distant, parameters);
      resident.get(contestant.name)!.push(seen.residentBytes / MIB);
      onTime.get(contestant.name)!.push(seen.onTimePercent);
      if (contestant.name === 'larder') gigabits.push(seen.gigabitsPerSecond);
      return seen.corePercentPerGigabit;
    },
  );
  const peers = peersOf(contestants);
  const late = alone('readers on time', '%', median(onTime.get('larder')!), null);
  return {
    peers,
    findings: [
      compare({ what: 'core per Gb/s', unit: '%', better: 'less', samples: cpu, peers, bar: atMost(1) }),
      compare({ what: 'memory with it', unit: 'MiB', better: 'less', samples: resident, peers, bar: atMost(1) }),
      { ...late, peers: peers.map(({ name }) => median(onTime.get(name)!)) },
    ],
    notes: [
      `The audience: ${parameters['readers']} readers at ${parameters['readerMbps']} Mb/s in ranges of ${parameters['rangeKiB']} KiB, ${parameters['missPercent']} % of their ranges cold; ${median(gigabits).toFixed(1)} Gb/s.`,
    ],
  };
}

interface Seen {
  readonly corePercentPerGigabit: number;
  readonly gigabitsPerSecond: number;
  readonly residentBytes: number;
  readonly onTimePercent: number;
}

async function attend(
  ring: Ring,
  { name, url, running }: Contestant,
  distant: Distant,
  parameters: Parameters,
): Promise<Seen> {
  const assetBytes = parameters['assetMiB']! * MIB;
  const rangeBytes = parameters['rangeKiB']! * 1_024;
  const bytesPerSecond = (parameters['readerMbps']! * 1e6) / 8;
  const askMs = (rangeBytes / bytesPerSecond) * 1_000;
  const before = await distant.counts();
  const audience = startAudience(ring, {
    url,
    manner: 'paced',
    readers: parameters['readers']!,
    path: `/${assetBytes}/hot-{}`,
    assets: parameters['assets']!,
    assetBytes,
    rangeBytes,
    bytesPerSecond,
    missShare: parameters['missPercent']! / 100,
    missPath: `/${assetBytes}/miss-${name}-{}`,
  });
  await audience.ready;
  await pause(askMs);
  const [begun, usage, startMs] = [await audience.counts(), usageOf(running.pid), performance.now()];
  await pause(askMs * ROUNDS_OF_READERS);
  const [ended, usageThen, endMs] = [await audience.counts(), usageOf(running.pid), performance.now()];
  await audience.leave();
  if (ended.errors > 0) throw new Error(`${name}: ${ended.errors} errors of its readers`);
  if ((await distant.counts()).requests === before.requests) throw new Error(`${name}: nobody missed`);
  const gigabits = ((ended.bodyBytes - begun.bodyBytes) * 8) / 1e9;
  return {
    corePercentPerGigabit: ((usageThen.cpuMs - usage.cpuMs) / 1_000 / gigabits) * 100,
    gigabitsPerSecond: gigabits / ((endMs - startMs) / 1_000),
    residentBytes: usageThen.residentBytes,
    onTimePercent: (ended.onTime / parameters['readers']!) * 100,
  };
}
