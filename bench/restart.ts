// Question: how long does a full appliance take to restart, and how much memory does its index need?
// Decision it informs: the block size, and the format of an index record.

import { join } from 'node:path';
import { operatorToken } from '../runtime/command.ts';
import { absolute, median, type Bench, type Finding, type Parameters } from './bench.ts';
import { evictFromPageCache } from './page-cache.ts';
import { startLarder, type Contestant } from './contestants.ts';
import { processTreeUsage } from './process-usage.ts';
import { formatFigure } from './report.ts';
import { nextMessage, SERVER_CORE, withTestbed, type Testbed } from './testbed.ts';

const BYTES_PER_BLOCK_MAX = 24;
const BYTES_PER_ASSET_MAX = 400;
/** Never contacted: the store is only opened. */
const NO_ORIGIN = 'http://127.0.0.1:9';
const MIB = 2 ** 20;

interface StoreShape {
  readonly what: string;
  readonly assets: number;
  readonly blocksPerAsset: number;
  /** Null if there is no bar. */
  readonly readyMsMax: number | null;
}

export const restart: Bench = {
  name: 'restart',
  question: 'start of an appliance with a full store, its index not in the page cache',
  packages: [],
  small: { rounds: 1, smallAssets: 100, largeAssets: 1_000, blocksPerAsset: 100, segments: 1_000 },
  large: { rounds: 4, smallAssets: 10_000, largeAssets: 250_000, blocksPerAsset: 100, segments: 1_000_000 },
  run: (parameters, log) =>
    withTestbed(async (testbed) => {
      const stores = storeShapes(parameters);
      const empty = await measureEmpty(testbed);
      const findings: Finding[] = [];
      for (const store of stores) {
        log(`${store.what}: creating the store`);
        findings.push(
          ...(await measureRestart({ testbed, store, empty: empty.residentBytes, rounds: parameters['rounds']!, log })),
        );
      }
      return {
        peers: [],
        findings,
        notes: [
          `An empty appliance is ready in ${formatFigure(empty.readyMs / 1_000)} s; memory is in addition to its ${formatFigure(empty.residentBytes / MIB)} MiB.`,
        ],
      };
    }),
};

function storeShapes(parameters: Parameters): StoreShape[] {
  const blocksPerAsset = parameters['blocksPerAsset']!;
  const millions = (count: number): string => `${(count / 1e6).toLocaleString('en')} M`;
  const films = [
    { assets: parameters['smallAssets']!, readyMsMax: 1_000 },
    { assets: parameters['largeAssets']!, readyMsMax: 10_000 },
  ].map((row) => ({ ...row, blocksPerAsset, what: `${millions(row.assets * blocksPerAsset)} blocks` }));
  const segments = parameters['segments']!;
  return [...films, { assets: segments, blocksPerAsset: 1, readyMsMax: null, what: `${millions(segments)} segments` }];
}

async function measureEmpty(testbed: Testbed): Promise<{ readonly residentBytes: number; readonly readyMs: number }> {
  const { server, readyMs } = await startLarder(testbed, { origin: NO_ORIGIN });
  const { residentBytes } = processTreeUsage(server.pid);
  await testbed.stop(server);
  return { residentBytes, readyMs };
}

async function measureRestart(spec: {
  readonly testbed: Testbed;
  readonly store: StoreShape;
  readonly empty: number;
  readonly rounds: number;
  readonly log: (progress: string) => void;
}): Promise<Finding[]> {
  const { testbed, store, rounds } = spec;
  const home = testbed.makeDirectory('home');
  const directory = join(home, 'store');
  const { assets, blocksPerAsset } = store;
  const worker = testbed.spawnWorker('store-index', SERVER_CORE, 'store-index-worker', {
    directory,
    assets,
    blocksPerAsset,
  });
  const { blockBytes } = await nextMessage<{ readonly blockBytes: number }>(worker, 'ready');
  await testbed.stop(worker);
  const storeBytes = Math.ceil((assets * blocksPerAsset * blockBytes * 1.1) / 1e9) + 1;
  const readyMs: number[] = [];
  const bytes: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await evictFromPageCache(join(directory, 'index'));
    const flags = ['--store-bytes', `${storeBytes}GB`];
    const larder = await startLarder(testbed, { origin: NO_ORIGIN, home, flags });
    readyMs.push(larder.readyMs);
    bytes.push(processTreeUsage(larder.server.pid).residentBytes - spec.empty);
    await assertAssetsPresent(larder, home, assets);
    // Alternates between a crash and a clean stop, after which the next round starts.
    await testbed.stop(larder.server, round % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
    spec.log(`${store.what}: round ${round + 1} of ${rounds}`);
  }
  const bytesMax = assets * blocksPerAsset * BYTES_PER_BLOCK_MAX + assets * BYTES_PER_ASSET_MAX;
  return [
    absolute(
      `${store.what}: ready`,
      's',
      Math.max(...readyMs) / 1000,
      store.readyMsMax === null ? null : store.readyMsMax / 1000,
    ),
    absolute(`${store.what}: memory`, 'MiB', median(bytes) / MIB, Math.floor(bytesMax / MIB)),
  ];
}

/** Ensures that the start was not fast because the index was not found. */
async function assertAssetsPresent({ admin }: Contestant, home: string, assets: number): Promise<void> {
  const token = operatorToken({ token: null, fleetKey: join(home, 'fleet.key') });
  const headers = { authorization: `Bearer ${token}` };
  const list = (await (await fetch(`${admin}/v1/assets?limit=1`, { headers })).json()) as { readonly total: number };
  if (list.total !== assets) throw new Error(`the appliance opened ${list.total} of ${assets} assets`);
}
