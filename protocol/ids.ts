// Names that cross process boundaries: identifiers, asset paths, the session prefix of a play. All are bounded in length and
// characters, so that they can be metric labels, parts of file names or log fields.

import { z } from 'zod';

/** Version of every message in this folder. A receiver refuses a message of another version. */
export const PROTOCOL_VERSION = 1;
export const protocolVersion = z.literal(PROTOCOL_VERSION);

export const ASSET_PATH_CHARS_MAX = 1024;
const SESSION_CHARS_MAX = 512;

/** Id of an appliance, a site or a title: lower-case letters, digits, `.`, `_` and `-`, at most 63 characters. */
export const id = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'use 1 to 63 of a-z 0-9 . _ - and start with a letter or digit');

/** Id of a rendition within its title. Slashes group, as in `video/720p`. */
export const renditionId = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*(\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/, 'use words of A-Z a-z 0-9 . _ - joined by /')
  .max(255);

/** `title:rendition`: a rendition that an appliance holds or should hold. The unit of plans, pins and inventories. */
export const holdingId = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}:[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$/);
export type HoldingId = string;

export const holdingOf = (title: string, rendition: string): HoldingId => `${title}:${rendition}`;

export function splitHolding(holding: HoldingId): { title: string; rendition: string } {
  const colon = holding.indexOf(':');
  return { title: holding.slice(0, colon), rendition: holding.slice(colon + 1) };
}

/** Percent-encoded path of an asset, relative to the origin's base URL but with a leading slash. No query, no dot segments. */
export const assetPath = z
  .string()
  .max(ASSET_PATH_CHARS_MAX)
  .regex(/^\/[!-~]*$/, 'must start with / and be percent-encoded')
  .refine((path) => !/[?#\\]/.test(path), 'must have no query, fragment or backslash')
  .refine((path) => !/\/\.{1,2}(\/|$)/.test(path), 'must have no . or .. segment');

export const isoInstant = z.iso.datetime({ offset: true });
export const byteCount = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);

const SESSION_PREFIX = new RegExp(`^/~([A-Za-z0-9._-]{1,${SESSION_CHARS_MAX}})(/.*)$`, 's');

/**
 * Splits `/~<session>/<asset path>`. Relative URLs in a playlist inherit the prefix, so that every request of a play carries its
 * session. The prefix is never part of the cache key.
 */
export function splitSession(path: string): { readonly session: string | null; readonly path: string } {
  if (!path.startsWith('/~')) return { session: null, path };
  const match = SESSION_PREFIX.exec(path);
  return match === null ? { session: null, path } : { session: match[1]!, path: match[2]! };
}

export const withSession = (session: string, path: string): string => `/~${session}${path}`;
