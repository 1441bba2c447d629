// Question: what does the first client of an asset get if the origin is 50 ms away and limited to 25 MB/s per connection?
// Decision it informs: how far to prefetch, over how many connections, and the block size.

import { Agent, request } from 'undici';
import { systemClock } from '../runtime/clock.ts';
import {
  absolute,
  ratioAtLeast,
  compareWithPeers,
  interleave,
  median,
  type Bench,
  type Finding,
  type Parameters,
  type Peer,
} from './bench.ts';
import { startDelayedOrigin, type DelayedOrigin } from './delayed-origin.ts';
import { peersOf, startLarder, startNginxCache, startVarnish, type Contestant } from './contestants.ts';
import { withTestbed, type Testbed } from './testbed.ts';

const SURPLUS_BLOCKS_MAX = 2;
const BLOCK_BYTES_MAX = 2 ** 20;
const LARGE_ASSET_BYTES = 10 * 10 ** 9;
const RANGE_START = LARGE_ASSET_BYTES / 2 + 12_345;
/** A cache that fetches everything before the range would take minutes. */
const FIRST_BYTE_MS_MAX = 2_000;

export const cold: Bench = {
  name: 'cold',
  question: 'the first client of an asset, its origin 50 ms and 25 MB/s per connection away',
  packages: ['nginx', 'varnish'],
  small: { rounds: 1, warmUps: 1, starts: 1, roundTripMs: 50, connectionMBps: 25, assetMiB: 8, rangeMiB: 1 },
  large: { rounds: 10, warmUps: 20, starts: 10, roundTripMs: 50, connectionMBps: 25, assetMiB: 64, rangeMiB: 2 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const roundTripMs = parameters['roundTripMs']!;
      const limited = await startDelayedOrigin(testbed, {
        roundTripMs,
        bytesPerSecond: parameters['connectionMBps']! * 1e6,
      });
      const caches = await startCaches(testbed, limited);
      const direct = directFrom(limited);
      const findings = [
        await wholeAssetThroughput(
          parameters,
          { contestants: [...caches, direct], what: 'whole asset', ratioMin: 2 },
          log,
        ),
        ...(await rangeInLargeAsset({ testbed, parameters, caches, origin: limited, log })),
      ];
      for (const { server } of caches) await testbed.stop(server);
      const fast = await startDelayedOrigin(testbed, { roundTripMs, bytesPerSecond: 0 });
      const contestants = [...(await startCaches(testbed, fast)), directFrom(fast)];
      findings.push(
        await wholeAssetThroughput(parameters, { contestants, what: 'whole asset, no limit', ratioMin: 0.6 }, log),
      );
      findings.push(await firstMissAfterStart({ testbed, parameters, origin: fast, log }));
      return {
        peers: [...peersOf(caches), direct].map(({ name, role, configuration }) => ({ name, role, configuration })),
        findings,
      };
    }),
};

const startCaches = async (testbed: Testbed, { url: origin }: DelayedOrigin): Promise<Contestant[]> => [
  await startLarder(testbed, { origin }),
  await startNginxCache(testbed, { origin }),
  await startVarnish(testbed, { origin }),
];

const directFrom = ({ url }: DelayedOrigin): Pick<Contestant, 'name' | 'url'> & Peer => ({
  ...{ name: 'direct', role: 'reference', url, configuration: 'one connection to the origin' },
});

/** Throughput of whole assets, each read once by one client on a connection of its own. */
async function wholeAssetThroughput(
  parameters: Parameters,
  spec: {
    readonly contestants: readonly (Pick<Contestant, 'name' | 'url'> & Peer)[];
    readonly what: string;
    readonly ratioMin: number;
  },
  log: (progress: string) => void,
): Promise<Finding> {
  const { contestants, what, ratioMin } = spec;
  const bytes = parameters['assetMiB']! * 2 ** 20;
  // Larder compiles its code as it runs, unlike its peers; what a start costs is the finding `first miss after a start`.
  for (let count = 0; count < parameters['warmUps']!; count += 1)
    await timedRead(`${contestants[0]!.url}/${bytes}/warm-up-${count}`, null);
  const samples = await interleave(
    { rounds: parameters['rounds']!, contestants, log: (progress) => log(`${what}: ${progress}`) },
    async ({ url, name }, round) => {
      const { totalMs } = await timedRead(`${url}/${bytes}/${name}-${round}`, null);
      return bytes / 1e6 / (totalMs / 1000);
    },
  );
  return compareWithPeers({
    what,
    unit: 'MB/s',
    better: 'more',
    samples,
    // The bar applies to the ratio to the direct download.
    peers: contestants.slice(1).map((peer) => ({ ...peer, role: peer.name === 'direct' ? 'cache' : 'reference' })),
    bar: ratioAtLeast(ratioMin),
  });
}

