// Fill windows: examples around changes of the clock, and a comparison with an independent formatter in every time zone.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { FillWindow } from '../../../protocol/heartbeat.ts';
import { currentWindow, isTimeZone, nextWindow } from '../window.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEP = 15 * MINUTE;
const YEAR = { from: Date.UTC(2026, 0, 1), to: Date.UTC(2027, 0, 1) };

const at = (iso: string): number => Date.parse(iso);
const window = (text: string): FillWindow => ({ start: text.slice(0, 5), end: text.slice(6) });
const shown = (opening: { opensAt: number; closesAt: number } | null): string | null =>
  opening === null
    ? null
    : `${new Date(opening.opensAt).toISOString().slice(0, 16)} ${new Date(opening.closesAt).toISOString().slice(0, 16)}`;

describe('currentWindow', () => {
  test.each([
    ['before it opens', '02:00-14:00', 'UTC', '2026-05-05T01:59:59.999Z', null],
    ['at its first instant', '02:00-14:00', 'UTC', '2026-05-05T02:00:00.000Z', '2026-05-05T02:00 2026-05-05T14:00'],
    ['at its last instant', '02:00-14:00', 'UTC', '2026-05-05T13:59:59.999Z', '2026-05-05T02:00 2026-05-05T14:00'],
    ['at its end', '02:00-14:00', 'UTC', '2026-05-05T14:00:00.000Z', null],
    ['across midnight, before it', '22:00-06:00', 'UTC', '2026-05-05T23:00:00Z', '2026-05-05T22:00 2026-05-06T06:00'],
    ['across midnight, after it', '22:00-06:00', 'UTC', '2026-05-06T05:00:00Z', '2026-05-05T22:00 2026-05-06T06:00'],
    [
      'all day, if start and end are equal',
      '04:00-04:00',
      'UTC',
      '2026-05-06T03:00:00Z',
      '2026-05-05T04:00 2026-05-06T04:00',
    ],
    [
      'in a zone east of UTC',
      '02:00-04:00',
      'Asia/Kolkata',
      '2026-05-05T20:30:00Z',
      '2026-05-05T20:30 2026-05-05T22:30',
    ],
    [
      'a start in the gap means the change of the clock',
      '02:30-05:00',
      'Europe/Berlin',
      '2026-03-29T01:00:00Z',
      '2026-03-29T01:00 2026-03-29T03:00',
    ],
    [
      'an end in the gap means the change of the clock',
      '00:00-02:30',
      'Europe/Berlin',
      '2026-03-29T00:59:00Z',
      '2026-03-28T23:00 2026-03-29T01:00',
    ],
    ['a window wholly in the gap does not open', '02:10-02:50', 'Europe/Berlin', '2026-03-29T01:00:00Z', null],
    [
      'a start shown twice means the first time',
      '02:30-05:00',
      'Europe/Berlin',
      '2026-10-25T00:30:00Z',
      '2026-10-25T00:30 2026-10-25T04:00',
    ],
    [
      'and the window stays open while the clock repeats',
      '02:30-05:00',
      'Europe/Berlin',
      '2026-10-25T01:10:00Z',
      '2026-10-25T00:30 2026-10-25T04:00',
    ],
    [
      'an end shown twice means the first time',
      '00:00-02:30',
      'Europe/Berlin',
      '2026-10-25T00:29:00Z',
      '2026-10-24T22:00 2026-10-25T00:30',
    ],
    ['and the window does not open again', '00:00-02:30', 'Europe/Berlin', '2026-10-25T01:10:00Z', null],
  ])('%s', (_, windows, zone, instant, expected) => {
    expect(shown(currentWindow(at(instant), zone, [window(windows)]))).toBe(expected);
  });

  test('two open windows count as one, with the later opening and the later closing', () => {
    const windows = [window('22:00-02:00'), window('01:00-04:00')];
    expect(shown(currentWindow(at('2026-05-06T01:30:00Z'), 'UTC', windows))).toBe('2026-05-06T01:00 2026-05-06T04:00');
    expect(shown(currentWindow(at('2026-05-06T00:30:00Z'), 'UTC', windows))).toBe('2026-05-05T22:00 2026-05-06T02:00');
  });

  test('without windows, none is open and none opens', () => {
    expect(currentWindow(0, 'UTC', [])).toBeNull();
    expect(nextWindow(0, 'UTC', [])).toBeNull();
  });

  test('a skipped local date has no window, and the next date has its own', () => {
    // Samoa had no 30 December 2011.
    const zone = 'Pacific/Apia';
    expect(shown(nextWindow(at('2011-12-30T08:00:00Z'), zone, [window('23:00-23:30')]))).toBe(
      '2011-12-30T09:00 2011-12-30T09:30',
    );
    expect(shown(nextWindow(at('2011-12-30T09:00:00Z'), zone, [window('23:00-23:30')]))).toBe(
      '2011-12-31T09:00 2011-12-31T09:30',
    );
  });

  test('time zones that Node knows without listing them are valid, unknown ones are not', () => {
    for (const zone of ['UTC', 'Europe/Kyiv', 'Asia/Kolkata']) expect(isTimeZone(zone)).toBe(true);
    expect(isTimeZone('Mars/Olympus')).toBe(false);
  });
});

