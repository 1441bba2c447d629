// One cache, many clients: nothing that was made for one client is given to another, nothing that one client sends changes
// what others get, and one client's private response does not keep the public one out of the cache.

import { describe, expect, test } from 'vitest';
import {
  aged,
  cacheStatus,
  FRESH,
  Resource,
  respond,
  reverseProxy,
  settled,
  standalone,
  startAppliances,
  V1,
} from './caching-rig.ts';
import { field } from './http-client.ts';
import { noise } from './rig.ts';
import { deferred, until } from './waiting.ts';

startAppliances();

const MB = 2 ** 20;

describe('clients that wait for the same response', () => {
  test('two anonymous clients that wait for a redirect with Set-Cookie get one cookie each', async () => {
    const released = deferred();
    const resource = new Resource((_, response, ordinal) => {
      const headers = { location: '/home', 'set-cookie': `session=${ordinal}`, 'cache-control': 'no-store' };
      void released.promise.then(() => response.writeHead(302, headers).end());
    });
    const both = [resource.get(), resource.get()];
    await until(() => resource.requests.length >= 1);
    await settled(standalone);
    released.resolve();
    const [ann, bob] = await Promise.all(both);
    expect(field(ann!, 'set-cookie')).not.toBe(field(bob!, 'set-cookie'));
  });

  test('two clients that wait for a redirect that varies get the one for their language each', async () => {
    const released = deferred();
    const resource = new Resource((request, response) => {
      const location = `/${request.headers['accept-language']}/`;
      void released.promise.then(() => response.writeHead(302, { location, vary: 'Accept-Language' }).end());
    });
    const both = ['da', 'de'].map((language) => resource.get([`Accept-Language: ${language}`]));
    await until(() => resource.requests.length >= 1);
    await settled(standalone);
    released.resolve();
    expect((await Promise.all(both)).map((answer) => field(answer, 'location'))).toEqual(['/da/', '/de/']);
  });

  test('a client that joined the refused fetch of another client fetches the block itself', async () => {
    const range = `Range: bytes=${10 * MB}-${10 * MB + 9}`;
    const body = noise(12 * MB);
    const released = deferred();
    const resource = new Resource((request, response) => {
      if (request.headers.authorization === 'bad')
        void released.promise.then(() => response.writeHead(401, { 'content-length': '0' }).end());
      else respond(request, response, { headers: { ...V1, 'cache-control': 'public, max-age=600' }, body });
    });
    await resource.get(['Range: bytes=0-9']);
    await resource.untilStored();
    const refused = resource.get(['Authorization: bad', range]);
    await until(() => resource.requests.some(({ headers }) => headers.authorization === 'bad'));
    const joined = resource.get([range]);
    await settled(standalone);
    released.resolve();
    await refused;
    expect((await joined).status).toBe(206);
  });
});

test.each(['HEAD', 'GET'])(
  'fields of a response to %s with Authorization do not update the shared entry',
  async (method) => {
    const resource = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    resource.respondWith((request, response) => {
      const user = request.headers.authorization;
      respond(request, response, { headers: { ...FRESH, ...(user === undefined ? {} : { 'x-user': user }) } });
    });
    await resource.get(['Authorization: ann'], method);
    expect(field(await resource.get(), 'x-user')).toBeNull();
  },
);

test('a private response to one client does not keep the public one out of the cache', async () => {
  const resource = new Resource((request, response) => {
    const directives = request.headers.cookie === undefined ? 'max-age=600' : 'private';
    respond(request, response, { headers: { ...V1, 'cache-control': directives } });
  });
  await resource.get(['Cookie: session=1']);
  await resource.get();
  await resource.untilStored();
  expect(cacheStatus(await resource.get())).toMatch(/^larder; hit/);
});

test.each([
  'X-Forwarded-Host: evil.example',
  'X-HTTP-Method-Override: DELETE',
  'X-Original-URL: /admin',
  'Forwarded: host=evil.example',
])('a field that is not part of the cache key is not sent with a shared fetch: %s', async (line) => {
  // Cache poisoning: the origin would respond to the field, and everybody would get that response.
  const name = line.split(':')[0]!.toLowerCase();
  const resource = new Resource(
    (request, response) => respond(request, response, { headers: FRESH, body: `for ${String(request.headers[name])}` }),
    () => reverseProxy,
  );
  await resource.fetchAndStore([line]);
  expect((await resource.get()).body.toString()).toBe('for undefined');
});
