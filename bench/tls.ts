// Question: how many byte ranges of a hot set does one core serve per second over TLS 1.3, compared with nginx?
// Decision it informs: whether workers terminate TLS themselves. Varnish does not support TLS and is not in this run.

import { writeAssets } from './assets.ts';
import type { Bench } from './bench.ts';
import { negotiatedTls, createCertificate } from './certificate.ts';
import { measureThroughput } from './range-throughput.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic } from './contestants.ts';
import { withTestbed } from './testbed.ts';

const SIZES = [
  { label: '64 KiB', bytes: 65_536, ratioMin: 1.2 },
  { label: '1 MiB', bytes: 1_048_576, ratioMin: 1.2 },
  { label: '4 MiB', bytes: 4_194_304, ratioMin: 1.1 },
] as const;

export const tls: Bench = {
  name: 'tls',
  question: 'hot ranges per second over TLS 1.3, one core each',
  packages: ['nginx', 'openssl', 'wrk'],
  small: { pairs: 1, seconds: 1, assets: 2, assetMiB: 8, connections: 16 },
  large: { pairs: 10, seconds: 3, assets: 16, assetMiB: 16, connections: 32 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const root = testbed.makeDirectory('root');
      writeAssets(root, parameters['assets']!, parameters['assetMiB']! * 2 ** 20);
      const tls = await createCertificate(testbed.directory);
      const origin = await startNginxStatic(testbed, { root });
      const spec = { origin: origin.url, tls: tls.files };
      const contestants = [
        await startLarder(testbed, spec),
        await startNginxCache(testbed, spec),
        await startNginxStatic(testbed, { root, tls: tls.files }),
      ];
      const negotiated = new Set<string>();
      for (const contestant of contestants) negotiated.add(await negotiatedTls(contestant, tls));
      const findings = await measureThroughput({
        testbed,
        parameters,
        sizes: SIZES,
        contestants,
        env: tls.clientEnv,
        log,
      });
      return { peers: peersOf(contestants), findings, notes: [`All over ${[...negotiated].join(', ')}.`] };
    }),
};
