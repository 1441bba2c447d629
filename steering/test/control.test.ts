// The control routes over HTTP: heartbeats, drains, orders, the fleet and explanations, and the refusal of forged requests.

import { afterEach, describe, expect, it } from 'vitest';
import { explanation, fleet as fleetMessage } from '../../protocol/decision.ts';
import { heartbeatAnswer, type HeartbeatAnswer } from '../../protocol/heartbeat.ts';
import { aHeartbeat, send, tokenOf, allHoldings, type HttpAnswer, type TestSteeringOptions } from './harness.ts';
import { faultOf, pathwayIds, openTwoSites, operator, type TwoSites } from './two-sites.ts';

let steering: TwoSites;
afterEach(() => steering.close());
const open = async (given: TestSteeringOptions = {}): Promise<TwoSites> => (steering = await openTwoSites(given));

describe('a heartbeat', () => {
  it('renews a lease, and the answer states its length', async () => {
    await open();
    const answer = heartbeatAnswer.parse((await steering.heartbeat({ appliance: 'n1' })).json());
    expect(answer).toEqual({ protocol: 1, leaseMs: 10_000, beatMs: 3_000, inventoryRevision: null, orders: [] });
    expect(steering.probes).toEqual(['n1']);
    await steering.heartbeat({ appliance: 'n1', seq: 2 });
    expect(steering.probes).toEqual(['n1']);
  });

  it.each([
    ['without a token', {}, undefined, 401, 'token_missing'],
    ['with a forged token', {}, `larder_appliance_n1_${'0'.repeat(64)}`, 403, 'token_forged'],
    ['with another appliance’s token', {}, tokenOf('appliance', 'n2'), 403, 'token_forged'],
    ['for another appliance in the body', { appliance: 'n2' }, tokenOf('appliance', 'n1'), 403, 'token_forged'],
    ['with an operator’s token', {}, operator, 403, 'token_forged'],
    ['with a malformed token', {}, 'x', 403, 'token_forged'],
  ])('%s is refused and changes nothing', async (_, body, token, status, code) => {
    await open();
    const answer = await send(`${steering.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body: aHeartbeat({ appliance: 'n1', ...body }),
      ...(token === undefined ? {} : { token }),
    });
    expect([answer.status, faultOf(answer).code]).toEqual([status, code]);
    expect(steering.fleet.describe({ inventory: false })).toEqual([]);
  });

  it.each([
    ['of another protocol version', { protocol: 2 }, 'body.protocol'],
    ['without a site', { site: undefined }, 'body.site'],
    ['with a negative count', { connections: -1 }, 'body.connections'],
    ['with an unknown state', { state: 'dancing' }, 'body.state'],
    ['advertising no URL', { advertise: ['javascript:alert(1)'] }, 'body.advertise.0'],
    ['advertising a URL with a query', { advertise: ['http://a.example', 'http://b.example/?x'] }, 'body.advertise.1'],
    [
      'with a broken holding',
      { inventory: { since: 0, revision: 1, added: ['x'], removed: [] } },
      'body.inventory.added.0',
    ],
  ])('%s is refused, and the fault names the field', async (_, fields, field) => {
    await open();
    const answer = await send(`${steering.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body: { ...aHeartbeat({ appliance: 'n1' }), ...fields },
      token: tokenOf('appliance', 'n1'),
    });
    expect([answer.status, faultOf(answer).code, faultOf(answer).detail['field']]).toEqual([
      422,
      'body_invalid',
      field,
    ]);
    expect(steering.fleet.describe({ inventory: false })).toEqual([]);
  });

  it('of an appliance called origin is refused, because the id is reserved', async () => {
    await open();
    expect(faultOf(await steering.heartbeat({ appliance: 'origin' })).code).toBe('body_invalid');
  });

  it.each([
    ['broken JSON', '{"protocol":1,', 400],
    ['an array', '[]', 422],
    ['zero bytes', '', 400],
    ['more than the limit', `{"x":"${'y'.repeat(5 * 2 ** 20)}"}`, 413],
  ])('with a body of %s is refused', async (_, body, status) => {
    await open();
    const answer = await send(`${steering.url}/v1/appliances/n1/heartbeat`, {
      method: 'POST',
      body,
      token: tokenOf('appliance', 'n1'),
    });
    expect(answer.status).toBe(status);
  });
});

