// A miss of a version that the worker knows but the index no longer has.

import { expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { admitAll } from '../../store/admission.ts';
import { BLOCK_BYTES } from '../../store/block-file.ts';
import { noise } from '../../test/rig.ts';
import { Lookup } from '../lookup.ts';
import { Miss } from '../miss.ts';
import type { Origin } from '../origin.ts';
import { fetchBlock, inflightRig, metaOf } from './inflight-rig.ts';

test('a reader goes on with a version that left the index because nothing of it could be stored', async () => {
  // The reader once got a 503.
  const body = noise(2 * BLOCK_BYTES);
  const { cache, inflight } = inflightRig({ blocks: 0, body });
  const meta = metaOf('/a', body.length);
  const counters = { add: () => undefined };
  const origin = {} as unknown as Origin;
  const rest = { reverseProxy: false, clock: systemClock };
  const lookup = new Lookup({ cache, inflight, origin, catalogued: async () => meta, ...rest });
  const miss = new Miss({ cache, inflight, lookup, alone: false, admission: admitAll, counters });
  const first = {
    headers: {},
    directives: [],
    revalidate: null,
    wantsFullBody: false,
    continuation: false,
  };
  const gone = await cache.ensureEntry(meta);
  await fetchBlock(inflight, gone);
  expect(gone.removed).toBe(true);
  const known = { version: gone.version, id: gone.id, volume: gone.volume.number };
  const opened = await miss.open({ ...first, key: '/a', expected: known, from: 5, to: body.length });
  if (opened.kind !== 'asset' || opened.body === null) throw new Error('no bytes');
  const chunks: Buffer[] = [];
  for await (const chunk of opened.body) chunks.push(chunk);
  expect(Buffer.concat(chunks).equals(body.subarray(5))).toBe(true);
  const other = await miss.open({
    ...first,
    key: '/a',
    expected: { ...known, version: '"other"' },
    from: 5,
    to: body.length,
  });
  expect(other).toMatchObject({ kind: 'asset', body: null });
});
