// http/ holds the rules of HTTP that a shared cache has to follow. Everything here is computed from header fields, instants
// and lengths that are passed in: no clock, no disk, no network. Both process halves import it, the worker (serve/,
// fastpath/) and the storekeeper (fetch/), so that they decide alike. It imports protocol/ and itself.
//
// In the order in which a request meets them:
//
//   asset-key.ts         request target → cache key (this file)
//   cache-control.ts     directives of Cache-Control and CDN-Cache-Control
//   vary.ts              cache key + request fields → key of a variant
//   freshness.ts         may it be stored, is it fresh, may it be served stale
//   precondition.ts      If-Match, If-None-Match, If-Range …
//   range.ts             Range → byte ranges; multipart.ts frames several of them
//   headers.ts           which fields are stored, forwarded or dropped
//   cache-status.ts      Cache-Status, Proxy-Status and the outcome that metrics count
//   response-headers.ts  the fields of a response
//   http-date.ts, asset.ts   dates, and the asset version as all of them see it
//
// The names imported most are parseTarget, freshnessOf and judgeFreshness, evaluatePreconditions, selectRanges, assetHeaders.
//
// This file is strict: a target that two parsers could read in two ways is refused.

import { normalizedPath } from '../../protocol/asset-path.ts';
import { Fault } from '../../protocol/faults.ts';
import { splitSession } from '../../protocol/ids.ts';

/** The header of a block file, which includes the key, takes one page. An asset with a longer key is served but not stored. */
export const KEY_CHARS_MAX = 1_400;
const TARGET_CHARS_MAX = 8_192;

export interface RequestTarget {
  /** Normalized path and, stand-alone, the query. The origin is asked for it as well. */
  readonly key: string;
  /** From the prefix `/~<session>`, in a fleet only. */
  readonly session: string | null;
}

/** `fleet`: the session prefix and the query are not part of the key. `alone`: both are. */
export type KeyMode = 'fleet' | 'alone';

/** A host that is not empty and an optional port, without userinfo (RFC 9110 4.2.1, 4.2.4). */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::\d*)?$/;

/** Throws `request_malformed`. */
export function parseTarget(target: string, mode: KeyMode): RequestTarget {
  if (target.length > TARGET_CHARS_MAX) throw malformed(target, `is longer than ${TARGET_CHARS_MAX} characters`);
  // RFC 9112 3.2.2: a server must accept the absolute form.
  const absolute = /^https?:\/\/([^/?#]*)/i.exec(target);
  if (absolute !== null && !AUTHORITY.test(absolute[1]!)) throw malformed(target, 'names no host');
  const rest = absolute === null ? target : target.slice(absolute[0].length);
  // RFC 9110 4.2.3: an empty path is `/`.
  const originForm = absolute === null || rest.startsWith('/') ? rest : `/${rest}`;
  if (!originForm.startsWith('/')) throw malformed(target, 'is not a path');
  if (!/^[!-~]*$/.test(originForm)) throw malformed(target, 'has a character that must be percent-encoded');
  if (/[#\\]/.test(originForm)) throw malformed(target, 'has a # or \\');

  const queryAt = originForm.indexOf('?');
  const rawPath = queryAt === -1 ? originForm : originForm.slice(0, queryAt);
  const query = queryAt === -1 ? '' : originForm.slice(queryAt + 1);
  const normalized = normalizedPath(rawPath);
  if (typeof normalized !== 'string') throw malformed(target, normalized.problem);
  if (mode === 'alone') return { session: null, key: normalized + queryOfKey(query) };
  const { session, path } = splitSession(normalized);
  return { session, key: path };
}

/** The query without CMCD, which describes the player and not the asset (CTA-5004). */
function queryOfKey(query: string): string {
  if (query === '') return '';
  const kept = query
    .split('&')
    .filter((pair) => !/^CMCD(=|$)/i.test(pair))
    .join('&');
  return kept === '' ? '' : `?${kept}`;
}

function malformed(target: string, why: string): Fault {
  return new Fault('request_malformed', `the request target ${JSON.stringify(target.slice(0, 120))} ${why}`);
}
