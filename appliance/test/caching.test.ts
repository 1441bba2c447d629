// RFC 9111 as a shared cache, rule by rule: freshness, validation, request directives, Authorization. The client is at the
// socket of a stand-alone appliance, before a scripted origin. Responses age by the Age and Date fields that the origin
// sends, so no test waits for a clock.

import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../../runtime/clock.ts';
import { decodeRecord } from '../store/index-record.ts';
import {
  aged,
  cacheStatus,
  FRESH,
  Resource,
  respond,
  settled,
  standalone,
  startAppliances,
  V1,
  type Handler,
} from './caching-rig.ts';
import { expectFault } from './faults.ts';
import { field } from './http-client.ts';
import { noise } from './rig.ts';
import { deferred, until } from './waiting.ts';

startAppliances();

const MB = 2 ** 20;

describe('freshness', () => {
  const httpDate = (offsetMs: number): string => new Date(systemClock.now() + offsetMs).toUTCString();
  const HOUR_AGO = (): string => httpDate(-3_600_000);
  const IN_AN_HOUR = (): string => httpDate(3_600_000);
  test.each<readonly [string, 'fresh' | 'stale', () => Record<string, string | string[]>]>([
    ['max-age', 'fresh', () => ({ 'cache-control': 'max-age=60' })],
    ['max-age exceeded by Age', 'stale', () => ({ 'cache-control': 'max-age=60', age: '61' })],
    ['max-age exceeded according to Date', 'stale', () => ({ 'cache-control': 'max-age=60', date: HOUR_AGO() })],
    ['max-age=0', 'stale', () => ({ 'cache-control': 'max-age=0' })],
    ['a quoted max-age', 'fresh', () => ({ 'cache-control': 'max-age="60"' })],
    ['a max-age that is not a number', 'stale', () => ({ 'cache-control': 'max-age=soon', expires: IN_AN_HOUR() })],
    ['two different max-age', 'stale', () => ({ 'cache-control': 'max-age=60, max-age=3600' })],
    ['a max-age beyond 2^31', 'fresh', () => ({ 'cache-control': 'max-age=99999999999999999999' })],
    ['s-maxage=0 beside max-age', 'stale', () => ({ 'cache-control': 'max-age=60, s-maxage=0' })],
    ['s-maxage beside max-age=0', 'fresh', () => ({ 'cache-control': 's-maxage=60, max-age=0' })],
    ['Expires in an hour', 'fresh', () => ({ expires: IN_AN_HOUR() })],
    ['Expires in the past', 'stale', () => ({ expires: HOUR_AGO() })],
    ['Expires: 0', 'stale', () => ({ expires: '0' })],
    ['max-age and Expires in the past', 'fresh', () => ({ expires: HOUR_AGO(), 'cache-control': 'max-age=60' })],
    ['a directive in capitals', 'fresh', () => ({ 'cache-control': 'MAX-AGE=60' })],
    ['max-age after an unknown directive', 'fresh', () => ({ 'cache-control': 'x="a, max-age=0", max-age=60' })],
    ['an old Last-Modified alone', 'fresh', () => ({ 'last-modified': 'Sun, 01 Nov 2020 00:00:00 GMT' })],
    ['a Last-Modified of now alone', 'stale', () => ({ 'last-modified': httpDate(0) })],
    ['no field about freshness', 'stale', () => ({})],
    [
      'a fresh CDN-Cache-Control beside no-store',
      'fresh',
      () => ({ 'cdn-cache-control': 'max-age=60', 'cache-control': 'no-store' }),
    ],
    [
      'CDN-Cache-Control: max-age=0 beside max-age=60',
      'stale',
      () => ({ 'cdn-cache-control': 'max-age=0', 'cache-control': 'max-age=60' }),
    ],
    [
      'CDN-Cache-Control without a lifetime beside Expires',
      'stale',
      () => ({ 'cdn-cache-control': 'must-revalidate', expires: IN_AN_HOUR() }),
    ],
    [
      'a malformed CDN-Cache-Control beside max-age=60',
      'fresh',
      () => ({ 'cdn-cache-control': '=max-age', 'cache-control': 'max-age=60' }),
    ],
    ['no-cache', 'stale', () => ({ 'cache-control': 'max-age=60, no-cache' })],
    ['no-cache of one field', 'stale', () => ({ 'cache-control': 'max-age=60, no-cache="x"' })],
    ['two Cache-Control fields', 'stale', () => ({ 'cache-control': ['max-age=60', 'no-cache'] })],
  ])('a stored response with %s is %s', async (_, state, headers) => {
    const resource = await new Resource({ headers: { ...V1, ...headers() } }).fetchAndStore();
    const again = await resource.get();
    expect([again.status, again.body.toString()]).toEqual([200, 'the one and only body']);
    expect(resource.requests.length).toBe(state === 'fresh' ? 1 : 2);
    expect(cacheStatus(again)).toMatch(state === 'fresh' ? /^larder; hit/ : /^larder; fwd=stale; fwd-status=304$/);
    if (state === 'stale') expect(resource.requests[1]!.headers['if-none-match']).toBe('"v1"');
  });

  test('Age and ttl of a hit include the Age that the response arrived with', async () => {
    const resource = await new Resource({ headers: aged('max-age=600', 100) }).fetchAndStore();
    const hit = await resource.get();
    expect(Number(field(hit, 'age'))).toBeGreaterThanOrEqual(100);
    expect(Number(field(hit, 'age'))).toBeLessThan(160);
    expect(Number(/ttl=(\d+)/.exec(cacheStatus(hit))![1])).toBeLessThanOrEqual(500);
  });
});

