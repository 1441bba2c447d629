// Question: 500 clients ask for one asset that nobody has: what does the origin see, and how long do they wait?
// Decision it informs: how misses join one fetch, and how followers are fed.

import { alone, compare, median, type Bench } from './bench.ts';
import { startAudience } from './audience.ts';
import { startDistant } from './distant.ts';
import { peersOf, startLarder, startNginxCache, startVarnish } from './peers.ts';
import { withRing } from './ring.ts';

export const herd: Bench = {
  name: 'herd',
  question: 'a crowd on one cold asset, its origin 50 ms away',
  packages: ['nginx', 'varnish'],
  small: { rounds: 1, clients: 50, assetMiB: 1, roundTripMs: 50 },
  large: { rounds: 10, clients: 500, assetMiB: 2, roundTripMs: 50 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const bytes = parameters['assetMiB']! * 2 ** 20;
      const clients = parameters['clients']!;
      const distant = await startDistant(ring, { roundTripMs: parameters['roundTripMs']!, bytesPerSecond: 0 });
      const contestants = [
        await startLarder(ring, { origin: distant.url }),
        await startNginxCache(ring, { origin: distant.url }),
        await startVarnish(ring, { origin: distant.url }),
      ];
      const lastMs = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
      const times = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
      for (let round = 0; round < parameters['rounds']!; round += 1) {
        for (const { name, url } of contestants) {
          const before = await distant.settled();
          const path = `/${bytes}/herd-${name}-${round}`;
          const audience = startAudience(ring, { url, readers: clients, path });
          const done = await audience.ready;
          await audience.leave();
          const after = await distant.settled();
          if (done.errors > 0 || done.bodyBytes !== bytes * clients)
            throw new Error(`${name}: ${done.errors} errors, ${done.bodyBytes} of ${bytes * clients} bytes`);
          lastMs.get(name)!.push(done.lastMs);
          times.get(name)!.push((after.bodyBytes - before.bodyBytes) / bytes);
        }
        say(`round ${round + 1} of ${parameters['rounds']}`);
      }
      const peers = peersOf(contestants);
      const sent = alone('each byte asked of the origin', 'times', Math.max(...times.get('larder')!), 1);
      return {
        peers,
        findings: [
          compare({ what: 'until the last has all', unit: 'ms', better: 'less', samples: lastMs, peers, bar: null }),
          { ...sent, peers: peers.map(({ name }) => median(times.get(name)!)) },
        ],
      };
    }),
};
