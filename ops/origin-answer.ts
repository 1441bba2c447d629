// What the origin answers to a GET or HEAD for a file: preconditions first (RFC 9110 13.2.2), then one range. Pure, so
// that the order of the rules can be read and tested in one place. Several ranges are answered with the whole file, as
// 14.2 allows: this origin feeds appliances, and they ask for one range at a time.

export interface FileFacts {
  readonly bytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
}

export interface Conditions {
  readonly method: 'GET' | 'HEAD';
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly ifModifiedSince: string | undefined;
  readonly ifUnmodifiedSince: string | undefined;
}

export type Answer =
  | { readonly status: 200 }
  | { readonly status: 206; readonly first: number; readonly last: number }
  | { readonly status: 304 | 412 | 416 };

export function answerFor(file: FileFacts, asked: Conditions): Answer {
  if (asked.ifMatch !== undefined) {
    if (!matches(asked.ifMatch, file.etag, 'strong')) return { status: 412 };
  } else if (asked.ifUnmodifiedSince !== undefined) {
    const since = Date.parse(asked.ifUnmodifiedSince);
    if (!Number.isNaN(since) && wholeSeconds(file.modifiedMs) > since) return { status: 412 };
  }
  if (asked.ifNoneMatch !== undefined) {
    if (matches(asked.ifNoneMatch, file.etag, 'weak')) return { status: 304 };
  } else if (asked.ifModifiedSince !== undefined) {
    const since = Date.parse(asked.ifModifiedSince);
    if (!Number.isNaN(since) && wholeSeconds(file.modifiedMs) <= since) return { status: 304 };
  }
  // 14.2: Range is defined for GET only.
  if (asked.range === undefined || asked.method !== 'GET') return { status: 200 };
  if (asked.ifRange !== undefined && !rangeStillMeant(asked.ifRange, file)) return { status: 200 };
  return selectRange(asked.range, file.bytes);
}

/** One range of a file of `bytes`: an unknown unit or several ranges give the whole, a malformed one 416. */
function selectRange(range: string, bytes: number): Answer {
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

/** At least one of first and last; 15 digits stay exact in a double. */
const RANGE_SPEC = /^\s*(?=\d|-\d)(\d{1,15})?-(\d{1,15})?\s*$/;

function selectSuffix(length: number, bytes: number): Answer {
  if (length === 0) return { status: 416 };
  // 14.1.2: a suffix of an empty representation is satisfiable, but there is no byte to name in Content-Range.
  if (bytes === 0) return { status: 200 };
  return { status: 206, first: Math.max(0, bytes - length), last: bytes - 1 };
}

/** 13.1.5: a tag by strong comparison, a date only where it equals Last-Modified exactly. */
function rangeStillMeant(ifRange: string, file: FileFacts): boolean {
  if (ifRange.includes('"')) return matches(ifRange, file.etag, 'strong') && ifRange.trim() !== '*';
  return Date.parse(ifRange) === wholeSeconds(file.modifiedMs);
}

function matches(field: string, etag: string, comparison: 'strong' | 'weak'): boolean {
  if (field.trim() === '*') return true;
  const tags = field.match(/(?:W\/)?"[^"]*"/g) ?? [];
  return tags.some((tag) => tag === etag || (comparison === 'weak' && tag === `W/${etag}`));
}

const wholeSeconds = (ms: number): number => Math.floor(ms / 1000) * 1000;
