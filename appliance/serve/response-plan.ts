// Preconditions, then ranges, in the order of RFC 9110 13.2.2: what is to be sent of a located asset. Pure.

import type { AssetView } from '../http/asset.ts';
import { evaluatePreconditions, ifRangeMatches, type Validators } from '../http/precondition.ts';
import { selectRanges, type ByteRange } from '../http/range.ts';
import type { CacheRequest } from './request.ts';

export type ResponsePlan =
  | { readonly kind: 'precondition-failed' }
  | { readonly kind: 'not-modified' }
  | { readonly kind: 'unsatisfiable' }
  /** The head of a 200 alone. */
  | { readonly kind: 'head' }
  | { readonly kind: 'body'; readonly status: 200 | 206; readonly ranges: readonly ByteRange[] };

export function planResponse(cacheRequest: CacheRequest, asset: AssetView): ResponsePlan {
  const { preconditions, range, method } = cacheRequest;
  const validators = validatorsOf(asset);
  const result = evaluatePreconditions(preconditions, validators);
  if (result === 'failed') return { kind: 'precondition-failed' };
  if (result === 'not_modified') return { kind: 'not-modified' };
  const rangeApplies = preconditions.ifRange === null || ifRangeMatches(preconditions.ifRange, validators);
  const selection = selectRanges(rangeApplies ? range : null, asset.bytes);
  if (selection.kind === 'unsatisfiable') return { kind: 'unsatisfiable' };
  if (method === 'HEAD') return { kind: 'head' };
  if (selection.kind === 'ranges') return { kind: 'body', status: 206, ranges: selection.ranges };
  return { kind: 'body', status: 200, ranges: [{ first: 0, last: asset.bytes - 1 }] };
}

const validatorsOf = ({ headers }: AssetView): Validators => ({
  etag: headers['etag'] ?? null,
  lastModified: headers['last-modified'] ?? null,
  date: headers['date'] ?? null,
});
