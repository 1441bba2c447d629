import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { pinList, planList, runList } from '../../../protocol/answers.ts';
import { PROTOCOL_VERSION } from '../../../protocol/ids.ts';
import type { FillPlan } from '../../../protocol/plan.ts';
import { popularity, type PlayReport } from '../../../protocol/plays.ts';
import { issueToken } from '../../../runtime/auth.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { Rig } from '../../test/fill-double.ts';
import { putFilm } from '../../test/origin-double.ts';

let rig: Rig;

beforeEach(async () => {
  rig = await Rig.start();
  for (const title of ['one', 'two']) {
    putFilm(rig.origin, `/${title}/`);
    await rig.import(`/${title}/master.m3u8`);
  }
  rig.fleet.add('north-1');
  rig.fleet.add('north-2');
  rig.fleet.add('south-1', { site: 'south' });
});

afterEach(() => rig.stop());

const MINUTE = 60_000;
const titlesIn = (plan: FillPlan): string[] =>
  [...new Set([...plan.add, ...plan.keep].map((item) => item.holding.split(':')[0]!))].sort();
const report = (seq: number, more: Partial<PlayReport> = {}): PlayReport => ({
  protocol: PROTOCOL_VERSION,
  source: 'north-1',
  site: 'north',
  incarnation: '0123456789abcdef',
  seq,
  from: new Date(rig.clock.now() - MINUTE).toISOString(),
  to: new Date(rig.clock.now()).toISOString(),
  served: [],
  asked: [],
  ...more,
});
const ordered = (run: string): string[] =>
  rig.fleet.orders
    .filter((order) => order.run === run)
    .map((order) => order.appliance)
    .sort();

