// Which appliances are due, and the rounds of the scheduler.

import { afterEach, describe, expect, test } from 'vitest';
import type { Fleet, FleetAppliance } from '../../../protocol/decision.ts';
import type { Log } from '../../../runtime/log.ts';
import { ManualClock } from '../../../runtime/test/manual-clock.ts';
import { FleetDouble } from '../../test/fleet-double.ts';
import { dueAppliances, Scheduler, WATCH_EVERY_MS } from '../scheduler.ts';

const MINUTE = 60_000;
const OPENS = Date.parse('2026-05-05T02:00:00Z');
const none = (): null => null;

function appliances(sites: readonly string[], window = '02:00-06:00'): FleetAppliance[] {
  const fleet = new FleetDouble(Buffer.alloc(32));
  const fillWindows = [{ start: window.slice(0, 5), end: window.slice(6) }];
  for (const [at, site] of sites.entries()) fleet.add(`a${at}`, { site, fillWindows });
  return [...fleet.appliances.values()];
}

/** Minute after the opening at which each appliance becomes due. */
function dueMinutes(fleet: readonly FleetAppliance[], jitterMs: number, opensAt = OPENS): Map<string, number> {
  const minutes = new Map<string, number>();
  for (let minute = 0; minute < 240; minute += 1)
    for (const { appliance } of dueAppliances({
      nowMs: opensAt + minute * MINUTE,
      appliances: fleet,
      plannedOpening: none,
      jitterMs,
    }))
      if (!minutes.has(appliance.id)) minutes.set(appliance.id, minute);
  return minutes;
}

test('without jitter every appliance is due when the window opens, and not before', () => {
  const fleet = appliances(['north', 'south']);
  expect([...dueMinutes(fleet, 0).values()]).toEqual([0, 0]);
  expect(dueAppliances({ nowMs: OPENS - 1, appliances: fleet, plannedOpening: none, jitterMs: 0 })).toEqual([]);
});

test('sites are spread over the jitter differently each night, and appliances of one site stay together', () => {
  const sites = Array.from({ length: 200 }, (_, n) => `s${n % 100}`);
  const fleet = appliances(sites);
  const minutes = dueMinutes(fleet, 20 * MINUTE);
  expect(minutes.size).toBe(200);
  expect(Math.max(...minutes.values())).toBeLessThanOrEqual(20);
  expect(new Set(minutes.values()).size).toBeGreaterThan(10);
  for (let n = 0; n < 100; n += 1) expect(minutes.get(`a${n}`)).toBe(minutes.get(`a${n + 100}`));
  const next = dueMinutes(fleet, 20 * MINUTE, OPENS + 24 * 60 * MINUTE);
  expect([...next.values()]).not.toEqual([...minutes.values()]);
});

test('the jitter is at most a tenth of a short window', () => {
  const fleet = appliances(
    Array.from({ length: 50 }, (_, n) => `s${n}`),
    '02:00-02:30',
  );
  expect(Math.max(...dueMinutes(fleet, 60 * MINUTE).values())).toBeLessThanOrEqual(3);
});

test('an appliance is due once per opening', () => {
  const [appliance] = appliances(['north']);
  const dueCount = (openedAt: number): number =>
    dueAppliances({ nowMs: OPENS + MINUTE, appliances: [appliance!], plannedOpening: () => openedAt, jitterMs: 0 })
      .length;
  expect(dueCount(OPENS)).toBe(0);
  expect(dueCount(OPENS - 24 * 60 * MINUTE)).toBe(1);
});

test('an appliance that comes up late in its window is due then', () => {
  const fleet = appliances(['north']);
  expect(
    dueAppliances({ nowMs: OPENS + 239 * MINUTE, appliances: fleet, plannedOpening: none, jitterMs: MINUTE }),
  ).toHaveLength(1);
  expect(
    dueAppliances({ nowMs: OPENS + 240 * MINUTE, appliances: fleet, plannedOpening: none, jitterMs: MINUTE }),
  ).toEqual([]);
});

describe('a scheduler', () => {
  const clock = new ManualClock(OPENS);
  const emptyFleet = new FleetDouble(Buffer.alloc(32)).view(true);
  let readFleet: () => Promise<Fleet>;
  let checks = 0;
  let warnings: string[] = [];
  let scheduler: Scheduler;

  function start(): void {
    checks = 0;
    warnings = [];
    scheduler = new Scheduler({
      dispatcher: { dispatchDue: async () => undefined },
      watcher: { check: async () => void (checks += 1) },
      runs: { plannedOpening: none },
      steering: { fleet: () => readFleet() },
      clock,
      log: { warn: (_: object, message: string) => warnings.push(message) } as unknown as Log,
      jitterMs: 0,
    });
    scheduler.start();
  }

  /** Makes the next read of the fleet wait until the returned function is called. */
  function holdFleet(): () => void {
    let release = (): void => undefined;
    const held = new Promise<Fleet>((resolve) => (release = () => resolve(emptyFleet)));
    readFleet = () => held;
    return release;
  }

  afterEach(() => scheduler.stop());

  test('skips its watch rounds while a round runs, and does not make up for them', async () => {
    const release = holdFleet();
    start();
    clock.advance(5 * WATCH_EVERY_MS);
    expect(checks).toBe(0);
    release();
    await scheduler.planRound();
    clock.advance(WATCH_EVERY_MS);
    await expect.poll(() => checks).toBe(1);
  });

  test('logs a round that fails and goes on with the next', async () => {
    readFleet = () => Promise.reject(new Error('steering is down'));
    start();
    await scheduler.planRound();
    expect(warnings).toHaveLength(2);
    readFleet = async () => emptyFleet;
    await scheduler.planRound();
    clock.advance(WATCH_EVERY_MS);
    await expect.poll(() => checks).toBe(1);
    expect(warnings).toHaveLength(2);
  });

  test('waits in stop for the round under way and starts no other', async () => {
    const release = holdFleet();
    start();
    let stopped = false;
    const stopping = scheduler.stop().then(() => (stopped = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(stopped).toBe(false);
    release();
    await stopping;
    clock.advance(5 * WATCH_EVERY_MS);
    expect([checks, clock.pending]).toEqual([0, 0]);
  });
});
