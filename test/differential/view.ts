// A difference, with what rules need to know about it, and the predicates that rules are built from.

import { field, parseContentRange, type HttpResponse } from '../../appliance/test/http-client.ts';
import { partsOf, type Difference } from './compare.ts';
import { fieldsOf } from './requests.ts';

export interface Rule {
  /** The property of the request that causes the difference. */
  readonly request: string;
  /** What each side does with it; '' stands for nothing remarkable. */
  readonly nginx: string;
  readonly larder: string;
  /** Sections of RFC 9110, or of another document, whose number precedes them. */
  readonly rfc: string;
  readonly right: 'Larder' | 'nginx' | 'both' | 'neither';
  readonly explains: (view: View) => boolean;
}

export interface View extends Difference {
  /** Null if the connection was closed instead. */
  readonly expectedResponse: HttpResponse | null;
  readonly actualResponse: HttpResponse | null;
  /** 0 if there is no response. */
  readonly expectedStatus: number;
  readonly actualStatus: number;
  readonly method: string;
  readonly target: string;
  /** The appliance is stand-alone, not a reverse proxy. */
  readonly plain: boolean;
  /** The expected response is nginx's; otherwise both are the appliance's, cold and warm. */
  readonly againstNginx: boolean;
  /** Values of a field of the request, in order. */
  readonly all: (name: string) => readonly string[];
  readonly has: (name: string) => boolean;
  /** The first value of a field of the request; '' if there is none. */
  readonly value: (name: string) => string;
}

export function viewOf(difference: Difference): View {
  const { expected, actual, request, between } = difference;
  const expectedResponse = expected.kind === 'response' ? expected.response : null;
  const actualResponse = actual.kind === 'response' ? actual.response : null;
  const fields = fieldsOf(request);
  const all = (name: string): string[] => fields.filter(([key]) => key === name).map(([, value]) => value);
  return {
    ...difference,
    ...{ expectedResponse, actualResponse },
    ...{ expectedStatus: expectedResponse?.status ?? 0, actualStatus: actualResponse?.status ?? 0 },
    ...{ method: request.method, target: request.target, plain: difference.case.mode === 'plain' },
    ...{
      againstNginx: between !== 'cold-warm',
      all,
      has: (name) => all(name).length > 0,
      value: (name) => all(name)[0] ?? '',
    },
  };
}

/** Statuses of a request that could be parsed. */
export const PARSED = [200, 204, 206, 301, 304, 403, 404, 405, 412, 416, 417, 504];
/** Statuses of a request for an asset that exists. */
export const FOUND = [200, 206, 304, 412, 416];

/** nginx responds with one of the first statuses, the appliance with one of the second. */
export const statusChanges = (view: View, from: readonly number[], to: readonly number[]): boolean =>
  view.againstNginx && view.aspect === 'status' && from.includes(view.expectedStatus) && to.includes(view.actualStatus);

/** One of these fields differs. */
export const concernsField = ({ aspect }: View, ...names: readonly string[]): boolean =>
  aspect.endsWith(':') && names.includes(aspect.slice(0, -1));

/** Only the appliance sends the field that differs. */
export const addedByAppliance = (view: View): boolean =>
  view.expectedResponse !== null && field(view.expectedResponse, view.aspect.slice(0, -1)) === null;

export const cacheStatusIncludes = (response: HttpResponse | null, text: string): boolean =>
  response !== null && (field(response, 'cache-status') ?? '').includes(text);

/** node:http responded on its own, before Larder saw the request. */
export const rejectedByNode = ({ actualResponse }: View): boolean =>
  actualResponse !== null &&
  actualResponse.status >= 400 &&
  field(actualResponse, 'cache-status') === null &&
  actualResponse.body.length === 0;

export const staysOpen = ({ aspect, actual }: View): boolean =>
  aspect === 'persistence' && actual.kind === 'response' && actual.open;
export const closes = ({ aspect, actual }: View): boolean =>
  aspect === 'persistence' && actual.kind === 'response' && !actual.open;

/** The byte positions that a 206 carries, merged, as text for comparison. */
export function coveredRanges(response: HttpResponse): string {
  const ranges = partsOf(response) ?? [parseContentRange(field(response, 'content-range'))];
  const merged: { first: number; last: number }[] = [];
  for (const { first, last } of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || first > before.last + 1) merged.push({ first, last });
    else before.last = Math.max(before.last, last);
  }
  return merged.map(({ first, last }) => `${first}-${last}`).join();
}