describe('a run now', () => {
  test('plans every appliance, has each called, and ends when all are done', async () => {
    const begun = await rig.run();
    expect(begun).toMatchObject({
      id: 'r1',
      state: 'running',
      trigger: 'now',
      closesAt: null,
      site: null,
      title: null,
    });
    expect(begun.appliances.map((p) => [p.appliance, p.state])).toEqual([
      ['north-1', 'waiting'],
      ['north-2', 'waiting'],
      ['south-1', 'waiting'],
    ]);
    await expect.poll(() => ordered('r1')).toEqual(['north-1', 'north-2', 'south-1']);
    const plan = await rig.fleet.pull(rig.url, 'north-1');
    expect(titlesIn(plan)).toEqual(['one', 'two']);
    await rig.fleet.report(rig.url, plan, { bytesDone: 10, bytesPerSecond: 5 });
    expect(await rig.runOf('r1')).toMatchObject({ state: 'running', bytesDone: 10, bytesTotal: 3 * plan.addBytes });
    for (const id of ['north-1', 'north-2', 'south-1']) await rig.fleet.carryOut(rig.url, id);
    const ended = await rig.runOf('r1');
    expect(ended).toMatchObject({ state: 'done', bytesDone: 3 * plan.addBytes, endedAt: expect.any(String) });
    // What comes afterwards changes nothing.
    await rig.fleet.report(rig.url, plan, { state: 'failed', bytesDone: 0 });
    expect(await rig.runOf('r1')).toEqual(ended);
    expect((await rig.ask('/v1/runs', runList)).runs).toEqual([ended]);
  });

  test('finds nothing to fetch the second time', async () => {
    await rig.run();
    for (const id of ['north-1', 'north-2', 'south-1']) await rig.fleet.carryOut(rig.url, id);
    const { plans } = await rig.ask('/v1/plans', planList);
    expect(plans.map((p) => [p.appliance, p.add.length, p.remove.length])).toEqual([
      ['north-1', 0, 0],
      ['north-2', 0, 0],
      ['south-1', 0, 0],
    ]);
  });

  test('failed and closed parts make it failed and closed', async () => {
    await rig.run({ site: 'north' });
    const one = await rig.fleet.pull(rig.url, 'north-1');
    const two = await rig.fleet.pull(rig.url, 'north-2');
    const faults = [{ asset: '/one/x', code: 'digest_mismatch', message: 'differs' }];
    await rig.fleet.report(rig.url, one, { state: 'failed', faults });
    await rig.fleet.report(rig.url, two, { state: 'done' });
    expect(await rig.runOf('r1')).toMatchObject({ state: 'failed', appliances: [{ faults }, {}] });
    await rig.run({ site: 'south' });
    await rig.fleet.report(rig.url, await rig.fleet.pull(rig.url, 'south-1'), { state: 'closed' });
    expect(await rig.runOf('r2')).toMatchObject({ state: 'closed' });
  });

  test('for one site leaves the plans of others alone', async () => {
    await rig.run({ site: 'south' });
    expect((await rig.runOf('r1')).appliances.map((p) => p.appliance)).toEqual(['south-1']);
    await expect(rig.fleet.pull(rig.url, 'north-1')).rejects.toMatchObject({ code: 'not_found' });
  });

  test('for one title adds it to what is kept and drops nothing', async () => {
    await rig.run();
    await rig.fleet.carryOut(rig.url, 'south-1');
    putFilm(rig.origin, '/three/');
    await rig.import('/three/master.m3u8');
    // north-1 is still at it: what it was to fetch stays to be fetched.
    await rig.run({ title: 'three' });
    const north = await rig.fleet.pull(rig.url, 'north-1');
    expect(titlesIn(north)).toEqual(['one', 'three', 'two']);
    expect(
      north.add
        .filter((item) => item.reason === 'asked')
        .map((item) => item.holding)
        .sort(),
    ).toEqual(['three:audio/en', 'three:video/high', 'three:video/low']);
    const south = await rig.fleet.pull(rig.url, 'south-1');
    expect(titlesIn(south)).toEqual(['one', 'three', 'two']);
    expect(south.add.every((item) => item.holding.startsWith('three:'))).toBe(true);
    expect(south.remove).toEqual([]);
  });

  test('takes the place of an older one at the same appliances, whose part is closed', async () => {
    await rig.run();
    const old = await rig.fleet.pull(rig.url, 'north-1');
    await rig.run({ site: 'north' });
    expect((await rig.runOf('r1')).appliances.map((p) => p.state)).toEqual(['closed', 'closed', 'waiting']);
    await rig.fleet.report(rig.url, old, { bytesDone: 1 });
    expect((await rig.runOf('r1')).bytesDone).toBe(0);
    await rig.fleet.carryOut(rig.url, 'south-1');
    expect(await rig.runOf('r1')).toMatchObject({ state: 'closed' });
    for (const id of ['north-1', 'north-2']) await rig.fleet.carryOut(rig.url, id);
    expect(await rig.runOf('r2')).toMatchObject({ state: 'done' });
  });

  test.each([
    [{ site: 'west' }, 'not_found', 'no site "west" is known; there are north, south'],
    [{ title: 'four' }, 'not_found', 'no title "four" is in the catalog; there are one, two'],
    [{ now: false }, 'plan_impossible', 'no appliance of the fleet has a fill window (--fill-window); use --now'],
  ])('is refused for %j', async (request, code, message) => {
    await expect(rig.run(request)).rejects.toMatchObject({ code, message });
  });

  test('is refused where nobody lives, naming who there is', async () => {
    rig.fleet.change('south-1', { liveness: 'expired' });
    await expect(rig.run({ site: 'south' })).rejects.toMatchObject({
      code: 'plan_impossible',
      message: 'no appliance at site south can be filled: south-1 is expired',
    });
  });

  test('for a title that fits nowhere is refused, naming the room', async () => {
    for (const id of rig.fleet.appliances.keys()) rig.fleet.change(id, { planBytes: 1000 });
    await expect(rig.run({ title: 'one' })).rejects.toMatchObject({
      code: 'plan_impossible',
      message: expect.stringMatching(
        /^title one has \d+ bytes, and nothing of it fits .*: north-1 may hold 1000 bytes/,
      ),
    });
  });

  test('is refused where steering has another fleet key, and it is not the operator who is blamed', async () => {
    rig.fleet.key = Buffer.alloc(32);
    await expect(rig.run()).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining('both need the same fleet key'),
    });
  });

  test('calls again where steering stumbles over an order', async () => {
    rig.fleet.orderFailures.push(500, 500);
    await rig.run({ site: 'south' });
    await expect.poll(() => ordered('r1'), { timeout: 10_000 }).toEqual(['south-1']);
  });

  test('is planned from memory while steering is down, also after a restart, and counted', async () => {
    await rig.run({ site: 'south' });
    await rig.fleet.stop();
    await rig.reopen();
    const plans = await rig.ask('/v1/plans', planList);
    expect(plans.plans).toHaveLength(3);
    expect(Date.parse(plans.fleetAt!)).toBeLessThanOrEqual(systemClock.now());
    expect(await rig.run()).toMatchObject({ state: 'running' });
    expect(titlesIn(await rig.fleet.pull(rig.url, 'north-1'))).toEqual(['one', 'two']);
    const metrics = await fetch(`${rig.url}/metrics`, { headers: { authorization: operatorHeader() } });
    expect(await metrics.text()).toMatch(/larder_fallback_total\{name="steering_down_plan_from_memory"\} [1-9]/);
  });

  test('survives a restart of fill: plan, progress and number', async () => {
    await rig.run();
    const plan = await rig.fleet.pull(rig.url, 'north-1');
    await rig.fleet.report(rig.url, plan, { bytesDone: 10 });
    const before = await rig.runOf('r1');
    await rig.reopen();
    expect(await rig.runOf('r1')).toEqual(before);
    expect(await rig.fleet.pull(rig.url, 'north-1')).toEqual(plan);
    for (const id of ['north-1', 'north-2', 'south-1']) await rig.fleet.carryOut(rig.url, id);
    expect(await rig.runOf('r1')).toMatchObject({ state: 'done' });
    expect(await rig.run()).toMatchObject({ id: 'r2' });
  });
});

