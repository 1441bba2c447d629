// RFC 9111 as a shared cache, rule by rule, at the socket of a stand-alone appliance before an origin that follows a script.
// Answers age by the Age and Date fields that the origin sends, so no test waits for a clock.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { describe, expect, test, vi } from 'vitest';
import { alone, blocksStored, proxy, Resource, say, stale, standUp, status, V1, type Handler } from './caching-rig.ts';
import { field, Wire } from './wire.ts';

standUp();

describe('freshness', () => {
  const HOUR_AGO = (): string => new Date(Date.now() - 3_600_000).toUTCString();
  const IN_AN_HOUR = (): string => new Date(Date.now() + 3_600_000).toUTCString();
  test.each<readonly [string, () => Record<string, string | string[]>, boolean]>([
    ['max-age', () => ({ 'cache-control': 'max-age=60' }), true],
    ['max-age that Age has used up', () => ({ 'cache-control': 'max-age=60', age: '61' }), false],
    ['max-age that Date has used up', () => ({ 'cache-control': 'max-age=60', date: HOUR_AGO() }), false],
    ['max-age=0', () => ({ 'cache-control': 'max-age=0' }), false],
    ['max-age in quotes', () => ({ 'cache-control': 'max-age="60"' }), true],
    ['max-age that is no number', () => ({ 'cache-control': 'max-age=soon', expires: IN_AN_HOUR() }), false],
    ['max-age twice, at odds', () => ({ 'cache-control': 'max-age=60, max-age=3600' }), false],
    ['max-age beyond all numbers', () => ({ 'cache-control': 'max-age=99999999999999999999' }), true],
    ['s-maxage over max-age', () => ({ 'cache-control': 'max-age=60, s-maxage=0' }), false],
    ['s-maxage over max-age, upwards', () => ({ 'cache-control': 's-maxage=60, max-age=0' }), true],
    ['Expires', () => ({ expires: IN_AN_HOUR() }), true],
    ['Expires in the past', () => ({ expires: HOUR_AGO() }), false],
    ['Expires: 0', () => ({ expires: '0' }), false],
    ['max-age over Expires', () => ({ expires: HOUR_AGO(), 'cache-control': 'max-age=60' }), true],
    ['a directive in capitals', () => ({ 'cache-control': 'MAX-AGE=60' }), true],
    ['a directive behind one nobody knows', () => ({ 'cache-control': 'x="a, max-age=0", max-age=60' }), true],
    ['heuristic: a tenth of its age', () => ({ 'last-modified': 'Sun, 01 Nov 2020 00:00:00 GMT' }), true],
    ['heuristic: just made', () => ({ 'last-modified': new Date().toUTCString() }), false],
    ['nothing said', () => ({}), false],
    [
      'CDN-Cache-Control over Cache-Control',
      () => ({ 'cdn-cache-control': 'max-age=60', 'cache-control': 'no-store' }),
      true,
    ],
    ['CDN-Cache-Control, shorter', () => ({ 'cdn-cache-control': 'max-age=0', 'cache-control': 'max-age=60' }), false],
    [
      'CDN-Cache-Control over Expires',
      () => ({ 'cdn-cache-control': 'must-revalidate', expires: IN_AN_HOUR() }),
      false,
    ],
    [
      'CDN-Cache-Control that is broken',
      () => ({ 'cdn-cache-control': '=max-age', 'cache-control': 'max-age=60' }),
      true,
    ],
    ['no-cache', () => ({ 'cache-control': 'max-age=60, no-cache' }), false],
    ['no-cache of a field', () => ({ 'cache-control': 'max-age=60, no-cache="x"' }), false],
    ['two fields', () => ({ 'cache-control': ['max-age=60', 'no-cache'] }), false],
  ])('%s', async (_, headers, fresh) => {
    const resource = await new Resource({ headers: { ...V1, ...headers() } }).stored();
    const again = await resource.get();
    expect([again.status, again.body.toString()]).toEqual([200, 'the one and only body']);
    expect(resource.asked.length).toBe(fresh ? 1 : 2);
    expect(status(again)).toMatch(fresh ? /^larder; hit/ : /^larder; fwd=stale; fwd-status=304$/);
    if (!fresh) expect(resource.asked[1]!.headers['if-none-match']).toBe('"v1"');
  });

  test('Age counts what the answer came with', async () => {
    const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600', age: '100' } }).stored();
    const hit = await resource.get();
    expect(Number(field(hit, 'age'))).toBeGreaterThanOrEqual(100);
    expect(Number(field(hit, 'age'))).toBeLessThan(160);
    expect(Number(/ttl=(\d+)/.exec(status(hit))![1])).toBeLessThanOrEqual(500);
  });

  test('an answer without freshness and without validator is not kept', async () => {
    const resource = new Resource((request, response, turn) => say(request, response, { body: `turn ${turn}` }));
    const bodies = [await resource.get(), await resource.get()].map(({ body }) => body.toString());
    expect(bodies[0]).not.toBe(bodies[1]);
  });
});

