// Question: how soon is a full appliance ready again, and what does its index cost in memory?
// Decision it informs: the size of a block, and the form of an index record.

import { join } from 'node:path';
import { operatorToken } from '../runtime/command.ts';
import { alone, median, type Bench, type Finding, type Parameters } from './bench.ts';
import { dropPages } from './page-cache.ts';
import { startLarder, type Contestant } from './peers.ts';
import { usageOf } from './proc.ts';
import { figure } from './render.ts';
import { message, SERVER_CORE, withRing, type Ring } from './ring.ts';

const BYTES_PER_BLOCK_MAX = 24;
const BYTES_PER_ASSET_MAX = 400;
/** Nobody is asked: the store is only opened. */
const NO_ORIGIN = 'http://127.0.0.1:9';
const MIB = 2 ** 20;

interface Store {
  readonly what: string;
  readonly assets: number;
  readonly blocksPerAsset: number;
  /** Null where no bar is set. */
  readonly readyMsMax: number | null;
}

export const restart: Bench = {
  name: 'restart',
  question: 'a full store opened again, its index not in memory',
  packages: [],
  small: { rounds: 1, smallAssets: 100, largeAssets: 1_000, blocksPerAsset: 100, segments: 1_000 },
  large: { rounds: 4, smallAssets: 10_000, largeAssets: 250_000, blocksPerAsset: 100, segments: 1_000_000 },
  run: (parameters, say) =>
    withRing(async (ring) => {
      const stores = storesOf(parameters);
      const empty = await startEmpty(ring);
      const findings: Finding[] = [];
      for (const store of stores) {
        say(`${store.what}: making the store`);
        findings.push(...(await open({ ring, store, empty: empty.residentBytes, rounds: parameters['rounds']!, say })));
      }
      return {
        peers: [],
        findings,
        notes: [
          `An empty appliance takes ${figure(empty.readyMs / 1_000)} s; memory is beyond its ${figure(empty.residentBytes / MIB)} MiB.`,
        ],
      };
    }),
};

function storesOf(parameters: Parameters): Store[] {
  const blocksPerAsset = parameters['blocksPerAsset']!;
  const millions = (count: number): string => `${(count / 1e6).toLocaleString('en')} M`;
  const films = [
    { assets: parameters['smallAssets']!, readyMsMax: 1_000 },
    { assets: parameters['largeAssets']!, readyMsMax: 10_000 },
  ].map((row) => ({ ...row, blocksPerAsset, what: `${millions(row.assets * blocksPerAsset)} blocks` }));
  const segments = parameters['segments']!;
  return [...films, { assets: segments, blocksPerAsset: 1, readyMsMax: null, what: `${millions(segments)} segments` }];
}

async function startEmpty(ring: Ring): Promise<{ readonly residentBytes: number; readonly readyMs: number }> {
  const { running, readyMs } = await startLarder(ring, { origin: NO_ORIGIN });
  const { residentBytes } = usageOf(running.pid);
  await ring.stop(running);
  return { residentBytes, readyMs };
}

async function open(spec: {
  readonly ring: Ring;
  readonly store: Store;
  readonly empty: number;
  readonly rounds: number;
  readonly say: (progress: string) => void;
}): Promise<Finding[]> {
  const { ring, store, rounds } = spec;
  const home = ring.room('home');
  const directory = join(home, 'store');
  const { assets, blocksPerAsset } = store;
  const maker = ring.spawnModule('store-maker', SERVER_CORE, 'store-maker', { directory, assets, blocksPerAsset });
  const { blockBytes } = await message<{ readonly blockBytes: number }>(maker, 'ready');
  await ring.stop(maker);
  const storeBytes = Math.ceil((assets * blocksPerAsset * blockBytes * 1.1) / 1e9) + 1;
  const readyMs: number[] = [];
  const bytes: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await dropPages(join(directory, 'index'));
    const flags = ['--store-bytes', `${storeBytes}GB`];
    const larder = await startLarder(ring, { origin: NO_ORIGIN, home, flags });
    readyMs.push(larder.readyMs);
    bytes.push(usageOf(larder.running.pid).residentBytes - spec.empty);
    await checkHeld(larder, home, assets);
    // In turn as after a reboot, and as after a crash.
    await ring.stop(larder.running, round % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
    spec.say(`${store.what}: round ${round + 1} of ${rounds}`);
  }
  const bytesMax = assets * blocksPerAsset * BYTES_PER_BLOCK_MAX + assets * BYTES_PER_ASSET_MAX;
  return [
    alone(
      `${store.what}: ready`,
      's',
      Math.max(...readyMs) / 1000,
      store.readyMsMax === null ? null : store.readyMsMax / 1000,
    ),
    alone(`${store.what}: memory`, 'MiB', median(bytes) / MIB, Math.floor(bytesMax / MIB)),
  ];
}

/** Fast because it found nothing would be no result. */
async function checkHeld({ admin }: Contestant, home: string, assets: number): Promise<void> {
  const token = operatorToken({ token: null, fleetKey: join(home, 'fleet.key') });
  const headers = { authorization: `Bearer ${token}` };
  const answer = (await (await fetch(`${admin}/v1/assets?limit=1`, { headers })).json()) as { readonly total: number };
  if (answer.total !== assets) throw new Error(`the appliance opened ${answer.total} of ${assets} assets`);
}
