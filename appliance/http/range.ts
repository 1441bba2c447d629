// Which bytes a Range header selects (RFC 9110 14.1, 14.2, 15.5.17). Pure.
//
// Where the RFC leaves a choice, this takes the one that never sends 10 GB by mistake: a malformed range set gets a 416, as
// from nginx and Varnish, and is not ignored. Section numbers are those of RFC 9110.

/** A request for more ranges than this, after coalescing, gets a 416. */
export const RANGES_MAX = 32;

/** Inclusive byte positions, 0 ≤ first ≤ last < length. */
export interface ByteRange {
  readonly first: number;
  readonly last: number;
}

export type RangeSelection =
  | { readonly kind: 'whole' }
  | { readonly kind: 'unsatisfiable' }
  | { readonly kind: 'ranges'; readonly ranges: readonly ByteRange[] };

const WHOLE: RangeSelection = { kind: 'whole' };
const UNSATISFIABLE: RangeSelection = { kind: 'unsatisfiable' };

export const rangeBytes = (range: ByteRange): number => range.last - range.first + 1;

/** `header` is null if the request has no Range, or if its If-Range does not match. `length` is that of the asset. */
export function selectRanges(header: string | null, length: number): RangeSelection {
  if (header === null) return WHOLE;
  const unit = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(.*)$/s.exec(header);
  if (unit === null) return UNSATISFIABLE;
  // 14.2: an unknown unit is ignored.
  if (unit[1]!.toLowerCase() !== 'bytes') return WHOLE;
  const specs = parseRangeSet(unit[2]!);
  if (specs === null) return UNSATISFIABLE;
  // Every suffix of an empty asset is the whole asset: 200, not 416.
  if (length === 0 && specs.some((spec) => spec.first === null && spec.last > 0)) return WHOLE;

  const satisfiable = specs.map((spec) => resolve(spec, length)).filter((range) => range !== null);
  if (satisfiable.length === 0) return UNSATISFIABLE;
  const requestedBytes = satisfiable.reduce((sum, range) => sum + rangeBytes(range), 0);
  if (satisfiable.length > 1 && requestedBytes > length) return WHOLE;
  const ranges = coalesce(satisfiable);
  return ranges.length > RANGES_MAX ? UNSATISFIABLE : { kind: 'ranges', ranges };
}

/** The first byte of the first range, for a fetch before the length is known; `suffix` if it depends on the length. */
export function firstByteHint(header: string | null): number | 'suffix' {
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})/i.exec(header ?? '');
  if (match === null) return 0;
  return match[1] === '' ? (match[2] === '' ? 0 : 'suffix') : Number(match[1]);
}

interface RangeSpec {
  /** Null for a suffix of `last` bytes. */
  readonly first: number | null;
  /** Inclusive; infinite for an open range. */
  readonly last: number;
}

/** Null if a member is malformed or there is none. */
function parseRangeSet(text: string): RangeSpec[] | null {
  const specs: RangeSpec[] = [];
  for (const part of text.split(',')) {
    // 5.6.1.2, 5.6.3: empty list elements are skipped. Only spaces and tabs are white space.
    if (/^[\t ]*$/.test(part)) continue;
    const match = /^[\t ]*(\d*)-(\d*)[\t ]*$/.exec(part);
    if (match === null) return null;
    const [, first, last] = match as unknown as [string, string, string];
    if (first === '' && last === '') return null;
    const lastPos = last === '' ? Number.POSITIVE_INFINITY : Number(last);
    if (first !== '' && lastPos < Number(first)) return null;
    specs.push({ first: first === '' ? null : Number(first), last: lastPos });
  }
  return specs.length === 0 ? null : specs;
}

/** Null if the range is unsatisfiable. */
function resolve(spec: RangeSpec, length: number): ByteRange | null {
  if (spec.first === null) {
    return spec.last === 0 || length === 0 ? null : { first: Math.max(0, length - spec.last), last: length - 1 };
  }
  return spec.first >= length ? null : { first: spec.first, last: Math.min(spec.last, length - 1) };
}

/**
 * Merges ranges that overlap or touch, so that no byte is sent twice (14.2, 17.15). The result is in the order of the request
 * (15.3.7.2).
 */
function coalesce(ranges: readonly ByteRange[]): ByteRange[] {
  if (ranges.length === 1) return [...ranges];
  const merged: { first: number; last: number; order: number }[] = [];
  const ordered = ranges.map(({ first, last }, order) => ({ first, last, order }));
  for (const range of ordered.toSorted((a, b) => a.first - b.first)) {
    const previous = merged.at(-1);
    if (previous === undefined || range.first > previous.last + 1) merged.push(range);
    else {
      previous.last = Math.max(previous.last, range.last);
      previous.order = Math.min(previous.order, range.order);
    }
  }
  return merged.toSorted((a, b) => a.order - b.order).map(({ first, last }) => ({ first, last }));
}
