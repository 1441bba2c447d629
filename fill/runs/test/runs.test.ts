// Runs through the HTTP API of a complete fill service, with doubles of the origin, of steering and of its appliances.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { pinList, planList, runList } from '../../../protocol/answers.ts';
import { PROTOCOL_VERSION } from '../../../protocol/ids.ts';
import type { FillPlan } from '../../../protocol/plan.ts';
import { popularity, type PlayReport } from '../../../protocol/plays.ts';
import { issueToken } from '../../../runtime/auth.ts';
import { systemClock } from '../../../runtime/clock.ts';
import { FillHarness } from '../../test/fill-harness.ts';
import { putFilm } from '../../test/origin-double.ts';

let harness: FillHarness;

beforeEach(async () => {
  harness = await FillHarness.start();
  for (const title of ['one', 'two']) {
    putFilm(harness.origin, `/${title}/`);
    await harness.importTitle(`/${title}/master.m3u8`);
  }
  harness.fleet.add('north-1');
  harness.fleet.add('north-2');
  harness.fleet.add('south-1', { site: 'south' });
});

afterEach(() => harness.stop());

const MINUTE = 60_000;
const titlesIn = (plan: FillPlan): string[] =>
  [...new Set([...plan.add, ...plan.keep].map((item) => item.holding.split(':')[0]!))].sort();
const report = (seq: number, overrides: Partial<PlayReport> = {}): PlayReport => ({
  protocol: PROTOCOL_VERSION,
  source: 'north-1',
  site: 'north',
  incarnation: '0123456789abcdef',
  seq,
  from: new Date(harness.clock.now() - MINUTE).toISOString(),
  to: new Date(harness.clock.now()).toISOString(),
  served: [],
  asked: [],
  ...overrides,
});
const orderedBy = (run: string): string[] =>
  harness.fleet.orders
    .filter((order) => order.run === run)
    .map((order) => order.appliance)
    .sort();

