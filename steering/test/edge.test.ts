// The edge of steering: whose address counts, bytes that no client should send, the page, the description of itself.

import { afterEach, describe, expect, it } from 'vitest';
import type { PlayAnswer } from '../../protocol/decision.ts';
import { UI_CSP, readUi } from '../players/ui.ts';
import { ask, type StageGiven } from './stage.ts';
import { openTown, raw, type Town } from './town.ts';

let stage: Town;
afterEach(() => stage.close());
const open = async (given: StageGiven = {}): Promise<Town> => (stage = await openTown(given));

describe('the client’s address', () => {
  const claim = { 'x-forwarded-for': '127.2.0.7' };
  const siteOf = async (from: string): Promise<string | null> =>
    (await ask(`${stage.url}/v1/play/harbor`, { from, headers: claim })).json<PlayAnswer>().client.site;

  it('is the socket’s: a header that claims another is not believed', async () => {
    await open();
    const answer = await ask(`${stage.url}/v1/play/harbor`, { from: '127.1.0.1', headers: claim });
    expect(answer.json<PlayAnswer>().client).toMatchObject({ address: '127.1.0.1', site: 'north' });
  });

  it('is what a trusted proxy says', async () => {
    await open({ trustProxy: ['127.1.0.1/32'] });
    expect(await siteOf('127.1.0.1')).toBe('south');
    expect(await siteOf('127.1.0.2')).toBe('north');
  });

  it('that a trusted proxy garbles is nowhere, not a crash', async () => {
    await open({ trustProxy: ['127.1.0.1/32'], defaultSite: 'south' });
    const answer = await ask(`${stage.url}/v1/play/harbor`, {
      from: '127.1.0.1',
      headers: { 'x-forwarded-for': '<script>' },
    });
    expect(answer.json<PlayAnswer>().client).toMatchObject({ by: 'default', site: 'south' });
  });
});

describe('bytes that no client should send', () => {
  it.each<[string, string, RegExp]>([
    [
      'a host that would break out of a playlist',
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
    ['no HTTP at all', 'hello\r\n\r\n', /^HTTP\/1\.1 400 /],
    [
      'a method that is not known',
      'BREW /v1/titles HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 4\d\d /,
    ],
    [
      'dots on the way to the page',
      'GET /ui/../../package.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 404 /,
    ],
    [
      'escaped dots',
      'GET /ui/%2e%2e/%2e%2e/package.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      /^HTTP\/1\.1 404 /,
    ],
    ['a null', 'GET /ui/%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
    ['a broken escape', 'GET /v1/play/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', /^HTTP\/1\.1 4\d\d /],
  ])('%s', async (_, text, expected) => {
    await open();
    expect(await raw(stage.url, text)).toMatch(expected);
    expect((await ask(`${stage.url}/healthz`)).status).toBe(200);
  });
});

describe('the page', () => {
  it('is served from a list, with a policy that lets hls.js work and nothing else run', async () => {
    await open({ ui: readUi('/nonexistent') });
    const script = await ask(`${stage.url}/ui/hls.min.js`);
    expect(script.status).toBe(200);
    expect(script.headers['content-security-policy']).toBe(UI_CSP);
    expect(script.headers['content-type']).toBe('text/javascript; charset=utf-8');
    expect(script.body.length).toBeGreaterThan(100_000);
    const again = await ask(`${stage.url}/ui/hls.min.js`, {
      headers: { 'if-none-match': script.headers['etag'] as string },
    });
    expect([again.status, again.body]).toEqual([304, '']);
    expect((await ask(`${stage.url}/ui/`)).status).toBe(404);
    const root = await ask(`${stage.url}/`);
    expect([root.status, root.headers['location']]).toEqual([302, '/ui/']);
  });
});

describe('the service itself', () => {
  it('describes every route in OpenAPI', async () => {
    await open();
    const { paths } = (await ask(`${stage.url}/openapi.json`)).json<{ paths: Record<string, unknown> }>();
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
