// Defects that the shared cache had once: what one client said in another's answer, answers that outlived a change, places
// that were never left, and rules read too loosely. One case each, at the socket.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createConnection, createServer as createTcp, type AddressInfo } from 'node:net';
import { describe, expect, test, vi } from 'vitest';
import { issueToken } from '../../runtime/auth.ts';
import { alone, origin, proxy, Resource, say, stale, standUp, status, V1, type Handler } from './caching-rig.ts';
import { noise, RunningAppliance } from './rig.ts';
import { ask, field, Wire } from './wire.ts';

standUp();

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Answers are held until they are let go. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

describe('made for one, given to another', () => {
  test('a redirect with Set-Cookie that two anonymous clients wait for sets one session for both', async () => {
    const { opened, open } = gate();
    const resource = new Resource((_, response, turn) => {
      void opened.then(() =>
        response
          .writeHead(302, { location: '/home', 'set-cookie': `session=${turn}`, 'cache-control': 'no-store' })
          .end(),
      );
    });
    const both = [resource.get(), resource.get()];
    await vi.waitUntil(() => resource.asked.length >= 1);
    await sleep(200);
    open();
    const [ann, bob] = await Promise.all(both);
    expect(field(ann!, 'set-cookie')).not.toBe(field(bob!, 'set-cookie'));
  });

  test('a redirect that varies is given to whom it does not fit, when asked for at once', async () => {
    const { opened, open } = gate();
    const resource = new Resource((request, response) => {
      const location = `/${request.headers['accept-language']}/`;
      void opened.then(() => response.writeHead(302, { location, vary: 'Accept-Language' }).end());
    });
    const both = ['da', 'de'].map((language) => resource.get([`Accept-Language: ${language}`]));
    await vi.waitUntil(() => resource.asked.length >= 1);
    await sleep(200);
    open();
    expect((await Promise.all(both)).map((answer) => field(answer, 'location'))).toEqual(['/da/', '/de/']);
  });

  test.each(['HEAD', 'GET'])('fields of an answer to Authorization (%s) end up in the shared entry', async (method) => {
    const resource = await new Resource({ headers: stale('max-age=10', 20) }).stored();
    resource.now((request, response) => {
      const user = request.headers.authorization;
      const headers = { ...V1, 'cache-control': 'max-age=600', ...(user === undefined ? {} : { 'x-user': user }) };
      say(request, response, { headers });
    });
    await resource.get(['Authorization: ann'], method);
    expect(field(await resource.get(), 'x-user')).toBeNull();
  });

  test('a block that one client may not have fails for another who waits for it', async () => {
    const MB = 2 ** 20;
    const body = noise(12 * MB);
    const { opened, open } = gate();
    const resource = new Resource((request, response) => {
      const answer = (): void =>
        request.headers.authorization === 'bad'
          ? void response.writeHead(401, { 'content-length': '0' }).end()
          : say(request, response, { headers: { ...V1, 'cache-control': 'public, max-age=600' }, body });
      if (request.headers.authorization === 'bad') void opened.then(answer);
      else answer();
    });
    await resource.get(['Range: bytes=0-9']);
    await sleep(500);
    const mallory = resource.get(['Authorization: bad', `Range: bytes=${10 * MB}-${10 * MB + 9}`]);
    await vi.waitUntil(() => resource.asked.some(({ headers }) => headers.authorization === 'bad'));
    const victim = resource.get([`Range: bytes=${10 * MB}-${10 * MB + 9}`]);
    await sleep(300);
    open();
    await mallory;
    expect((await victim).status).toBe(206);
  });

  test('one client’s private answer keeps everybody else’s public one out of the cache', async () => {
    const resource = new Resource((request, response) =>
      say(request, response, {
        headers: { ...V1, 'cache-control': request.headers.cookie === undefined ? 'max-age=600' : 'private' },
      }),
    );
    await resource.get(['Cookie: session=1']);
    await resource.get();
    await sleep(300);
    expect(status(await resource.get())).toMatch(/^larder; hit/);
  });
});