describe('a run with --now', () => {
  test('plans for every appliance, orders each to fill, and ends when all are done', async () => {
    const started = await harness.startRun();
    expect(started).toMatchObject({
      id: 'r1',
      state: 'running',
      trigger: 'now',
      closesAt: null,
      site: null,
      title: null,
    });
    expect(started.appliances.map((p) => [p.appliance, p.state])).toEqual([
      ['north-1', 'waiting'],
      ['north-2', 'waiting'],
      ['south-1', 'waiting'],
    ]);
    await expect.poll(() => orderedBy('r1')).toEqual(['north-1', 'north-2', 'south-1']);
    const plan = await harness.fleet.pull(harness.url, 'north-1');
    expect(titlesIn(plan)).toEqual(['one', 'two']);
    await harness.fleet.report(harness.url, plan, { bytesDone: 10, bytesPerSecond: 5 });
    expect(await harness.getRun('r1')).toMatchObject({
      state: 'running',
      bytesDone: 10,
      bytesTotal: 3 * plan.addBytes,
    });
    for (const id of ['north-1', 'north-2', 'south-1']) await harness.fleet.complete(harness.url, id);
    const ended = await harness.getRun('r1');
    expect(ended).toMatchObject({ state: 'done', bytesDone: 3 * plan.addBytes, endedAt: expect.any(String) });
    // A later report changes nothing.
    await harness.fleet.report(harness.url, plan, { state: 'failed', bytesDone: 0 });
    expect(await harness.getRun('r1')).toEqual(ended);
    expect((await harness.call('/v1/runs', runList)).runs).toEqual([ended]);
  });

  test('has nothing to fetch the second time', async () => {
    await harness.startRun();
    for (const id of ['north-1', 'north-2', 'south-1']) await harness.fleet.complete(harness.url, id);
    const { plans } = await harness.call('/v1/plans', planList);
    expect(plans.map((p) => [p.appliance, p.add.length, p.remove.length])).toEqual([
      ['north-1', 0, 0],
      ['north-2', 0, 0],
      ['south-1', 0, 0],
    ]);
  });

  test('fails if an appliance failed, and is closed if one was closed', async () => {
    await harness.startRun({ site: 'north' });
    const one = await harness.fleet.pull(harness.url, 'north-1');
    const two = await harness.fleet.pull(harness.url, 'north-2');
    const faults = [{ asset: '/one/x', code: 'digest_mismatch', message: 'differs' }];
    await harness.fleet.report(harness.url, one, { state: 'failed', faults });
    await harness.fleet.report(harness.url, two, { state: 'done' });
    expect(await harness.getRun('r1')).toMatchObject({ state: 'failed', appliances: [{ faults }, {}] });
    await harness.startRun({ site: 'south' });
    await harness.fleet.report(harness.url, await harness.fleet.pull(harness.url, 'south-1'), { state: 'closed' });
    expect(await harness.getRun('r2')).toMatchObject({ state: 'closed' });
  });

  test('for one site leaves the plans of other sites unchanged', async () => {
    await harness.startRun({ site: 'south' });
    expect((await harness.getRun('r1')).appliances.map((p) => p.appliance)).toEqual(['south-1']);
    await expect(harness.fleet.pull(harness.url, 'north-1')).rejects.toMatchObject({ code: 'not_found' });
  });

  test('for one title adds it to the current plans and drops nothing', async () => {
    await harness.startRun();
    await harness.fleet.complete(harness.url, 'south-1');
    putFilm(harness.origin, '/three/');
    await harness.importTitle('/three/master.m3u8');
    // north-1 still carries out its plan: whatever it has yet to fetch stays in the plan.
    await harness.startRun({ title: 'three' });
    const north = await harness.fleet.pull(harness.url, 'north-1');
    expect(titlesIn(north)).toEqual(['one', 'three', 'two']);
    expect(
      north.add
        .filter((item) => item.reason === 'asked')
        .map((item) => item.holding)
        .sort(),
    ).toEqual(['three:audio/en', 'three:video/high', 'three:video/low']);
    const south = await harness.fleet.pull(harness.url, 'south-1');
    expect(titlesIn(south)).toEqual(['one', 'three', 'two']);
    expect(south.add.every((item) => item.holding.startsWith('three:'))).toBe(true);
    expect(south.remove).toEqual([]);
  });

  test('supersedes an older run at the same appliances, which are closed in that', async () => {
    await harness.startRun();
    const old = await harness.fleet.pull(harness.url, 'north-1');
    await harness.startRun({ site: 'north' });
    expect((await harness.getRun('r1')).appliances.map((p) => p.state)).toEqual(['closed', 'closed', 'waiting']);
    await harness.fleet.report(harness.url, old, { bytesDone: 1 });
    expect((await harness.getRun('r1')).bytesDone).toBe(0);
    await harness.fleet.complete(harness.url, 'south-1');
    expect(await harness.getRun('r1')).toMatchObject({ state: 'closed' });
    for (const id of ['north-1', 'north-2']) await harness.fleet.complete(harness.url, id);
    expect(await harness.getRun('r2')).toMatchObject({ state: 'done' });
  });

  test.each([
    [{ site: 'west' }, 'not_found', 'no site "west" is known; there are north, south'],
    [{ title: 'four' }, 'not_found', 'no title "four" is in the catalog; there are one, two'],
    [{ now: false }, 'plan_impossible', 'no appliance of the fleet has a fill window (--fill-window); use --now'],
  ])('is refused for %j', async (request, code, message) => {
    await expect(harness.startRun(request)).rejects.toMatchObject({ code, message });
  });

  test('is refused if no appliance has a lease, naming those that exist', async () => {
    harness.fleet.change('south-1', { liveness: 'expired' });
    await expect(harness.startRun({ site: 'south' })).rejects.toMatchObject({
      code: 'plan_impossible',
      message: 'no appliance at site south can be filled: south-1 is expired',
    });
  });

  test('is refused for a title that fits nowhere, naming the capacities', async () => {
    for (const id of harness.fleet.appliances.keys()) harness.fleet.change(id, { planBytes: 1000 });
    await expect(harness.startRun({ title: 'one' })).rejects.toMatchObject({
      code: 'plan_impossible',
      message: expect.stringMatching(
        /^title one has \d+ bytes, and nothing of it fits .*: north-1 may hold 1000 bytes/,
      ),
    });
  });

  test('is refused if steering has another fleet key, without blaming the token of the operator', async () => {
    harness.fleet.key = Buffer.alloc(32);
    await expect(harness.startRun()).rejects.toMatchObject({
      code: 'config_invalid',
      message: expect.stringContaining('both need the same fleet key'),
    });
  });

  test('sends an order again if steering fails to answer it', async () => {
    harness.fleet.orderFailures.push(500, 500);
    await harness.startRun({ site: 'south' });
    await expect.poll(() => orderedBy('r1'), { timeout: 10_000 }).toEqual(['south-1']);
  });

  test('is planned from the last view of the fleet while steering is down, also after a restart, and that is counted', async () => {
    await harness.startRun({ site: 'south' });
    await harness.fleet.stop();
    await harness.reopen();
    const plans = await harness.call('/v1/plans', planList);
    expect(plans.plans).toHaveLength(3);
    expect(Date.parse(plans.fleetAt!)).toBeLessThanOrEqual(systemClock.now());
    expect(await harness.startRun()).toMatchObject({ state: 'running' });
    expect(titlesIn(await harness.fleet.pull(harness.url, 'north-1'))).toEqual(['one', 'two']);
    const metrics = await fetch(`${harness.url}/metrics`, { headers: { authorization: operatorHeader() } });
    expect(await metrics.text()).toMatch(/larder_fallback_total\{name="steering_down_plan_from_memory"\} [1-9]/);
  });

  test('survives a restart of fill with its plan, progress and number', async () => {
    await harness.startRun();
    const plan = await harness.fleet.pull(harness.url, 'north-1');
    await harness.fleet.report(harness.url, plan, { bytesDone: 10 });
    const before = await harness.getRun('r1');
    await harness.reopen();
    expect(await harness.getRun('r1')).toEqual(before);
    expect(await harness.fleet.pull(harness.url, 'north-1')).toEqual(plan);
    for (const id of ['north-1', 'north-2', 'south-1']) await harness.fleet.complete(harness.url, id);
    expect(await harness.getRun('r1')).toMatchObject({ state: 'done' });
    expect(await harness.startRun()).toMatchObject({ id: 'r2' });
  });
});