/** A request for an uncached asset that is sent as soon as the appliance says that it is ready. */
async function firstMissAfterStart(spec: {
  readonly testbed: Testbed;
  readonly parameters: Parameters;
  readonly origin: DelayedOrigin;
  readonly log: (progress: string) => void;
}): Promise<Finding> {
  const { testbed, parameters, origin, log } = spec;
  const samples: number[] = [];
  for (let start = 0; start < parameters['starts']!; start += 1) {
    const larder = await startLarder(testbed, { origin: origin.url, home: testbed.makeDirectory('restarted') });
    samples.push((await timedRead(`${larder.url}/100000/first-${start}`, null)).totalMs);
    await testbed.stop(larder.server);
    log(`first miss: start ${start + 1} of ${parameters['starts']}`);
  }
  // The first request of a connection to this origin takes two round trips.
  return absolute('first miss after a start', 'ms', median(samples), 3 * parameters['roundTripMs']!);
}

/** A range in the middle of an uncached 10 GB asset. A small read before it opens connections to the origin. */
async function rangeInLargeAsset(spec: {
  readonly testbed: Testbed;
  readonly parameters: Parameters;
  readonly caches: readonly Contestant[];
  readonly origin: DelayedOrigin;
  readonly log: (progress: string) => void;
}): Promise<Finding[]> {
  const { testbed, parameters, caches, origin, log } = spec;
  const rangeBytes = parameters['rangeMiB']! * 2 ** 20;
  const range = `bytes=${RANGE_START}-${RANGE_START + rangeBytes - 1}`;
  const firstByteMs = new Map<string, number[]>();
  const surplusMiB = new Map<string, number[]>();
  const timedOut = new Set<Contestant>();
  for (let round = 0; round < parameters['rounds']!; round += 1) {
    for (const cache of caches) {
      const { name, url } = cache;
      if (timedOut.has(cache)) continue;
      await timedRead(`${url}/1000/warm-${name}-${round}`, null);
      const before = await origin.countsWhenIdle();
      const read = await timedRead(`${url}/${LARGE_ASSET_BYTES}/large-${name}-${round}`, range, FIRST_BYTE_MS_MAX);
      const inTime = read.firstByteMs < FIRST_BYTE_MS_MAX;
      const after = inTime ? await origin.countsWhenIdle() : await origin.counts();
      if (!inTime) {
        // A cache that fetches the whole asset would continue for minutes, so it is stopped after one round.
        timedOut.add(cache);
        await testbed.stop(cache.server);
      }
      append(firstByteMs, name, read.firstByteMs);
      append(surplusMiB, name, (after.bodyBytes - before.bodyBytes - rangeBytes) / 2 ** 20);
    }
    log(`range in a large asset: round ${round + 1} of ${parameters['rounds']}`);
  }
  const peers = caches.slice(1);
  const peerMedians = (samples: Map<string, number[]>): (number | null)[] => [
    ...peers.map(({ name }) => median(samples.get(name)!)),
    null,
  ];
  const latency = absolute(
    'first byte at 5 of 10 GB',
    'ms',
    median(firstByteMs.get('larder')!),
    1.5 * parameters['roundTripMs']!,
  );
  const fetched = absolute(
    'fetched beyond the range',
    'MiB',
    median(surplusMiB.get('larder')!),
    (SURPLUS_BLOCKS_MAX * BLOCK_BYTES_MAX) / 2 ** 20,
  );
  return [
    { ...latency, peers: peerMedians(firstByteMs) },
    { ...fetched, peers: peerMedians(surplusMiB) },
  ];
}

function append(map: Map<string, number[]>, name: string, value: number): void {
  map.set(name, [...(map.get(name) ?? []), value]);
}

/** Reads over a new connection. Without a first byte in time, the time limit counts as the result. */
async function timedRead(
  url: string,
  range: string | null,
  firstByteMsMax = 60_000,
): Promise<{ readonly firstByteMs: number; readonly totalMs: number }> {
  const dispatcher = new Agent({ pipelining: 0, headersTimeout: firstByteMsMax, bodyTimeout: firstByteMsMax });
  const startMs = systemClock.monotonic();
  const abort = new AbortController();
  const timer = systemClock.setTimeout(() => abort.abort(), firstByteMsMax);
  let firstByteMs = firstByteMsMax;
  try {
    const headers = range === null ? {} : { range };
    const { body, statusCode } = await request(url, { dispatcher, headers, signal: abort.signal });
    if (statusCode >= 300) throw new Error(`${url}: ${statusCode}`);
    for await (const _ of body) {
      if (firstByteMs < firstByteMsMax) continue;
      firstByteMs = systemClock.monotonic() - startMs;
      systemClock.clear(timer);
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  } finally {
    systemClock.clear(timer);
    await dispatcher.destroy();
  }
  return { firstByteMs, totalMs: systemClock.monotonic() - startMs };
}
