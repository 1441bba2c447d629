// Steering at its socket: what players, appliances and operators send, and what they must never get through.

import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { publicTitles } from '../../protocol/answers.ts';
import { explanation, fleet as fleetMessage, playAnswer, type PlayAnswer } from '../../protocol/decision.ts';
import type { FaultBody } from '../../protocol/faults.ts';
import { heartbeatAnswer, type Heartbeat, type HeartbeatAnswer } from '../../protocol/heartbeat.ts';
import { parseFootprint } from '../footprint.ts';
import { UI_CSP, readUi } from '../ui.ts';
import {
  aBeat,
  ask,
  aTitle,
  openStage,
  sample,
  tokenOf,
  wholeTitle,
  type Answer,
  type Stage,
  type StageGiven,
} from './stage.ts';

const MPD = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>';
const harbor = aTitle({ id: 'harbor' });
const both = aTitle({
  id: 'meadow',
  manifests: [...aTitle({ id: 'meadow' }).manifests, { dialect: 'dash', path: '/meadow/manifest.mpd', text: MPD }],
});

const footprint = parseFootprint(
  JSON.stringify({
    coverageZones: {
      north: { network: ['127.1.0.0/16'], network6: ['::1/128'], coordinates: { latitude: 59, longitude: 18 } },
      south: { network: ['127.2.0.0/16'], coordinates: { latitude: 40, longitude: -4 } },
    },
  }),
  'map.json',
);

let stage: Stage;
afterEach(() => stage.close());

async function open(given: StageGiven = {}): Promise<Stage> {
  stage = await openStage({ titles: [harbor, both], footprint, ...given });
  return stage;
}

const operator = tokenOf('operator');
const beat = (
  given: Partial<Heartbeat> & { readonly appliance: string },
  token = tokenOf('appliance', given.appliance),
): Promise<Answer> =>
  ask(`${stage.url}/v1/appliances/${given.appliance}/heartbeat`, { method: 'POST', body: aBeat(given), token });
const faultOf = (answer: Answer): FaultBody['error'] => answer.json<FaultBody>().error;
const play = async (title = 'harbor', from = '127.1.0.1'): Promise<PlayAnswer> =>
  playAnswer.parse((await ask(`${stage.url}/v1/play/${title}`, { from })).json());
const idsOf = ({ pathways }: PlayAnswer): string[] => pathways.map(({ id }) => id);