describe('variants', () => {
  const AS = (language: string): string[] => [`Accept-Language: ${language}`];
  const speaking =
    (vary: string, more: Record<string, string> = {}): Handler =>
    (request, response) => {
      const language = request.headers['accept-language'] ?? 'none';
      const headers = { etag: `"${language}"`, vary, 'cache-control': 'max-age=600', ...more };
      say(request, response, { headers, body: `in ${language}` });
    };

  test('a long Vary does not fit the stored fields, and then nothing varies', async () => {
    const long = ['Accept-Language', ...Array.from({ length: 120 }, (_, at) => `X-Some-Field-${at}`)].join(', ');
    const resource = new Resource(speaking(long));
    await resource.get(AS('da'));
    await sleep(300);
    expect((await resource.get(AS('de'))).body.toString()).toBe('in de');
  });

  test('a 304 that begins to vary changes nothing about whom the entry is given to', async () => {
    const resource = await new Resource({ headers: stale('max-age=10', 20), body: 'in da' }).stored(AS('da'));
    resource.now((request, response) => {
      const da = request.headers['accept-language'] === 'da';
      const headers = { etag: da ? '"v1"' : '"de"', vary: 'Accept-Language', 'cache-control': 'max-age=600' };
      say(request, response, { headers, body: da ? 'in da' : 'in de' });
    });
    expect(field(await resource.get(AS('da')), 'vary')).toBe('Accept-Language');
    expect((await resource.get(AS('de'))).body.toString()).toBe('in de');
  });

  test('Vary: constructor', async () => {
    const resource = new Resource({ headers: { ...V1, vary: 'Constructor', 'cache-control': 'max-age=600' } });
    expect((await resource.get()).status).toBe(200);
  });
});

