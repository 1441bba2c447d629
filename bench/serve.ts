// Question: how many byte ranges of a hot set does one core serve per second, compared with the best cache?
// Decision it informs: the design of the hit path, and the size of a read.

import { writeAssets } from './assets.ts';
import type { Bench, Finding, Parameters } from './bench.ts';
import { measureThroughput } from './range-throughput.ts';
import {
  peersOf,
  startFloor,
  startLarder,
  startNginxCache,
  startNginxStatic,
  startVarnish,
  type Contestant,
} from './contestants.ts';
import { withTestbed, type Testbed } from './testbed.ts';

const SIZES = [
  { label: '64 KiB', bytes: 65_536, ratioMin: 1.05 },
  { label: '1 MiB', bytes: 1_048_576, ratioMin: 1.1 },
  { label: '4 MiB', bytes: 4_194_304, ratioMin: 1.1 },
] as const;

export const serve: Bench = {
  name: 'serve',
  question: 'hot ranges per second, one core each',
  packages: ['nginx', 'varnish', 'wrk'],
  small: { pairs: 1, seconds: 1, assets: 4, assetMiB: 8, connections: 16 },
  large: { pairs: 10, seconds: 3, assets: 16, assetMiB: 16, connections: 32 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const root = testbed.makeDirectory('root');
      writeAssets(root, parameters['assets']!, parameters['assetMiB']! * 2 ** 20);
      const assets = { assets: parameters['assets']!, assetBytes: parameters['assetMiB']! * 2 ** 20 };
      const origin = await startNginxStatic(testbed, { root });
      const contestants = [
        await startLarder(testbed, { origin: origin.url }),
        await startNginxCache(testbed, { origin: origin.url }),
        await startVarnish(testbed, { origin: origin.url }),
        origin,
        await startFloor(testbed, assets),
      ];
      const findings = await measureThroughput({
        testbed,
        parameters,
        sizes: SIZES,
        contestants,
        log,
      });
      findings.push(...(await beyondTheTier(testbed, { parameters, origin, nginx: contestants[1]!, log })));
      return { peers: peersOf(contestants), findings };
    }),
};

/** A hot set of four times the memory tier, which the page cache holds. */
async function beyondTheTier(
  testbed: Testbed,
  spec: {
    readonly parameters: Parameters;
    readonly origin: Contestant;
    readonly nginx: Contestant;
    readonly log: (progress: string) => void;
  },
): Promise<Finding[]> {
  const { parameters, origin, nginx, log } = spec;
  const tierMiB = (parameters['assets']! * parameters['assetMiB']!) / 4;
  const larder = await startLarder(testbed, {
    origin: origin.url,
    home: testbed.makeDirectory('larder-small'),
    flags: ['--memory-bytes', `${tierMiB}MiB`],
  });
  const sizes = [{ label: '1 MiB of 4 tiers', bytes: 1_048_576, ratioMin: 0.8 }] as const;
  const findings = await measureThroughput({ testbed, parameters, sizes, contestants: [larder, nginx], log });
  // A column for each peer of the other rows.
  return findings.map((finding) => ({ ...finding, peers: [finding.peers[0]!, null, null, null] }));
}
