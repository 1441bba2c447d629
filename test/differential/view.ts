// A difference with what rules ask of it at hand.

import { contentRange, field, type Answer } from '../../appliance/test/wire.ts';
import { partsOf, type Difference } from './compare.ts';
import { fieldsOf } from './requests.ts';

export interface Rule {
  /** What the request has that makes the difference. */
  readonly asked: string;
  /** What each of them does with it; '' is nothing to speak of. */
  readonly nginx: string;
  readonly larder: string;
  /** Sections of RFC 9110, or of another document whose number stands before. */
  readonly rfc: string;
  readonly right: 'Larder' | 'nginx' | 'both' | 'neither';
  readonly explains: (view: View) => boolean;
}

export interface View extends Difference {
  /** Null where it hung up. */
  readonly they: Answer | null;
  readonly we: Answer | null;
  /** Their status and ours; 0 where there is no answer. */
  readonly from: number;
  readonly to: number;
  readonly method: string;
  readonly target: string;
  readonly plain: boolean;
  /** nginx is one of the two; else both answers are the appliance's. */
  readonly ofNginx: boolean;
  /** Values of a field of the request, in order. */
  readonly all: (name: string) => readonly string[];
  readonly has: (name: string) => boolean;
  /** Of several the first; '' where there is none. */
  readonly value: (name: string) => string;
}

export function viewOf(difference: Difference): View {
  const { theirs, ours, request, between } = difference;
  const they = theirs.kind === 'answer' ? theirs.answer : null;
  const we = ours.kind === 'answer' ? ours.answer : null;
  const fields = fieldsOf(request);
  const all = (name: string): string[] => fields.filter(([key]) => key === name).map(([, value]) => value);
  return {
    ...difference,
    ...{ they, we, from: they?.status ?? 0, to: we?.status ?? 0 },
    ...{ method: request.method, target: request.target, plain: difference.case.manner === 'plain' },
    ...{
      ofNginx: between !== 'cold-warm',
      all,
      has: (name) => all(name).length > 0,
      value: (name) => all(name)[0] ?? '',
    },
  };
}

/** What a request that is understood may end in. */
export const READ = [200, 204, 206, 301, 304, 403, 404, 405, 412, 416, 417, 504];
/** What an asset that is there may end in. */
export const THERE = [200, 206, 304, 412, 416];

/** nginx answers with one of these, the appliance with one of those. */
export const turns = (view: View, from: readonly number[], to: readonly number[]): boolean =>
  view.ofNginx && view.facet === 'status' && from.includes(view.from) && to.includes(view.to);

/** One of these fields is what differs. */
export const about = ({ facet }: View, ...names: readonly string[]): boolean =>
  facet.endsWith(':') && names.includes(facet.slice(0, -1));

/** And only the appliance has it. */
export const added = (view: View): boolean => view.they !== null && field(view.they, view.facet.slice(0, -1)) === null;

export const says = (answer: Answer | null, what: string): boolean =>
  answer !== null && (field(answer, 'cache-status') ?? '').includes(what);

/** node:http answered by itself, before or without Larder. */
export const byNode = ({ we }: View): boolean =>
  we !== null && we.status >= 400 && field(we, 'cache-status') === null && we.body.length === 0;

export const staysOpen = ({ facet, ours }: View): boolean =>
  facet === 'persistence' && ours.kind === 'answer' && ours.open;
export const hangsUp = ({ facet, ours }: View): boolean =>
  facet === 'persistence' && ours.kind === 'answer' && !ours.open;

/** The positions that a 206 carries, merged: two that carry the same are equal as text. */
export function covered(answer: Answer): string {
  const found = partsOf(answer) ?? [contentRange(field(answer, 'content-range'))];
  const merged: { first: number; last: number }[] = [];
  for (const { first, last } of found.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || first > before.last + 1) merged.push({ first, last });
    else before.last = Math.max(before.last, last);
  }
  return merged.map(({ first, last }) => `${first}-${last}`).join();
}