describe('a play', () => {
  it('is sent to the site of its address, then to the next by distance, then to the origin', async () => {
    await open();
    await beat({ appliance: 'n1', site: 'north' });
    await beat({ appliance: 's1', site: 'south' });
    expect(idsOf(await play('harbor', '127.1.0.9'))).toEqual(['n1', 's1', 'origin']);
    expect(idsOf(await play('harbor', '127.2.0.9'))).toEqual(['s1', 'n1', 'origin']);
  });

  it('over IPv6 is found by network6', async () => {
    await open({ host: '::1' });
    const answer = (await ask(`${stage.url}/v1/play/harbor`)).json<PlayAnswer>();
    expect(answer.client).toEqual({ address: '::1', by: 'prefix', prefix: '::1/128', site: 'north' });
    expect(answer.manifests[0]!.url.startsWith(`${stage.url}/v1/titles/harbor/master.m3u8?`)).toBe(true);
  });

  it('gets manifests that belong to its decision and count it once', async () => {
    await open();
    await beat({ appliance: 'n1' });
    const answer = await play('meadow');
    expect(answer.manifests.map(({ dialect }) => dialect)).toEqual(['hls', 'dash']);
    for (const { url } of answer.manifests) {
      const manifest = await ask(url, { from: '127.1.0.1' });
      expect(manifest.body).toContain(`http://n1.example:8080/~${answer.id}/meadow/`);
      expect(manifest.headers['cache-control']).toBe('no-store');
    }
    expect(stage.plays.next()!.asked).toEqual([{ title: 'meadow', site: 'north', plays: 1 }]);
    expect(await sample(stage.metrics, 'larder_steering_plays_total{route="play"}')).toBe(1);
  });

  it('that begins at a manifest counts too; a HEAD counts nothing', async () => {
    await open();
    const url = `${stage.url}/v1/titles/harbor/master.m3u8`;
    const head = await ask(url, { method: 'HEAD' });
    expect([head.status, head.body]).toEqual([200, '']);
    expect(stage.plays.next()).toBeNull();
    expect((await ask(url)).headers['content-type']).toBe('application/vnd.apple.mpegurl');
    expect(stage.plays.next()!.asked).toEqual([{ title: 'harbor', site: null, plays: 1 }]);
  });

  it('takes as many pathways as were asked for, the origin on top', async () => {
    await open();
    for (let at = 0; at < 10; at += 1) await beat({ appliance: `n${at}` });
    const counts = await Promise.all(
      ['', '?pathways=1', '?pathways=8'].map(
        async (query) => (await ask(`${stage.url}/v1/play/harbor${query}`)).json<PlayAnswer>().pathways.length,
      ),
    );
    expect(counts).toEqual([4, 2, 9]);
  });

  it('prefers the holder of the title', async () => {
    await open();
    for (const id of ['n1', 'n2', 'n3', 'n4'])
      await beat({
        appliance: id,
        inventoryRevision: 1,
        inventory: { since: 0, revision: 1, added: id === 'n3' ? wholeTitle('harbor') : [], removed: [] },
      });
    const answer = await play();
    expect(answer.pathways[0]).toMatchObject({ id: 'n3', held: 1 });
    expect(answer.pathways[1]).toMatchObject({ held: 0 });
  });

  it.each(['0', '9', '-1', '1.5', 'x', '1&pathways=2'])('with pathways=%s is refused by field', async (pathways) => {
    await open();
    const answer = await ask(`${stage.url}/v1/play/harbor?pathways=${pathways}`);
    expect([answer.status, faultOf(answer).detail['field']]).toEqual([400, 'query.pathways']);
  });

  it('of a title nobody knows is a 404 that says what to do', async () => {
    await open();
    const answer = await ask(`${stage.url}/v1/play/nothing`);
    expect([answer.status, faultOf(answer).code]).toEqual([404, 'not_found']);
    expect(answer.headers['access-control-allow-origin']).toBe('*');
    expect((await ask(`${stage.url}/v1/titles/harbor/manifest.mpd`)).status).toBe(404);
  });
});