describe('validation', () => {
  test('a 304 updates the stored fields, and what it leaves out stays', async () => {
    const first = { ...stale('max-age=10', 20), 'x-one': 'a', 'x-two': 'a', 'content-type': 'text/one' };
    const resource = await new Resource({ headers: first }).stored();
    resource.now({ headers: { ...V1, 'cache-control': 'max-age=600', 'x-one': 'b', 'content-type': 'text/two' } });
    const validated = await resource.get();
    const hit = await resource.get();
    for (const answer of [validated, hit])
      expect(['x-one', 'x-two', 'content-type'].map((name) => field(answer, name))).toEqual(['b', 'a', 'text/two']);
    expect(status(hit)).toMatch(/^larder; hit/);
    expect(resource.asked).toHaveLength(2);
  });

  test('another version takes the place of the stale one', async () => {
    const resource = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    resource.now({ headers: { etag: '"v2"', 'cache-control': 'max-age=600' }, body: 'the second version' });
    const changed = await resource.get();
    expect([changed.body.toString(), field(changed, 'etag')]).toEqual(['the second version', '"v2"']);
    expect((await resource.get(['Range: bytes=4-9'])).body.toString()).toBe('second');
    expect(resource.asked).toHaveLength(2);
  });

  test('a 304 that names another version is not believed', async () => {
    const resource = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    resource.now((request, response) => {
      if (request.headers['if-none-match'] !== undefined) response.writeHead(304, { etag: '"v2"' }).end();
      else say(request, response, { headers: { etag: '"v2"' }, body: 'the second version' });
    });
    expect((await resource.get()).body.toString()).toBe('the second version');
  });

  test.each([
    ['a weak entity tag', { etag: 'W/"v1"' }, 'if-none-match', 'W/"v1"'],
    [
      'a date',
      { 'last-modified': 'Sun, 01 Nov 2026 00:00:00 GMT' },
      'if-modified-since',
      'Sun, 01 Nov 2026 00:00:00 GMT',
    ],
  ])('%s validates, too', async (_, validator, name, value) => {
    const resource = new Resource((request, response) =>
      say(request, response, {
        headers: { ...validator, 'cache-control': 'max-age=10', age: '20' },
        // Nothing may be made of parts of an answer without a strong validator.
        body: 'whole',
      }),
    );
    await resource.get();
    await vi.waitUntil(async () => /fwd-status=304/.test(status(await resource.get())));
    expect(resource.asked.at(-1)!.headers[name]).toBe(value);
    expect((await resource.get()).body.toString()).toBe('whole');
  });

  test('many who wait for the same word cost one question', async () => {
    const resource = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    let release = (): void => undefined;
    resource.now((request, response) => {
      release = () => say(request, response, { headers: stale('max-age=600', 0) });
    });
    const waiting = Array.from({ length: 20 }, () => resource.get());
    await vi.waitUntil(() => resource.asked.length === 2);
    await new Promise((resolve) => setTimeout(resolve, 100));
    release();
    for (const answer of await Promise.all(waiting)) expect(answer.body.toString()).toBe('the one and only body');
    expect(resource.asked).toHaveLength(2);
  });

  test('an origin that forbids to store it any longer is obeyed', async () => {
    const resource = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    resource.now({ headers: { ...V1, 'cache-control': 'no-store' } });
    for (let turn = 0; turn < 2; turn += 1) expect(status(await resource.get())).not.toMatch(/hit|stored/);
  });
});

