// Question: how fast does one core serve byte ranges of a hot set, against the best cache there is on one core?
// Decision it informs: what the hot path is made of, and the size of a read.

import type { Bench } from './bench.ts';
import { hotRanges, writeAssets } from './hot-ranges.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, startVarnish } from './peers.ts';
import { withRing } from './ring.ts';

const SIZES = [
  { label: '64 KiB', bytes: 65_536, bar: 1.05 },
  { label: '1 MiB', bytes: 1_048_576, bar: 1.15 },
  { label: '4 MiB', bytes: 4_194_304, bar: 1.05 },
] as const;

export const serve: Bench = {
  name: 'serve',
  question: 'hot ranges per second, one core against one core',
  packages: ['nginx', 'varnish', 'wrk'],
  small: { pairs: 1, seconds: 1, assets: 4, assetMiB: 8, connections: 16 },
  large: { pairs: 10, seconds: 3, assets: 16, assetMiB: 16, connections: 32 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const root = ring.room('root');
      writeAssets(root, parameters['assets']!, parameters['assetMiB']! * 2 ** 20);
      const origin = await startNginxStatic(ring, { root });
      const contestants = [
        await startLarder(ring, { origin: origin.url }),
        await startNginxCache(ring, { origin: origin.url }),
        await startVarnish(ring, { origin: origin.url }),
        origin,
      ];
      const findings = await hotRanges({ ring, parameters, sizes: SIZES, contestants, judged: 'rate', say });
      return { peers: peersOf(contestants), findings };
    }),
};
