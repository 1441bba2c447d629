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
/** Of the asset that an idle connection has had, and of the one that a stalled reader asked for. */
const IDLE_BYTES = 1_000;
const STALL_BYTES = 16 * MIB;

export const memory: Bench = {
  name: 'memory',
  question: 'memory of connections that are idle, and of readers that stall',
  packages: ['nginx', 'openssl', 'varnish'],
  small: { connections: 100, peerStalled: 100, settleMs: 100 },
  large: { connections: 10_000, peerStalled: 200, settleMs: 2_000 },
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
      const findings = findingsOf(rows, parameters);
      if (await knowsTls()) {
        const { certificate: tls } = await makeCertificate(ring.directory);
        const larder = await startLarder(ring, { origin: distant.url, tls, flags });
        const idle = await crowd(ring, larder, { manner: 'idle', readers: parameters['connections']!, parameters });
        findings.push(alone('all idle over TLS', 'MB', idle / 1e6, scaled(600, parameters)));
      }
      return { peers: peersOf(contestants), findings };
    }),
};

interface Row {
  readonly empty: number;
  readonly idle: number;
  readonly stalled: number;
  /** Bytes for each of them. */
  readonly perIdle: number;
  readonly perStalled: number;
}

async function measure(
  ring: Ring,
  contestant: Contestant,
  parameters: Parameters,
  say: (progress: string) => void,
): Promise<Row> {
  const empty = usageOf(contestant.running.pid).residentBytes;
  const readers = parameters['connections']!;
  const idle = await crowd(ring, contestant, { manner: 'idle', readers, parameters });
  say(`${contestant.name}: ${readers} idle connections`);
  // What a peer keeps for each may be more than the machine has for all.
  const stalling = contestant.name === 'larder' ? readers : Math.min(readers, parameters['peerStalled']!);
  const stalled = await crowd(ring, contestant, { manner: 'stall', readers: stalling, parameters });
  say(`${contestant.name}: ${stalling} stalled readers`);
  return { empty, idle, stalled, perIdle: (idle - empty) / readers, perStalled: (stalled - empty) / stalling };
}

/** Resident bytes while they are all there. */
async function crowd(
  ring: Ring,
  { name, url, running }: Contestant,
  spec: { readonly manner: 'idle' | 'stall'; readonly readers: number; readonly parameters: Parameters },
): Promise<number> {
  const { manner, readers, parameters } = spec;
  const path = `/${manner === 'idle' ? IDLE_BYTES : STALL_BYTES}/asset`;
  await warm([`${url}${path}`]);
  const audience = startAudience(ring, { url, manner, readers, path });
  await audience.ready;
  await new Promise((resolve) => setTimeout(resolve, parameters['settleMs']));
  const { connected, errors } = await audience.counts();
  const { residentBytes } = usageOf(running.pid);
  await audience.leave();
  if (connected < readers) throw new Error(`${name}: ${connected} of ${readers} connections held, ${errors} errors`);
  return residentBytes;
}

function findingsOf(rows: readonly Row[], parameters: Parameters): Finding[] {
  const finding = (what: string, unit: string, pick: (row: Row) => number, most: number | null): Finding => ({
    ...alone(what, unit, pick(rows[0]!), most),
    peers: rows.slice(1).map(pick),
  });
  const ofAll = (what: string, most: number, bytes: (row: Row) => number): Finding => ({
    ...alone(what, 'MB', bytes(rows[0]!) / 1e6, scaled(most, parameters)),
    peers: rows.slice(1).map(() => null),
  });
  return [
    finding('nobody', 'MB', ({ empty }) => empty / 1e6, null),
    finding('an idle connection', 'kB', ({ perIdle }) => perIdle / 1e3, null),
    finding('a stalled reader', 'kB', ({ perStalled }) => perStalled / 1e3, null),
    ofAll('all idle', 250, ({ idle }) => idle),
    ofAll('all stalled', 1_500, ({ stalled }) => stalled),
  ];
}

/** The bar is for ten thousand; a small run is not held against it. */
const scaled = (megabytes: number, parameters: Parameters): number | null =>
  parameters['connections'] === memory.large['connections'] ? megabytes : null;
