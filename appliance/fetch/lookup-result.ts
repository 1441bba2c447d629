// What comes of an ask: a stored answer, the origin's own, or a reason why there is none here.

import { Readable } from 'node:stream';
import type { FetchRequest, Forward } from '../link/messages.ts';
import { originFault, type OriginBytes, type OriginRelay } from './origin.ts';
import { readUpTo } from './origin-request.ts';
import type { Entry } from '../store/volume.ts';

/** An error of the origin up to this length is given to all who wait for it. */
const SHARED_BYTES_MAX = 64 * 2 ** 10;

export type LookupResult =
  | { readonly kind: 'entry'; readonly entry: Entry; readonly validated: boolean; readonly forward: Forward | null }
  | (Omit<OriginRelay, 'body'> & {
      readonly body: Buffer | AsyncIterable<Buffer>;
      readonly forward: Forward;
      /** What is left of its freshness where it was remembered; null: the origin's word of just now. */
      readonly leftMs: number | null;
    })
  | { readonly kind: 'bypass'; readonly reason: string }
  | { readonly kind: 'not-cached' };

/** Who asked for validation and joined one has the origin's word, too; who only missed judges for himself. */
export const joinedResult = (result: LookupResult & { kind: 'entry' }, validating: boolean): LookupResult => ({
  ...result,
  validated: result.validated && validating,
  forward: result.forward === null ? null : { ...result.forward, collapsed: true },
});

export const forwardOf = (reason: Forward['reason'], status: number | null): Forward => ({
  ...{ reason, status, stored: false, collapsed: false },
});

/** A short error or redirect is read at once, so that others may have it, too. */
export async function relayResult(
  { key }: FetchRequest,
  answer: OriginRelay,
  reason: Forward['reason'],
): Promise<LookupResult> {
  const { status } = answer;
  const common = { ...answer, forward: forwardOf(reason, status), leftMs: null };
  if (status < 300 && status !== 204) return common;
  try {
    return { ...common, body: await readUpTo(answer.body, SHARED_BYTES_MAX) };
  } catch (error) {
    if (status >= 400) throw originFault(error, key);
    // Where to go is said in its head.
    const { 'content-length': _length, ...headers } = answer.headers;
    return { ...common, headers, body: Readable.from([]) };
  }
}

/** An answer that is whole, for him who asked for the whole. */
export const fullBodyRelay = ({
  fullHeaders: headers,
  cookies,
  generatedAtMs: generatedAt,
  body,
}: OriginBytes): OriginRelay & { readonly leftMs: null } => ({
  ...{ kind: 'relay', status: 200, headers, cookies, generatedAtMs: generatedAt, body, leftMs: null },
});

export const staleResult = (entry: Entry, status: number | null): LookupResult => ({
  ...{ kind: 'entry', entry, validated: true, forward: forwardOf('stale', status) },
});
