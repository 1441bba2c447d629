// Fill windows as intervals of time: the wall-clock times of a site become instants. Pure: an instant, a zone and windows in.
//
// A window of a local date runs from the first instant at which the site's wall clock shows `start` or later to the first at
// which it shows `end` or later (on the next date if end ≤ start). When the clocks go forward, a time that does not exist is
// therefore the instant of the change, and a window inside the gap does not open; when they go back, both edges mean the
// first time that the clock shows them. Each window opens at most once per local date.

import type { FillWindow } from '../../protocol/heartbeat.ts';

export interface WindowInterval {
  readonly opensAt: number;
  /** Exclusive. */
  readonly closesAt: number;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Zones lie between UTC−12 and UTC+14, so the instant of a wall-clock time is within 16 h of that time read as UTC. */
const OFFSET_MAX_MS = 16 * 3_600_000;
/** Local dates searched for the next window: a zone that crosses the date line skips a date. */
const DATES_AHEAD = 4;

/** Shifts an instant so that the result, read as UTC, shows the local date and time. */
type WallClock = (instantMs: number) => number;

/** Null if no window is open. Of several open ones, the latest opening and the latest closing. */
export function currentWindow(
  instantMs: number,
  timeZone: string,
  windows: readonly FillWindow[],
): WindowInterval | null {
  const intervals = windowIntervals(instantMs, timeZone, windows, { first: -2, last: 0 });
  const open = intervals.filter((interval) => interval.opensAt <= instantMs && instantMs < interval.closesAt);
  if (open.length === 0) return null;
  return {
    opensAt: Math.max(...open.map((interval) => interval.opensAt)),
    closesAt: Math.max(...open.map((interval) => interval.closesAt)),
  };
}

/** The next window that opens after an instant; null if there are no windows. */
export function nextWindow(instantMs: number, timeZone: string, windows: readonly FillWindow[]): WindowInterval | null {
  const intervals = windowIntervals(instantMs, timeZone, windows, { first: 0, last: DATES_AHEAD });
  const later = intervals.filter((interval) => interval.opensAt > instantMs);
  return later.sort((a, b) => a.opensAt - b.opensAt || b.closesAt - a.closesAt)[0] ?? null;
}

/** False for a name that is not in Node's time zone data. */
export function isTimeZone(name: string): boolean {
  try {
    wallClock(name);
    return true;
  } catch {
    return false;
  }
}

/** Intervals of several local dates, counted from that of an instant. Those inside a gap of the clock are left out. */
function windowIntervals(
  instantMs: number,
  timeZone: string,
  windows: readonly FillWindow[],
  dates: { readonly first: number; readonly last: number },
): WindowInterval[] {
  if (windows.length === 0) return [];
  const clock = wallClock(timeZone);
  const today = Math.floor(clock(instantMs) / DAY_MS) * DAY_MS;
  const intervals: WindowInterval[] = [];
  for (const window of windows) {
    const start = minutesOf(window.start) * MINUTE_MS;
    const end = minutesOf(window.end) * MINUTE_MS + (minutesOf(window.end) <= minutesOf(window.start) ? DAY_MS : 0);
    for (let day = dates.first; day <= dates.last; day += 1) {
      const date = today + day * DAY_MS;
      const opensAt = firstInstantShowing(date + start, clock);
      const closesAt = firstInstantShowing(date + end, clock);
      if (opensAt < closesAt) intervals.push({ opensAt, closesAt });
    }
  }
  return intervals;
}

/** The first instant at which the wall clock shows `wallMs` or later. At most one change of offset lies in the bracket. */
function firstInstantShowing(wallMs: number, clock: WallClock): number {
  const lowMs = wallMs - OFFSET_MAX_MS;
  const highMs = wallMs + OFFSET_MAX_MS;
  const atOffsetBefore = wallMs - (clock(lowMs) - lowMs);
  const atOffsetAfter = wallMs - (clock(highMs) - highMs);
  const exact = [atOffsetBefore, atOffsetAfter].filter((instantMs) => clock(instantMs) === wallMs);
  return exact.length > 0 ? Math.min(...exact) : offsetChange(lowMs, highMs, clock);
}

/** The instant at which the offset changes, to the millisecond, by bisection. */
function offsetChange(lowMs: number, highMs: number, clock: WallClock): number {
  const offset = clock(lowMs) - lowMs;
  let [before, after] = [lowMs, highMs];
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (clock(middle) - middle === offset) before = middle;
    else after = middle;
  }
  return after;
}

function wallClock(timeZone: string): WallClock {
  const format = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', {
    timeZone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  return (instantMs) => {
    const part: Record<string, number> = {};
    for (const { type, value } of format.formatToParts(instantMs)) part[type] = Number(value);
    const whole = Date.UTC(
      part['year']!,
      part['month']! - 1,
      part['day'],
      part['hour'],
      part['minute'],
      part['second'],
    );
    return whole + (((instantMs % 1000) + 1000) % 1000);
  };
}

function minutesOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5));
}