describe('an appliance that', () => {
  test('vanishes is given up after the configured wait, and may come back while the run continues', async () => {
    await harness.reopen({ vanishAfter: '60s', silenceAfter: '5m' });
    await harness.startRun({ site: 'north' });
    const plan = await harness.fleet.pull(harness.url, 'north-1');
    harness.fleet.change('north-1', { liveness: 'refused' });
    harness.clock.advance(61_000);
    const participant = async (): Promise<unknown> =>
      (await harness.getRun('r1')).appliances.find((p) => p.appliance === 'north-1');
    await expect
      .poll(participant, { timeout: 15_000 })
      .toMatchObject({ state: 'failed', faults: [{ code: 'vanished' }] });
    expect((await harness.getRun('r1')).state).toBe('running');
    await harness.fleet.report(harness.url, plan, { bytesDone: 5, bytesResumed: 5 });
    expect(await participant()).toMatchObject({ state: 'filling', faults: [] });
    for (const id of ['north-1', 'north-2']) await harness.fleet.complete(harness.url, id);
    expect(await harness.getRun('r1')).toMatchObject({ state: 'done' });
  });

  test('has a lease but reports nothing is given up later', async () => {
    await harness.startRun({ site: 'south' });
    harness.clock.advance(61_000);
    await expect.poll(() => harness.fleet.leaseReads, { timeout: 15_000 }).toBeGreaterThan(0);
    expect(await harness.getRun('r1')).toMatchObject({ state: 'running' });
    harness.clock.advance(5 * MINUTE);
    await expect
      .poll(() => harness.getRun('r1'), { timeout: 15_000 })
      .toMatchObject({
        state: 'failed',
        appliances: [{ faults: [{ code: 'silent' }] }],
      });
  });
});