describe('an appliance that', () => {
  test('vanishes ends its part after the bounded wait, and may still come back while the run goes on', async () => {
    await rig.reopen({ vanishAfter: '60s', silenceAfter: '5m' });
    await rig.run({ site: 'north' });
    const plan = await rig.fleet.pull(rig.url, 'north-1');
    rig.fleet.change('north-1', { liveness: 'refused' });
    rig.clock.advance(61_000);
    const part = async (): Promise<unknown> =>
      (await rig.runOf('r1')).appliances.find((p) => p.appliance === 'north-1');
    await expect.poll(part, { timeout: 15_000 }).toMatchObject({ state: 'failed', faults: [{ code: 'vanished' }] });
    expect((await rig.runOf('r1')).state).toBe('running');
    await rig.fleet.report(rig.url, plan, { bytesDone: 5, bytesResumed: 5 });
    expect(await part()).toMatchObject({ state: 'filling', faults: [] });
    for (const id of ['north-1', 'north-2']) await rig.fleet.carryOut(rig.url, id);
    expect(await rig.runOf('r1')).toMatchObject({ state: 'done' });
  });

  test('lives but says nothing ends its part later', async () => {
    await rig.run({ site: 'south' });
    rig.clock.advance(61_000);
    await expect.poll(() => rig.fleet.livenessAsked, { timeout: 15_000 }).toBeGreaterThan(0);
    expect(await rig.runOf('r1')).toMatchObject({ state: 'running' });
    rig.clock.advance(5 * MINUTE);
    await expect
      .poll(() => rig.runOf('r1'), { timeout: 15_000 })
      .toMatchObject({
        state: 'failed',
        appliances: [{ faults: [{ code: 'silent' }] }],
      });
  });
});