describe('what comes through', () => {
  test('fields beyond 1,800 bytes are left out, security policies first', async () => {
    const headers = {
      ...V1,
      'cache-control': 'max-age=600',
      'content-security-policy': `default-src ${'https://cdn.example.com '.repeat(80)}`.trim(),
      'x-frame-options': 'DENY',
      'access-control-allow-origin': 'https://a.example',
    };
    const resource = new Resource({ headers }, () => proxy);
    const answer = await resource.get();
    for (const name of ['content-security-policy', 'x-frame-options', 'access-control-allow-origin'] as const)
      expect([name, field(answer, name)]).toEqual([name, headers[name]]);
  });

  test('two cookies of a redirect become one', async () => {
    const resource = new Resource(
      (_, response) => response.writeHead(302, { location: '/', 'set-cookie': ['a=1', 'b=2'] }).end(),
      () => proxy,
    );
    const answer = await resource.get();
    expect(answer.fields.filter(([name]) => name === 'set-cookie').map(([, value]) => value)).toEqual(['a=1', 'b=2']);
  });

  test.each([404, 203])('the body of a %i of more than 64 KiB is thrown away', async (code) => {
    const resource = new Resource({ status: code, body: 'x'.repeat(100_000) }, () => proxy);
    const answer = await resource.get();
    expect([answer.status, answer.body.length]).toEqual([code, 100_000]);
  });

  test('an uncacheable GET is carried out twice at the origin, and the first answer is thrown away', async () => {
    // A link that works once.
    const resource = new Resource(
      (request, response, turn) =>
        turn === 1
          ? say(request, response, {
              headers: { 'cache-control': 'no-store', 'set-cookie': 'session=1' },
              body: 'welcome',
            })
          : say(request, response, { status: 410, body: 'used already' }),
      () => proxy,
    );
    expect((await resource.get()).body.toString()).toBe('welcome');
  });

  test('every GET with credentials costs the origin two, for ever', async () => {
    const resource = new Resource({ headers: { ...V1, 'cache-control': 'max-age=60' } }, () => proxy);
    for (let turn = 0; turn < 5; turn += 1) await resource.get(['Authorization: ann']);
    expect(resource.asked.length).toBe(5);
  });

  test('what does not fit the head of a block: promised to be stored, never stored', async () => {
    const headers = {
      ...V1,
      'cache-control': 'max-age=600',
      'content-disposition': `inline; filename="${'\xe9'.repeat(1_500)}"`,
    };
    const resource = new Resource({ headers }, () => alone, `?${'q'.repeat(1_300)}`);
    expect(status(await resource.get())).not.toMatch(/stored/);
    expect((await resource.get()).body.toString()).toBe('the one and only body');
  });

  test('a 103 with two links costs the client the answer', async () => {
    const resource = new Resource((request, response) => {
      response.writeEarlyHints({ link: ['</a.css>; rel=preload; as=style', '</b.js>; rel=preload; as=script'] });
      say(request, response, { headers: { 'cache-control': 'no-store' } });
    });
    for (let turn = 0; turn < 2; turn += 1) expect((await resource.get()).status).toBe(200);
  });

  test('a transfer coding that is not understood is refused (RFC 9112 6.1), not taken off', async () => {
    const resource = new Resource(
      (_, response) => response.writeHead(204).end(),
      () => proxy,
    );
    const wire = await Wire.open(proxy.port);
    wire.send(
      `POST ${resource.path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
    );
    expect((await wire.answer('POST'))!.status).toBeGreaterThanOrEqual(400);
    wire.destroy();
  });

  test('an answer in chunks is never stored', async () => {
    const resource = new Resource((_, response) => {
      response.writeHead(200, { ...V1, 'cache-control': 'max-age=600' });
      response.write('one ');
      response.end('two');
    });
    for (let turn = 0; turn < 3; turn += 1) {
      expect((await resource.get()).body.toString()).toBe('one two');
      await sleep(100);
    }
    expect(resource.asked.length).toBe(1);
  });
});

describe('storms and slots', () => {
  test('one request ends a worker: stale-while-revalidate and a head that is too long for the link', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-while-revalidate=600', 20) }).stored();
    const { workers } = await alone.pids();
    const wire = await Wire.open(alone.port);
    wire.send(`GET ${resource.path} HTTP/1.1\r\nHost: a\r\nX-Long: ${'\xe9'.repeat(12_000)}\r\n\r\n`);
    await wire.answer();
    await sleep(1_000);
    expect((await alone.pids()).workers).toEqual(workers);
    wire.destroy();
  });

  test('64 uploads that say nothing keep everybody else from the origin', async () => {
    const resource = new Resource(
      (_, response) => response.writeHead(204).end(),
      () => proxy,
    );
    const idle = await Promise.all(Array.from({ length: 64 }, () => Wire.open(proxy.port)));
    for (const wire of idle) wire.send(`POST ${resource.path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n`);
    const answer = await resource.get([], 'POST');
    for (const wire of idle) wire.destroy();
    expect(answer.status).toBe(204);
  });

  test('64 readers that do not read keep everybody else from what is not cached', async () => {
    const big = new Resource({ headers: { 'cache-control': 'no-store' }, body: noise(8 * 2 ** 20) });
    const small = new Resource({ headers: { 'cache-control': 'no-store' } });
    await big.get(['Range: bytes=0-9']);
    const idle = await Promise.all(Array.from({ length: 64 }, () => Wire.open(alone.port)));
    for (const wire of idle) {
      wire.socket.pause();
      wire.send(`GET ${big.path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    }
    const answer = await small.get();
    for (const wire of idle) wire.destroy();
    expect(answer.status).toBe(200);
  });

  test('200 clients at once for what is not cached: nobody is sent away', async () => {
    const resource = new Resource(
      (request, response) =>
        setTimeout(() => say(request, response, { headers: { 'cache-control': 'no-store' } }), 1_000),
      () => proxy,
    );
    const answers = await Promise.all(Array.from({ length: 200 }, () => resource.get()));
    expect(answers.filter((answer) => answer.status !== 200).length).toBe(0);
  });

  test('stale-while-revalidate before an origin that fails: not one question per hit', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-while-revalidate=600', 20) }).stored();
    resource.now((_, response) => response.writeHead(503).end());
    for (let turn = 0; turn < 100; turn += 1) await resource.get();
    expect(resource.asked.length).toBeLessThan(10);
  });
});

describe('an origin that hangs', () => {
  test(
    'an answer that fails after its head arrived keeps a connection: 64 of them stop every fetch',
    { timeout: 90_000 },
    async () => {
      const odd = new Resource({
        headers: { ...V1, vary: 'Constructor', 'cache-control': 'max-age=600' },
        body: noise(4 * 2 ** 20),
      });
      for (let turn = 0; turn < 70; turn += 1) await ask(alone.port, { path: odd.path }, 3_000).catch(() => null);
      const other = new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } });
      const answer = await ask(alone.port, { path: other.path }, 25_000).catch((error: unknown) => error);
      // What the others must not pay for.
      await alone.killAll();
      await alone.start();
      expect(answer).toMatchObject({ status: 200 });
    },
  );

  test('costs a reader who may have the stale answer 15 s, each time anew', { timeout: 90_000 }, async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-if-error=600', 20) }).stored();
    resource.now(() => undefined);
    let began = performance.now();
    expect((await ask(alone.port, { path: resource.path }, 40_000)).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(10_000);
    began = performance.now();
    expect((await ask(alone.port, { path: resource.path }, 40_000)).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(2_000);
  });
});