describe('every time zone', () => {
  // Each zone is compared with an independent formatter, read every 15 minutes around each change of the clock.
  const zones = [...new Set([...Intl.supportedValuesOf('timeZone'), 'UTC', 'Europe/Kyiv', 'Asia/Kolkata'])];

  test(
    `windows agree with readings of the clock every 15 minutes in ${zones.length} zones`,
    { timeout: 120_000 },
    () => {
      let changeCount = 0;
      for (const zone of zones) {
        const clock = clockOf(zone);
        const changes = changesOf(clock);
        changeCount += changes.length;
        for (const change of changes.length === 0 ? [Date.UTC(2026, 6, 1)] : changes) checkAround(zone, clock, change);
      }
      // Without changes of the clock the test would prove nothing. Over 100 zones have two a year.
      expect(changeCount).toBeGreaterThan(200);
    },
  );
});

type WallClock = (instant: number) => number;

function clockOf(timeZone: string): WallClock {
  const format = new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'medium' });
  return (instant) => Date.parse(`${format.format(instant).replace(' ', 'T')}Z`);
}

/** Instants of 2026 at which the offset changes. */
function changesOf(clock: WallClock): number[] {
  const offset = (instant: number): number => clock(instant) - instant;
  const changes: number[] = [];
  for (let day = YEAR.from; day < YEAR.to; day += DAY) {
    if (offset(day) === offset(day + DAY)) continue;
    for (let instant = day; instant < day + DAY; instant += STEP)
      if (offset(instant) !== offset(instant + STEP)) changes.push(instant + STEP);
  }
  return changes;
}

function checkAround(zone: string, clock: WallClock, change: number): void {
  const samples = Array.from({ length: (7 * DAY) / STEP }, (_, i) => change - 3 * DAY + i * STEP);
  const walls = samples.map(clock);
  const firstShowing = (wall: number): number => samples[walls.findIndex((shown) => shown >= wall)]!;
  const wallHour = Math.floor((clock(change - STEP) % DAY) / HOUR);
  const quarter = fc.integer({ min: 0, max: 95 });
  // Half of the windows begin or end within three hours of the change, where mistakes are likely.
  const near = fc.integer({ min: -8, max: 12 }).map((quarters) => (((wallHour * 4 + quarters) % 96) + 96) % 96);
  const edges = fc.tuple(fc.oneof(near, quarter), fc.oneof(near, quarter));
  fc.assert(
    fc.property(edges, fc.integer({ min: -100, max: 100 }), ([start, end], quarters) => {
      const instant = change + quarters * STEP;
      const today = Math.floor(clock(instant) / DAY) * DAY;
      const expected = [-2, -1, 0]
        .map((day) => ({
          opensAt: firstShowing(today + day * DAY + start * STEP),
          closesAt: firstShowing(today + (end <= start ? day + 1 : day) * DAY + end * STEP),
        }))
        .filter((o) => o.opensAt <= instant && instant < o.closesAt);
      const windows = [{ start: clockText(start), end: clockText(end) }];
      expect(currentWindow(instant, zone, windows) !== null, `${zone} ${new Date(instant).toISOString()}`).toBe(
        expected.length > 0,
      );
      if (expected.length > 0) expect(currentWindow(instant, zone, windows)).toEqual(expected.at(-1));
      const next = nextWindow(instant, zone, windows)!;
      expect(next.opensAt).toBeGreaterThan(instant);
      expect(currentWindow(next.opensAt, zone, windows)).not.toBeNull();
    }),
    { numRuns: 12, seed: 20_261_025 },
  );
}

const clockText = (quarter: number): string =>
  `${String(Math.floor(quarter / 4)).padStart(2, '0')}:${String((quarter % 4) * 15).padStart(2, '0')}`;
