// Clients and responses that hold on to something scarce: connections to the origin, permits of the bypass. Others are served
// all the same.

import { expect, test } from 'vitest';
import { FRESH, Resource, respond, reverseProxy, standalone, startAppliances } from './caching-rig.ts';
import { HttpConnection, sendRequest } from './http-client.ts';
import { noise } from './rig.ts';
import { deferred, until } from './waiting.ts';

startAppliances();

/** Connections of the bypass to the origin, and permits of a worker to use them. */
const BYPASS_MAX = 64;
const MB = 2 ** 20;
const NO_STORE = { 'cache-control': 'no-store' };

const openConnections = (port: number): Promise<HttpConnection[]> =>
  Promise.all(Array.from({ length: BYPASS_MAX }, () => HttpConnection.open(port)));

test(`${BYPASS_MAX} uploads whose bodies never come do not keep another upload from the origin`, async () => {
  const resource = new Resource(
    (_, response) => response.writeHead(204).end(),
    () => reverseProxy,
  );
  const idle = await openConnections(reverseProxy.port);
  for (const connection of idle)
    connection.send(`POST ${resource.path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n`);
  const answer = await resource.get([], 'POST');
  for (const connection of idle) connection.destroy();
  expect(answer.status).toBe(204);
});

test(`${BYPASS_MAX} readers that stop reading do not keep another client from what is not cached`, async () => {
  const big = new Resource({ headers: NO_STORE, body: noise(8 * MB) });
  const small = new Resource({ headers: NO_STORE });
  await big.get(['Range: bytes=0-9']);
  const stalled = await openConnections(standalone.port);
  for (const connection of stalled) {
    connection.socket.pause();
    connection.send(`GET ${big.path} HTTP/1.1\r\nHost: a\r\n\r\n`);
  }
  const answer = await small.get();
  for (const connection of stalled) connection.destroy();
  expect(answer.status).toBe(200);
});

test('200 concurrent clients of a response that cannot be cached are all served', async () => {
  const released = deferred();
  const resource = new Resource(
    (request, response, ordinal) => {
      const send = (): void => respond(request, response, { headers: NO_STORE });
      // The first one tells the appliance that nothing is to be stored; of the others none ends before all permits are used.
      if (ordinal === 1) send();
      else void released.promise.then(send);
    },
    () => reverseProxy,
  );
  const answers = Promise.all(Array.from({ length: 200 }, () => resource.get()));
  await until(() => resource.requests.length > BYPASS_MAX);
  released.resolve();
  expect((await answers).filter((answer) => answer.status !== 200).length).toBe(0);
});

test('a response that fails after its head arrived gives its origin connection back', { timeout: 90_000 }, async () => {
  // Vary: Constructor made the code throw once, after the response had begun, and 64 of them ended every fetch.
  const odd = new Resource({ headers: { ...FRESH, vary: 'Constructor' }, body: noise(4 * MB) });
  for (let count = 0; count < BYPASS_MAX + 6; count += 1)
    await sendRequest(standalone.port, { path: odd.path }, 3_000).catch(() => null);
  const answer = await new Resource({ headers: FRESH }).get().catch((error: unknown) => error);
  expect(answer).toMatchObject({ status: 200 });
});