describe('invalidation, validation', () => {
  test('an answer that was on its way when a PUT succeeded is stored and served as fresh', async () => {
    const { opened, open } = gate();
    let body = 'before';
    const resource = new Resource(
      (request, response) => {
        if (request.method === 'PUT') {
          body = 'after';
          response.writeHead(204).end();
          return;
        }
        const now = body;
        const headers = { etag: `"${now}"`, 'cache-control': 'max-age=600' };
        void (now === 'before' ? opened : Promise.resolve()).then(() => say(request, response, { headers, body: now }));
      },
      () => proxy,
    );
    const early = resource.get();
    await vi.waitUntil(() => resource.asked.length === 1);
    expect((await resource.get([], 'PUT')).status).toBe(204);
    open();
    await early;
    await sleep(300);
    expect((await resource.get()).body.toString()).toBe('after');
  });

  test('who asks after his PUT was answered does not join a fetch from before it', async () => {
    const { opened, open } = gate();
    let body = 'before';
    const resource = new Resource(
      (request, response) => {
        if (request.method === 'PUT') {
          body = 'after';
          response.writeHead(204).end();
          return;
        }
        const now = body;
        const headers = { etag: `"${now}"`, 'cache-control': 'max-age=600' };
        void (now === 'before' ? opened : Promise.resolve()).then(() => say(request, response, { headers, body: now }));
      },
      () => proxy,
    );
    const early = resource.get();
    await vi.waitUntil(() => resource.asked.length === 1);
    await resource.get([], 'PUT');
    const mine = resource.get();
    await sleep(300);
    open();
    await early;
    expect((await mine).body.toString()).toBe('after');
  });

  test('stale-while-revalidate goes on although the origin has answered anew, and forbids to store', async () => {
    const resource = await new Resource({
      headers: stale('max-age=10, stale-while-revalidate=86400', 20),
      body: 'withdrawn',
    }).stored();
    resource.now({ headers: { etag: '"v2"', 'cache-control': 'no-store' }, body: 'the new one' });
    await resource.get();
    await sleep(500);
    expect((await resource.get()).body.toString()).toBe('the new one');
  });

  test('without a validator, stale-if-error loses what it could serve', async () => {
    const headers = { 'cache-control': 'max-age=10, stale-if-error=600', age: '20' };
    const resource = new Resource({ headers, body: 'old but good' });
    await resource.get();
    await sleep(300);
    resource.now((_, response) => response.writeHead(503).end());
    const answer = await resource.get();
    expect([answer.status, answer.body.toString()]).toEqual([200, 'old but good']);
  });

  test('without a validator, stale-while-revalidate makes everybody wait', async () => {
    const headers = { 'cache-control': 'max-age=10, stale-while-revalidate=600', age: '20' };
    const resource = await new Resource({ headers, body: 'old but good' }).stored();
    resource.now((request, response) => setTimeout(() => say(request, response, { headers, body: 'new' }), 3_000));
    const began = performance.now();
    await resource.get();
    await sleep(200);
    await resource.get();
    expect(performance.now() - began).toBeLessThan(1_000);
  });

  test('a 304 that names another version is not believed, weak or not', async () => {
    const headers = { etag: 'W/"v1"', 'cache-control': 'max-age=10', age: '20' };
    const resource = await new Resource({ headers, body: 'one' }).stored();
    resource.now((request, response) => {
      const now = { etag: 'W/"v2"', 'cache-control': 'max-age=600' };
      if (request.headers['if-none-match'] !== undefined) response.writeHead(304, now).end();
      else say(request, response, { headers: now, body: 'two' });
    });
    expect((await resource.get()).body.toString()).toBe('two');
  });

  test('a HEAD that wants gzip throws the stored answer away', async () => {
    const resource = await new Resource({ headers: stale('max-age=600', 20) }).stored();
    resource.now((request, response) => {
      if (/gzip/.test(request.headers['accept-encoding'] ?? ''))
        response.writeHead(200, { ...V1, etag: 'W/"v1"', 'content-encoding': 'gzip', vary: 'Accept-Encoding' }).end();
      else say(request, response, { headers: stale('max-age=600', 0) });
    });
    await resource.get(['Accept-Encoding: gzip', 'Cache-Control: no-cache'], 'HEAD');
    expect(status(await resource.get())).toMatch(/^larder; hit/);
  });

  test('what a 304 said is forgotten by a kill', async () => {
    const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=86400' } }).stored();
    await sleep(500);
    resource.now({ headers: { ...V1, 'cache-control': 'max-age=1' } });
    await resource.get(['Cache-Control: no-cache']);
    // The age of what was heard is what counts: in a second it is stale.
    await sleep(1_100);
    await alone.killAll();
    await alone.start();
    expect(status(await resource.get())).not.toMatch(/^larder; hit/);
  });

  test('If-Match is the origin’s to judge (RFC 9111 4.3.2)', async () => {
    const resource = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } }).stored();
    resource.now({ headers: { etag: '"v2"', 'cache-control': 'max-age=600' }, body: 'two' });
    expect((await resource.get(['If-Match: "v2"'])).status).toBe(200);
  });

  test('a Location with the origin’s own authority is invalidated like a relative one', async () => {
    const other = await new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } }, () => proxy).stored();
    const resource = new Resource(
      (_, response) => response.writeHead(201, { location: origin.url + other.path }).end(),
      () => proxy,
    );
    expect(field(await resource.get([], 'POST'), 'location')).toBe(other.path);
    expect(status(await other.get())).not.toMatch(/hit/);
  });
});

