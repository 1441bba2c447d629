// What a worker remembers of stored responses, against a scripted storekeeper.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import { silentLog } from '../../../runtime/log.ts';
import type { Origin } from '../../fetch/origin.ts';
import type { StorekeeperClient } from '../../link/client.ts';
import type { BlockReader } from '../block-reader.ts';
import type { Bypass } from '../bypass.ts';
import { byteStreamOf } from '../../io/byte-stream.ts';
import { WorkerCounters } from '../counters.ts';
import { AssetServer } from '../serve.ts';

let http: Server | null = null;
afterEach(() => {
  http?.closeAllConnections();
  http?.close();
});

test('a version that is invalidated while its lookup is under way is not remembered', async () => {
  const lookups: string[] = [];
  const asset = {
    ...{ key: '/a', version: '"/a"', originTag: null, bytes: 3, headers: {}, generatedAtMs: null, holding: null },
    ...{ id: 1, volume: 0, directory: '' },
  };
  const storekeeper = {
    fetch: async ({ key }: { readonly key: string }) => {
      lookups.push(key);
      // The invalidation overtakes the reply below: they come over different sockets.
      if (lookups.length === 1) server.invalidate([key]);
      return {
        head: { kind: 'asset', asset, body: false, validated: false, forward: null },
        body: byteStreamOf(Readable.from([])),
      };
    },
  };
  const server = new AssetServer({
    ...{
      appliance: 'box-1',
      mode: 'alone',
      identity: { reverseProxy: false, via: 'larder-test' },
      draining: () => false,
      clock: systemClock,
      log: silentLog,
      access: null,
      counters: new WorkerCounters(),
    },
    storekeeper: storekeeper as unknown as StorekeeperClient,
    reader: { has: async () => true } as unknown as BlockReader,
    ...{ origin: {} as unknown as Origin, bypass: {} as unknown as Bypass },
  });
  http = createServer((request, response) => void server.serve(request, response));
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/a`;
  for (let count = 0; count < 3; count += 1) expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
  expect(lookups).toHaveLength(2);
});
