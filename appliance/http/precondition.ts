// Preconditions of RFC 9110 13, in the order of 13.2.2. Pure.

import { httpMs } from './http-date.ts';

export interface Validators {
  /** With quotes and, where weak, `W/`; null where the asset has none. */
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** Date of the answer that brought the asset, by which a Last-Modified is strong or not. */
  readonly date: string | null;
}

export interface Preconditions {
  readonly ifMatch: string | null;
  readonly ifUnmodifiedSince: string | null;
  readonly ifNoneMatch: string | null;
  readonly ifModifiedSince: string | null;
  readonly ifRange: string | null;
}

export const isUnconditional = (conditions: Preconditions): boolean =>
  Object.values(conditions).every((condition) => condition === null);

export type PreconditionResult = 'proceed' | 'not_modified' | 'failed';

/** For GET and HEAD. */
export function evaluatePreconditions(conditions: Preconditions, asset: Validators): PreconditionResult {
  if (conditions.ifMatch !== null) {
    if (!listMatches(conditions.ifMatch, asset.etag, strongEqual)) return 'failed';
  } else if (conditions.ifUnmodifiedSince !== null) {
    const modified = httpMs(asset.lastModified);
    const since = conditionMs(conditions.ifUnmodifiedSince);
    // 13.1.4: ignored where the date is invalid or the asset has none.
    if (modified !== null && since !== null && modified > since) return 'failed';
  }
  if (conditions.ifNoneMatch !== null) {
    return listMatches(conditions.ifNoneMatch, asset.etag, weakEqual) ? 'not_modified' : 'proceed';
  }
  if (conditions.ifModifiedSince !== null) {
    const modified = httpMs(asset.lastModified);
    const since = conditionMs(conditions.ifModifiedSince);
    // 13.1.3: ignored where the date is invalid or the asset has none.
    if (modified !== null && since !== null && modified <= since) return 'not_modified';
  }
  return 'proceed';
}

/** 13.1.5: whether the Range of a request that carries this If-Range applies. A weak validator never matches. */
export function ifRangeMatches(ifRange: string, asset: Validators): boolean {
  if (ifRange.startsWith('"') || ifRange.startsWith('W/'))
    return asset.etag !== null && strongEqual(ifRange, asset.etag);
  const asked = conditionMs(ifRange);
  const modified = httpMs(asset.lastModified);
  const date = httpMs(asset.date);
  if (asked === null || modified === null || date === null) return false;
  // 8.8.2.2: a date is a strong validator when it lies at least a second before the answer that carried it.
  return asked === modified && date - modified >= 1000;
}

export const isStrong = (etag: string | null): etag is string => etag !== null && /^"[!#-~\x80-\xff]*"$/.test(etag);

function listMatches(list: string, etag: string | null, equal: (a: string, b: string) => boolean): boolean {
  if (/^[\t ]*\*[\t ]*$/.test(list)) return true;
  return etag !== null && (entityTags(list)?.some((candidate) => equal(candidate, etag)) ?? false);
}

/** The members of a list (5.6.1: empty ones are skipped); null where one of them is no entity tag. */
function entityTags(list: string): string[] | null {
  const member = /[\t ,]*((?:W\/)?"[!#-~\x80-\xff]*")[\t ]*(?:,[\t ,]*|$)/y;
  const tags: string[] = [];
  for (let at = 0; at < list.length; at = member.lastIndex) {
    member.lastIndex = at;
    const match = member.exec(list);
    if (match === null) return null;
    tags.push(match[1]!);
  }
  return tags;
}

const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');
const DAY = 'Mon|Tue|Wed|Thu|Fri|Sat|Sun';
const LONG_DAY = '(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day';
const TIME = String.raw`(?<hour>\d\d):(?<minute>\d\d):(?<second>\d\d)`;
/** 5.6.7: IMF-fixdate, and the two that must be understood as well. */
const DATES = [
  String.raw`(?:${DAY}), (?<day>\d\d) (?<month>[A-Z][a-z]{2}) (?<year>\d{4}) ${TIME} GMT`,
  String.raw`${LONG_DAY}, (?<day>\d\d)-(?<month>[A-Z][a-z]{2})-(?<year>\d\d) ${TIME} GMT`,
  String.raw`(?:${DAY}) (?<month>[A-Z][a-z]{2}) (?<day>[ \d]\d) ${TIME} (?<year>\d{4})`,
].map((form) => new RegExp(`^${form}$`));

/** Null where it is no valid date: a condition with one is no condition, and guessing would make it one. */
function conditionMs(text: string): number | null {
  const parts = DATES.map((form) => form.exec(text)?.groups).find((groups) => groups !== undefined);
  if (parts === undefined) return null;
  const [year, day, hour, minute, second] = ['year', 'day', 'hour', 'minute', 'second'].map((name) =>
    Number(parts[name]),
  ) as [number, number, number, number, number];
  // Of two digits: about fifty years either way.
  const century = parts['year']!.length === 4 ? 0 : year < 70 ? 2000 : 1900;
  const date = new Date(0);
  date.setUTCFullYear(century + year, MONTHS.indexOf(parts['month']!), day);
  date.setUTCHours(hour, minute, second);
  const real = date.getUTCDate() === day && MONTHS[date.getUTCMonth()] === parts['month'];
  return real && hour < 24 && minute < 60 && second < 60 ? date.getTime() : null;
}

const strongEqual = (a: string, b: string): boolean => a === b && !a.startsWith('W/');
const weakEqual = (a: string, b: string): boolean => a.replace(/^W\//, '') === b.replace(/^W\//, '');