describe('what a request asks for', () => {
  const AGED = { ...V1, 'cache-control': 'max-age=600', age: '100' };
  const OLD = stale('max-age=10', 100);
  test.each<readonly [string, Record<string, string>, string[], 'hit' | 'asked' | 504]>([
    ['no-cache', AGED, ['Cache-Control: no-cache'], 'asked'],
    ['Pragma: no-cache', AGED, ['Pragma: no-cache'], 'asked'],
    ['Pragma beside Cache-Control', AGED, ['Pragma: no-cache', 'Cache-Control: max-age=500'], 'hit'],
    ['max-age above its age', AGED, ['Cache-Control: max-age=200'], 'hit'],
    ['max-age below its age', AGED, ['Cache-Control: max-age=50'], 'asked'],
    ['max-age=0', AGED, ['Cache-Control: max-age=0'], 'asked'],
    ['min-fresh within', AGED, ['Cache-Control: min-fresh=400'], 'hit'],
    ['min-fresh beyond', AGED, ['Cache-Control: min-fresh=590'], 'asked'],
    ['max-stale without end', OLD, ['Cache-Control: max-stale'], 'hit'],
    ['max-stale long enough', OLD, ['Cache-Control: max-stale=200'], 'hit'],
    ['max-stale too short', OLD, ['Cache-Control: max-stale=10'], 'asked'],
    [
      'max-stale against must-revalidate',
      stale('max-age=10, must-revalidate', 100),
      ['Cache-Control: max-stale'],
      'asked',
    ],
    [
      'max-stale against proxy-revalidate',
      stale('max-age=10, proxy-revalidate', 100),
      ['Cache-Control: max-stale'],
      'asked',
    ],
    ['max-stale against s-maxage', stale('s-maxage=10', 100), ['Cache-Control: max-stale'], 'asked'],
    ['only-if-cached, fresh', AGED, ['Cache-Control: only-if-cached'], 'hit'],
    ['only-if-cached, stale', OLD, ['Cache-Control: only-if-cached'], 504],
    ['only-if-cached, stale and welcome', OLD, ['Cache-Control: only-if-cached, max-stale'], 'hit'],
    ['no-store, of what is stored', AGED, ['Cache-Control: no-store'], 'hit'],
  ])('%s', async (_, headers, lines, expected) => {
    const resource = await new Resource({ headers }).stored();
    const answer = await resource.get(lines);
    expect(answer.status).toBe(expected === 504 ? 504 : 200);
    expect(resource.asked.length).toBe(expected === 'asked' ? 2 : 1);
    if (expected === 'hit') expect(status(answer)).toMatch(/^larder; hit/);
    if (expected === 'asked') expect(status(answer)).toMatch(/^larder; fwd=(stale|request); fwd-status=304/);
  });

  test('only-if-cached never reaches the origin, nor does part of a range', async () => {
    const nothing = new Resource({ headers: V1 });
    expect((await nothing.get(['Cache-Control: only-if-cached'])).status).toBe(504);
    expect(nothing.asked).toEqual([]);
    const long = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' }, body: 'x'.repeat(3 * 2 ** 20) });
    const before = await blocksStored(alone, long.path);
    await long.get(['Range: bytes=0-9']);
    await vi.waitUntil(async () => (await blocksStored(alone, long.path)) > before);
    expect((await long.get(['Cache-Control: only-if-cached', 'Range: bytes=0-9'])).status).toBe(206);
    expect((await long.get(['Cache-Control: only-if-cached', 'Range: bytes=0-2000000'])).status).toBe(504);
    expect((await long.get(['Cache-Control: only-if-cached', 'Range: bytes=2000000-2000009'])).status).toBe(504);
    expect(long.asked).toHaveLength(1);
  });

  test('no-store keeps nothing', async () => {
    const resource = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } });
    for (let turn = 1; turn <= 2; turn += 1) {
      expect(status(await resource.get(['Cache-Control: no-store']))).toBe('larder; fwd=request; fwd-status=200');
      expect(resource.asked).toHaveLength(turn);
    }
  });
});

