// What a worker sends to the origin while the storekeeper is down, and what it refuses.

import { Readable } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { Fault } from '../../../protocol/faults.ts';
import type { RangeRequest } from '../../fetch/origin.ts';
import type { AssetView } from '../../http/asset.ts';
import { WorkerCounters } from '../counters.ts';
import { RangeBody, type RangeBodyDeps } from '../range-body.ts';
import { withoutLookup } from '../storekeeper-down.ts';

const ASSET: AssetView = {
  ...{ key: '/film', version: '"0123456789abcdef0123456789abcdef"', originTag: null, bytes: 3, headers: {} },
  ...{ generatedAtMs: null, holding: 'film:video', id: 1, volume: 0, directory: '' },
};

function bodyOf(asset: AssetView) {
  const counters = new WorkerCounters();
  const fetchFromOrigin = vi.fn(async (_pool: string, _range: RangeRequest) => ({
    ...{ kind: 'bytes', first: 0, last: 2, total: 3 },
    body: Readable.from([Buffer.from('abc')]),
  }));
  const deps = {
    reader: { read: () => null },
    storekeeper: { fetch: () => Promise.reject(new Fault('unreachable', 'the storekeeper cannot be reached')) },
    origin: { fetch: fetchFromOrigin },
    counters,
  } as unknown as RangeBodyDeps;
  const body = new RangeBody(deps, asset, { at: 0, end: 3, headers: {}, open: null });
  return { body, counters, fetchFromOrigin };
}

test('a catalogued asset without an entity tag of the origin is not asked for by the digest that Larder names it by', async () => {
  const { body, fetchFromOrigin } = bodyOf(ASSET);
  await expect(body.next()).rejects.toMatchObject({ code: 'overloaded' });
  expect(fetchFromOrigin).not.toHaveBeenCalled();
});

test('an asset with an entity tag of the origin is continued from there by that tag, and counted as a fallback', async () => {
  const { body, counters, fetchFromOrigin } = bodyOf({ ...ASSET, version: '"v1"', originTag: '"v1"' });
  expect((await body.next())!.bytes.toString()).toBe('abc');
  expect(fetchFromOrigin.mock.calls[0]).toMatchObject(['bypass', { ifMatch: '"v1"', first: 0, last: 2 }]);
  const fallback = { name: 'larder_fallback_total', value: 1, labels: { name: 'storekeeper_down_origin' } };
  expect(counters.drain(0).counts).toContainEqual(fallback);
});

test('a request for an unknown asset is forwarded stand-alone, and refused in a fleet, where only the catalog is served', () => {
  const counters = new WorkerCounters();
  expect(withoutLookup({ mode: 'alone', counters }, new Map())).toMatchObject({ kind: 'bypass' });
  expect(() => withoutLookup({ mode: 'fleet', counters }, new Map())).toThrow('assets that are not known here');
});

test('a request with only-if-cached is not forwarded (RFC 9111 5.2.1.7)', () => {
  const counters = new WorkerCounters();
  expect(withoutLookup({ mode: 'alone', counters }, new Map([['only-if-cached', null]]))).toEqual({
    kind: 'not-cached',
  });
  expect(counters.drain(0).counts).toEqual([]);
});
