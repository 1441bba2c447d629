// Conditional requests (RFC 9110 13): If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since and If-Range, evaluated
// against the validators of an asset. Section numbers are those of RFC 9110. Pure.

import { parseHttpDate } from './http-date.ts';

export interface Validators {
  /** As sent, with its quotes and, if weak, `W/`. Null where the asset has none. */
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** Date of the response that brought the asset. It decides whether Last-Modified is a strong validator (8.8.2.2). */
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

/** For GET and HEAD, in the order of precedence of 13.2.2. */
export function evaluatePreconditions(conditions: Preconditions, asset: Validators): PreconditionResult {
  if (conditions.ifMatch !== null) {
    if (!listMatches(conditions.ifMatch, asset.etag, strongEqual)) return 'failed';
  } else if (conditions.ifUnmodifiedSince !== null) {
    const modifiedMs = parseHttpDate(asset.lastModified);
    const sinceMs = parseHttpDate(conditions.ifUnmodifiedSince);
    // 13.1.4: the condition is ignored if its date is invalid or the asset has no Last-Modified.
    if (modifiedMs !== null && sinceMs !== null && modifiedMs > sinceMs) return 'failed';
  }
  if (conditions.ifNoneMatch !== null) {
    return listMatches(conditions.ifNoneMatch, asset.etag, weakEqual) ? 'not_modified' : 'proceed';
  }
  if (conditions.ifModifiedSince !== null) {
    const modifiedMs = parseHttpDate(asset.lastModified);
    const sinceMs = parseHttpDate(conditions.ifModifiedSince);
    // 13.1.3: the condition is ignored if its date is invalid or the asset has no Last-Modified.
    if (modifiedMs !== null && sinceMs !== null && modifiedMs <= sinceMs) return 'not_modified';
  }
  return 'proceed';
}

/** 13.1.5: whether Range applies to a request with this If-Range. A weak validator never matches. */
export function ifRangeMatches(ifRange: string, asset: Validators): boolean {
  if (ifRange.startsWith('"') || ifRange.startsWith('W/'))
    return asset.etag !== null && strongEqual(ifRange, asset.etag);
  const conditionMs = parseHttpDate(ifRange);
  const modifiedMs = parseHttpDate(asset.lastModified);
  const dateMs = parseHttpDate(asset.date);
  if (conditionMs === null || modifiedMs === null || dateMs === null) return false;
  // 8.8.2.2: Last-Modified is a strong validator if it is at least a second earlier than the Date of its response.
  return conditionMs === modifiedMs && dateMs - modifiedMs >= 1000;
}

/** Whether the field is one valid entity tag without `W/` (8.8.3). */
export const isStrong = (etag: string | null): etag is string => etag !== null && /^"[!#-~\x80-\xff]*"$/.test(etag);

function listMatches(list: string, etag: string | null, equal: (a: string, b: string) => boolean): boolean {
  if (/^[\t ]*\*[\t ]*$/.test(list)) return true;
  return etag !== null && (entityTags(list)?.some((candidate) => equal(candidate, etag)) ?? false);
}

/** The members of a list, of which empty ones are skipped (5.6.1). Null if one of them is not an entity tag. */
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

const strongEqual = (a: string, b: string): boolean => a === b && !a.startsWith('W/');
const weakEqual = (a: string, b: string): boolean => a.replace(/^W\//, '') === b.replace(/^W\//, '');
