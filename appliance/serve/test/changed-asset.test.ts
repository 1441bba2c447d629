// A worker that meets a changed asset drops what it knows of that asset, and of no other.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import type { Origin } from '../../fetch/origin.ts';
import type { AssetView } from '../../http/asset.ts';
import { byteStreamOf } from '../../io/byte-stream.ts';
import type { StorekeeperClient } from '../../link/client.ts';
import type { FetchRequest } from '../../link/messages.ts';
import type { BlockReader } from '../block-reader.ts';
import type { Bypass } from '../bypass.ts';
import { WorkerCounters } from '../counters.ts';
import { AssetServer } from '../serve.ts';

let http: Server | null = null;

afterEach(() => {
  http?.closeAllConnections();
  http?.close();
});

const viewOf = (key: string, version: string): AssetView => ({
  ...{ key, version, originTag: version, bytes: 3, headers: { etag: version }, generatedAtMs: null },
  ...{ holding: null, id: 1, volume: 0, directory: '' },
});

test('an asset that keeps changing fails with version_gone, and other assets are still served without asking', async () => {
  const fetched: string[] = [];
  const storekeeper = {
    fetch: async ({ key, expected }: FetchRequest) => {
      fetched.push(key);
      // A continuation of /changing always meets another version than the lookup before it.
      const asset = viewOf(key, expected === null ? '"v1"' : '"v2"');
      const head = { kind: 'asset', asset, body: false, validated: false, forward: null };
      return { head, body: byteStreamOf(Readable.from([])) };
    },
    arePresent: async () => true,
  };
  const server = new AssetServer({
    ...{ appliance: 'box-1', mode: 'alone', identity: { reverseProxy: false, via: 'larder-test' } },
    ...{ draining: () => false, clock: systemClock, log: silentLog, access: null, counters: new WorkerCounters() },
    ...{ storekeeper: storekeeper as unknown as StorekeeperClient, origin: {} as unknown as Origin },
    reader: { has: async () => true, read: () => null } as unknown as BlockReader,
    bypass: {} as unknown as Bypass,
  });
  http = createServer((request, response) => void server.serve(request, response)).listen(0, '127.0.0.1');
  await once(http, 'listening');
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const head = (path: string): Promise<Response> => fetch(url + path, { method: 'HEAD' });

  expect((await head('/steady')).status).toBe(200);
  const changing = await fetch(`${url}/changing`);
  expect(changing.status).toBe(412);
  expect(await changing.text()).toContain('version_gone');
  expect((await head('/steady')).status).toBe(200);
  expect(fetched.filter((key) => key === '/steady')).toHaveLength(1);
  // What was known of the changed asset is looked up anew.
  const before = fetched.length;
  expect((await head('/changing')).status).toBe(200);
  expect(fetched.slice(before)).toEqual(['/changing']);
});