describe('a drain', () => {
  const setState = (body: unknown, token = operator): Promise<HttpAnswer> =>
    send(`${steering.url}/v1/appliances/n1/state`, { method: 'PUT', body, token });
  const now = { state: 'draining', at: null, forMs: null };

  it('stops new plays at once, is repeated in heartbeat answers until carried out, and ends at its time', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1', seq: 1 });
    await steering.heartbeat({ appliance: 'n2', seq: 1 });
    const drained = await setState({ ...now, forMs: 60_000 });
    expect([drained.status, drained.json<{ draining: unknown }>().draining]).toEqual([
      200,
      { since: '2026-03-01T12:00:00.000Z', until: '2026-03-01T12:01:00.000Z' },
    ]);
    expect(pathwayIds(await steering.play())).toEqual(['n2', 'origin']);
    const answer = (await steering.heartbeat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>();
    expect(answer.orders).toMatchObject([{ kind: 'drain', until: '2026-03-01T12:01:00.000Z' }]);
    const done = await steering.heartbeat({
      appliance: 'n1',
      seq: 3,
      ordersDone: [answer.orders[0]!.id],
      state: 'draining',
    });
    expect(done.json<HeartbeatAnswer>().orders).toEqual([]);
    steering.clock.advance(60_000);
    steering.fleet.tick();
    const resumed = await steering.heartbeat({ appliance: 'n1', seq: 4, state: 'draining' });
    expect(resumed.json<HeartbeatAnswer>().orders).toMatchObject([{ kind: 'resume' }]);
    await steering.heartbeat({ appliance: 'n1', seq: 5, ordersDone: [resumed.json<HeartbeatAnswer>().orders[0]!.id] });
    await steering.heartbeat({ appliance: 'n2', seq: 2 });
    expect(pathwayIds(await steering.play()).sort()).toEqual(['n1', 'n2', 'origin']);
  });

  it('that is scheduled begins at its instant', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    await setState({ ...now, at: '2026-03-01T12:00:05Z' });
    expect(pathwayIds(await steering.play())).toEqual(['n1', 'origin']);
    steering.clock.advance(5_000);
    expect(pathwayIds(await steering.play())).toEqual(['origin']);
  });

  it('can be cancelled by the operator', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    await setState(now);
    expect((await setState({ ...now, state: 'serving' })).json<{ draining: unknown }>().draining).toBeNull();
    expect(pathwayIds(await steering.play())).toEqual(['n1', 'origin']);
  });

  it.each([
    ['without a token', now, '', 401],
    ['with an appliance’s token', now, tokenOf('appliance', 'n1'), 403],
    ['with a service’s token', now, tokenOf('service', 'fill'), 403],
    ['of an unknown state', { ...now, state: 'gone' }, operator, 422],
    ['at an invalid instant', { ...now, at: 'tomorrow' }, operator, 422],
    ['of zero length', { ...now, forMs: 0 }, operator, 422],
  ])('%s is refused', async (_, body, token, status) => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    const answer = await send(`${steering.url}/v1/appliances/n1/state`, {
      method: 'PUT',
      body,
      ...(token === '' ? {} : { token }),
    });
    expect(answer.status).toBe(status);
    expect(pathwayIds(await steering.play())).toEqual(['n1', 'origin']);
  });

  it('of an unknown appliance is answered with 404', async () => {
    await open();
    expect((await setState(now)).status).toBe(404);
  });
});

describe('operators and fill', () => {
  it('can read the fleet, with inventories on request', async () => {
    await open();
    await steering.heartbeat({
      appliance: 'n1',
      inventoryRevision: 3,
      inventory: { since: 0, revision: 3, added: allHoldings('harbor'), removed: [] },
    });
    const plain = fleetMessage.parse((await send(`${steering.url}/v1/fleet`, { token: operator })).json());
    expect(plain.sites).toEqual([
      { id: 'north', position: { lat: 59, lon: 18 }, prefixes: 2, appliances: 1 },
      { id: 'south', position: { lat: 40, lon: -4 }, prefixes: 1, appliances: 0 },
    ]);
    expect(plain.appliances[0]).toMatchObject({ id: 'n1', liveness: 'alive', inventoryRevision: 3, holdings: 4 });
    expect(plain.appliances[0]!.inventory).toBeUndefined();
    const full = (await send(`${steering.url}/v1/fleet?inventory=1`, { token: tokenOf('service', 'fill') })).json<
      typeof plain
    >();
    expect(full.appliances[0]!.inventory).toEqual(allHoldings('harbor').sort());
  });

  it('can order a fill, which the answer to the next heartbeat carries', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1', seq: 1 });
    const ordered = await send(`${steering.url}/v1/appliances/n1/orders`, {
      method: 'POST',
      body: { kind: 'fill', run: 'run-7' },
      token: tokenOf('service', 'fill'),
    });
    expect(ordered.json()).toMatchObject({ order: { kind: 'fill', run: 'run-7' } });
    expect((await steering.heartbeat({ appliance: 'n1', seq: 2 })).json<HeartbeatAnswer>().orders).toMatchObject([
      { kind: 'fill', run: 'run-7' },
    ]);
    const drainByOrder = await send(`${steering.url}/v1/appliances/n1/orders`, {
      method: 'POST',
      body: { kind: 'drain' },
      token: operator,
    });
    expect(drainByOrder.status).toBe(422);
  });

  it('get an explanation with every appliance considered, which counts no play', async () => {
    await open();
    await steering.heartbeat({ appliance: 'n1' });
    await steering.heartbeat({ appliance: 's1', site: 'south', health: { level: 'red', causes: ['volume lost'] } });
    const answer = await send(`${steering.url}/v1/explain?client=127.2.0.1&title=harbor`, { token: operator });
    const explained = explanation.parse(answer.json());
    expect(explained.client).toMatchObject({ by: 'prefix', site: 'south' });
    expect(explained.considered.map(({ appliance, outcome }) => `${appliance} ${outcome}`)).toEqual([
      's1 refused',
      'n1 chosen',
    ]);
    expect(explained.considered[0]!.reason).toBe('its health is red: volume lost');
    expect(explained.catalogRevision).toBe(1);
    expect(steering.plays.nextReport()).toBeNull();
    expect((await send(`${steering.url}/v1/explain?client=nobody&title=harbor`, { token: operator })).status).toBe(400);
  });

  it.each(['/v1/fleet', '/v1/explain?client=127.1.0.1&title=harbor', '/metrics'])(
    'need a token for %s',
    async (path) => {
      await open();
      expect((await send(steering.url + path)).status).toBe(401);
      expect((await send(steering.url + path, { token: tokenOf('appliance', 'n1') })).status).toBe(403);
      expect((await send(steering.url + path, { token: operator })).status).toBe(200);
    },
  );
});