describe('a fill window', () => {
  const nightly = { fillWindows: [{ start: '02:00', end: '06:00' }], fillRateBitsPerSecond: 8_000_000 };
  const setNightlyWindows = async (): Promise<void> => {
    for (const id of ['north-1', 'north-2']) harness.fleet.change(id, nightly);
    harness.fleet.change('south-1', { ...nightly, timeZone: 'Asia/Kolkata' });
  };
  const at = async (iso: string): Promise<void> => {
    harness.clock.advanceTo(iso);
    await harness.fill!.planRound();
  };
  const runs = async (): Promise<unknown[]> => (await harness.call('/v1/runs', runList)).runs;

  test('starts one run per site at the local time, and only one', async () => {
    await setNightlyWindows();
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
    expect((await harness.getRun('r2')).appliances.map((p) => p.appliance)).toEqual(['north-1', 'north-2']);
    const plan = await harness.fleet.complete(harness.url, 'north-1');
    expect(plan).toMatchObject({ closesAt: '2026-05-06T06:00:00.000Z', rateBitsPerSecond: 8_000_000 });
    await harness.fleet.complete(harness.url, 'north-2');
    for (const time of ['02:02', '03:00', '05:59']) await at(`2026-05-06T${time}:00Z`);
    await harness.reopen();
    await at('2026-05-06T05:59:30Z');
    expect(await runs()).toHaveLength(2);
    await at('2026-05-07T02:01:00Z');
    await expect.poll(runs).toMatchObject([{ site: 'north' }, {}, {}]);
  });

  test('that closes ends the fill of appliances that have not finished', async () => {
    await setNightlyWindows();
    await at('2026-05-06T02:01:00Z');
    await expect.poll(() => orderedBy('r1')).toHaveLength(2);
    await harness.fleet.report(harness.url, await harness.fleet.pull(harness.url, 'north-1'), { bytesDone: 1 });
    await at('2026-05-06T06:02:00Z');
    await expect.poll(() => harness.getRun('r1'), { timeout: 5_000 }).toMatchObject({ state: 'closed', bytesDone: 1 });
  });

  test('is awaited by a run without --now, which then does the nightly work too', async () => {
    await setNightlyWindows();
    await at('2026-05-06T01:00:00Z');
    const waiting = await harness.startRun({ site: 'north', title: 'one', now: false });
    expect(waiting).toMatchObject({ trigger: 'window', state: 'running', closesAt: null });
    expect(waiting.appliances.map((p) => [p.state, p.plan])).toEqual([
      ['waiting', ''],
      ['waiting', ''],
    ]);
    expect(harness.fleet.orders).toEqual([]);
    await at('2026-05-06T02:01:00Z');
    await expect.poll(() => orderedBy('r1')).toEqual(['north-1', 'north-2']);
    const plan = await harness.fleet.pull(harness.url, 'north-1');
    expect(titlesIn(plan)).toEqual(['one', 'two']);
    expect(plan).toMatchObject({ run: 'r1', closesAt: '2026-05-06T06:00:00.000Z' });
    await at('2026-05-06T02:02:00Z');
    expect(await runs()).toHaveLength(1);
  });

  test('that is already open is used at once', async () => {
    await setNightlyWindows();
    harness.clock.advanceTo('2026-05-06T03:00:00Z');
    const started = await harness.startRun({ site: 'north', now: false });
    expect(started).toMatchObject({ trigger: 'window', closesAt: '2026-05-06T06:00:00.000Z' });
    await expect.poll(() => orderedBy(started.id)).toEqual(['north-1', 'north-2']);
  });

  test('is no longer awaited for an appliance that does not come up', async () => {
    await setNightlyWindows();
    await at('2026-05-06T01:00:00Z');
    await harness.startRun({ site: 'north', now: false });
    harness.fleet.change('north-2', { liveness: 'expired' });
    await at('2026-05-06T02:20:00Z');
    const participant = async (): Promise<unknown> =>
      (await harness.getRun('r1')).appliances.find((p) => p.appliance === 'north-2');
    await expect
      .poll(participant, { timeout: 5_000 })
      .toMatchObject({ state: 'failed', faults: [{ code: 'vanished' }] });
  });

  test('in an unknown time zone does not open, while the others do', async () => {
    await setNightlyWindows();
    harness.fleet.change('south-1', { ...nightly, timeZone: 'Mars/Olympus' });
    await at('2026-05-06T02:01:00Z');
    await expect.poll(runs).toMatchObject([{ site: 'north' }]);
  });
});