describe('poison, and what the directives say', () => {
  test.each([
    'X-Forwarded-Host: evil.example',
    'X-HTTP-Method-Override: DELETE',
    'X-Original-URL: /admin',
    'Forwarded: host=evil.example',
  ])('a field that is in no key reaches the origin with a fetch for all: %s', async (line) => {
    const name = line.split(':')[0]!.toLowerCase();
    const resource = new Resource(
      (request, response) =>
        say(request, response, {
          headers: { ...V1, 'cache-control': 'max-age=600' },
          body: `for ${String(request.headers[name])}`,
        }),
      () => proxy,
    );
    await resource.get([line]);
    await sleep(100);
    expect((await resource.get()).body.toString()).toBe('for undefined');
  });

  test.each([
    ['a string with a comma', 'no-store, note="a, b"', 'max-age=600'],
    ['a decimal', 'no-store, weight=1.5', 'max-age=600'],
    ['an inner list', 'no-store, to=(a b)', 'max-age=600'],
    ['max-age of the wrong type', 'max-age="600"', 'no-store'],
  ])('CDN-Cache-Control with %s', async (_, targeted, plain) => {
    const resource = new Resource({ headers: { ...V1, 'cdn-cache-control': targeted, 'cache-control': plain } });
    await resource.get();
    await sleep(200);
    expect(status(await resource.get())).not.toMatch(/hit/);
  });

  test('Proxy-Authentication-Info is not stored (RFC 9111 3.1)', async () => {
    const headers = { ...V1, 'cache-control': 'max-age=600', 'proxy-authentication-info': 'nextnonce="x"' };
    const resource = await new Resource({ headers }).stored();
    expect(field(await resource.get(), 'proxy-authentication-info')).toBeNull();
  });

  test('a 304 brings Content-Type up to date, too (RFC 9111 3.2)', async () => {
    const resource = await new Resource({
      headers: { ...stale('max-age=10', 20), 'content-type': 'text/plain' },
    }).stored();
    resource.now({ headers: { ...stale('max-age=600', 0), 'content-type': 'text/plain; charset=utf-8' } });
    expect(field(await resource.get(), 'content-type')).toBe('text/plain; charset=utf-8');
  });

  test('a later part that may not be stored is not stored', async () => {
    const MB = 2 ** 20;
    const body = noise(12 * MB);
    const resource = new Resource((request, response, turn) =>
      say(request, response, { headers: { ...V1, 'cache-control': turn === 1 ? 'max-age=600' : 'no-store' }, body }),
    );
    await resource.get(['Range: bytes=0-9']);
    await sleep(300);
    await resource.get([`Range: bytes=${10 * MB}-${10 * MB + 9}`]);
    await sleep(300);
    expect(status(await resource.get([`Range: bytes=${10 * MB}-${10 * MB + 9}`]))).not.toMatch(/hit/);
  });

  test('the host of an absolute target counts, not Host (RFC 9112 3.2.2)', async () => {
    const resource = new Resource(
      (_, response) => response.writeHead(204).end(),
      () => proxy,
    );
    const wire = await Wire.open(proxy.port);
    wire.send(`POST http://one.example${resource.path} HTTP/1.1\r\nHost: two.example\r\nContent-Length: 0\r\n\r\n`);
    await wire.answer('POST');
    expect(resource.asked[0]!.headers['x-forwarded-host']).toBe('one.example');
    wire.destroy();
  });

  test('HEAD of what is stale, with the origin away: what GET gets', async () => {
    const resource = await new Resource({ headers: stale('max-age=10, stale-if-error=600', 20) }).stored();
    resource.now((request) => request.socket.destroy());
    expect([(await resource.get()).status, (await resource.get([], 'HEAD')).status]).toEqual([200, 200]);
  });

  test('a loop of two appliances is found', { timeout: 90_000 }, async () => {
    const relay = createTcp();
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    const address = `http://127.0.0.1:${(relay.address() as AddressInfo).port}`;
    const first = await RunningAppliance.start({ origin: address, flags: ['--workers', '1'] });
    const second = await RunningAppliance.start({ origin: first.url, flags: ['--workers', '1'] });
    relay.on('connection', (socket) => {
      const on = createConnection(second.port, '127.0.0.1');
      for (const end of [socket, on]) end.on('error', () => undefined);
      socket.pipe(on).pipe(socket);
    });
    try {
      const began = performance.now();
      const answer = await ask(first.port, { path: '/loop' }, 60_000);
      expect([answer.status, performance.now() - began < 5_000]).toEqual([508, true]);
    } finally {
      await Promise.all([first.stop(), second.stop()]);
      relay.close();
    }
  });
});