describe('a fill window', () => {
  const nightly = { fillWindows: [{ start: '02:00', end: '06:00' }], fillRateBitsPerSecond: 8_000_000 };
  const windowed = async (): Promise<void> => {
    for (const id of ['north-1', 'north-2']) rig.fleet.change(id, nightly);
    rig.fleet.change('south-1', { ...nightly, timeZone: 'Asia/Kolkata' });
  };
  const at = async (iso: string): Promise<void> => {
    rig.clock.advanceTo(iso);
    await rig.fill!.tick();
  };
  const runs = async (): Promise<unknown[]> => (await rig.ask('/v1/runs', runList)).runs;

  test('opens one run per site, in the time of its zone, and only one', async () => {
    await windowed();
    await at('2026-05-05T20:29:00Z');
    expect(await runs()).toEqual([]);
    await at('2026-05-05T20:31:00Z');
    await expect
      .poll(runs)
      .toMatchObject([
        { id: 'r1', trigger: 'window', site: 'south', closesAt: '2026-05-06T00:30:00.000Z', state: 'running' },
      ]);
    await at('2026-05-06T02:01:00Z');
    await expect.poll(runs).toMatchObject([{ id: 'r2', site: 'north' }, { id: 'r1' }]);
    expect((await rig.runOf('r2')).appliances.map((p) => p.appliance)).toEqual(['north-1', 'north-2']);
    const plan = await rig.fleet.carryOut(rig.url, 'north-1');
    expect(plan).toMatchObject({ closesAt: '2026-05-06T06:00:00.000Z', rateBitsPerSecond: 8_000_000 });
    await rig.fleet.carryOut(rig.url, 'north-2');
    for (const time of ['02:02', '03:00', '05:59']) await at(`2026-05-06T${time}:00Z`);
    await rig.reopen();
    await at('2026-05-06T05:59:30Z');
    expect(await runs()).toHaveLength(2);
    await at('2026-05-07T02:01:00Z');
    await expect.poll(runs).toMatchObject([{ site: 'north' }, {}, {}]);
  });

  test('that closes ends the parts that still fill', async () => {
    await windowed();
    await at('2026-05-06T02:01:00Z');
    await expect.poll(() => ordered('r1')).toHaveLength(2);
    await rig.fleet.report(rig.url, await rig.fleet.pull(rig.url, 'north-1'), { bytesDone: 1 });
    await at('2026-05-06T06:02:00Z');
    await expect.poll(() => rig.runOf('r1'), { timeout: 5_000 }).toMatchObject({ state: 'closed', bytesDone: 1 });
  });

  test('is waited for by a run that was asked to, which then does the work of the night too', async () => {
    await windowed();
    await at('2026-05-06T01:00:00Z');
    const waiting = await rig.run({ site: 'north', title: 'one', now: false });
    expect(waiting).toMatchObject({ trigger: 'window', state: 'running', closesAt: null });
    expect(waiting.appliances.map((p) => [p.state, p.plan])).toEqual([
      ['waiting', ''],
      ['waiting', ''],
    ]);
    expect(rig.fleet.orders).toEqual([]);
    await at('2026-05-06T02:01:00Z');
    await expect.poll(() => ordered('r1')).toEqual(['north-1', 'north-2']);
    const plan = await rig.fleet.pull(rig.url, 'north-1');
    expect(titlesIn(plan)).toEqual(['one', 'two']);
    expect(plan).toMatchObject({ run: 'r1', closesAt: '2026-05-06T06:00:00.000Z' });
    await at('2026-05-06T02:02:00Z');
    expect(await runs()).toHaveLength(1);
  });

  test('that is open already is used at once', async () => {
    await windowed();
    rig.clock.advanceTo('2026-05-06T03:00:00Z');
    const begun = await rig.run({ site: 'north', now: false });
    expect(begun).toMatchObject({ trigger: 'window', closesAt: '2026-05-06T06:00:00.000Z' });
    await expect.poll(() => ordered(begun.id)).toEqual(['north-1', 'north-2']);
  });

  test('of an appliance that never comes ends its waiting', async () => {
    await windowed();
    await at('2026-05-06T01:00:00Z');
    await rig.run({ site: 'north', now: false });
    rig.fleet.change('north-2', { liveness: 'expired' });
    await at('2026-05-06T02:20:00Z');
    const part = async (): Promise<unknown> =>
      (await rig.runOf('r1')).appliances.find((p) => p.appliance === 'north-2');
    await expect.poll(part, { timeout: 5_000 }).toMatchObject({ state: 'failed', faults: [{ code: 'vanished' }] });
  });

  test('in a zone that nobody knows never opens, and the others do', async () => {
    await windowed();
    rig.fleet.change('south-1', { ...nightly, timeZone: 'Mars/Olympus' });
    await at('2026-05-06T02:01:00Z');
    await expect.poll(runs).toMatchObject([{ site: 'north' }]);
  });
});

