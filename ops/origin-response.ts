// How the origin responds to a GET or HEAD for a file: preconditions first (RFC 9110 13.2.2), then at most one range. Pure, so
// that the order of the rules can be read and tested in one place. A request for several ranges gets the whole file, which
// RFC 9110 14.2 allows: appliances request one range at a time.

export interface FileMetadata {
  readonly bytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
}

export interface RequestConditions {
  readonly method: 'GET' | 'HEAD';
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly ifModifiedSince: string | undefined;
  readonly ifUnmodifiedSince: string | undefined;
}

export type OriginResponse =
  | { readonly status: 200 }
  | { readonly status: 206; readonly first: number; readonly last: number }
  | { readonly status: 304 | 412 | 416 };

export function selectResponse(file: FileMetadata, request: RequestConditions): OriginResponse {
  if (request.ifMatch !== undefined) {
    if (!etagMatches(request.ifMatch, file.etag, 'strong')) return { status: 412 };
  } else if (request.ifUnmodifiedSince !== undefined) {
    const since = Date.parse(request.ifUnmodifiedSince);
    if (!Number.isNaN(since) && wholeSeconds(file.modifiedMs) > since) return { status: 412 };
  }
  if (request.ifNoneMatch !== undefined) {
    if (etagMatches(request.ifNoneMatch, file.etag, 'weak')) return { status: 304 };
  } else if (request.ifModifiedSince !== undefined) {
    const since = Date.parse(request.ifModifiedSince);
    if (!Number.isNaN(since) && wholeSeconds(file.modifiedMs) <= since) return { status: 304 };
  }
  // RFC 9110 14.2: Range is defined for GET only.
  if (request.range === undefined || request.method !== 'GET') return { status: 200 };
  if (request.ifRange !== undefined && !ifRangeMatches(request.ifRange, file)) return { status: 200 };
  return selectRange(request.range, file.bytes);
}

/** Selects one range. An unknown unit or several ranges select the whole file; a malformed range is answered 416. */
function selectRange(range: string, bytes: number): OriginResponse {
  const unit = /^([^=\s]+)\s*=/.exec(range);
  if (unit !== null && unit[1]!.toLowerCase() !== 'bytes') return { status: 200 };
  const specs = range.slice(range.indexOf('=') + 1).split(',');
  if (unit !== null && specs.length > 1 && specs.every((spec) => RANGE_SPEC.test(spec))) return { status: 200 };
  const match = unit === null || specs.length > 1 ? null : RANGE_SPEC.exec(specs[0]!);
  if (match === null) return { status: 416 };
  const [, firstText = '', lastText = ''] = match;
  if (firstText === '') return selectSuffix(Number(lastText), bytes);
  const first = Number(firstText);
  const last = lastText === '' ? bytes - 1 : Math.min(Number(lastText), bytes - 1);
  if (lastText !== '' && Number(lastText) < first) return { status: 416 };
  return first >= bytes ? { status: 416 } : { status: 206, first, last };
}

/** The first or the last position, or both. Numbers of 15 digits are exact in a double. */
const RANGE_SPEC = /^\s*(?=\d|-\d)(\d{1,15})?-(\d{1,15})?\s*$/;

function selectSuffix(length: number, bytes: number): OriginResponse {
  if (length === 0) return { status: 416 };
  // RFC 9110 14.1.2: a suffix of an empty representation is satisfiable, but Content-Range cannot express it.
  if (bytes === 0) return { status: 200 };
  return { status: 206, first: Math.max(0, bytes - length), last: bytes - 1 };
}

/** RFC 9110 13.1.5: an entity tag matches by strong comparison, a date only if it equals Last-Modified exactly. */
function ifRangeMatches(ifRange: string, file: FileMetadata): boolean {
  if (ifRange.includes('"')) return etagMatches(ifRange, file.etag, 'strong') && ifRange.trim() !== '*';
  return Date.parse(ifRange) === wholeSeconds(file.modifiedMs);
}

function etagMatches(field: string, etag: string, comparison: 'strong' | 'weak'): boolean {
  if (field.trim() === '*') return true;
  const tags = field.match(/(?:W\/)?"[^"]*"/g) ?? [];
  return tags.some((tag) => tag === etag || (comparison === 'weak' && tag === `W/${etag}`));
}

const wholeSeconds = (ms: number): number => Math.floor(ms / 1000) * 1000;