describe('stale, and yet', () => {
  test('stale-while-revalidate: served at once, asked behind the reader', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-while-revalidate=60', 20) }).stored();
    resource.now({ headers: stale('max-age=600', 0) });
    expect(status(await resource.get())).toMatch(/^larder; hit; ttl=-1/);
    await vi.waitUntil(async () => /hit; ttl=5/.test(status(await resource.get())));
    expect(resource.asked).toHaveLength(2);
  });

  test('stale-while-revalidate, but for too long', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-while-revalidate=60', 200) }).stored();
    expect(status(await resource.get())).toMatch(/fwd=stale; fwd-status=304/);
  });

  const broken: Handler = (_, response) => response.writeHead(503).end('no');
  const away: Handler = (request) => request.socket.destroy();
  test.each<readonly [string, string, number, Handler, string[], number]>([
    ['stale-if-error and a 503', 'max-age=10, stale-if-error=60', 20, broken, [], 200],
    ['stale-if-error, for too long, and a 503', 'max-age=10, stale-if-error=60', 200, broken, [], 503],
    ['stale-if-error of the request', 'max-age=10', 20, broken, ['Cache-Control: stale-if-error=60'], 200],
    ['nothing said and a 503', 'max-age=10', 20, broken, [], 503],
    ['must-revalidate and a 503', 'max-age=10, must-revalidate, stale-if-error=60', 20, broken, [], 503],
    ['nothing said and nobody there', 'max-age=10', 20, away, [], 200],
    ['must-revalidate and nobody there', 'max-age=10, must-revalidate', 20, away, [], 504],
    ['no-cache and nobody there', 'no-cache', 20, away, [], 504],
    ['s-maxage and nobody there', 's-maxage=10', 20, away, [], 504],
    ['the request says no-cache and nobody is there', 'max-age=600', 20, away, ['Cache-Control: no-cache'], 504],
  ])('%s', async (_, directives, age, then, lines, expected) => {
    const resource = await new Resource({ headers: stale(directives, age) }).stored();
    resource.now(then);
    const answer = await resource.get(lines);
    expect(answer.status).toBe(expected);
    if (expected === 200) expect(answer.body.toString()).toBe('the one and only body');
    if (expected === 504) expect(field(answer, 'proxy-status')).toMatch(/^larder; error=destination_unavailable/);
  });

  test('a resource that is gone at the origin is gone here', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-if-error=60', 20) }).stored();
    resource.now((_, response) => response.writeHead(404).end('gone'));
    for (let turn = 0; turn < 2; turn += 1) expect((await resource.get()).status).toBe(404);
  });
});

describe('Vary', () => {
  const byLanguage = (request: IncomingMessage, response: ServerResponse): void => {
    const language = request.headers['accept-language'] ?? 'none';
    const headers = { etag: `"${language}"`, vary: 'Accept-Language', 'cache-control': 'max-age=600' };
    say(request, response, { headers, body: `in ${language}` });
  };
  const as = (language: string): string[] => [`Accept-Language: ${language}`];

  test('each variant is stored, found again, and given to nobody else', async () => {
    const resource = new Resource(byLanguage);
    for (const language of ['da', 'de', 'da', 'de', 'de,en'])
      expect((await resource.get(as(language))).body.toString()).toBe(`in ${language}`);
    expect((await resource.get()).body.toString()).toBe('in none');
    expect(resource.asked).toHaveLength(4);
    await vi.waitUntil(async () => status(await resource.get(as('de'))).startsWith('larder; hit'));
    await vi.waitUntil(async () => status(await resource.get(as('de,  en'))).startsWith('larder; hit'));
    expect(status(await resource.get(as('fr')))).toMatch(/^larder; fwd=vary-miss; fwd-status=206; stored$/);
    expect((await resource.get([...as('da'), 'Range: bytes=3-4'])).body.toString()).toBe('da');
    expect(resource.asked).toHaveLength(5);
  });

  test('asked for at once, each gets his own', async () => {
    const resource = new Resource(byLanguage);
    const languages = Array.from({ length: 30 }, (_, at) => ['da', 'de', 'en'][at % 3]!);
    const answers = await Promise.all(languages.map((language) => resource.get(as(language))));
    expect(answers.map(({ body }) => body.toString())).toEqual(languages.map((language) => `in ${language}`));
    expect(resource.asked.length).toBeLessThanOrEqual(4);
  });

  test('is known after a restart', async () => {
    const resource = new Resource(byLanguage);
    for (const language of ['da', 'de']) await resource.stored(as(language));
    await alone.killAll();
    await alone.start();
    for (const language of ['da', 'de'])
      expect((await resource.get(as(language))).body.toString()).toBe(`in ${language}`);
    expect(resource.asked).toHaveLength(2);
  });

  test('Accept-Encoding makes no variants: the origin is asked for identity alone', async () => {
    const resource = await new Resource({
      headers: { ...V1, vary: 'Accept-Encoding', 'cache-control': 'max-age=60' },
    }).stored(['Accept-Encoding: gzip']);
    expect(status(await resource.get(['Accept-Encoding: br']))).toMatch(/^larder; hit/);
    expect(resource.asked[0]!.headers['accept-encoding']).toBe('identity');
  });
});

