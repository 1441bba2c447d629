// Throughput of random ranges over a set of assets that every contestant holds, served by one core. The clients use the other
// core, and for large ranges they are the limit. So a server is judged by its requests per second of CPU time, with the request rate
// for information.

import { warmUp, numberedUrls } from './assets.ts';
import { compareWithPeers, interleave, median, ratioAtLeast, type Finding, type Parameters } from './bench.ts';
import { peersOf, type Contestant } from './contestants.ts';
import { pinInPageCache } from './page-cache.ts';
import { processTreeUsage } from './process-usage.ts';
import { CLIENT_CORE, type Testbed } from './testbed.ts';
import { wrk } from './wrk.ts';

/** Share of requests that a peer may fail: of 4 MiB, nginx fails one or two in some rounds, which is no reason to measure nothing. */
const PEER_ERRORS_MAX = 1 / 100;

interface RangeSize {
  readonly label: string;
  readonly bytes: number;
  /** The bar: the smallest ratio to the best peer. */
  readonly ratioMin: number;
}

export async function measureThroughput(spec: {
  readonly testbed: Testbed;
  readonly parameters: Parameters;
  readonly sizes: readonly RangeSize[];
  readonly contestants: readonly Contestant[];
  readonly env?: Readonly<Record<string, string>>;
  readonly log: (progress: string) => void;
}): Promise<Finding[]> {
  const { testbed, parameters, contestants, log } = spec;
  const assets = parameters['assets']!;
  for (const { url } of contestants) await warmUp(numberedUrls(`${url}/asset-`, assets));
  testbed.defer(pinInPageCache(testbed.directory));
  const peers = peersOf(contestants);
  const findings: Finding[] = [];
  for (const { label, bytes, ratioMin } of spec.sizes) {
    const rates = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
    const requestsPerCpuSecond = await interleave(
      { rounds: parameters['pairs']!, contestants, log: (progress) => log(`${label}: ${progress}`) },
      async ({ name, url, server }) => {
        const cpuMsBefore = processTreeUsage(server.pid).cpuMs;
        const { requestsPerSecond, requests, errors } = await wrk({
          url,
          directory: testbed.directory,
          core: CLIENT_CORE,
          seconds: parameters['seconds']!,
          connections: parameters['connections']!,
          rangeBytes: bytes,
          assets,
          assetBytes: parameters['assetMiB']! * 2 ** 20,
          env: spec.env ?? {},
        });
        if (errors > (name === 'larder' ? 0 : requests * PEER_ERRORS_MAX))
          throw new Error(`${name}: ${errors} failed requests at ${label}`);
        if (errors > 0) log(`${name}: ${errors} of ${requests} requests failed at ${label}`);
        rates.get(name)!.push(requestsPerSecond);
        return requests / ((processTreeUsage(server.pid).cpuMs - cpuMsBefore) / 1_000);
      },
    );
    const common = { better: 'more', peers } as const;
    const references = peers.filter(({ role }) => role === 'reference').map(({ name }) => median(rates.get(name)!));
    const rateBar = {
      ...ratioAtLeast(ratioMin),
      ...(references.length === 0 ? {} : { limit: Math.max(...references) }),
    };
    findings.push(
      compareWithPeers({ ...common, what: label, unit: 'req/s', samples: rates, bar: rateBar }),
      compareWithPeers({
        ...common,
        what: label,
        unit: 'req/CPU s',
        samples: requestsPerCpuSecond,
        bar: ratioAtLeast(ratioMin),
      }),
    );
  }
  return findings;
}
