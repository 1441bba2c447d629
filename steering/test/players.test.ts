// The public routes over HTTP: plays, redirects, manifests and steering lists, also from pages of other origins.

import { afterEach, describe, expect, it } from 'vitest';
import { publicTitles } from '../../protocol/answers.ts';
import type { PlayAnswer } from '../../protocol/decision.ts';
import { send, aTitle, metricValue, allHoldings, type TestSteeringOptions } from './harness.ts';
import { faultOf, pathwayIds, openTwoSites, operator, sendRaw, type TwoSites } from './two-sites.ts';

let steering: TwoSites;
afterEach(() => steering.close());
const open = async (given: TestSteeringOptions = {}): Promise<TwoSites> => (steering = await openTwoSites(given));

describe('a play', () => {
  it('ranks the site of the client first, then the next by distance, then the origin', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1', site: 'north' });
    await steering.heartbeat({ appliance: 's1', site: 'south' });
    expect(pathwayIds(await steering.play('harbor', '127.1.0.9'))).toEqual(['n1', 's1', 'origin']);
    expect(pathwayIds(await steering.play('harbor', '127.2.0.9'))).toEqual(['s1', 'n1', 'origin']);
  });

  it('over IPv6 is located by network6', async () => {
    await open({ host: '::1' });
    const answer = (await send(`${steering.url}/v1/play/harbor`)).json<PlayAnswer>();
    expect(answer.client).toEqual({ address: '::1', by: 'prefix', prefix: '::1/128', site: 'north' });
    expect(answer.manifests[0]!.url.startsWith(`${steering.url}/v1/titles/harbor/master.m3u8?`)).toBe(true);
  });

  it('has manifests that belong to its decision, and is counted once', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    const answer = await steering.play('meadow');
    expect(answer.manifests.map(({ dialect }) => dialect)).toEqual(['hls', 'dash']);
    for (const { url } of answer.manifests) {
      const manifest = await send(url, { from: '127.1.0.1' });
      expect(manifest.body).toContain(`http://n1.example:8080/~${answer.id}/meadow/`);
      expect(manifest.headers['cache-control']).toBe('no-store');
    }
    expect(steering.plays.nextReport()!.asked).toEqual([{ title: 'meadow', site: 'north', plays: 1 }]);
    expect(await metricValue(steering.metrics, 'larder_steering_plays_total{route="play"}')).toBe(1);
  });

  it('that begins with a manifest is counted too, but a HEAD is not', async () => {
    await open();
    const url = `${steering.url}/v1/titles/harbor/master.m3u8`;
    const head = await send(url, { method: 'HEAD' });
    expect([head.status, head.body]).toEqual([200, '']);
    expect(steering.plays.nextReport()).toBeNull();
    expect((await send(url)).headers['content-type']).toBe('application/vnd.apple.mpegurl');
    expect(steering.plays.nextReport()!.asked).toEqual([{ title: 'harbor', site: null, plays: 1 }]);
  });

  it('has as many pathways as requested, plus the origin', async () => {
    await open();
    for (let at = 0; at < 10; at += 1) await steering.heartbeat({ appliance: `n${at}` });
    const counts = await Promise.all(
      ['', '?pathways=1', '?pathways=8'].map(
        async (query) => (await send(`${steering.url}/v1/play/harbor${query}`)).json<PlayAnswer>().pathways.length,
      ),
    );
    expect(counts).toEqual([4, 2, 9]);
  });

  it('prefers the holder of the title', async () => {
    await open();
    for (const id of ['n1', 'n2', 'n3', 'n4'])
      await steering.heartbeat({
        appliance: id,
        inventoryRevision: 1,
        inventory: { since: 0, revision: 1, added: id === 'n3' ? allHoldings('harbor') : [], removed: [] },
      });
    const answer = await steering.play();
    expect(answer.pathways[0]).toMatchObject({ id: 'n3', held: 1 });
    expect(answer.pathways[1]).toMatchObject({ held: 0 });
  });

  it.each(['0', '9', '-1', '1.5', 'x', '1&pathways=2'])(
    'with pathways=%s is refused, and the fault names the field',
    async (pathways) => {
      await open();
      const answer = await send(`${steering.url}/v1/play/harbor?pathways=${pathways}`);
      expect([answer.status, faultOf(answer).detail['field']]).toEqual([400, 'query.pathways']);
    },
  );

  it('of an unknown title is answered with 404', async () => {
    await open();
    const answer = await send(`${steering.url}/v1/play/nothing`);
    expect([answer.status, faultOf(answer).code]).toEqual([404, 'not_found']);
    expect(answer.headers['access-control-allow-origin']).toBe('*');
    expect((await send(`${steering.url}/v1/titles/harbor/manifest.mpd`)).status).toBe(404);
  });
});

