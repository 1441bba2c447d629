// The bytes of a range from the storekeeper: what happens when the client or the range ends before the stream does, and when
// the storekeeper is down.

import { Readable } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { Fault } from '../../../protocol/faults.ts';
import { expectFallback, RecordedCounters } from '../../test/metrics.ts';
import { until } from '../../test/waiting.ts';
import { WorkerCounters } from '../counters.ts';
import { RangeBody, type RangeBodyDeps } from '../range-body.ts';

const ASSET = {
  ...{ key: '/a', version: '"/a"', bytes: 3, headers: {}, generatedAtMs: null, holding: null },
  ...{ id: 1, volume: 0, directory: '' },
};
const HEAD = { kind: 'asset', asset: ASSET, body: true, validated: false, forward: null } as const;

test('for a client that hangs up while it waits for bytes nothing is fetched again', async () => {
  const closed = vi.fn<() => void>();
  let end = (): void => undefined;
  const body = {
    next: () => new Promise<null>((resolve) => (end = () => resolve(null))),
    close: () => {
      closed();
      end();
    },
  };
  const fetch = vi.fn(async () => ({ head: HEAD, body }));
  const deps = {
    reader: { read: () => null },
    storekeeper: { fetch },
    origin: {},
    counters: new WorkerCounters(),
  } as unknown as RangeBodyDeps;
  const source = new RangeBody(deps, ASSET, { at: 0, end: 3, headers: {}, opening: null });
  const pending = source.next();
  await until(() => fetch.mock.calls.length === 1);
  source.close();
  expect(await pending).toBeNull();
  expect(fetch).toHaveBeenCalledTimes(1);
  expect(closed).toHaveBeenCalledTimes(1);
});

test('a stream that carries more than the range is closed at the end of the range', async () => {
  const [closed, release] = [vi.fn<() => void>(), vi.fn<() => void>()];
  const body = { next: async () => ({ bytes: Buffer.from('abc'), release }), close: closed };
  const deps = { reader: {}, storekeeper: {}, origin: {}, counters: new WorkerCounters() } as unknown as RangeBodyDeps;
  const source = new RangeBody(deps, ASSET, { at: 0, end: 1, headers: {}, opening: { head: HEAD, body } });
  expect((await source.next())!.bytes.toString()).toBe('a');
  expect(source.next()).toBeNull();
  expect(closed).toHaveBeenCalledTimes(1);
});

test('while the storekeeper is down the origin is asked for the bytes (storekeeper_down_origin)', async () => {
  const counters = new RecordedCounters();
  const deps = {
    reader: { read: () => null },
    storekeeper: { fetch: () => Promise.reject(new Fault('unreachable', 'the storekeeper is down')) },
    origin: { fetch: async () => ({ kind: 'bytes', first: 0, body: Readable.from([Buffer.from('abc')]) }) },
    counters,
  } as unknown as RangeBodyDeps;
  const source = new RangeBody(deps, ASSET, { at: 0, end: 3, headers: {}, opening: null });
  expect((await source.next())!.bytes.toString()).toBe('abc');
  await expectFallback(counters, 'storekeeper_down_origin');
});
