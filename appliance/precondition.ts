// Preconditions of RFC 9110 13, in the order of 13.2.2. Pure.

import { httpMs } from './http-date.ts';

export interface Validators {
  /** With quotes and, where weak, `W/`; null where the asset has none. */
  readonly etag: string | null;
  readonly lastModified: string | null;
  /** Date of the answer that brought the asset, by which a Last-Modified is strong or not. */
  readonly date: string | null;
}

export interface Conditions {
  readonly ifMatch: string | null;
  readonly ifUnmodifiedSince: string | null;
  readonly ifNoneMatch: string | null;
  readonly ifModifiedSince: string | null;
  readonly ifRange: string | null;
}

export type Verdict = 'proceed' | 'not_modified' | 'failed';

/** For GET and HEAD. */
export function evaluate(conditions: Conditions, asset: Validators): Verdict {
  if (conditions.ifMatch !== null) {
    if (!listMatches(conditions.ifMatch, asset.etag, strongEqual)) return 'failed';
  } else if (conditions.ifUnmodifiedSince !== null) {
    const modified = httpMs(asset.lastModified);
    const since = httpMs(conditions.ifUnmodifiedSince);
    // 13.1.4: ignored where the date is invalid or the asset has none.
    if (modified !== null && since !== null && modified > since) return 'failed';
  }
  if (conditions.ifNoneMatch !== null) {
    return listMatches(conditions.ifNoneMatch, asset.etag, weakEqual) ? 'not_modified' : 'proceed';
  }
  if (conditions.ifModifiedSince !== null) {
    const modified = httpMs(asset.lastModified);
    const since = httpMs(conditions.ifModifiedSince);
    if (modified !== null && since !== null && modified <= since) return 'not_modified';
  }
  return 'proceed';
}

/** 13.1.5: whether the Range of a request that carries this If-Range applies. A weak validator never matches. */
export function ifRangeHolds(ifRange: string, asset: Validators): boolean {
  if (ifRange.startsWith('"') || ifRange.startsWith('W/'))
    return asset.etag !== null && strongEqual(ifRange, asset.etag);
  const asked = httpMs(ifRange);
  const modified = httpMs(asset.lastModified);
  const date = httpMs(asset.date);
  if (asked === null || modified === null || date === null) return false;
  // 8.8.2.2: a date is a strong validator when it lies at least a second before the answer that carried it.
  return asked === modified && date - modified >= 1000;
}

export const isStrong = (etag: string | null): etag is string => etag !== null && /^"[!#-~\x80-\xff]*"$/.test(etag);

function listMatches(list: string, etag: string | null, equal: (a: string, b: string) => boolean): boolean {
  if (list.trim() === '*') return true;
  if (etag === null) return false;
  return (list.match(/(?:W\/)?"[!#-~\x80-\xff]*"/g) ?? []).some((candidate) => equal(candidate, etag));
}

const strongEqual = (a: string, b: string): boolean => a === b && !a.startsWith('W/');
const weakEqual = (a: string, b: string): boolean => a.replace(/^W\//, '') === b.replace(/^W\//, '');
