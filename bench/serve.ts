// Question: how fast does one core serve byte ranges of a hot set, against the best cache there is on one core?
// Decision it informs: whether node:http may stay on the hot path, and the size of a read.

import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from 'undici';
import { atLeast, compare, interleave, type Bench, type Finding } from './bench.ts';
import { peersOf, startLarder, startNginxCache, startNginxStatic, startVarnish, type Contestant } from './peers.ts';
import { CLIENT_CORE, withRing } from './ring.ts';
import { wrk } from './wrk.ts';

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
      const assetBytes = parameters['assetMiB']! * 2 ** 20;
      const assets = parameters['assets']!;
      const root = ring.room('root');
      for (let at = 0; at < assets; at += 1)
        writeFileSync(join(root, `asset-${at}`), randomFillSync(Buffer.alloc(assetBytes)));
      const origin = await startNginxStatic(ring, { root });
      const contestants = [
        await startLarder(ring, { origin: origin.url }),
        await startNginxCache(ring, { origin: origin.url }),
        await startVarnish(ring, { origin: origin.url }),
        origin,
      ];
      for (const contestant of contestants) await warm(contestant, assets);

      const findings: Finding[] = [];
      for (const size of SIZES) {
        const samples = await interleave(
          { rounds: parameters['pairs']!, contestants, say: (progress) => say(`${size.label}: ${progress}`) },
          async (contestant) => {
            const result = await wrk({
              url: contestant.url,
              directory: ring.directory,
              core: CLIENT_CORE,
              seconds: parameters['seconds']!,
              connections: parameters['connections']!,
              rangeBytes: size.bytes,
              assets,
              assetBytes,
            });
            if (result.errors > 0)
              throw new Error(`${contestant.name}: ${result.errors} failed requests at ${size.label}`);
            return result.requestsPerSecond;
          },
        );
        findings.push(
          compare({
            what: size.label,
            unit: 'req/s',
            better: 'more',
            samples,
            peers: peersOf(contestants),
            bar: atLeast(size.bar),
          }),
        );
      }
      return { peers: peersOf(contestants), findings };
    }),
};

/** Everything read twice: what is admitted at the second request is there too. */
export async function warm(contestant: Contestant, assets: number): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1)
    for (let at = 0; at < assets; at += 1)
      await (await request(`${contestant.url}/asset-${at}`)).body.dump({ limit: Number.MAX_SAFE_INTEGER });
}
