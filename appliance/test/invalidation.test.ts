// Invalidation by unsafe methods (RFC 9111 4.4), through a reverse proxy: what they remove, what they leave, and that a fetch
// from before the change brings nothing back.

import { describe, expect, test } from 'vitest';
import {
  cacheStatus,
  FRESH,
  origin,
  Resource,
  respond,
  reverseProxy,
  settled,
  startAppliances,
} from './caching-rig.ts';
import { field } from './http-client.ts';
import { deferred, until, type Deferred } from './waiting.ts';

startAppliances();

const proxied = (): typeof reverseProxy => reverseProxy;
const storedResource = (): Promise<Resource> => new Resource({ headers: FRESH }, proxied).fetchAndStore();

test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'PURGE'])(
  '%s is forwarded to the origin and invalidates the stored response',
  async (method) => {
    const resource = await new Resource({ headers: FRESH, body: 'before' }, proxied).fetchAndStore();
    resource.respondWith((request, response) => {
      if (request.method === 'GET') respond(request, response, { headers: { etag: '"v2"' }, body: 'after' });
      else response.writeHead(204).end();
    });
    const done = await resource.get([], method);
    expect([done.status, cacheStatus(done)]).toEqual([204, 'larder; fwd=method; fwd-status=204']);
    expect((await resource.get()).body.toString()).toBe('after');
  },
);

test('a failed POST invalidates nothing; a successful one also Location and Content-Location of the same host', async () => {
  const [other, third, resource] = [await storedResource(), await storedResource(), await storedResource()];
  resource.respondWith((_, response) => response.writeHead(500).end());
  expect((await resource.get([], 'POST')).status).toBe(500);
  expect(cacheStatus(await resource.get())).toMatch(/hit/);
  resource.respondWith((_, response) =>
    response.writeHead(201, { location: other.path, 'content-location': `http://elsewhere${third.path}` }).end(),
  );
  await resource.get([], 'POST');
  expect(cacheStatus(await other.get())).not.toMatch(/hit/);
  expect(cacheStatus(await third.get())).toMatch(/hit/);
});

test('a Location with the authority of the origin is invalidated like a relative one', async () => {
  const other = await storedResource();
  const resource = new Resource(
    (_, response) => response.writeHead(201, { location: origin.url + other.path }).end(),
    proxied,
  );
  expect(field(await resource.get([], 'POST'), 'location')).toBe(other.path);
  expect(cacheStatus(await other.get())).not.toMatch(/hit/);
});

describe('a GET that is on its way to the origin when a PUT succeeds', () => {
  /** Holds back responses with the content from before the PUT. */
  function changedByPut(): { readonly resource: Resource; readonly released: Deferred } {
    const released = deferred();
    let content = 'before';
    const resource = new Resource((request, response) => {
      if (request.method === 'PUT') {
        content = 'after';
        response.writeHead(204).end();
        return;
      }
      const body = content;
      const send = (): void => respond(request, response, { headers: { ...FRESH, etag: `"${body}"` }, body });
      if (body === 'before') void released.promise.then(send);
      else send();
    }, proxied);
    return { resource, released };
  }

  test('is not stored', async () => {
    const { resource, released } = changedByPut();
    const early = resource.get();
    await until(() => resource.requests.length === 1);
    expect((await resource.get([], 'PUT')).status).toBe(204);
    released.resolve();
    await early;
    await settled(reverseProxy);
    expect((await resource.get()).body.toString()).toBe('after');
  });

  test('is not joined by a GET that comes after the response to the PUT', async () => {
    const { resource, released } = changedByPut();
    const early = resource.get();
    await until(() => resource.requests.length === 1);
    await resource.get([], 'PUT');
    const late = resource.get();
    await settled(reverseProxy);
    released.resolve();
    await early;
    expect((await late).body.toString()).toBe('after');
  });
});