describe('Authorization', () => {
  const personal =
    (directives: string): Handler =>
    (request, response) => {
      const user = request.headers.authorization ?? 'nobody';
      say(request, response, { headers: { etag: '"same"', 'cache-control': directives }, body: `for ${user}` });
    };

  test.each(['max-age=60', 'max-age=60, proxy-revalidate'])('%s: kept for nobody', async (directives) => {
    const resource = new Resource(personal(directives));
    for (const user of ['ann', 'bob', 'ann'])
      expect((await resource.get([`Authorization: ${user}`])).body.toString()).toBe(`for ${user}`);
  });

  test.each(['public, max-age=60', 's-maxage=60', 'max-age=60, must-revalidate'])('%s: kept', async (directives) => {
    const resource = new Resource(personal(directives));
    await resource.get(['Authorization: ann']);
    expect((await resource.get()).body.toString()).toBe('for ann');
    expect(resource.asked).toHaveLength(1);
  });
});

describe('HEAD and unsafe methods', () => {
  test('a stored GET answers HEAD; a stale one is brought up to date by its answer', async () => {
    const fresh = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } }).stored();
    const head = await fresh.get([], 'HEAD');
    expect([head.status, field(head, 'content-length'), fresh.asked.length]).toEqual([200, '21', 1]);

    const old = await new Resource({ headers: { ...stale('max-age=10', 20), 'x-one': 'a' } }).stored();
    old.now({ headers: { ...V1, 'cache-control': 'max-age=600', 'x-one': 'b' } });
    expect(status(await old.get([], 'HEAD'))).toBe('larder; fwd=stale; fwd-status=200');
    expect(old.asked[1]!.method).toBe('HEAD');
    const hit = await old.get();
    expect([field(hit, 'x-one'), status(hit), old.asked.length]).toEqual(['b', expect.stringMatching(/hit/), 2]);
  });

  test.each([
    ['If-None-Match: "v1"', 304],
    ['If-None-Match: "v0"', 200],
    ['If-Match: "v1"', 200],
  ])('HEAD of what is stale, with %s, is answered by what the origin says now', async (condition, expected) => {
    const old = await new Resource({ headers: { ...stale('max-age=10', 20), etag: '"v1"' } }).stored();
    old.now((request, response) => {
      const holds = request.headers['if-none-match'] === '"v1"';
      response.writeHead(holds ? 304 : 200, { etag: '"v1"', 'cache-control': 'max-age=600' }).end();
    });
    const answer = await old.get([condition], 'HEAD');
    expect([answer.status, field(answer, 'etag')]).toEqual([expected, '"v1"']);
    expect(status(await old.get())).toMatch(/hit/);
  });

  test('a HEAD that tells of another version makes the stored one leave', async () => {
    const old = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    old.now({ headers: { etag: '"v2"', 'cache-control': 'max-age=600' }, body: 'another' });
    await old.get([], 'HEAD');
    expect((await old.get()).body.toString()).toBe('another');
  });

  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'PURGE'])('%s reaches the origin and invalidates', async (method) => {
    const resource = await new Resource(
      { headers: { ...V1, 'cache-control': 'max-age=600' }, body: 'before' },
      () => proxy,
    ).stored();
    resource.now((request, response) => {
      if (request.method === 'GET') say(request, response, { headers: { etag: '"v2"' }, body: 'after' });
      else response.writeHead(204).end();
    });
    const done = await resource.get([], method);
    expect([done.status, status(done)]).toEqual([204, 'larder; fwd=method; fwd-status=204']);
    expect((await resource.get()).body.toString()).toBe('after');
  });

  test('one that failed invalidates nothing; Location and Content-Location of the same host do', async () => {
    const other = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } }, () => proxy).stored();
    const third = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } }, () => proxy).stored();
    const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } }, () => proxy).stored();
    resource.now((_, response) => response.writeHead(500).end());
    expect((await resource.get([], 'POST')).status).toBe(500);
    expect(status(await resource.get())).toMatch(/hit/);
    resource.now((_, response) =>
      response.writeHead(201, { location: other.path, 'content-location': `http://elsewhere${third.path}` }).end(),
    );
    await resource.get([], 'POST');
    expect(status(await other.get())).not.toMatch(/hit/);
    expect(status(await third.get())).toMatch(/hit/);
  });

  test('bodies stream both ways', async () => {
    const resource = new Resource(
      (request, response) => {
        response.writeHead(200, { 'content-type': 'text/plain' });
        request.pipe(response);
      },
      () => proxy,
    );
    const wire = await Wire.open(proxy.port);
    wire.send(`POST ${resource.path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`);
    // The echo of the first part comes before the second is sent.
    await vi.waitUntil(() => wire.surplus.includes('hello'), { timeout: 10_000 });
    wire.send('6\r\n world\r\n0\r\n\r\n');
    expect((await wire.answer('POST'))!.body.toString()).toBe('hello world');
    wire.destroy();
  });

  test.each(['TRACE', 'CONNECT'])('%s is refused', async (method) => {
    const target = method === 'CONNECT' ? 'example.org:443' : '/';
    const wire = await Wire.open(proxy.port);
    wire.send(`${method} ${target} HTTP/1.1\r\nHost: a\r\n\r\n`);
    const answer = await wire.answer();
    expect([answer?.status, answer === null ? null : field(answer, 'allow')]).toEqual([
      405,
      'GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE',
    ]);
    wire.destroy();
  });

  test('without --reverse-proxy they are refused', async () => {
    const resource = new Resource({ headers: V1 });
    expect((await resource.get([], 'POST')).status).toBe(405);
    expect(resource.asked).toEqual([]);
  });
});

