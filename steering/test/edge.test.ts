// The HTTP edge of steering: client addresses behind proxies, malformed requests, the player page and OpenAPI.

import { afterEach, describe, expect, it } from 'vitest';
import type { PlayAnswer } from '../../protocol/decision.ts';
import { UI_CSP, readUi } from '../players/ui.ts';
import { send, type TestSteeringOptions } from './harness.ts';
import { openTwoSites, sendRaw, type TwoSites } from './two-sites.ts';

let steering: TwoSites;
afterEach(() => steering.close());
const open = async (given: TestSteeringOptions = {}): Promise<TwoSites> => (steering = await openTwoSites(given));

describe('the client’s address', () => {
  const forwarded = { 'x-forwarded-for': '127.2.0.7' };
  const siteOf = async (from: string): Promise<string | null> =>
    (await send(`${steering.url}/v1/play/harbor`, { from, headers: forwarded })).json<PlayAnswer>().client.site;

  it('is that of the socket; an untrusted X-Forwarded-For is ignored', async () => {
    await open();
    const answer = await send(`${steering.url}/v1/play/harbor`, { from: '127.1.0.1', headers: forwarded });
    expect(answer.json<PlayAnswer>().client).toMatchObject({ address: '127.1.0.1', site: 'north' });
  });

  it('is the one that a trusted proxy forwards', async () => {
    await open({ trustProxy: ['127.1.0.1/32'] });
    expect(await siteOf('127.1.0.1')).toBe('south');
    expect(await siteOf('127.1.0.2')).toBe('north');
  });

  it('may come with the port of the client', async () => {
    await open({ trustProxy: ['127.1.0.1/32'] });
    const headers = { 'x-forwarded-for': '127.2.0.7:51008' };
    const answer = await send(`${steering.url}/v1/play/harbor`, { from: '127.1.0.1', headers });
    expect(answer.json<PlayAnswer>().client).toMatchObject({ by: 'prefix', site: 'south' });
  });

  it('that a trusted proxy garbles belongs to the default site', async () => {
    await open({ trustProxy: ['127.1.0.1/32'], defaultSite: 'south' });
    const answer = await send(`${steering.url}/v1/play/harbor`, {
      from: '127.1.0.1',
      headers: { 'x-forwarded-for': '<script>' },
    });
    expect(answer.json<PlayAnswer>().client).toMatchObject({ by: 'default', site: 'south' });
    expect((await steering.metrics.expose()).body).toContain('larder_steering_unparsed_addresses_total 1');
  });
});

describe('a malformed request is answered, and the service goes on, for', () => {
  it.each<[string, string, RegExp]>([
    [
      'a Host header that would end a quoted string in a playlist',
      'GET /v1/titles/harbor/master.m3u8 HTTP/1.1\r\nHost: a"b\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 400 /,
    ],
    ['1 MB of headers', `GET /v1/titles HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(2 ** 20)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    [
      'HTTP/1.0 without Host',
      'GET /v1/titles/harbor/master.m3u8 HTTP/1.0\r\n\r\n',
      /^HTTP\/1\.1 200 [\s\S]*SERVER-URI="http:\/\/127\.0\.0\.1:\d+\/v1/,
    ],
    [
      'a body on GET',
      'GET /v1/titles HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello',
      /^HTTP\/1\.1 (200|4\d\d) /,
    ],
    ['bytes that are not HTTP', 'hello\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['an unknown method', 'BREW /v1/titles HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
    [
      'dot segments in the path of the page',
      'GET /ui/../../package.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 404 /,
    ],
    [
      'escaped dot segments',
      'GET /ui/%2e%2e/%2e%2e/package.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 404 /,
    ],
    ['a null character', 'GET /ui/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
    ['a broken escape', 'GET /v1/play/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
  ])('%s', async (_, text, expected) => {
    await open();
    expect(await sendRaw(steering.url, text)).toMatch(expected);
    expect((await send(`${steering.url}/healthz`)).status).toBe(200);
  });
});

describe('the page', () => {
  it('is served from memory, with a content security policy that allows what hls.js needs', async () => {
    await open({ ui: readUi('/nonexistent') });
    const script = await send(`${steering.url}/ui/hls.min.js`);
    expect(script.status).toBe(200);
    expect(script.headers['content-security-policy']).toBe(UI_CSP);
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8');
    expect(script.body.length).toBeGreaterThan(100_000);
    const again = await send(`${steering.url}/ui/hls.min.js`, {
      headers: { 'if-none-match': script.headers['etag'] as string },
    });
    expect([again.status, again.body]).toEqual([304, '']);
    expect((await send(`${steering.url}/ui/`)).status).toBe(404);
    const root = await send(`${steering.url}/`);
    expect([root.status, root.headers['location']]).toEqual([302, '/ui/']);
  });
});

describe('the service itself', () => {
  it('describes every route in OpenAPI', async () => {
    await open();
    const { paths } = (await send(`${steering.url}/openapi.json`)).json<{ paths: Record<string, unknown> }>();
    expect(Object.keys(paths).sort()).toEqual(
      [
        '/',
        '/ui',
        '/ui/{path}',
        '/v1/appliances/{id}/heartbeat',
        '/v1/appliances/{id}/orders',
        '/v1/appliances/{id}/state',
        '/v1/explain',
        '/v1/fleet',
        '/v1/play/{title}',
        '/v1/route/{path}',
        '/v1/steering/{title}',
        '/v1/titles',
        '/v1/titles/{title}/manifest.mpd',
        '/v1/titles/{title}/master.m3u8',
      ].sort(),
    );
  });
});
