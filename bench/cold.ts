// Question: what does somebody get who is the first to ask, when the origin is 50 ms and 25 MB/s per connection away?
// Decision it informs: how far to read ahead, over how many connections, and the size of a block.

import { Agent, request } from 'undici';
import {
  alone,
  atLeast,
  compare,
  interleave,
  median,
  type Bench,
  type Finding,
  type Parameters,
  type Peer,
} from './bench.ts';
import { startDistant, type Distant } from './distant.ts';
import { peersOf, startLarder, startNginxCache, startVarnish, type Contestant } from './peers.ts';
import { withRing, type Ring } from './ring.ts';

const BLOCKS_BEYOND = 2;
const BLOCK_BYTES_MAX = 2 ** 20;
const FILM_BYTES = 10 * 10 ** 9;
const MIDDLE = FILM_BYTES / 2 + 12_345;
/** A cache that fetches all that lies before the range would take minutes. */
const FIRST_BYTE_MS_MAX = 2_000;

export const cold: Bench = {
  name: 'cold',
  question: 'the first reader of an asset, its origin 50 ms and 25 MB/s per connection away',
  packages: ['nginx', 'varnish'],
  small: { rounds: 1, roundTripMs: 50, connectionMBps: 25, assetMiB: 8, rangeMiB: 1 },
  large: { rounds: 10, roundTripMs: 50, connectionMBps: 25, assetMiB: 64, rangeMiB: 2 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const distant = await startDistant(ring, {
        roundTripMs: parameters['roundTripMs']!,
        bytesPerSecond: parameters['connectionMBps']! * 1e6,
      });
      const caches = [
        await startLarder(ring, { origin: distant.url }),
        await startNginxCache(ring, { origin: distant.url }),
        await startVarnish(ring, { origin: distant.url }),
      ];
      const direct: Pick<Contestant, 'name' | 'url'> & Peer = {
        name: 'direct',
        role: 'reference',
        url: distant.url,
        configuration: 'one connection to the origin',
      };
      return {
        peers: [...peersOf(caches), { ...direct }].map(({ name, role, configuration }) => ({
          name,
          role,
          configuration,
        })),
        findings: [
          await sequential(parameters, [...caches, direct], say),
          ...(await middle({ ring, parameters, caches, distant, say })),
        ],
      };
    }),
};

/** Whole assets, each read once by one client on a connection of its own. */
async function sequential(
  parameters: Parameters,
  contestants: readonly (Pick<Contestant, 'name' | 'url'> & Peer)[],
  say: (progress: string) => void,
): Promise<Finding> {
  const bytes = parameters['assetMiB']! * 2 ** 20;
  const samples = await interleave(
    { rounds: parameters['rounds']!, contestants, say: (progress) => say(`whole asset: ${progress}`) },
    async ({ url, name }, round) => {
      const { totalMs } = await read(`${url}/${bytes}/${name}-${round}`, null);
      return bytes / 1e6 / (totalMs / 1000);
    },
  );
  return compare({
    what: 'whole asset, cold',
    unit: 'MB/s',
    better: 'more',
    samples,
    // The bar stands against the direct download.
    peers: contestants.slice(1).map((peer) => ({ ...peer, role: peer.name === 'direct' ? 'cache' : 'reference' })),
    bar: atLeast(1.5),
  });
}

/** A range in the middle of a film nobody has asked for; the pool to the origin is warm by a read just before. */
async function middle(spec: {
  readonly ring: Ring;
  readonly parameters: Parameters;
  readonly caches: readonly Contestant[];
  readonly distant: Distant;
  readonly say: (progress: string) => void;
}): Promise<Finding[]> {
  const { ring, parameters, caches, distant, say } = spec;
  const rangeBytes = parameters['rangeMiB']! * 2 ** 20;
  const range = `bytes=${MIDDLE}-${MIDDLE + rangeBytes - 1}`;
  const firstMs = new Map<string, number[]>();
  const surplus = new Map<string, number[]>();
  const beyond = new Set<Contestant>();
  for (let round = 0; round < parameters['rounds']!; round += 1) {
    for (const cache of caches) {
      const { name, url } = cache;
      if (beyond.has(cache)) continue;
      await read(`${url}/1000/warm-${name}-${round}`, null);
      const before = await distant.settled();
      const { firstByteMs } = await read(`${url}/${FILM_BYTES}/film-${name}-${round}`, range, FIRST_BYTE_MS_MAX);
      const inTime = firstByteMs < FIRST_BYTE_MS_MAX;
      const after = inTime ? await distant.settled() : await distant.counts();
      if (!inTime) {
        // One that fetches the whole film goes on with it for minutes: once is enough.
        beyond.add(cache);
        await ring.stop(cache.running);
      }
      push(firstMs, name, firstByteMs);
      push(surplus, name, (after.bodyBytes - before.bodyBytes - rangeBytes) / 2 ** 20);
    }
    say(`range in a film: round ${round + 1} of ${parameters['rounds']}`);
  }
  const peers = caches.slice(1);
  const beside = (of: Map<string, number[]>): (number | null)[] => [
    ...peers.map(({ name }) => median(of.get(name)!)),
    null,
  ];
  const roundTrips = alone(
    'first byte at 5 of 10 GB',
    'ms',
    median(firstMs.get('larder')!),
    1.5 * parameters['roundTripMs']!,
  );
  const fetched = alone(
    'fetched beyond the range',
    'MiB',
    median(surplus.get('larder')!),
    (BLOCKS_BEYOND * BLOCK_BYTES_MAX) / 2 ** 20,
  );
  return [
    { ...roundTrips, peers: beside(firstMs) },
    { ...fetched, peers: beside(surplus) },
  ];
}

function push(map: Map<string, number[]>, name: string, value: number): void {
  map.set(name, [...(map.get(name) ?? []), value]);
}

/** By a connection of its own. A first byte that does not come in time counts as the time waited. */
async function read(
  url: string,
  range: string | null,
  firstByteMsMax = 60_000,
): Promise<{ readonly firstByteMs: number; readonly totalMs: number }> {
  const dispatcher = new Agent({ pipelining: 0, headersTimeout: firstByteMsMax, bodyTimeout: firstByteMsMax });
  const start = performance.now();
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), firstByteMsMax);
  let firstByteMs = firstByteMsMax;
  try {
    const headers = range === null ? {} : { range };
    const { body, statusCode } = await request(url, { dispatcher, headers, signal: abort.signal });
    if (statusCode >= 300) throw new Error(`${url}: ${statusCode}`);
    for await (const _ of body) {
      if (firstByteMs < firstByteMsMax) continue;
      firstByteMs = performance.now() - start;
      clearTimeout(timer);
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  } finally {
    clearTimeout(timer);
    await dispatcher.destroy();
  }
  return { firstByteMs, totalMs: performance.now() - start };
}