describe('demand', () => {
  const rows = async (): Promise<Record<string, number>> => {
    const all = await rig.ask('/v1/popularity', popularity);
    return Object.fromEntries(all.rows.map((row) => [`${row.site} ${row.holding}`, row.popularity]));
  };
  const send = (body: PlayReport): Promise<{ ok: boolean; counted: boolean }> =>
    rig.ask('/v1/plays', z.object({ ok: z.boolean(), counted: z.boolean() }), {
      method: 'POST',
      body,
      as: body.source === 'steering' ? 'service' : 'appliance',
      id: body.source,
    });

  test('decides what a small disk holds; pins come before it', async () => {
    for (const id of rig.fleet.appliances.keys()) rig.fleet.change(id, { planBytes: 150_000 });
    await send(report(1, { source: 'steering', site: null, asked: [{ title: 'one', site: null, plays: 5 }] }));
    const planned = async (): Promise<string[]> => {
      const { plans } = await rig.ask('/v1/plans', planList);
      return titlesIn(plans.find((plan) => plan.appliance === 'south-1')!);
    };
    expect(await planned()).toEqual(['one']);
    await rig.ask('/v1/pins/two', z.unknown(), { method: 'PUT', body: { until: null } });
    expect(await planned()).toEqual(['two']);
    expect((await rig.ask('/v1/pins', pinList)).pins.map((pin) => pin.title)).toEqual(['two']);
    const until = new Date(rig.clock.now() + MINUTE).toISOString();
    await rig.ask('/v1/pins/two', z.unknown(), { method: 'PUT', body: { until } });
    rig.clock.advance(2 * MINUTE);
    expect(await planned()).toEqual(['one']);
    await rig.ask('/v1/pins/two', z.unknown(), { method: 'DELETE' });
    await expect(rig.ask('/v1/pins/two', z.unknown(), { method: 'DELETE' })).rejects.toMatchObject({
      code: 'not_found',
    });
    await expect(rig.ask('/v1/pins/nil', z.unknown(), { method: 'PUT', body: { until: null } })).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('there are one, two'),
    });
  });

  test('counts each report once, whatever is sent again, also after a restart', async () => {
    const body = report(7, { served: [{ holding: 'one:video/low', bytes: 1_000_000, requests: 3 }] });
    expect(await send(body)).toEqual({ ok: true, counted: true });
    const before = await rows();
    expect(before['north one:video/low']).toBeGreaterThan(0);
    expect(await send(body)).toEqual({ ok: true, counted: false });
    await rig.reopen();
    expect(await send(body)).toEqual({ ok: true, counted: false });
    expect((await rows())['north one:video/low']).toBeCloseTo(before['north one:video/low']!, 3);
    expect(await send({ ...body, seq: 6 })).toEqual({ ok: true, counted: true });
    expect(await send({ ...body, incarnation: 'fedcba9876543210' })).toEqual({ ok: true, counted: true });
    expect((await rows())['north one:video/low']).toBeCloseTo(3 * before['north one:video/low']!, 3);
  });

  test('ignores what the catalog does not know, and the future', async () => {
    const ahead = new Date(rig.clock.now() + 1e9).toISOString();
    await send(
      report(1, {
        served: [
          { holding: 'gone:v', bytes: 9, requests: 1 },
          { holding: 'one:x', bytes: 9, requests: 1 },
        ],
      }),
    );
    expect(await rows()).toEqual({});
    await send(report(2, { to: ahead, served: [{ holding: 'one:video/low', bytes: 9, requests: 1 }] }));
    const now = (await rows())['north one:video/low']!;
    rig.clock.advance(3 * 24 * 60 * MINUTE);
    expect((await rows())['north one:video/low']).toBeCloseTo(now / 2);
  });
});

