// What appliances, operators and fill send to steering at its socket, and what forged ones must never get through.

import { afterEach, describe, expect, it } from 'vitest';
import { explanation, fleet as fleetMessage } from '../../protocol/decision.ts';
import { heartbeatAnswer, type HeartbeatAnswer } from '../../protocol/heartbeat.ts';
import { aBeat, ask, tokenOf, wholeTitle, type Answer, type StageGiven } from './stage.ts';
import { faultOf, idsOf, openTown, operator, type Town } from './town.ts';

let stage: Town;
afterEach(() => stage.close());
const open = async (given: StageGiven = {}): Promise<Town> => (stage = await openTown(given));

describe('a heartbeat', () => {
  it('renews a lease of which the answer tells the length', async () => {
    await open();
    const answer = heartbeatAnswer.parse((await stage.beat({ appliance: 'n1' })).json());
    expect(answer).toEqual({ protocol: 1, leaseMs: 10_000, beatMs: 3_000, inventoryRevision: null, orders: [] });
    expect(stage.probes).toEqual(['n1']);
    await stage.beat({ appliance: 'n1', seq: 2 });
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
    expect(faultOf(await stage.beat({ appliance: 'origin' })).code).toBe('body_invalid');
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
    await stage.beat({ appliance: 'n1', seq: 1 });
    await stage.beat({ appliance: 'n2', seq: 1 });
    const drained = await setState({ ...now, forMs: 60_000 });
    expect([drained.status, drained.json<{ draining: unknown }>().draining]).toEqual([
      200,
      { since: '2026-03-01T12:00:00.000Z', until: '2026-03-01T12:01:00.000Z' },
    ]);
    expect(idsOf(await stage.play())).toEqual(['n2', 'origin']);
    const told = (await stage.beat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>();
    expect(told.orders).toMatchObject([{ kind: 'drain', until: '2026-03-01T12:01:00.000Z' }]);
    const done = await stage.beat({ appliance: 'n1', seq: 3, ordersDone: [told.orders[0]!.id], state: 'draining' });
    expect(done.json<HeartbeatAnswer>().orders).toEqual([]);
    stage.clock.advance(60_000);
    stage.fleet.tick();
    const resumed = await stage.beat({ appliance: 'n1', seq: 4, state: 'draining' });
    expect(resumed.json<HeartbeatAnswer>().orders).toMatchObject([{ kind: 'resume' }]);
    await stage.beat({ appliance: 'n1', seq: 5, ordersDone: [resumed.json<HeartbeatAnswer>().orders[0]!.id] });
    await stage.beat({ appliance: 'n2', seq: 2 });
    expect(idsOf(await stage.play()).sort()).toEqual(['n1', 'n2', 'origin']);
  });

  it('for later begins then', async () => {
    await open();
    await stage.beat({ appliance: 'n1' });
    await setState({ ...now, at: '2026-03-01T12:00:05Z' });
    expect(idsOf(await stage.play())).toEqual(['n1', 'origin']);
    stage.clock.advance(5_000);
    expect(idsOf(await stage.play())).toEqual(['origin']);
  });

  it('is undone by the operator', async () => {
    await open();
    await stage.beat({ appliance: 'n1' });
    await setState(now);
    expect((await setState({ ...now, state: 'serving' })).json<{ draining: unknown }>().draining).toBeNull();
    expect(idsOf(await stage.play())).toEqual(['n1', 'origin']);
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
    await stage.beat({ appliance: 'n1' });
    const answer = await ask(`${stage.url}/v1/appliances/n1/state`, {
      method: 'PUT',
      body,
      ...(token === '' ? {} : { token }),
    });
    expect(answer.status).toBe(status);
    expect(idsOf(await stage.play())).toEqual(['n1', 'origin']);
  });

  it('of an unknown appliance is a 404', async () => {
    await open();
    expect((await setState(now)).status).toBe(404);
  });
});

describe('operators and fill', () => {
  it('see the fleet, with inventory where they ask for it', async () => {
    await open();
    await stage.beat({
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
    await stage.beat({ appliance: 'n1', seq: 1 });
    const ordered = await ask(`${stage.url}/v1/appliances/n1/orders`, {
      method: 'POST',
      body: { kind: 'fill', run: 'run-7' },
      token: tokenOf('service', 'fill'),
    });
    expect(ordered.json()).toMatchObject({ order: { kind: 'fill', run: 'run-7' } });
    expect((await stage.beat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>().orders).toMatchObject([
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
    await stage.beat({ appliance: 'n1' });
    await stage.beat({ appliance: 's1', site: 'south', health: { level: 'red', causes: ['volume lost'] } });
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
