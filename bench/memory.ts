// Question: what do connections cost that do nothing, and readers that have stopped reading?
// Decision it informs: what a connection may keep, and how much is written ahead of a slow reader.

import { alone, type Bench, type Finding, type Parameters } from './bench.ts';
import { startAudience } from './audience.ts';
import { makeCertificate } from './certificate.ts';
import { startDistant } from './distant.ts';
import { knowsTls, peersOf, startLarder, startNginxCache, startVarnish, type Contestant } from './peers.ts';
import { usageOf } from './proc.ts';
import { withRing, type Ring } from './ring.ts';
import { warm } from './warm.ts';

const MIB = 2 ** 20;
const SMALL_BYTES = 1_000;
const LONG_BYTES = 16 * MIB;
const SETTLE_MS = 2_000;

export const memory: Bench = {
  name: 'memory',
  question: 'memory of connections that are idle, and of readers that stall',
  packages: ['nginx', 'openssl', 'varnish'],
  small: { connections: 200 },
  large: { connections: 10_000 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const distant = await startDistant(ring, { roundTripMs: 0, bytesPerSecond: 0 });
      const flags = ['--connections-max', '20000'];
      const starters: readonly (() => Promise<Contestant>)[] = [
        () => startLarder(ring, { origin: distant.url, flags }),
        () => startNginxCache(ring, { origin: distant.url }),
        () => startVarnish(ring, { origin: distant.url }),
      ];
      const rows: Row[] = [];
      const contestants: Contestant[] = [];
      for (const start of starters) {
        const contestant = await start();
        contestants.push(contestant);
        rows.push(await measure(ring, contestant, parameters, say));
        await ring.stop(contestant.running);
      }
      const findings = plainFindings(rows, parameters);
      if (await knowsTls()) {
        const { certificate: tls } = await makeCertificate(ring.directory);
        const larder = await startLarder(ring, { origin: distant.url, tls, flags });
        const idle = await crowd(ring, larder, { manner: 'idle', parameters, bytes: SMALL_BYTES });
        findings.push(alone(`idle over TLS`, 'MB', idle / 1e6, scaled(600, parameters)));
      }
      return { peers: peersOf(contestants), findings };
    }),
};

interface Row {
  readonly empty: number;
  readonly idle: number;
  readonly stalled: number;
}

async function measure(
  ring: Ring,
  contestant: Contestant,
  parameters: Parameters,
  say: (progress: string) => void,
): Promise<Row> {
  const empty = usageOf(contestant.running.pid).residentBytes;
  const idle = await crowd(ring, contestant, { manner: 'idle', parameters, bytes: SMALL_BYTES });
  say(`${contestant.name}: idle connections`);
  const stalled = await crowd(ring, contestant, { manner: 'stall', parameters, bytes: LONG_BYTES });
  say(`${contestant.name}: stalled readers`);
  return { empty, idle, stalled };
}

/** Resident bytes while they are all there. */
async function crowd(
  ring: Ring,
  { name, url, running }: Contestant,
  spec: { readonly manner: 'idle' | 'stall'; readonly parameters: Parameters; readonly bytes: number },
): Promise<number> {
  const readers = spec.parameters['connections']!;
  const path = `/${spec.bytes}/asset`;
  await warm([`${url}${path}`]);
  const audience = startAudience(ring, { url, manner: spec.manner, readers, path });
  await audience.ready;
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const { connected, errors } = await audience.counts();
  const { residentBytes } = usageOf(running.pid);
  await audience.leave();
  if (connected < readers) throw new Error(`${name}: ${connected} of ${readers} connections held, ${errors} errors`);
  return residentBytes;
}

function plainFindings(rows: readonly Row[], parameters: Parameters): Finding[] {
  const finding = (what: string, pick: (row: Row) => number, most: number | null): Finding => ({
    ...alone(what, 'MB', pick(rows[0]!) / 1e6, most),
    peers: rows.slice(1).map((row) => pick(row) / 1e6),
  });
  return [
    finding('nobody', ({ empty }) => empty, null),
    finding('idle', ({ idle }) => idle, scaled(250, parameters)),
    finding('stalled', ({ stalled }) => stalled, scaled(1_500, parameters)),
  ];
}

/** The bar is for ten thousand; a small run is not held against it. */
const scaled = (megabytes: number, parameters: Parameters): number | null =>
  parameters['connections'] === memory.large['connections'] ? megabytes : null;
