// Question: if 500 clients request an asset that is not cached, how often is it fetched from the origin, and how long do they wait?
// Decision it informs: how misses are collapsed into one fetch, and how the followers are served.

import { absolute, compareWithPeers, median, type Bench } from './bench.ts';
import { startClients } from './client-pool.ts';
import { startDelayedOrigin } from './delayed-origin.ts';
import { peersOf, startLarder, startNginxCache, startVarnish } from './contestants.ts';
import { logTail, withTestbed } from './testbed.ts';

export const herd: Bench = {
  name: 'herd',
  question: 'many clients request one uncached asset, its origin 50 ms away',
  packages: ['nginx', 'varnish'],
  small: { rounds: 1, clients: 50, assetMiB: 1, roundTripMs: 50 },
  large: { rounds: 10, clients: 500, assetMiB: 2, roundTripMs: 50 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const bytes = parameters['assetMiB']! * 2 ** 20;
      const clients = parameters['clients']!;
      const origin = await startDelayedOrigin(testbed, { roundTripMs: parameters['roundTripMs']!, bytesPerSecond: 0 });
      const contestants = [
        await startLarder(testbed, { origin: origin.url }),
        await startNginxCache(testbed, { origin: origin.url }),
        await startVarnish(testbed, { origin: origin.url }),
      ];
      const lastMs = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
      const fetches = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
      for (let round = 0; round < parameters['rounds']!; round += 1) {
        for (const { name, url, server } of contestants) {
          const before = await origin.countsWhenIdle();
          const path = `/${bytes}/herd-${name}-${round}`;
          const pool = startClients(testbed, { url, clients, path });
          const done = await pool.ready;
          await pool.close();
          const after = await origin.countsWhenIdle();
          if (done.errors > 0 || done.bodyBytes !== bytes * clients)
            throw new Error(
              `${name}: ${done.errors} errors, ${done.bodyBytes} of ${bytes * clients} bytes\n${logTail(server)}`,
            );
          lastMs.get(name)!.push(done.lastMs);
          fetches.get(name)!.push((after.bodyBytes - before.bodyBytes) / bytes);
        }
        log(`round ${round + 1} of ${parameters['rounds']}`);
      }
      const peers = peersOf(contestants);
      const fetched = absolute('fetches per origin byte', 'times', Math.max(...fetches.get('larder')!), 1);
      return {
        peers,
        findings: [
          compareWithPeers({
            what: 'last client done',
            unit: 'ms',
            better: 'less',
            samples: lastMs,
            peers,
            bar: null,
          }),
          { ...fetched, peers: peers.map(({ name }) => median(fetches.get(name)!)) },
        ],
      };
    }),
};