/** The record that the index would have if the appliance crashed now; null if there is none, or the copy failed. */
async function recordAfterCrash(key: string): Promise<ReturnType<typeof decodeRecord> | null> {
  const copy = mkdtempSync(join(tmpdir(), 'larder-index-copy-'));
  try {
    cpSync(join(standalone.stores()[0]!, 'index'), copy, { recursive: true });
    rmSync(join(copy, 'LOCK'), { force: true });
    const index = new Level(copy);
    const rows = await index.iterator({ gte: 'a', lt: 'b' }).all();
    await index.close();
    return (
      rows.map(([rowKey, value]) => decodeRecord(rowKey, value)).find((record) => record?.meta.key === key) ?? null
    );
  } catch {
    // A file went away while the directory was copied.
    return null;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

describe('what is stored', () => {
  test('a response with neither freshness nor validator is not stored', async () => {
    const resource = new Resource((request, response, ordinal) =>
      respond(request, response, { body: `response ${ordinal}` }),
    );
    const bodies = [await resource.get(), await resource.get()].map(({ body }) => body.toString());
    expect(bodies).toEqual(['response 1', 'response 2']);
  });

  test('a chunked response is stored', async () => {
    const resource = new Resource((_, response) => {
      response.writeHead(200, FRESH);
      response.write('one ');
      response.end('two');
    });
    expect((await resource.get()).body.toString()).toBe('one two');
    await resource.untilStored();
    for (let round = 0; round < 2; round += 1) expect((await resource.get()).body.toString()).toBe('one two');
    expect(resource.requests).toHaveLength(1);
  });

  test.each([
    ['a quoted comma', 'no-store, note="a, b"', 'max-age=600'],
    ['a decimal', 'no-store, weight=1.5', 'max-age=600'],
    ['an inner list', 'no-store, to=(a b)', 'max-age=600'],
    ['a max-age of the wrong type', 'max-age="600"', 'no-store'],
  ])('a CDN-Cache-Control with %s is parsed as a structured field (RFC 9213), so nothing is stored', async (...row) => {
    const [, targeted, plain] = row;
    const resource = new Resource({ headers: { ...V1, 'cdn-cache-control': targeted, 'cache-control': plain } });
    await resource.get();
    await settled(standalone);
    expect(cacheStatus(await resource.get())).not.toMatch(/hit/);
  });

  test('a later range that the origin forbids to store is not stored', async () => {
    const resource = new Resource((request, response, ordinal) =>
      respond(request, response, {
        headers: { ...V1, 'cache-control': ordinal === 1 ? 'max-age=600' : 'no-store' },
        body: noise(12 * MB),
      }),
    );
    await resource.get(['Range: bytes=0-9']);
    await resource.untilStored();
    await resource.get([`Range: bytes=${10 * MB}-${10 * MB + 9}`]);
    await settled(standalone);
    expect(cacheStatus(await resource.get([`Range: bytes=${10 * MB}-${10 * MB + 9}`]))).not.toMatch(/hit/);
  });

  test('a response whose fields do not fit the head of a block file is served and not announced as stored', async () => {
    const headers = { ...FRESH, 'content-disposition': `inline; filename="${'\xe9'.repeat(1_500)}"` };
    const resource = new Resource({ headers }, () => standalone, `?${'q'.repeat(1_300)}`);
    expect(cacheStatus(await resource.get())).not.toMatch(/stored/);
    expect((await resource.get()).body.toString()).toBe('the one and only body');
  });

  test('Proxy-Authentication-Info is not stored (RFC 9111 3.1)', async () => {
    const headers = { ...FRESH, 'proxy-authentication-info': 'nextnonce="x"' };
    const resource = await new Resource({ headers }).fetchAndStore();
    expect(field(await resource.get(), 'proxy-authentication-info')).toBeNull();
  });
});

describe('validation', () => {
  test('a 304 updates the stored fields that it carries and keeps the others', async () => {
    const first = { ...aged('max-age=10', 20), 'x-one': 'a', 'x-two': 'a', 'content-type': 'text/one' };
    const resource = await new Resource({ headers: first }).fetchAndStore();
    resource.respondWith({ headers: { ...FRESH, 'x-one': 'b', 'content-type': 'text/two' } });
    const validated = await resource.get();
    const hit = await resource.get();
    for (const answer of [validated, hit])
      expect(['x-one', 'x-two', 'content-type'].map((name) => field(answer, name))).toEqual(['b', 'a', 'text/two']);
    expect(cacheStatus(hit)).toMatch(/^larder; hit/);
    expect(resource.requests).toHaveLength(2);
  });

  test('a 304 updates Content-Type as well (RFC 9111 3.2)', async () => {
    const resource = await new Resource({
      headers: { ...aged('max-age=10', 20), 'content-type': 'text/plain' },
    }).fetchAndStore();
    resource.respondWith({ headers: { ...aged('max-age=600', 0), 'content-type': 'text/plain; charset=utf-8' } });
    expect(field(await resource.get(), 'content-type')).toBe('text/plain; charset=utf-8');
  });

  test('a new version replaces the stale one', async () => {
    const resource = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    resource.respondWith({ headers: { ...FRESH, etag: '"v2"' }, body: 'the second version' });
    const changed = await resource.get();
    expect([changed.body.toString(), field(changed, 'etag')]).toEqual(['the second version', '"v2"']);
    expect((await resource.get(['Range: bytes=4-9'])).body.toString()).toBe('second');
    expect(resource.requests).toHaveLength(2);
  });

  test('a 304 that names another version is ignored, and the resource is fetched', async () => {
    const resource = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    resource.respondWith((request, response) => {
      if (request.headers['if-none-match'] !== undefined) response.writeHead(304, { etag: '"v2"' }).end();
      else respond(request, response, { headers: { etag: '"v2"' }, body: 'the second version' });
    });
    expect((await resource.get()).body.toString()).toBe('the second version');
  });

  test('a 304 that names another weak version is ignored, and the resource is fetched', async () => {
    const headers = { ...aged('max-age=10', 20), etag: 'W/"v1"' };
    const resource = await new Resource({ headers, body: 'one' }).fetchAndStore();
    resource.respondWith((request, response) => {
      const second = { ...FRESH, etag: 'W/"v2"' };
      if (request.headers['if-none-match'] !== undefined) response.writeHead(304, second).end();
      else respond(request, response, { headers: second, body: 'two' });
    });
    expect((await resource.get()).body.toString()).toBe('two');
  });

  test.each([
    ['a weak entity tag', { etag: 'W/"v1"' }, 'if-none-match', 'W/"v1"'],
    [
      'Last-Modified',
      { 'last-modified': 'Sun, 01 Nov 2026 00:00:00 GMT' },
      'if-modified-since',
      'Sun, 01 Nov 2026 00:00:00 GMT',
    ],
  ])('a response with only %s is validated by it', async (_, validator, name, value) => {
    const resource = new Resource((request, response) =>
      respond(request, response, {
        headers: { ...validator, 'cache-control': 'max-age=10', age: '20' },
        // Without a strong validator nothing may be assembled from parts.
        body: 'whole',
      }),
    );
    await resource.get();
    await until(async () => /fwd-status=304/.test(cacheStatus(await resource.get())));
    expect(resource.requests.at(-1)!.headers[name]).toBe(value);
    expect((await resource.get()).body.toString()).toBe('whole');
  });

  test('20 clients that wait for the same validation cost one request', async () => {
    const resource = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    const released = deferred();
    resource.respondWith((request, response) => {
      void released.promise.then(() => respond(request, response, { headers: aged('max-age=600', 0) }));
    });
    const waiting = Array.from({ length: 20 }, () => resource.get());
    await until(() => resource.requests.length === 2);
    await settled(standalone);
    released.resolve();
    for (const answer of await Promise.all(waiting)) expect(answer.body.toString()).toBe('the one and only body');
    expect(resource.requests).toHaveLength(2);
  });

  test('a 304 with no-store ends the storage of the response', async () => {
    const resource = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    resource.respondWith({ headers: { ...V1, 'cache-control': 'no-store' } });
    for (let round = 0; round < 2; round += 1) expect(cacheStatus(await resource.get())).not.toMatch(/hit|stored/);
  });

  test('a freshness update by a 304 survives a kill', async () => {
    const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=86400' } }).fetchAndStore();
    // The block is in the index before the update, so that the update is written for its own sake.
    await until(async () => (await recordAfterCrash(resource.path))?.blocks.count === 1);
    resource.respondWith({ headers: aged('max-age=10', 20) });
    await resource.get(['Cache-Control: no-cache']);
    // All records are flushed from time to time, but this one has to be written at once.
    await until(async () => (await recordAfterCrash(resource.path))?.meta.headers['cache-control'] === 'max-age=10', {
      deadlineMs: 10_000,
    });
    await standalone.killAll();
    await standalone.start();
    expect(cacheStatus(await resource.get())).not.toMatch(/^larder; hit/);
  });

  test('If-Match is evaluated by the origin, not by the cache (RFC 9111 4.3.2)', async () => {
    const resource = await new Resource({ headers: FRESH }).fetchAndStore();
    resource.respondWith({ headers: { ...FRESH, etag: '"v2"' }, body: 'two' });
    expect((await resource.get(['If-Match: "v2"'])).status).toBe(200);
  });
});

describe('HEAD', () => {
  test('is answered from a fresh stored GET, and its own response freshens a stale one', async () => {
    const fresh = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } }).fetchAndStore();
    const head = await fresh.get([], 'HEAD');
    expect([head.status, field(head, 'content-length'), fresh.requests.length]).toEqual([200, '21', 1]);

    const stale = await new Resource({ headers: { ...aged('max-age=10', 20), 'x-one': 'a' } }).fetchAndStore();
    stale.respondWith({ headers: { ...FRESH, 'x-one': 'b' } });
    expect(cacheStatus(await stale.get([], 'HEAD'))).toBe('larder; fwd=stale; fwd-status=200');
    expect(stale.requests[1]!.method).toBe('HEAD');
    const hit = await stale.get();
    expect([field(hit, 'x-one'), cacheStatus(hit), stale.requests.length]).toEqual([
      'b',
      expect.stringMatching(/hit/),
      2,
    ]);
  });

  test.each([
    ['If-None-Match: "v1"', 304],
    ['If-None-Match: "v0"', 200],
    ['If-Match: "v1"', 200],
  ])('of a stale resource with %s is evaluated against the current version: %i', async (condition, expected) => {
    const stale = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    stale.respondWith((request, response) => {
      const holds = request.headers['if-none-match'] === '"v1"';
      response.writeHead(holds ? 304 : 200, FRESH).end();
    });
    const answer = await stale.get([condition], 'HEAD');
    expect([answer.status, field(answer, 'etag')]).toEqual([expected, '"v1"']);
    expect(cacheStatus(await stale.get())).toMatch(/hit/);
  });

  test('that reports another version invalidates the stored one', async () => {
    const stale = await new Resource({ headers: aged('max-age=10', 20) }).fetchAndStore();
    stale.respondWith({ headers: { ...FRESH, etag: '"v2"' }, body: 'another' });
    await stale.get([], 'HEAD');
    expect((await stale.get()).body.toString()).toBe('another');
  });

  test('that accepts gzip does not invalidate the stored response', async () => {
    const resource = await new Resource({ headers: aged('max-age=600', 20) }).fetchAndStore();
    resource.respondWith((request, response) => {
      if (/gzip/.test(request.headers['accept-encoding'] ?? ''))
        response.writeHead(200, { etag: 'W/"v1"', 'content-encoding': 'gzip', vary: 'Accept-Encoding' }).end();
      else respond(request, response, { headers: aged('max-age=600', 0) });
    });
    await resource.get(['Accept-Encoding: gzip', 'Cache-Control: no-cache'], 'HEAD');
    expect(cacheStatus(await resource.get())).toMatch(/^larder; hit/);
  });
});

