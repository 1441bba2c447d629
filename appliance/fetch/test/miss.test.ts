// Misses of blocks about which worker, index and disk disagree.

import { expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { admitAll } from '../../store/admission.ts';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import type { AssetMeta, Entry } from '../../store/volume.ts';
import { expectFallback, RecordedCounters } from '../../test/metrics.ts';
import { noise } from '../../test/rig.ts';
import { Lookup } from '../lookup.ts';
import { Miss, type MissResult } from '../miss.ts';
import type { Origin } from '../origin.ts';
import { bytesOf, fetchBlock, inflightRig, metaOf, type InflightRig } from './inflight-rig.ts';

const FETCH = {
  headers: {},
  directives: [],
  revalidate: null,
  wantsFullBody: false,
  continuation: false,
};

function missRig(spec: { readonly blocks: number; readonly body: Buffer }): InflightRig & {
  readonly miss: Miss;
  readonly meta: AssetMeta;
  readonly counters: RecordedCounters;
} {
  const rig = inflightRig(spec);
  const { cache, inflight } = rig;
  const meta = metaOf('/a', spec.body.length);
  const counters = new RecordedCounters();
  const origin = {} as unknown as Origin;
  const rest = { reverseProxy: false, clock: systemClock };
  const lookup = new Lookup({ cache, inflight, origin, catalogued: async () => meta, ...rest });
  const miss = new Miss({
    ...{ cache, inflight, lookup, alone: false, admission: admitAll, clock: systemClock, counters },
    resident: () => null,
  });
  return { ...rig, miss, meta, counters };
}

async function readAll(result: MissResult): Promise<Buffer> {
  if (result.kind !== 'asset' || result.body === null) throw new Error('no bytes');
  const chunks: Buffer[] = [];
  for await (const piece of result.body) chunks.push(bytesOf(piece));
  return Buffer.concat(chunks);
}

const identityOf = (entry: Entry): { readonly version: string; readonly id: number; readonly volume: number } => ({
  version: entry.version,
  id: entry.id,
  volume: entry.volume.number,
});

test('a reader goes on with a version that left the index because nothing of it could be stored', async () => {
  // The reader got a 503 once.
  const body = noise(2 * BLOCK_BYTES);
  const { cache, inflight, miss, meta } = missRig({ blocks: 0, body });
  const gone = await cache.ensureEntry(meta);
  await fetchBlock(inflight, gone);
  expect(gone.removed).toBe(true);
  const range = { ...FETCH, key: '/a', from: 5, to: body.length };
  const read = await readAll(await miss.open({ ...range, expected: identityOf(gone) }));
  expect(read.equals(body.subarray(5))).toBe(true);
  const other = await miss.open({ ...range, expected: { ...identityOf(gone), version: '"other"' } });
  expect(other).toMatchObject({ kind: 'asset', body: null });
});

test('a block that the index has but the disk has not is fetched again (block_damaged_refetch)', async () => {
  const body = noise(BLOCK_BYTES);
  const { cache, inflight, miss, meta, counters } = missRig({ blocks: 4, body });
  const entry = await cache.ensureEntry(meta);
  await fetchBlock(inflight, entry);
  expect(entry.blocks.has(0)).toBe(true);
  entry.volume.read = async () => null;
  const range = { ...FETCH, key: '/a', from: 0, to: body.length };
  // As soon as the block is stored again, the rest of it is left to the block file.
  const read = await readAll(await miss.open({ ...range, expected: identityOf(entry) }));
  expect(read.length).toBeGreaterThan(0);
  expect(read.equals(body.subarray(0, read.length))).toBe(true);
  await expectFallback(counters, 'block_damaged_refetch');
});
