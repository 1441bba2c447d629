// Dates as HTTP writes them (RFC 9110 5.6.7).

/** Milliseconds, or null. IMF-fixdate, RFC 850 and asctime forms, all of which Date.parse reads. */
export function httpMs(text: string | null | undefined): number | null {
  if (text === null || text === undefined || text.length > 40 || !/^[A-Za-z]{3,9},? /.test(text)) return null;
  const ms = Date.parse(text.endsWith('GMT') ? text : `${text} GMT`);
  return Number.isNaN(ms) ? null : ms;
}
