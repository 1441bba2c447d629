// Instants as an operator types them: `2026-03-01T02:00+01:00`, `2026-03-01T02:00` in this machine's time zone, or `02:00`. A
// clock time alone means its next occurrence, or its last one for a flag that refers to the past.

import { systemClock } from '../runtime/clock.ts';

const CLOCK_TIME = /^([01]?\d|2[0-3]):([0-5]\d)$/;
const DATE_TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/;

/** Milliseconds since the epoch, or null if the text is not an instant. A bare date means its first moment in the local zone. */
export function parseInstant(text: string, nowMs: number, occurrence: 'next' | 'last' = 'next'): number | null {
  const clock = CLOCK_TIME.exec(text);
  if (clock !== null) {
    const day = new Date(nowMs);
    day.setHours(Number(clock[1]), Number(clock[2]), 0, 0);
    if (occurrence === 'next' && day.getTime() <= nowMs) day.setDate(day.getDate() + 1);
    if (occurrence === 'last' && day.getTime() > nowMs) day.setDate(day.getDate() - 1);
    return day.getTime();
  }
  if (!DATE_TIME.test(text)) return null;
  const ms = Date.parse(text.includes('T') ? text : `${text}T00:00`);
  return Number.isNaN(ms) ? null : ms;
}

/** `2026-03-01 02:00 UTC`. Output is always in UTC, so that operators in different zones read the same. */
export const formatInstant = (iso: string): string =>
  `${new Date(iso).toISOString().slice(0, 16).replace('T', ' ')} UTC`;

export const INSTANT_EXPECTED = 'a time such as 02:00, 2026-03-01T02:00 or 2026-03-01T02:00+01:00';

/** Option parsers. Each throws an Error whose message completes "must be". */
export const parseUpcomingInstant = (text: string): number => requireInstant(text, 'next');
export const parsePastInstant = (text: string): number => requireInstant(text, 'last');

function requireInstant(text: string, occurrence: 'next' | 'last'): number {
  const ms = parseInstant(text, systemClock.now(), occurrence);
  if (ms === null) throw new Error(INSTANT_EXPECTED);
  return ms;
}
