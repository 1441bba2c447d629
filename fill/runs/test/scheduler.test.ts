import { expect, test } from 'vitest';
import type { FleetAppliance } from '../../../protocol/decision.ts';
import { dueNow } from '../scheduler.ts';
import { FleetDouble } from '../../test/fleet-double.ts';

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
    for (const { appliance } of dueNow({
      nowMs: opensAt + minute * MINUTE,
      appliances: fleet,
      openedAt: none,
      jitterMs,
    }))
      if (!minutes.has(appliance.id)) minutes.set(appliance.id, minute);
  return minutes;
}

test('without jitter everybody is due when the window opens, and not before', () => {
  const fleet = appliances(['north', 'south']);
  expect([...dueMinutes(fleet, 0).values()]).toEqual([0, 0]);
  expect(dueNow({ nowMs: OPENS - 1, appliances: fleet, openedAt: none, jitterMs: 0 })).toEqual([]);
});

test('sites are spread over the jitter, appliances of one site stay together, and the next night differs', () => {
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

test('the jitter takes at most a tenth of a short window', () => {
  const fleet = appliances(
    Array.from({ length: 50 }, (_, n) => `s${n}`),
    '02:00-02:30',
  );
  expect(Math.max(...dueMinutes(fleet, 60 * MINUTE).values())).toBeLessThanOrEqual(3);
});

test('an appliance that was planned for this opening is not due again, one of yesterday is', () => {
  const [appliance] = appliances(['north']);
  const due = (openedAt: number): number =>
    dueNow({ nowMs: OPENS + MINUTE, appliances: [appliance!], openedAt: () => openedAt, jitterMs: 0 }).length;
  expect(due(OPENS)).toBe(0);
  expect(due(OPENS - 24 * 60 * MINUTE)).toBe(1);
});

test('one that comes late in its window is due then', () => {
  const fleet = appliances(['north']);
  expect(dueNow({ nowMs: OPENS + 239 * MINUTE, appliances: fleet, openedAt: none, jitterMs: MINUTE })).toHaveLength(1);
  expect(dueNow({ nowMs: OPENS + 240 * MINUTE, appliances: fleet, openedAt: none, jitterMs: MINUTE })).toEqual([]);
});
