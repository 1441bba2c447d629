// Question: how fast does one core serve byte ranges of a hot set, against nginx's slice cache on one core?
// Decision it informs: whether node:http may stay on the hot path, and the size of a read.

import { randomFillSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { request } from 'undici';
import { Ring, type Contestant } from './peers.ts';
import { median, type Bench, type Finding } from './bench.ts';
import { wrk } from './wrk.ts';

const SIZES = [
  { label: '64 KiB', bytes: 65_536, bar: 1.05 },
  { label: '1 MiB', bytes: 1_048_576, bar: 1.15 },
  { label: '4 MiB', bytes: 4_194_304, bar: 1.05 },
] as const;
const SERVER_CORE = 0;
const CLIENT_CORE = 1;

export const serve: Bench = {
  name: 'serve',
  question: 'hot ranges per second, one core against one core',
  small: { pairs: 1, seconds: 1, assets: 4, assetMiB: 8, connections: 16 },
  large: { pairs: 10, seconds: 3, assets: 16, assetMiB: 16, connections: 32 },
  async run(parameters, say) {
    const ring = new Ring();
    try {
      const assetBytes = parameters['assetMiB']! * 2 ** 20;
      const root = join(ring.directory, 'root');
      mkdirSync(root);
      for (let at = 0; at < parameters['assets']!; at += 1)
        writeFileSync(join(root, `asset-${at}`), randomFillSync(Buffer.alloc(assetBytes)));
      const origin = await ring.startNginxStatic(root, SERVER_CORE);
      const peer = await ring.startNginxCache(origin.url, SERVER_CORE);
      const larder = await ring.startLarder(origin.url, SERVER_CORE);
      for (const contestant of [peer, larder, origin])
        for (let at = 0; at < parameters['assets']!; at += 1) await warm(contestant, at);

      const findings: Finding[] = [];
      for (const size of SIZES) {
        const load = {
          directory: ring.directory,
          core: CLIENT_CORE,
          seconds: parameters['seconds']!,
          connections: parameters['connections']!,
          rangeBytes: size.bytes,
          assets: parameters['assets']!,
          assetBytes,
        };
        const rates: Record<string, number[]> = {};
        for (let pair = 0; pair < parameters['pairs']!; pair += 1) {
          for (const contestant of [peer, larder, origin]) {
            const result = await wrk({ ...load, url: contestant.url });
            if (result.errors > 0)
              throw new Error(`${contestant.name}: ${result.errors} failed requests at ${size.label}`);
            (rates[contestant.name] ??= []).push(result.requestsPerSecond);
          }
          say(`${size.label}: pair ${pair + 1} of ${parameters['pairs']}`);
        }
        const ratio = median(rates[larder.name]!.map((rate, at) => rate / rates[peer.name]![at]!));
        findings.push({
          what: `${size.label} ranges`,
          unit: 'req/s',
          larder: median(rates[larder.name]!),
          peer: median(rates[peer.name]!),
          reference: median(rates[origin.name]!),
          ratio,
          bar: { at: 'least', ratio: size.bar },
        });
      }
      return { peers: [peer, origin].map(({ name, configuration }) => ({ name, configuration })), findings };
    } finally {
      await ring.close();
    }
  },
};

async function warm(contestant: Contestant, at: number): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1)
    await (await request(`${contestant.url}/asset-${at}`)).body.dump({ limit: Number.MAX_SAFE_INTEGER });
}