describe('a redirect', () => {
  it('goes to the first pathway and links the others', async () => {
    await open();
    await beat({ appliance: 'n1', site: 'north' });
    await beat({ appliance: 's1', site: 'south' });
    const answer = await ask(`${stage.url}/v1/route/harbor/video/a%20b.m4s?x=1`, { from: '127.1.0.1' });
    expect(answer.status).toBe(302);
    const session = /~([a-z0-9]{16})\//.exec(answer.headers['location'] as string)![1];
    expect(answer.headers['location']).toBe(`http://n1.example:8080/~${session}/harbor/video/a%20b.m4s`);
    expect(answer.headers['link']).toBe(
      `<http://s1.example:8080/~${session}/harbor/video/a%20b.m4s>; rel=duplicate; pri=2, ` +
        '<http://origin.example/media/harbor/video/a%20b.m4s>; rel=duplicate; pri=3',
    );
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(stage.plays.next()).toBeNull();
  });

  it('of a manifest is a play', async () => {
    await open();
    await ask(`${stage.url}/v1/route/harbor/master.m3u8`);
    expect(stage.plays.next()!.asked).toHaveLength(1);
  });

  it('takes the title with the longest base', async () => {
    await open({ titles: [aTitle({ id: 'outer', base: '/a/' }), aTitle({ id: 'inner', base: '/a/b/' })] });
    await beat({
      appliance: 'n1',
      inventoryRevision: 1,
      inventory: { since: 0, revision: 1, added: wholeTitle('inner'), removed: [] },
    });
    await beat({
      appliance: 'n2',
      inventoryRevision: 1,
      inventory: { since: 0, revision: 1, added: wholeTitle('outer'), removed: [] },
    });
    const hostOf = async (path: string): Promise<string> =>
      new URL((await ask(`${stage.url}/v1/route${path}`, { from: '127.1.0.1' })).headers['location'] as string)
        .hostname;
    expect(await hostOf('/a/b/x')).toBe('n1.example');
    expect(await hostOf('/a/bb/x')).toBe('n2.example');
    expect((await ask(`${stage.url}/v1/route/b/x`)).status).toBe(404);
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
    const answer = await raw(`GET /v1/route${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 (400|404|414) /);
    expect(answer).not.toMatch(/^location:/im);
  });
});

describe('the steering list', () => {
  it('orders the declared ids and moves those that are gone behind the origin', async () => {
    await open();
    await beat({ appliance: 'n1' });
    await beat({ appliance: 'n2' });
    stage.fleet.probed('n1', 'refused');
    const answer = await ask(
      `${stage.url}/v1/steering/harbor?session=abcdefghij012345&pathways=n1,n2,ghost,origin&_HLS_pathway=n1&_HLS_throughput=1000`,
    );
    expect(answer.headers['content-type']).toBe('application/vnd.apple.steering-list');
    expect(String(answer.headers['access-control-expose-headers'])).toContain('Retry-After');
    expect(answer.json()).toMatchObject({ VERSION: 1, 'PATHWAY-PRIORITY': ['n2', 'origin', 'n1', 'ghost'] });
    const ttl = answer.json<{ TTL: number }>().TTL;
    expect(ttl).toBeGreaterThanOrEqual(24);
    expect(ttl).toBeLessThanOrEqual(36);
  });

  it('is what the manifest names: its ids are the playlist’s, its first the playlist’s first', async () => {
    await open();
    await beat({ appliance: 'n1' });
    const text = (await ask(`${stage.url}/v1/titles/harbor/master.m3u8`, { from: '127.1.0.1' })).body;
    const [, uri, first] = /SERVER-URI="([^"]+)",PATHWAY-ID="([^"]+)"/.exec(text)!;
    const list = (await ask(uri!)).json<{ 'PATHWAY-PRIORITY': string[] }>()['PATHWAY-PRIORITY'];
    expect(list).toEqual([...new Set([...text.matchAll(/PATHWAY-ID="([^"]+)"/g)].map((match) => match[1]))]);
    expect(list[0]).toBe(first);
  });

  it('reads what dash.js reports: quoted lists', async () => {
    await open();
    const query = `pathways=n1,origin&_DASH_pathway=${encodeURIComponent('"n1,origin"')}&_DASH_throughput=${encodeURIComponent('"5000,1000"')}`;
    expect((await ask(`${stage.url}/v1/steering/harbor?${query}`)).status).toBe(200);
  });

  it.each([
    ['no pathways', '', 'query.pathways'],
    ['a bad id', 'pathways=a%20b', 'query.pathways'],
    ['a bad session', 'pathways=a&session=../..', 'query.session'],
    ['a bad report', 'pathways=a&_HLS_pathway=%3Cscript%3E', 'query._HLS_pathway'],
    ['a bad throughput', 'pathways=a&_DASH_throughput=fast', 'query._DASH_throughput'],
  ])('with %s is refused by field', async (_, query, field) => {
    await open();
    const answer = await ask(`${stage.url}/v1/steering/harbor?${query}`);
    expect([answer.status, faultOf(answer).detail['field']]).toEqual([400, field]);
  });

  it('does not stop for many requests: never 429', async () => {
    await open();
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => ask(`${stage.url}/v1/steering/harbor?pathways=a,origin`)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  });
});

describe('players on other pages', () => {
  it.each([
    '/v1/play/harbor',
    '/v1/titles',
    '/v1/titles/harbor/master.m3u8',
    '/v1/steering/harbor?pathways=a',
    '/v1/route/harbor/x',
  ])('may ask %s, preflight included', async (path) => {
    await open();
    const preflight = await ask(stage.url + path, {
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
    expect((await ask(stage.url + path)).headers['access-control-allow-origin']).toBe('*');
  });

  it('may not ask what needs a token', async () => {
    await open();
    const answer = await ask(`${stage.url}/v1/fleet`, { token: operator });
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  it('are offered the titles', async () => {
    await open();
    const { titles } = publicTitles.parse((await ask(`${stage.url}/v1/titles`)).json());
    expect(titles).toEqual([
      { id: 'harbor', name: 'harbor', durationS: 120, dialects: ['hls'] },
      { id: 'meadow', name: 'meadow', durationS: 120, dialects: ['hls', 'dash'] },
    ]);
  });
});

describe('a heartbeat', () => {
  it('renews a lease of which the answer tells the length', async () => {
    await open();
    const answer = heartbeatAnswer.parse((await beat({ appliance: 'n1' })).json());
    expect(answer).toEqual({ protocol: 1, leaseMs: 10_000, beatMs: 3_000, inventoryRevision: null, orders: [] });
    expect(stage.probes).toEqual(['n1']);
    await beat({ appliance: 'n1', seq: 2 });
    expect(stage.probes).toEqual(['n1']);
  });

  it.each([
    ['without a token', {}, undefined, 401, 'token_missing'],
    ['with a token that nobody made', {}, `larder_appliance_n1_${'0'.repeat(64)}`, 403, 'token_forged'],
    ['with another appliance’s token', {}, tokenOf('appliance', 'n2'), 403, 'token_forged'],
    ['for another appliance in the body', { appliance: 'n2' }, tokenOf('appliance', 'n1'), 403, 'token_forged'],
    ['with an operator’s token', {}, operator, 403, 'token_forged'],
    ['with garbage for a token', {}, 'x', 403, 'token_forged'],
  ])('%s is refused and changes nothing', async (_, body, token, status, code) => {
    await open();
    const answer = await ask(`${stage.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body: aBeat({ appliance: 'n1', ...body }),
      ...(token === undefined ? {} : { token }),
    });
    expect([answer.status, faultOf(answer).code]).toEqual([status, code]);
    expect(stage.fleet.show({ inventory: false })).toEqual([]);
  });

  it.each([
    ['of another protocol version', { protocol: 2 }, 'body.protocol'],
    ['without a site', { site: undefined }, 'body.site'],
    ['with a negative count', { connections: -1 }, 'body.connections'],
    ['with a state that is none', { state: 'dancing' }, 'body.state'],
    ['advertising no URL', { advertise: ['javascript:alert(1)'] }, 'body.advertise.0'],
    ['advertising a URL with a query', { advertise: ['http://a.example', 'http://b.example/?x'] }, 'body.advertise.1'],
    [
      'with a broken holding',
      { inventory: { since: 0, revision: 1, added: ['x'], removed: [] } },
      'body.inventory.added.0',
    ],
  ])('%s is refused by field', async (_, given, field) => {
    await open();
    const answer = await ask(`${stage.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body: { ...aBeat({ appliance: 'n1' }), ...given },
      token: tokenOf('appliance', 'n1'),
    });
    expect([answer.status, faultOf(answer).code, faultOf(answer).detail['field']]).toEqual([
      422,
      'body_invalid',
      field,
    ]);
    expect(stage.fleet.show({ inventory: false })).toEqual([]);
  });

  it('of an appliance called origin is refused: that pathway is the origin’s', async () => {
    await open();
    expect(faultOf(await beat({ appliance: 'origin' })).code).toBe('body_invalid');
  });

  it.each([
    ['no JSON', '{"protocol":1,', 400],
    ['an array', '[]', 422],
    ['nothing', '', 400],
    ['more than the limit', `{"x":"${'y'.repeat(5 * 2 ** 20)}"}`, 413],
  ])('of %s is refused', async (_, body, status) => {
    await open();
    const answer = await ask(`${stage.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body,
      token: tokenOf('appliance', 'n1'),
    });
    expect(answer.status).toBe(status);
  });
});