describe('request directives', () => {
  const AGED = aged('max-age=600', 100);
  const STALE = aged('max-age=10', 100);
  type Outcome = 'answered from the store' | 'validated at the origin' | 'refused with 504';
  const [STORE, VALIDATED, REFUSED] = [
    'answered from the store',
    'validated at the origin',
    'refused with 504',
  ] as const;
  test.each<readonly [string, Outcome, Record<string, string>, string[]]>([
    ['no-cache', VALIDATED, AGED, ['Cache-Control: no-cache']],
    ['Pragma: no-cache', VALIDATED, AGED, ['Pragma: no-cache']],
    ['Pragma beside Cache-Control', STORE, AGED, ['Pragma: no-cache', 'Cache-Control: max-age=500']],
    ['max-age above the age', STORE, AGED, ['Cache-Control: max-age=200']],
    ['max-age below the age', VALIDATED, AGED, ['Cache-Control: max-age=50']],
    ['max-age=0', VALIDATED, AGED, ['Cache-Control: max-age=0']],
    ['min-fresh below the ttl', STORE, AGED, ['Cache-Control: min-fresh=400']],
    ['min-fresh above the ttl', VALIDATED, AGED, ['Cache-Control: min-fresh=590']],
    ['max-stale without a value', STORE, STALE, ['Cache-Control: max-stale']],
    ['max-stale above the staleness', STORE, STALE, ['Cache-Control: max-stale=200']],
    ['max-stale below the staleness', VALIDATED, STALE, ['Cache-Control: max-stale=10']],
    [
      'max-stale for a must-revalidate response',
      VALIDATED,
      aged('max-age=10, must-revalidate', 100),
      ['Cache-Control: max-stale'],
    ],
    [
      'max-stale for a proxy-revalidate response',
      VALIDATED,
      aged('max-age=10, proxy-revalidate', 100),
      ['Cache-Control: max-stale'],
    ],
    ['max-stale for an s-maxage response', VALIDATED, aged('s-maxage=10', 100), ['Cache-Control: max-stale']],
    ['only-if-cached for a fresh response', STORE, AGED, ['Cache-Control: only-if-cached']],
    ['only-if-cached for a stale response', REFUSED, STALE, ['Cache-Control: only-if-cached']],
    ['only-if-cached and max-stale', STORE, STALE, ['Cache-Control: only-if-cached, max-stale']],
    ['no-store for a stored response', STORE, AGED, ['Cache-Control: no-store']],
  ])('a request with %s is %s', async (_, outcome, headers, lines) => {
    const resource = await new Resource({ headers }).fetchAndStore();
    const answer = await resource.get(lines);
    expect(resource.requests.length).toBe(outcome === VALIDATED ? 2 : 1);
    if (outcome === REFUSED) return expectFault(answer, 'not_stored');
    expect(answer.status).toBe(200);
    const expected = outcome === STORE ? /^larder; hit/ : /^larder; fwd=(stale|request); fwd-status=304/;
    expect(cacheStatus(answer)).toMatch(expected);
  });

  test('only-if-cached never reaches the origin, not even for a range that is stored in part', async () => {
    const unknown = new Resource({ headers: V1 });
    expectFault(await unknown.get(['Cache-Control: only-if-cached']), 'not_stored');
    expect(unknown.requests).toEqual([]);
    const long = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' }, body: 'x'.repeat(3 * MB) });
    await long.get(['Range: bytes=0-9']);
    await long.untilStored();
    expect((await long.get(['Cache-Control: only-if-cached', 'Range: bytes=0-9'])).status).toBe(206);
    for (const range of ['Range: bytes=0-2000000', 'Range: bytes=2000000-2000009'])
      expectFault(await long.get(['Cache-Control: only-if-cached', range]), 'not_stored');
    expect(long.requests).toHaveLength(1);
  });

  test('the response to a request with no-store is not stored', async () => {
    const resource = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } });
    for (let count = 1; count <= 2; count += 1) {
      const answer = await resource.get(['Cache-Control: no-store']);
      expect(cacheStatus(answer)).toBe('larder; fwd=request; fwd-status=200');
      expect(resource.requests).toHaveLength(count);
    }
  });
});

describe('Authorization', () => {
  const personal =
    (directives: string): Handler =>
    (request, response) => {
      const user = request.headers.authorization ?? 'nobody';
      respond(request, response, { headers: { etag: '"same"', 'cache-control': directives }, body: `for ${user}` });
    };

  test.each(['max-age=60', 'max-age=60, proxy-revalidate'])(
    'a response with %s to a request with Authorization is not shared',
    async (directives) => {
      const resource = new Resource(personal(directives));
      for (const user of ['ann', 'bob', 'ann'])
        expect((await resource.get([`Authorization: ${user}`])).body.toString()).toBe(`for ${user}`);
    },
  );

  test.each(['public, max-age=60', 's-maxage=60', 'max-age=60, must-revalidate'])(
    'a response with %s to a request with Authorization is shared (RFC 9111 3.5)',
    async (directives) => {
      const resource = new Resource(personal(directives));
      await resource.get(['Authorization: ann']);
      expect((await resource.get()).body.toString()).toBe('for ann');
      expect(resource.requests).toHaveLength(1);
    },
  );
});