describe('a token', () => {
  test.each([
    ['an appliance begins no run', 'POST', '/v1/runs', 'appliance', { site: null, title: null, now: true }],
    ['an appliance imports nothing', 'POST', '/v1/imports', 'appliance', { url: 'http://x/a.mpd', title: null }],
    ['steering pins nothing', 'PUT', '/v1/pins/one', 'service', { until: null }],
    ['an appliance removes nothing', 'DELETE', '/v1/titles/one', 'appliance', undefined],
  ] as const)('%s', async (_, method, path, as, body) => {
    const asking = rig.ask(path, z.unknown(), { method, as, id: 'north-1', ...(body === undefined ? {} : { body }) });
    await expect(asking).rejects.toMatchObject({ code: 'token_forged' });
  });

  test('of an appliance speaks for itself only', async () => {
    await rig.run();
    const plan = await rig.fleet.pull(rig.url, 'north-1');
    const as = { as: 'appliance', id: 'north-2' } as const;
    await expect(rig.ask('/v1/plans/north-1', z.unknown(), as)).rejects.toMatchObject({ code: 'token_forged' });
    const forged = { ...(await rig.runOf('r1')).appliances[0]!, plan: plan.id, state: 'done' };
    await expect(
      rig.ask('/v1/runs/r1/progress', z.unknown(), { method: 'POST', body: forged, ...as }),
    ).rejects.toMatchObject({ code: 'token_forged' });
    await expect(rig.ask('/v1/plays', z.unknown(), { method: 'POST', body: report(1), ...as })).rejects.toMatchObject({
      code: 'token_forged',
    });
  });

  test('that is missing or forged opens nothing', async () => {
    for (const path of [
      '/v1/titles',
      '/v1/catalog',
      '/v1/plans',
      '/v1/runs',
      '/v1/pins',
      '/v1/popularity',
      '/metrics',
    ]) {
      expect((await fetch(rig.url + path)).status, path).toBe(401);
      const forged = { authorization: `Bearer larder_operator_operator_${'0'.repeat(64)}` };
      expect((await fetch(rig.url + path, { headers: forged })).status, path).toBe(403);
    }
    expect((await fetch(`${rig.url}/healthz`)).status).toBe(200);
  });
});

test.each([
  ['/v1/runs', { site: 'North', title: null, now: true }, 'body.site is "North"'],
  ['/v1/runs', { site: null, title: null }, 'body.now is nothing'],
  ['/v1/imports', { url: 'ftp://x/y', title: null }, 'body.url is "ftp://x/y"'],
  ['/v1/imports', 'x', 'body is "x"'],
])('a malformed body names its field: %s %j', async (path, body, message) => {
  await expect(rig.ask(path, z.unknown(), { method: 'POST', body })).rejects.toMatchObject({
    code: 'body_invalid',
    message: expect.stringContaining(message),
  });
});

test('a malformed query names its field', async () => {
  await expect(rig.ask('/v1/catalog?since=-1', z.unknown())).rejects.toMatchObject({
    code: 'request_malformed',
    message: 'query.since is "-1": must be a whole number',
  });
});

function operatorHeader(): string {
  return `Bearer ${issueToken(rig.key, { role: 'operator', id: 'operator' })}`;
}
