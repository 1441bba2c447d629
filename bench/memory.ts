// Question: how much memory do idle connections and stalled clients cost?
// Decision it informs: the state per connection, and how much is written ahead to a slow client.

import { systemClock } from '../runtime/clock.ts';
import { absolute, type Bench, type Finding, type Parameters } from './bench.ts';
import { startClients } from './client-pool.ts';
import { createCertificate } from './certificate.ts';
import { startDelayedOrigin } from './delayed-origin.ts';
import { supportsTls, peersOf, startLarder, startNginxCache, startVarnish, type Contestant } from './contestants.ts';
import { processTreeUsage } from './process-usage.ts';
import { withTestbed, type Testbed } from './testbed.ts';
import { warmUp } from './assets.ts';

const MIB = 2 ** 20;
/** Size of the asset that an idle client has read, and of the one that a stalled client has requested. */
const IDLE_BYTES = 1_000;
const STALL_BYTES = 16 * MIB;

export const memory: Bench = {
  name: 'memory',
  question: 'memory of idle connections and of stalled clients',
  packages: ['nginx', 'openssl', 'varnish'],
  small: { connections: 100, peerStalled: 100, settleMs: 100 },
  large: { connections: 10_000, peerStalled: 200, settleMs: 2_000 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const origin = await startDelayedOrigin(testbed, { roundTripMs: 0, bytesPerSecond: 0 });
      const flags = ['--connections-max', '20000'];
      const starters: readonly (() => Promise<Contestant>)[] = [
        () => startLarder(testbed, { origin: origin.url, flags }),
        () => startNginxCache(testbed, { origin: origin.url }),
        () => startVarnish(testbed, { origin: origin.url }),
      ];
      const samples: MemorySample[] = [];
      const contestants: Contestant[] = [];
      for (const start of starters) {
        const contestant = await start();
        contestants.push(contestant);
        samples.push(await measureContestant(testbed, contestant, parameters, log));
        await testbed.stop(contestant.server);
      }
      const findings = findingsOf(samples, parameters);
      if (await supportsTls()) {
        const { files: tls } = await createCertificate(testbed.directory);
        const larder = await startLarder(testbed, { origin: origin.url, tls, flags });
        const idle = await residentBytesWith(testbed, larder, {
          mode: 'idle',
          clients: parameters['connections']!,
          parameters,
        });
        findings.push(absolute('all idle over TLS', 'MB', idle / 1e6, barAtFullSize(600, parameters)));
      }
      return { peers: peersOf(contestants), findings };
    }),
};

interface MemorySample {
  /** Resident bytes without connections, with idle ones, and with stalled ones. */
  readonly empty: number;
  readonly idle: number;
  readonly stalled: number;
  /** Bytes per connection. */
  readonly perIdle: number;
  readonly perStalled: number;
}

async function measureContestant(
  testbed: Testbed,
  contestant: Contestant,
  parameters: Parameters,
  log: (progress: string) => void,
): Promise<MemorySample> {
  const empty = processTreeUsage(contestant.server.pid).residentBytes;
  const clients = parameters['connections']!;
  const idle = await residentBytesWith(testbed, contestant, { mode: 'idle', clients, parameters });
  log(`${contestant.name}: ${clients} idle connections`);
  // A peer may need more memory for all stalled clients than the machine has, so it gets fewer.
  const stalling = contestant.name === 'larder' ? clients : Math.min(clients, parameters['peerStalled']!);
  const stalled = await residentBytesWith(testbed, contestant, { mode: 'stall', clients: stalling, parameters });
  log(`${contestant.name}: ${stalling} stalled clients`);
  return { empty, idle, stalled, perIdle: (idle - empty) / clients, perStalled: (stalled - empty) / stalling };
}

/** Resident bytes of a contestant while all these clients are connected. */
async function residentBytesWith(
  testbed: Testbed,
  { name, url, server }: Contestant,
  spec: { readonly mode: 'idle' | 'stall'; readonly clients: number; readonly parameters: Parameters },
): Promise<number> {
  const { mode, clients, parameters } = spec;
  const path = `/${mode === 'idle' ? IDLE_BYTES : STALL_BYTES}/asset`;
  await warmUp([`${url}${path}`]);
  const pool = startClients(testbed, { url, mode, clients, path });
  await pool.ready;
  await systemClock.sleep(parameters['settleMs']!);
  const { connected, errors } = await pool.counts();
  const { residentBytes } = processTreeUsage(server.pid);
  await pool.close();
  if (connected < clients)
    throw new Error(`${name}: ${connected} of ${clients} connections are open, ${errors} errors`);
  return residentBytes;
}

function findingsOf(samples: readonly MemorySample[], parameters: Parameters): Finding[] {
  const finding = (
    what: string,
    unit: string,
    pick: (sample: MemorySample) => number,
    max: number | null,
  ): Finding => ({
    ...absolute(what, unit, pick(samples[0]!), max),
    peers: samples.slice(1).map(pick),
  });
  const total = (what: string, max: number, bytes: (sample: MemorySample) => number): Finding => ({
    ...absolute(what, 'MB', bytes(samples[0]!) / 1e6, barAtFullSize(max, parameters)),
    peers: samples.slice(1).map(() => null),
  });
  return [
    finding('no connections', 'MB', ({ empty }) => empty / 1e6, null),
    finding('per idle connection', 'kB', ({ perIdle }) => perIdle / 1e3, null),
    finding('per stalled client', 'kB', ({ perStalled }) => perStalled / 1e3, null),
    total('all idle', 250, ({ idle }) => idle),
    total('all stalled', 1_500, ({ stalled }) => stalled),
  ];
}

/** The bars are for ten thousand connections and do not apply to a small run. */
const barAtFullSize = (megabytes: number, parameters: Parameters): number | null =>
  parameters['connections'] === memory.large['connections'] ? megabytes : null;
