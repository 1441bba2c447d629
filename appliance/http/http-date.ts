// HTTP-date (RFC 9110 5.6.7): the one parser for every date field, of requests and of responses. It accepts the three forms
// of the RFC and nothing else, because a guess would turn an invalid condition into a valid one. Pure.

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MONTH = `(${MONTHS.join('|')})`;
const DAY_NAME = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)';
const LONG_DAY_NAME = '(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day';
const TIME = String.raw`(\d\d:\d\d:\d\d)`;

/** `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that a sender may generate. */
const IMF_FIXDATE = new RegExp(String.raw`^${DAY_NAME}, (\d\d) ${MONTH} (\d{4}) ${TIME} GMT$`);
const IMF_FIXDATE_CHARS = 29;
/** `Sunday, 06-Nov-94 08:49:37 GMT`, obsolete. */
const RFC_850 = new RegExp(String.raw`^${LONG_DAY_NAME}, (\d\d)-${MONTH}-(\d\d) ${TIME} GMT$`);
/** `Sun Nov  6 08:49:37 1994`, obsolete. */
const ASCTIME = new RegExp(String.raw`^${DAY_NAME} ${MONTH} ([ \d]\d) ${TIME} (\d{4})$`);
const ASCTIME_CHARS = 24;

/**
 * RFC 9110 5.6.7 reads a two-digit year that is more than 50 years ahead as one in the past. This pivot is fixed, as in
 * nginx, so that no clock is needed: 70 to 99 are in the 20th century, which keeps the epoch of Unix in the past.
 */
const TWO_DIGIT_YEAR_PIVOT = 70;

/**
 * Milliseconds since the epoch, or null for anything but a valid HTTP-date. Names are case-sensitive. The day of the week
 * is not compared with the date, and a leap second (`23:59:60`) is invalid, both as in nginx.
 */
export function parseHttpDate(text: string | null | undefined): number | null {
  if (text === null || text === undefined) return null;
  const parts = split(text);
  return parts === null ? null : epochMs(parts);
}

interface DateParts {
  readonly day: string;
  readonly month: string;
  readonly year: string;
  /** `hh:mm:ss`. */
  readonly time: string;
}

/** The three forms differ in length, so only one expression is tried. */
function split(text: string): DateParts | null {
  if (text.length === ASCTIME_CHARS) {
    const match = ASCTIME.exec(text);
    return match === null ? null : { month: match[1]!, day: match[2]!, time: match[3]!, year: match[4]! };
  }
  const match = (text.length === IMF_FIXDATE_CHARS ? IMF_FIXDATE : RFC_850).exec(text);
  return match === null ? null : { day: match[1]!, month: match[2]!, year: match[3]!, time: match[4]! };
}

/** Null where the calendar has no such day or the clock no such time. */
function epochMs(parts: DateParts): number | null {
  const day = Number(parts.day);
  const hour = Number(parts.time.slice(0, 2));
  const minute = Number(parts.time.slice(3, 5));
  const second = Number(parts.time.slice(6));
  if (hour > 23 || minute > 59 || second > 59) return null;
  const date = new Date(0);
  // Date.UTC would take the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(fullYear(parts.year), MONTHS.indexOf(parts.month), day);
  // A day that the month does not have, such as 30 February, lands in another month.
  return date.getUTCDate() === day ? date.setUTCHours(hour, minute, second) : null;
}

function fullYear(digits: string): number {
  const year = Number(digits);
  if (digits.length === 4) return year;
  return year < TWO_DIGIT_YEAR_PIVOT ? 2000 + year : 1900 + year;
}