describe('fleet', () => {
  const GONE = 'http://127.0.0.1:1';
  const fleetFlags = (): string[] => [
    ...['--workers', '1', '--steering', GONE, '--fill', GONE, '--advertise', 'http://127.0.0.1:2'],
    ...['--token', issueToken(randomBytes(32), { role: 'appliance', id: 'appliance' })],
  ];

  test('with its storekeeper away a member hands what is not catalogued, and every field, to the origin', async () => {
    const resource = new Resource({ headers: { ...V1, 'set-cookie': 'a=b' } });
    const member = await RunningAppliance.start({ origin: origin.url, flags: fleetFlags() });
    try {
      expect((await ask(member.port, { path: resource.path })).status).toBe(404);
      process.kill((await member.pids()).storekeeper, 'SIGKILL');
      await sleep(50);
      const lines = [
        'Cookie: session=1',
        'Authorization: ann',
        'X-Forwarded-Host: evil.example',
        'Cache-Control: no-store',
      ];
      const answers = [await ask(member.port, { path: resource.path, lines })];
      expect(resource.asked.map(({ headers }) => [headers.cookie, headers.authorization])).toEqual([]);
      expect(answers.map((answer) => answer.status)).not.toContain(200);
    } finally {
      await member.stop();
    }
  });

  test('what was stored stand-alone is served by the member of a fleet, though no catalog names it', async () => {
    const resource = new Resource({ headers: { ...V1, 'cache-control': 'max-age=600' } });
    const flags = ['--workers', '1'];
    const box = await RunningAppliance.start({ origin: origin.url, flags });
    try {
      await ask(box.port, { path: resource.path });
      await sleep(1_000);
      await box.killAll();
      flags.push(...fleetFlags());
      await box.start();
      expect((await ask(box.port, { path: resource.path })).status).toBe(404);
    } finally {
      await box.stop();
    }
  });
});