describe('a redirect', () => {
  it('leads to the first pathway and links the others', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1', site: 'north' });
    await steering.heartbeat({ appliance: 's1', site: 'south' });
    const answer = await send(`${steering.url}/v1/route/harbor/video/a%20b.m4s?x=1`, { from: '127.1.0.1' });
    expect(answer.status).toBe(302);
    const session = /~([a-z0-9]{16})\//.exec(answer.headers['location'] as string)![1];
    expect(answer.headers['location']).toBe(`http://n1.example:8080/~${session}/harbor/video/a%20b.m4s`);
    expect(answer.headers['link']).toBe(
      `<http://s1.example:8080/~${session}/harbor/video/a%20b.m4s>; rel=duplicate; pri=2, ` +
        '<http://origin.example/media/harbor/video/a%20b.m4s>; rel=duplicate; pri=3',
    );
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(steering.plays.nextReport()).toBeNull();
  });

  it('of a manifest is counted as a play', async () => {
    await open();
    await send(`${steering.url}/v1/route/harbor/master.m3u8`);
    expect(steering.plays.nextReport()!.asked).toHaveLength(1);
  });

  it('uses the title with the longest base', async () => {
    await open({ titles: [aTitle({ id: 'outer', base: '/a/' }), aTitle({ id: 'inner', base: '/a/b/' })] });
    await steering.heartbeat({
      appliance: 'n1',
      inventoryRevision: 1,
      inventory: { since: 0, revision: 1, added: allHoldings('inner'), removed: [] },
    });
    await steering.heartbeat({
      appliance: 'n2',
      inventoryRevision: 1,
      inventory: { since: 0, revision: 1, added: allHoldings('outer'), removed: [] },
    });
    const hostOf = async (path: string): Promise<string> =>
      new URL((await send(`${steering.url}/v1/route${path}`, { from: '127.1.0.1' })).headers['location'] as string)
        .hostname;
    expect(await hostOf('/a/b/x')).toBe('n1.example');
    expect(await hostOf('/a/bb/x')).toBe('n2.example');
    expect((await send(`${steering.url}/v1/route/b/x`)).status).toBe(404);
  });

  it.each([
    '/harbor/../secret',
    '/harbor/%2e%2e/secret',
    '/harbor/a%00b',
    '/harbor/%zz',
    '/harbor/%0d%0aSet-Cookie:x',
    '/harbor/%5c..',
    `/harbor/${'x'.repeat(1100)}`,
  ])('for %s is refused', async (path) => {
    await open();
    const answer = await sendRaw(steering.url, `GET /v1/route${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 (400|404|414) /);
    expect(answer).not.toMatch(/^location:/im);
  });
});

describe('the steering list', () => {
  it('orders the declared ids and moves unavailable ones behind the origin', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    await steering.heartbeat({ appliance: 'n2' });
    steering.fleet.recordProbe('n1', 'refused');
    const answer = await send(
      `${steering.url}/v1/steering/harbor?session=abcdefghij012345&pathways=n1,n2,ghost,origin&_HLS_pathway=n1&_HLS_throughput=1000`,
    );
    expect(answer.headers['content-type']).toBe('application/vnd.apple.steering-list');
    expect(String(answer.headers['access-control-expose-headers'])).toContain('Retry-After');
    expect(answer.json()).toMatchObject({ VERSION: 1, 'PATHWAY-PRIORITY': ['n2', 'origin', 'n1', 'ghost'] });
    const ttl = answer.json<{ TTL: number }>().TTL;
    expect(ttl).toBeGreaterThanOrEqual(24);
    expect(ttl).toBeLessThanOrEqual(36);
  });

  it('has the ids of the playlist, and the same first one', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    const text = (await send(`${steering.url}/v1/titles/harbor/master.m3u8`, { from: '127.1.0.1' })).body;
    const [, uri, first] = /SERVER-URI="([^"]+)",PATHWAY-ID="([^"]+)"/.exec(text)!;
    const list = (await send(uri!)).json<{ 'PATHWAY-PRIORITY': string[] }>()['PATHWAY-PRIORITY'];
    expect(list).toEqual([...new Set([...text.matchAll(/PATHWAY-ID="([^"]+)"/g)].map((match) => match[1]))]);
    expect(list[0]).toBe(first);
  });

  it('accepts the quoted lists that dash.js reports', async () => {
    await open();
    const query = `pathways=n1,origin&_DASH_pathway=${encodeURIComponent('"n1,origin"')}&_DASH_throughput=${encodeURIComponent('"5000,1000"')}`;
    expect((await send(`${steering.url}/v1/steering/harbor?${query}`)).status).toBe(200);
  });

  it.each([
    ['no pathways', '', 'query.pathways'],
    ['a bad id', 'pathways=a%20b', 'query.pathways'],
    ['a bad session', 'pathways=a&session=../..', 'query.session'],
    ['a bad report', 'pathways=a&_HLS_pathway=%3Cscript%3E', 'query._HLS_pathway'],
    ['a bad throughput', 'pathways=a&_DASH_throughput=fast', 'query._DASH_throughput'],
  ])('with %s is refused, and the fault names the field', async (_, query, field) => {
    await open();
    const answer = await send(`${steering.url}/v1/steering/harbor?${query}`);
    expect([answer.status, faultOf(answer).detail['field']]).toEqual([400, field]);
  });

  it('is not rate-limited, because a player would stop at status 429', async () => {
    await open();
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => send(`${steering.url}/v1/steering/harbor?pathways=a,origin`)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  });
});

describe('players on pages of other origins', () => {
  it.each([
    '/v1/play/harbor',
    '/v1/titles',
    '/v1/titles/harbor/master.m3u8',
    '/v1/steering/harbor?pathways=a',
    '/v1/route/harbor/x',
  ])('may request %s, preflight included', async (path) => {
    await open();
    const preflight = await send(steering.url + path, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://page.example',
        'access-control-request-method': 'GET',
        'access-control-request-headers': 'range',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers['access-control-allow-origin']).toBe('*');
    expect(preflight.headers['access-control-allow-methods']).toContain('GET');
    expect((await send(steering.url + path)).headers['access-control-allow-origin']).toBe('*');
  });

  it('may not request what needs a token', async () => {
    await open();
    const answer = await send(`${steering.url}/v1/fleet`, { token: operator });
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('can list the titles', async () => {
    await open();
    const { titles } = publicTitles.parse((await send(`${steering.url}/v1/titles`)).json());
    expect(titles).toEqual([
      { id: 'harbor', name: 'harbor', durationS: 120, dialects: ['hls'] },
      { id: 'meadow', name: 'meadow', durationS: 120, dialects: ['hls', 'dash'] },
    ]);
  });
});