describe('demand', () => {
  const rows = async (): Promise<Record<string, number>> => {
    const all = await harness.call('/v1/popularity', popularity);
    return Object.fromEntries(all.rows.map((row) => [`${row.site} ${row.holding}`, row.popularity]));
  };
  const send = (body: PlayReport): Promise<{ ok: boolean; counted: boolean }> =>
    harness.call('/v1/plays', z.object({ ok: z.boolean(), counted: z.boolean() }), {
      method: 'POST',
      body,
      as: body.source === 'steering' ? 'service' : 'appliance',
      id: body.source,
    });

  test('decides what a small disk holds, after pins', async () => {
    for (const id of harness.fleet.appliances.keys()) harness.fleet.change(id, { planBytes: 150_000 });
    await send(report(1, { source: 'steering', site: null, asked: [{ title: 'one', site: null, plays: 5 }] }));
    const planned = async (): Promise<string[]> => {
      const { plans } = await harness.call('/v1/plans', planList);
      return titlesIn(plans.find((plan) => plan.appliance === 'south-1')!);
    };
    expect(await planned()).toEqual(['one']);
    await harness.call('/v1/pins/two', z.unknown(), { method: 'PUT', body: { until: null } });
    expect(await planned()).toEqual(['two']);
    expect((await harness.call('/v1/pins', pinList)).pins.map((pin) => pin.title)).toEqual(['two']);
    const until = new Date(harness.clock.now() + MINUTE).toISOString();
    await harness.call('/v1/pins/two', z.unknown(), { method: 'PUT', body: { until } });
    harness.clock.advance(2 * MINUTE);
    expect(await planned()).toEqual(['one']);
    await harness.call('/v1/pins/two', z.unknown(), { method: 'DELETE' });
    await expect(harness.call('/v1/pins/two', z.unknown(), { method: 'DELETE' })).rejects.toMatchObject({
      code: 'not_found',
    });
    await expect(
      harness.call('/v1/pins/nil', z.unknown(), { method: 'PUT', body: { until: null } }),
    ).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining('there are one, two'),
    });
  });

  test('counts each report once, however often it is sent, also after a restart', async () => {
    const body = report(7, { served: [{ holding: 'one:video/low', bytes: 1_000_000, requests: 3 }] });
    expect(await send(body)).toEqual({ ok: true, counted: true });
    const before = await rows();
    expect(before['north one:video/low']).toBeGreaterThan(0);
    expect(await send(body)).toEqual({ ok: true, counted: false });
    await harness.reopen();
    expect(await send(body)).toEqual({ ok: true, counted: false });
    expect((await rows())['north one:video/low']).toBeCloseTo(before['north one:video/low']!, 3);
    expect(await send({ ...body, seq: 6 })).toEqual({ ok: true, counted: true });
    expect(await send({ ...body, incarnation: 'fedcba9876543210' })).toEqual({ ok: true, counted: true });
    expect((await rows())['north one:video/low']).toBeCloseTo(3 * before['north one:video/low']!, 3);
  });

  test('ignores what is not in the catalog, and does not count reports as later than now', async () => {
    const ahead = new Date(harness.clock.now() + 1e9).toISOString();
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
    harness.clock.advance(3 * 24 * 60 * MINUTE);
    expect((await rows())['north one:video/low']).toBeCloseTo(now / 2);
  });
});

