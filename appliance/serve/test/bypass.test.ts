// Responses that pass through a worker without being stored.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../../runtime/clock.ts';
import type { Origin } from '../../fetch/origin.ts';
import { sendRequest } from '../../test/http-client.ts';
import { Bypass } from '../bypass.ts';
import { byteStreamOf } from '../../io/byte-stream.ts';
import { WorkerCounters } from '../counters.ts';

let http: Server | null = null;
afterEach(() => {
  http?.closeAllConnections();
  http?.close();
});

test('a relayed response ends with its last byte, whenever its source reports the end', async () => {
  const [counters, clock, identity] = [new WorkerCounters(), systemClock, { reverseProxy: false, via: 'box-1' }];
  const storekeeper = { update: async (): Promise<void> => undefined };
  const bypass = new Bypass({ origin: {} as unknown as Origin, storekeeper, identity, counters, access: null, clock });
  const forward = { reason: 'uri-miss', status: 404, stored: false, collapsed: false } as const;
  const head = { kind: 'relay', status: 404, headers: { 'content-length': '5' }, cookies: [], forward, leftMs: null };
  const body = new Readable({ read: () => undefined });
  body.push('12345');
  const running: Promise<unknown>[] = [];
  http = createServer((request, response) => {
    running.push(
      once(response, 'finish'),
      bypass.relay(request, response, { head, reply: { head, body: byteStreamOf(body) } } as never),
    );
  });
  await once(http.listen(0, '127.0.0.1'), 'listening');
  const answer = await sendRequest((http.address() as AddressInfo).port, { path: '/' });
  expect([answer.status, answer.body.toString()]).toEqual([404, '12345']);
  await running[0];
  body.push(null);
  await Promise.all(running);
});
