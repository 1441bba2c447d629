// Question: how fast does one core serve byte ranges of a hot set over TLS 1.3, against nginx with the same certificate?
// Decision it informs: whether a worker may speak TLS itself. Varnish has none of its own and is not in this run.

import type { Bench } from './bench.ts';
import { agreed, makeCertificate } from './certificate.ts';
import { hotRanges, writeAssets } from './hot-ranges.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic } from './peers.ts';
import { withRing } from './ring.ts';

const SIZES = [
  { label: '64 KiB', bytes: 65_536, bar: 1.1 },
  { label: '1 MiB', bytes: 1_048_576, bar: 1.1 },
  { label: '4 MiB', bytes: 4_194_304, bar: 1.1 },
] as const;

export const tls: Bench = {
  name: 'tls',
  question: 'hot ranges per second over TLS 1.3, one core against one core',
  packages: ['nginx', 'openssl', 'wrk'],
  small: { pairs: 1, seconds: 1, assets: 2, assetMiB: 8, connections: 16 },
  large: { pairs: 10, seconds: 3, assets: 16, assetMiB: 16, connections: 32 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const root = ring.room('root');
      writeAssets(root, parameters['assets']!, parameters['assetMiB']! * 2 ** 20);
      const offer = await makeCertificate(ring.directory);
      const origin = await startNginxStatic(ring, { root });
      const spec = { origin: origin.url, tls: offer.certificate };
      const contestants = [
        await startLarder(ring, spec),
        await startNginxCache(ring, spec),
        await startNginxStatic(ring, { root, tls: offer.certificate }),
      ];
      const terms = new Set<string>();
      for (const contestant of contestants) terms.add(await agreed(contestant, offer));
      const findings = await hotRanges({
        ring,
        parameters,
        sizes: SIZES,
        contestants,
        judged: 'cpu',
        env: offer.env,
        say,
      });
      return { peers: peersOf(contestants), findings, notes: [`All over ${[...terms].join(', ')}.`] };
    }),
};
