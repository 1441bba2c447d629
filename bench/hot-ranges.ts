// Random ranges over a set of assets that every contestant holds, as many a second as one core serves. The client has the
// other core, and over TLS large ranges are more work for it than for a server: there a server is judged by requests per second
// of its CPU, and the rate stands beside it.

import { randomFillSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atLeast, compare, interleave, type Bar, type Finding, type Parameters } from './bench.ts';
import { holdPages } from './page-cache.ts';
import { peersOf, type Contestant } from './peers.ts';
import { usageOf } from './proc.ts';
import { CLIENT_CORE, type Ring } from './ring.ts';
import { numbered, warm } from './warm.ts';
import { wrk } from './wrk.ts';

export interface Size {
  readonly label: string;
  readonly bytes: number;
  /** Least ratio. */
  readonly bar: number;
}

/** Random bytes at ROOT/asset-N. */
export function writeAssets(root: string, assets: number, bytes: number): void {
  const content = Buffer.alloc(bytes);
  for (let at = 0; at < assets; at += 1) writeFileSync(join(root, `asset-${at}`), randomFillSync(content));
}

export async function hotRanges(spec: {
  readonly ring: Ring;
  readonly parameters: Parameters;
  readonly sizes: readonly Size[];
  readonly contestants: readonly Contestant[];
  readonly judged: 'rate' | 'cpu';
  readonly env?: Readonly<Record<string, string>>;
  readonly say: (progress: string) => void;
}): Promise<Finding[]> {
  const { ring, parameters, contestants, say } = spec;
  const assets = parameters['assets']!;
  for (const { url } of contestants) await warm(numbered(`${url}/asset-`, assets));
  ring.defer(holdPages(ring.directory));
  const findings: Finding[] = [];
  for (const { label, bytes, bar } of spec.sizes) {
    const rates = new Map<string, number[]>(contestants.map(({ name }) => [name, []]));
    const samples = await interleave(
      { rounds: parameters['pairs']!, contestants, say: (progress) => say(`${label}: ${progress}`) },
      async ({ name, url, running }) => {
        const before = usageOf(running.pid).cpuMs;
        const { requestsPerSecond, requests, errors } = await wrk({
          url,
          directory: ring.directory,
          core: CLIENT_CORE,
          seconds: parameters['seconds']!,
          connections: parameters['connections']!,
          rangeBytes: bytes,
          assets,
          assetBytes: parameters['assetMiB']! * 2 ** 20,
          env: spec.env ?? {},
        });
        if (errors > 0) throw new Error(`${name}: ${errors} failed requests at ${label}`);
        rates.get(name)!.push(requestsPerSecond);
        return requests / ((usageOf(running.pid).cpuMs - before) / 1_000);
      },
    );
    const peers = peersOf(contestants);
    const common = { better: 'more', peers } as const;
    const judge = (measure: string): Bar | null => (measure === spec.judged ? atLeast(bar) : null);
    findings.push(
      compare({ ...common, what: label, unit: 'req/s', samples: rates, bar: judge('rate') }),
      compare({ ...common, what: `${label}, by CPU`, unit: 'req/CPU s', samples, bar: judge('cpu') }),
    );
  }
  return findings;
}