describe('on the way through', () => {
  test('hop-by-hop fields end here, also those that Connection names, in both directions', async () => {
    const resource = new Resource((request, response) => {
      const headers = { ...V1, connection: 'x-hop', 'x-hop': '1', 'x-end': '1', 'proxy-authenticate': 'x' };
      say(request, response, { headers: { ...headers, 'cache-control': 'max-age=60' } });
    });
    const first = await resource.get(['Connection: keep-alive, X-Mine', 'X-Mine: 1', 'X-Yours: 1', 'TE: trailers']);
    for (const answer of [first, await resource.get()])
      expect(['x-hop', 'proxy-authenticate', 'x-end'].map((name) => field(answer, name))).toEqual([null, null, '1']);
    const { headers } = resource.asked[0]!;
    expect([headers['x-mine'], headers['te'], headers['x-yours']]).toEqual([undefined, undefined, '1']);
  });

  test('Via names us to both sides, and a request that has been here is refused', async () => {
    const resource = new Resource({ headers: { ...V1, via: '1.0 before', 'cache-control': 'max-age=60' } });
    const answer = await resource.get();
    const via = field(answer, 'via')!;
    expect(via).toMatch(/^1\.0 before, 1\.1 larder-[0-9a-f]{8}$/);
    expect(resource.asked[0]!.headers.via).toMatch(/^1\.1 larder-/);
    const name = via.split('1.1 ')[1]!;
    expect((await resource.get([`Via: 1.1 somebody, 1.1 ${name}`])).status).toBe(508);
    expect((await resource.get(['Via: 1.1 somebody'])).status).toBe(200);
  });

  test('interim answers of the origin reach the client', async () => {
    const resource = new Resource((request, response) => {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      say(request, response, { headers: { 'cache-control': 'no-store' } });
    });
    await resource.get();
    const wire = await Wire.open(alone.port);
    wire.send(`GET ${resource.path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await vi.waitUntil(() => wire.surplus.includes('the one and only body'), { timeout: 10_000 });
    expect(wire.surplus.toString('latin1')).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nLink: <\/style.css>; rel=preload/i);
    wire.destroy();
  });

  test('as a reverse proxy: CORS and the listener’s own fields are the origin’s, who hears who asked', async () => {
    const headers = { ...V1, 'access-control-allow-origin': 'https://a.example', server: 'theirs' };
    const resource = new Resource({ headers: { ...headers, 'cache-control': 'max-age=60' } }, () => proxy);
    for (const answer of [await resource.get(), await resource.get()])
      expect(
        ['access-control-allow-origin', 'server', 'timing-allow-origin'].map((name) => field(answer, name)),
      ).toEqual(['https://a.example', 'theirs', null]);
    await resource.get([], 'OPTIONS');
    const { headers: heard, method } = resource.asked.at(-1)!;
    expect([method, heard['x-forwarded-for'], heard['x-forwarded-proto']]).toEqual(['OPTIONS', '127.0.0.1', 'http']);
  });
});
