// What a lookup results in: a stored response, the origin's own response, or a reason why there is none here.

import { Readable } from 'node:stream';
import type { Forward } from '../http/cache-status.ts';
import type { FetchRequest } from '../link/messages.ts';
import type { Entry } from '../store/volume.ts';
import { originFault, type OriginBytes, type OriginRelay } from './origin.ts';
import { readUpTo } from './origin-request.ts';

/** The body of an error or a redirect up to this length is given to everybody who waits for it. */
const SHARED_BYTES_MAX = 64 * 2 ** 10;

export type LookupResult =
  | { readonly kind: 'entry'; readonly entry: Entry; readonly validated: boolean; readonly forward: Forward | null }
  | (Omit<OriginRelay, 'body'> & {
      readonly body: Buffer | AsyncIterable<Buffer>;
      readonly forward: Forward;
      /** What is left of its freshness when it comes from the negative cache; null when the origin has just sent it. */
      readonly leftMs: number | null;
    })
  | { readonly kind: 'bypass'; readonly reason: string }
  | { readonly kind: 'not-cached' };

/** The result for a request that joined another's lookup. Only a request for validation is answered by the other's validation. */
export const joinedResult = (result: LookupResult & { kind: 'entry' }, revalidates: boolean): LookupResult => ({
  ...result,
  validated: result.validated && revalidates,
  forward: result.forward === null ? null : { ...result.forward, collapsed: true },
});

export const forwardOf = (reason: Forward['reason'], status: number | null): Forward => ({
  ...{ reason, status, stored: false, collapsed: false },
});

/** A short error or redirect is read at once, so that everybody who waits for it can be given it. */
export async function relayResult(
  { key }: FetchRequest,
  relay: OriginRelay,
  reason: Forward['reason'],
): Promise<LookupResult> {
  const { status } = relay;
  const common = { ...relay, forward: forwardOf(reason, status), leftMs: null };
  if (status < 300 && status !== 204) return common;
  try {
    return { ...common, body: await readUpTo(relay.body, SHARED_BYTES_MAX) };
  } catch (error) {
    if (status >= 400) throw originFault(error, key);
    // The target of a redirect is in its head.
    const { 'content-length': _length, ...headers } = relay.headers;
    return { ...common, headers, body: Readable.from([]) };
  }
}

/** A full body that is not stored, for the client that asked for all of it. */
export const fullBodyRelay = (response: OriginBytes): OriginRelay & { readonly leftMs: null } => ({
  kind: 'relay',
  status: 200,
  headers: response.fullHeaders,
  cookies: response.cookies,
  generatedAtMs: response.generatedAtMs,
  body: response.body,
  leftMs: null,
});

/** The stored response, although stale. `status` is the origin's; null when it could not be reached. */
export const staleResult = (entry: Entry, status: number | null): LookupResult => ({
  ...{ kind: 'entry', entry, validated: true, forward: forwardOf('stale', status) },
});
