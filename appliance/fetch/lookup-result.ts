// What comes of an ask: a stored answer, the origin's own, or a reason why there is none here.

import { Readable } from 'node:stream';
import type { Ask, Forward } from '../link/messages.ts';
import { originFault, type Bytes, type Relay } from './origin.ts';
import { upTo } from './origin-request.ts';
import type { Entry } from '../store/volume.ts';

/** An error of the origin up to this length is given to all who wait for it. */
const SHARED_BYTES_MAX = 64 * 2 ** 10;

export type Located =
  | { readonly kind: 'entry'; readonly entry: Entry; readonly validated: boolean; readonly forward: Forward | null }
  | (Omit<Relay, 'body'> & {
      readonly body: Buffer | AsyncIterable<Buffer>;
      readonly forward: Forward;
      /** What is left of its freshness where it was remembered; null: the origin's word of just now. */
      readonly leftMs: number | null;
    })
  | { readonly kind: 'pass'; readonly reason: string }
  | { readonly kind: 'absent' };

/** Who asked for validation and joined one has the origin's word, too; who only missed judges for himself. */
export const shared = (located: Located & { kind: 'entry' }, validating: boolean): Located => ({
  ...located,
  validated: located.validated && validating,
  forward: located.forward === null ? null : { ...located.forward, collapsed: true },
});

export const forwarded = (reason: Forward['reason'], status: number | null): Forward => ({
  ...{ reason, status, stored: false, collapsed: false },
});

/** A short error or redirect is read at once, so that others may have it, too. */
export async function relayed({ key }: Ask, answer: Relay, reason: Forward['reason']): Promise<Located> {
  const { status } = answer;
  const common = { ...answer, forward: forwarded(reason, status), leftMs: null };
  if (status < 300 && status !== 204) return common;
  try {
    return { ...common, body: await upTo(answer.body, SHARED_BYTES_MAX) };
  } catch (error) {
    if (status >= 400) throw originFault(error, key);
    // Where to go is said in its head.
    const { 'content-length': _length, ...headers } = answer.headers;
    return { ...common, headers, body: Readable.from([]) };
  }
}

/** An answer that is whole, for him who asked for the whole. */
export const relayOf = ({ whole: headers, cookies, bornMs: born, body }: Bytes): Relay & { readonly leftMs: null } => ({
  ...{ kind: 'relay', status: 200, headers, cookies, bornMs: born, body, leftMs: null },
});

export const servedStale = (entry: Entry, status: number | null): Located => ({
  ...{ kind: 'entry', entry, validated: true, forward: forwarded('stale', status) },
});