describe('a token', () => {
  test.each([
    ['of an appliance may not start a run', 'POST', '/v1/runs', 'appliance', { site: null, title: null, now: true }],
    ['of an appliance may not import', 'POST', '/v1/imports', 'appliance', { url: 'http://x/a.mpd', title: null }],
    ['of steering may not pin', 'PUT', '/v1/pins/one', 'service', { until: null }],
    ['of an appliance may not remove a title', 'DELETE', '/v1/titles/one', 'appliance', undefined],
  ] as const)('%s', async (_, method, path, as, body) => {
    const asking = harness.call(path, z.unknown(), {
      method,
      as,
      id: 'north-1',
      ...(body === undefined ? {} : { body }),
    });
    await expect(asking).rejects.toMatchObject({ code: 'token_forged' });
  });

  test('of an appliance is valid for that appliance only', async () => {
    await harness.startRun();
    const plan = await harness.fleet.pull(harness.url, 'north-1');
    const other = { as: 'appliance', id: 'north-2' } as const;
    await expect(harness.call('/v1/plans/north-1', z.unknown(), other)).rejects.toMatchObject({ code: 'token_forged' });
    const forged = { ...(await harness.getRun('r1')).appliances[0]!, plan: plan.id, state: 'done' };
    await expect(
      harness.call('/v1/runs/r1/progress', z.unknown(), { method: 'POST', body: forged, ...other }),
    ).rejects.toMatchObject({ code: 'token_forged' });
    await expect(
      harness.call('/v1/plays', z.unknown(), { method: 'POST', body: report(1), ...other }),
    ).rejects.toMatchObject({
      code: 'token_forged',
    });
  });

  test('that is missing or forged is refused', async () => {
    for (const path of [
      '/v1/titles',
      '/v1/catalog',
      '/v1/plans',
      '/v1/runs',
      '/v1/pins',
      '/v1/popularity',
      '/metrics',
    ]) {
      expect((await fetch(harness.url + path)).status, path).toBe(401);
      const forged = { authorization: `Bearer larder_operator_operator_${'0'.repeat(64)}` };
      expect((await fetch(harness.url + path, { headers: forged })).status, path).toBe(403);
    }
    expect((await fetch(`${harness.url}/healthz`)).status).toBe(200);
  });
});

test.each([
  ['/v1/runs', { site: 'North', title: null, now: true }, 'body.site is "North"'],
  ['/v1/runs', { site: null, title: null }, 'body.now is nothing'],
  ['/v1/imports', { url: 'ftp://x/y', title: null }, 'body.url is "ftp://x/y"'],
  ['/v1/imports', 'x', 'body is "x"'],
])('a malformed body names its field: %s %j', async (path, body, message) => {
  await expect(harness.call(path, z.unknown(), { method: 'POST', body })).rejects.toMatchObject({
    code: 'body_invalid',
    message: expect.stringContaining(message),
  });
});

test('a malformed query names its field', async () => {
  await expect(harness.call('/v1/catalog?since=-1', z.unknown())).rejects.toMatchObject({
    code: 'request_malformed',
    message: 'query.since is "-1": must be a whole number',
  });
});

function operatorHeader(): string {
  return `Bearer ${issueToken(harness.key, { role: 'operator', id: 'operator' })}`;
}
