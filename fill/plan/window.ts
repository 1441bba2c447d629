// Is a fill window open? Pure: an instant, a zone and windows in; cron only asks the question each minute.
//
// A window of a local date runs from the first instant at which the site's clock shows `start` or later to the first at
// which it shows `end` or later (on the next date where end ≤ start). So, on the night the clocks go forward, a time that
// does not exist is the instant of the change, and a window inside the gap does not open; on the night they go back, both
// edges mean the first time that the clock shows them. Each window opens at most once per local date, whatever the clocks do.

import type { FillWindow } from '../../protocol/heartbeat.ts';

export interface Opening {
  readonly opensAt: number;
  readonly closesAt: number;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Zones lie between UTC−12 and UTC+14, so 16 h before and after a wall time brackets its instant. */
const OFFSET_MAX_MS = 16 * 3_600_000;
/** Openings are looked for this many local dates ahead: some dates are skipped where a zone crosses the date line. */
const DATES_AHEAD = 4;

/** Shifts an instant to the site's wall clock: the result, read as UTC, shows the local date and time. */
type WallClock = (instantMs: number) => number;

/** Null where no window is open. Of several open ones: the latest opening, the latest closing. */
export function openWindow(instantMs: number, timeZone: string, windows: readonly FillWindow[]): Opening | null {
  const found = openings(instantMs, timeZone, windows, { first: -2, last: 0 });
  const open = found.filter((o) => o.opensAt <= instantMs && instantMs < o.closesAt);
  if (open.length === 0) return null;
  return {
    opensAt: Math.max(...open.map((o) => o.opensAt)),
    closesAt: Math.max(...open.map((o) => o.closesAt)),
  };
}

export const isOpen = (instantMs: number, timeZone: string, windows: readonly FillWindow[]): boolean =>
  openWindow(instantMs, timeZone, windows) !== null;

/** The next instant after this one at which a window opens; null where there is no window. */
export function nextOpening(instantMs: number, timeZone: string, windows: readonly FillWindow[]): Opening | null {
  const found = openings(instantMs, timeZone, windows, { first: 0, last: DATES_AHEAD });
  const later = found.filter((o) => o.opensAt > instantMs);
  return later.sort((a, b) => a.opensAt - b.opensAt || b.closesAt - a.closesAt)[0] ?? null;
}

/** False for a name that this Node's time zone data does not know. */
export function isTimeZone(name: string): boolean {
  try {
    wallClock(name);
    return true;
  } catch {
    return false;
  }
}

/** Openings of local dates, counted from that of an instant; empty ones, inside a gap, are left out. */
function openings(
  instantMs: number,
  timeZone: string,
  windows: readonly FillWindow[],
  dates: { readonly first: number; readonly last: number },
): Opening[] {
  if (windows.length === 0) return [];
  const clock = wallClock(timeZone);
  const today = Math.floor(clock(instantMs) / DAY_MS) * DAY_MS;
  const found: Opening[] = [];
  for (const window of windows) {
    const start = minutes(window.start) * MINUTE_MS;
    const end = minutes(window.end) * MINUTE_MS + (minutes(window.end) <= minutes(window.start) ? DAY_MS : 0);
    for (let day = dates.first; day <= dates.last; day += 1) {
      const date = today + day * DAY_MS;
      const opensAt = firstShowing(date + start, clock);
      const closesAt = firstShowing(date + end, clock);
      if (opensAt < closesAt) found.push({ opensAt, closesAt });
    }
  }
  return found;
}

/** The first instant at which the wall clock shows `wallMs` or later. At most one change of offset lies in the bracket. */
function firstShowing(wallMs: number, clock: WallClock): number {
  const low = wallMs - OFFSET_MAX_MS;
  const high = wallMs + OFFSET_MAX_MS;
  const before = wallMs - (clock(low) - low);
  const after = wallMs - (clock(high) - high);
  const shown = [before, after].filter((instant) => clock(instant) === wallMs);
  return shown.length > 0 ? Math.min(...shown) : changeOfOffset(low, high, clock);
}

/** The instant of the change, to the millisecond, by bisection. */
function changeOfOffset(low: number, high: number, clock: WallClock): number {
  const offset = clock(low) - low;
  let [same, changed] = [low, high];
  while (changed - same > 1) {
    const middle = Math.floor((same + changed) / 2);
    if (clock(middle) - middle === offset) same = middle;
    else changed = middle;
  }
  return changed;
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

function minutes(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3, 5));
}