describe('a drain', () => {
  const setState = (body: unknown, token = operator): Promise<Answer> =>
    ask(`${stage.url}/v1/appliances/n1/state`, { method: 'PUT', body, token });
  const now = { state: 'draining', at: null, forMs: null };

  it('takes plays away at once, rides the heartbeat until it is done, and ends by the clock', async () => {
    await open();
    await beat({ appliance: 'n1', seq: 1 });
    await beat({ appliance: 'n2', seq: 1 });
    const drained = await setState({ ...now, forMs: 60_000 });
    expect([drained.status, drained.json<{ draining: unknown }>().draining]).toEqual([
      200,
      { since: '2026-03-01T12:00:00.000Z', until: '2026-03-01T12:01:00.000Z' },
    ]);
    expect(idsOf(await play())).toEqual(['n2', 'origin']);
    const told = (await beat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>();
    expect(told.orders).toMatchObject([{ kind: 'drain', until: '2026-03-01T12:01:00.000Z' }]);
    const done = await beat({ appliance: 'n1', seq: 3, ordersDone: [told.orders[0]!.id], state: 'draining' });
    expect(done.json<HeartbeatAnswer>().orders).toEqual([]);
    stage.clock.advance(60_000);
    stage.fleet.tick();
    const resumed = await beat({ appliance: 'n1', seq: 4, state: 'draining' });
    expect(resumed.json<HeartbeatAnswer>().orders).toMatchObject([{ kind: 'resume' }]);
    await beat({ appliance: 'n1', seq: 5, ordersDone: [resumed.json<HeartbeatAnswer>().orders[0]!.id] });
    await beat({ appliance: 'n2', seq: 2 });
    expect(idsOf(await play()).sort()).toEqual(['n1', 'n2', 'origin']);
  });

  it('for later begins then', async () => {
    await open();
    await beat({ appliance: 'n1' });
    await setState({ ...now, at: '2026-03-01T12:00:05Z' });
    expect(idsOf(await play())).toEqual(['n1', 'origin']);
    stage.clock.advance(5_000);
    expect(idsOf(await play())).toEqual(['origin']);
  });

  it('is undone by the operator', async () => {
    await open();
    await beat({ appliance: 'n1' });
    await setState(now);
    expect((await setState({ ...now, state: 'serving' })).json<{ draining: unknown }>().draining).toBeNull();
    expect(idsOf(await play())).toEqual(['n1', 'origin']);
  });

  it.each([
    ['without a token', now, '', 401],
    ['with an appliance’s token', now, tokenOf('appliance', 'n1'), 403],
    ['with a service’s token', now, tokenOf('service', 'fill'), 403],
    ['of a state that is none', { ...now, state: 'gone' }, operator, 422],
    ['at no instant', { ...now, at: 'tomorrow' }, operator, 422],
    ['of no length', { ...now, forMs: 0 }, operator, 422],
  ])('%s is refused', async (_, body, token, status) => {
    await open();
    await beat({ appliance: 'n1' });
    const answer = await ask(`${stage.url}/v1/appliances/n1/state`, {
      method: 'PUT',
      body,
      ...(token === '' ? {} : { token }),
    });
    expect(answer.status).toBe(status);
    expect(idsOf(await play())).toEqual(['n1', 'origin']);
  });

  it('of an unknown appliance is a 404', async () => {
    await open();
    expect((await setState(now)).status).toBe(404);
  });
});

describe('operators and fill', () => {
  it('see the fleet, with inventory where they ask for it', async () => {
    await open();
    await beat({
      appliance: 'n1',
      inventoryRevision: 3,
      inventory: { since: 0, revision: 3, added: wholeTitle('harbor'), removed: [] },
    });
    const plain = fleetMessage.parse((await ask(`${stage.url}/v1/fleet`, { token: operator })).json());
    expect(plain.sites).toEqual([
      { id: 'north', position: { lat: 59, lon: 18 }, prefixes: 2, appliances: 1 },
      { id: 'south', position: { lat: 40, lon: -4 }, prefixes: 1, appliances: 0 },
    ]);
    expect(plain.appliances[0]).toMatchObject({ id: 'n1', liveness: 'alive', inventoryRevision: 3, holdings: 4 });
    expect(plain.appliances[0]!.inventory).toBeUndefined();
    const full = (await ask(`${stage.url}/v1/fleet?inventory=1`, { token: tokenOf('service', 'fill') })).json<
      typeof plain
    >();
    expect(full.appliances[0]!.inventory).toEqual(wholeTitle('harbor').sort());
  });

  it('order a fill that rides the heartbeat', async () => {
    await open();
    await beat({ appliance: 'n1', seq: 1 });
    const ordered = await ask(`${stage.url}/v1/appliances/n1/orders`, {
      method: 'POST',
      body: { kind: 'fill', run: 'run-7' },
      token: tokenOf('service', 'fill'),
    });
    expect(ordered.json()).toMatchObject({ order: { kind: 'fill', run: 'run-7' } });
    expect((await beat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>().orders).toMatchObject([
      { kind: 'fill', run: 'run-7' },
    ]);
    const drainByOrder = await ask(`${stage.url}/v1/appliances/n1/orders`, {
      method: 'POST',
      body: { kind: 'drain' },
      token: operator,
    });
    expect(drainByOrder.status).toBe(422);
  });

  it('are told why: everybody looked at, and nothing counted', async () => {
    await open();
    await beat({ appliance: 'n1' });
    await beat({ appliance: 's1', site: 'south', health: { level: 'red', causes: ['volume lost'] } });
    const answer = await ask(`${stage.url}/v1/explain?client=127.2.0.1&title=harbor`, { token: operator });
    const why = explanation.parse(answer.json());
    expect(why.client).toMatchObject({ by: 'prefix', site: 'south' });
    expect(why.considered.map(({ appliance, outcome }) => `${appliance} ${outcome}`)).toEqual([
      's1 refused',
      'n1 chosen',
    ]);
    expect(why.considered[0]!.reason).toBe('its health is red: volume lost');
    expect(why.catalogRevision).toBe(1);
    expect(stage.plays.next()).toBeNull();
    expect((await ask(`${stage.url}/v1/explain?client=nobody&title=harbor`, { token: operator })).status).toBe(400);
  });

  it.each(['/v1/fleet', '/v1/explain?client=127.1.0.1&title=harbor', '/metrics'])(
    'need a token for %s',
    async (path) => {
      await open();
      expect((await ask(stage.url + path)).status).toBe(401);
      expect((await ask(stage.url + path, { token: tokenOf('appliance', 'n1') })).status).toBe(403);
      expect((await ask(stage.url + path, { token: operator })).status).toBe(200);
    },
  );
});

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

/** Sends bytes as they are and reads until the end. */
function raw(text: string): Promise<string> {
  const { hostname, port } = new URL(stage.url);
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(Number(port), hostname, () => socket.write(text));
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('close', () => resolve(answer));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      ['EPIPE', 'ECONNRESET'].includes(error.code ?? '') ? resolve(answer) : reject(error),
    );
  });
}

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
    expect(await raw(text)).toMatch(expected);
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
