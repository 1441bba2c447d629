// Which bytes a Range header asks for (RFC 9110 14.1–14.2, 15.5.17). Pure.
//
// Where the RFC leaves a choice we take the one that never sends 10 GB by mistake: a malformed specifier is 416, as in
// nginx and Varnish, not ignored.

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

/** `header` is null where the request has no Range or If-Range switched it off. */
export function selectRanges(header: string | null, length: number): RangeSelection {
  if (header === null) return WHOLE;
  const unit = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(.*)$/s.exec(header);
  if (unit === null) return UNSATISFIABLE;
  // 14.2: an unknown unit is ignored.
  if (unit[1]!.toLowerCase() !== 'bytes') return WHOLE;
  const specs = parseSpecs(unit[2]!);
  if (specs === null) return UNSATISFIABLE;
  // A suffix of nothing is all there is of it: 200, not 416.
  if (length === 0 && specs.some((spec) => spec.first === null && spec.last > 0)) return WHOLE;

  const satisfiable = specs.map((spec) => resolve(spec, length)).filter((range) => range !== null);
  if (satisfiable.length === 0) return UNSATISFIABLE;
  const asked = satisfiable.reduce((sum, range) => sum + rangeBytes(range), 0);
  if (satisfiable.length > 1 && asked > length) return WHOLE;
  const ranges = coalesce(satisfiable);
  return ranges.length > RANGES_MAX ? UNSATISFIABLE : { kind: 'ranges', ranges };
}

/** The first byte that a header asks for before the length is known; `suffix` where that depends on the length. */
export function firstByteHint(header: string | null): number | 'suffix' {
  const match = /^bytes=\s*(\d{0,15})-(\d{0,15})/i.exec(header ?? '');
  if (match === null) return 0;
  return match[1] === '' ? (match[2] === '' ? 0 : 'suffix') : Number(match[1]);
}

interface Spec {
  /** Null: a suffix of `last` bytes. */
  readonly first: number | null;
  readonly last: number;
}

function parseSpecs(text: string): Spec[] | null {
  const specs: Spec[] = [];
  for (const part of text.split(',')) {
    // RFC 9110 5.6.1.2, 5.6.3: empty list elements are skipped; white space is blanks and tabs, nothing else.
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

function resolve(spec: Spec, length: number): ByteRange | null {
  if (spec.first === null) {
    return spec.last === 0 || length === 0 ? null : { first: Math.max(0, length - spec.last), last: length - 1 };
  }
  return spec.first >= length ? null : { first: spec.first, last: Math.min(spec.last, length - 1) };
}

/** Overlapping and touching ranges become one (14.2, 17.15: no byte is sent twice), in the order asked (15.3.7.2). */
function coalesce(ranges: readonly ByteRange[]): ByteRange[] {
  if (ranges.length === 1) return [...ranges];
  const merged: { first: number; last: number; place: number }[] = [];
  const asked = ranges.map(({ first, last }, place) => ({ first, last, place }));
  for (const range of asked.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || range.first > before.last + 1) merged.push(range);
    else {
      before.last = Math.max(before.last, range.last);
      before.place = Math.min(before.place, range.place);
    }
  }
  return merged.toSorted((a, b) => a.place - b.place).map(({ first, last }) => ({ first, last }));
}
