// Instants as an operator types them: `2026-03-01T02:00+01:00`, `2026-03-01T02:00` in this machine's zone, or `02:00`,
// the next time its clock shows that, or the last time where the past is meant.

const CLOCK_TIME = /^([01]?\d|2[0-3]):([0-5]\d)$/;
const DATE_TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/;

/** Milliseconds since the epoch, or null where the text is no instant. A bare date is its first moment here. */
export function parseInstant(text: string, nowMs: number, meant: 'next' | 'last' = 'next'): number | null {
  const clock = CLOCK_TIME.exec(text);
  if (clock !== null) {
    const day = new Date(nowMs);
    day.setHours(Number(clock[1]), Number(clock[2]), 0, 0);
    if (meant === 'next' && day.getTime() <= nowMs) day.setDate(day.getDate() + 1);
    if (meant === 'last' && day.getTime() > nowMs) day.setDate(day.getDate() - 1);
    return day.getTime();
  }
  if (!DATE_TIME.test(text)) return null;
  const ms = Date.parse(text.includes('T') ? text : `${text}T00:00`);
  return Number.isNaN(ms) ? null : ms;
}

/** `2026-03-01 02:00 UTC`: one zone for everybody who reads it. */
export const formatInstant = (iso: string): string =>
  `${new Date(iso).toISOString().slice(0, 16).replace('T', ' ')} UTC`;

export const INSTANT_MUST = 'a time such as 02:00, 2026-03-01T02:00 or 2026-03-01T02:00+01:00';

/** Parsers of flags: throw what the configuration table completes as "must be …". */
export const instantFlag = (text: string): number => flag(text, 'next');
export const pastInstantFlag = (text: string): number => flag(text, 'last');

function flag(text: string, meant: 'next' | 'last'): number {
  const ms = parseInstant(text, Date.now(), meant);
  if (ms === null) throw new Error(INSTANT_MUST);
  return ms;
}
