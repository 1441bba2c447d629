// Purges by the target of a request: every variant, spelling and remembered error of it goes, and nothing that was on its way comes back.

import { expect, test } from 'vitest';
import { cacheStatus, FRESH, Resource, respond, standalone, startAppliances } from './caching-rig.ts';
import { deferred, until } from './waiting.ts';

startAppliances();

interface Receipt {
  readonly purged: number;
  readonly bytes: number;
  readonly errors: number;
  readonly keys: readonly string[];
}

async function send(body: object): Promise<{ readonly status: number; readonly receipt: Receipt }> {
  const answer = await fetch(`${standalone.admin}/v1/purge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${standalone.token}` },
    body: JSON.stringify(body),
  });
  return { status: answer.status, receipt: (await answer.json()) as Receipt };
}

async function purge(body: object): Promise<Receipt> {
  const { status, receipt } = await send(body);
  expect(status).toBe(200);
  return receipt;
}

/** Whether the next request for it is answered from the store. */
const isStored = async (resource: Resource, lines: readonly string[] = []): Promise<boolean> =>
  /hit/.test(cacheStatus(await resource.get(lines)));

test('every variant of an asset is purged', async () => {
  const languages = ['de', 'en', 'fr'].map((each) => `Accept-Language: ${each}`);
  const resource = new Resource({ headers: { ...FRESH, vary: 'accept-language' } });
  for (const language of languages) await resource.fetchAndStore([language]);
  for (const language of languages) expect(await isStored(resource, [language])).toBe(true);
  expect(await purge({ key: resource.path })).toMatchObject({ purged: 3, keys: [resource.path] });
  for (const language of languages) expect(await isStored(resource, [language])).toBe(false);
});

test.each([
  ['a lower-case escape', '-%C3%A9', '-%c3%a9'],
  ['an escaped letter', '-a', '%2Da'],
])('another spelling purges the asset: %s', async (_, suffix, spelled) => {
  const resource = await new Resource({ headers: FRESH }, () => standalone, suffix).fetchAndStore();
  const path = resource.path.slice(0, -suffix.length);
  expect((await purge({ key: path + spelled })).purged).toBe(1);
  expect((await purge({ key: `http://cdn.example${resource.path}` })).purged).toBe(0);
  expect(await isStored(resource)).toBe(false);
});

test('a 404 that is remembered is purged', async () => {
  const resource = new Resource({ status: 404, headers: { 'cache-control': 'max-age=600' }, body: 'no' });
  await resource.get();
  expect(cacheStatus(await resource.get())).toMatch(/hit/);
  expect(await purge({ key: resource.path })).toMatchObject({ purged: 0, errors: 1 });
  resource.respondWith({ headers: FRESH });
  expect((await resource.get()).status).toBe(200);
});

test('everything below a prefix is purged, and nothing else; a dry run removes nothing and says the same', async () => {
  const [one, two, other] = [
    new Resource({ headers: FRESH }),
    new Resource({ headers: FRESH }),
    new Resource({ headers: FRESH }),
  ];
  for (const resource of [one, two, other]) await resource.fetchAndStore();
  const below = `${one.path}/`;
  expect((await purge({ prefix: below })).purged).toBe(0);
  const dry = await purge({ prefix: one.path, dryRun: true });
  expect(await isStored(one)).toBe(true);
  expect(await purge({ prefix: one.path })).toMatchObject({ purged: dry.purged, keys: dry.keys });
  expect(dry.keys).toContain(one.path);
  expect([await isStored(one), await isStored(other)]).toEqual([false, true]);
});

test.each(['key', 'prefix'])(
  'a response that was requested before a purge by %s is not stored after it',
  async (by) => {
    const held = deferred();
    const resource = new Resource((request, response) => {
      void held.promise.then(() => respond(request, response, { headers: FRESH, body: 'before' }));
    });
    const before = resource.get();
    await until(() => resource.requests.length === 1);
    await purge({ [by]: resource.path });
    resource.respondWith({ headers: { ...FRESH, etag: '"v2"' }, body: 'after' });
    held.resolve();
    expect((await before).body.toString()).toBe('before');
    expect((await resource.get()).body.toString()).toBe('after');
  },
);

test('a body without a length that ends after a purge is not stored after it', async () => {
  const held = deferred();
  const resource = new Resource((_, response) => {
    response.writeHead(200, { ...FRESH, 'content-type': 'text/plain' }).write('be');
    void held.promise.then(() => response.end('fore'));
  });
  const before = resource.get(['Range: bytes=0-1']);
  await until(() => resource.requests.length === 1);
  await purge({ key: resource.path });
  resource.respondWith({ headers: { ...FRESH, etag: '"v2"' }, body: 'after' });
  held.resolve();
  await before;
  expect((await resource.get()).body.toString()).toBe('after');
});

test('a second purge waits for the first', async () => {
  const resource = await new Resource({ headers: FRESH }).fetchAndStore();
  const [first, second] = await Promise.all([purge({ key: resource.path }), purge({ key: resource.path })]);
  expect(first.purged + second.purged).toBeGreaterThan(0);
  expect(await isStored(resource)).toBe(false);
});

test.each([
  [{}, 422, /body is \{\}: give one of key, prefix and title/],
  [{ key: '/a/../b' }, 400, /"\/a\/\.\.\/b" has a \. or \.\. segment/],
  [{ key: '/a', prefix: '/b' }, 422, /give one of key, prefix and title/],
  [{ key: 7 }, 422, /give one of key, prefix and title/],
] as const)('%j is refused with %i', async (body: object, status: number, message: RegExp) => {
  const refused = await send(body);
  expect(refused.status).toBe(status);
  expect((refused.receipt as unknown as { readonly error: { readonly message: string } }).error.message).toMatch(
    message,
  );
});
