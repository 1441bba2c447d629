// From a request target to an asset key. Pure, strict: whatever two parsers could read in two ways is refused.

import { Fault } from '../../protocol/faults.ts';
import { splitSession } from '../../protocol/ids.ts';

/** A block file describes itself in one page, key included; a longer key is served but not stored. */
export const KEY_CHARS_MAX = 1_400;
const TARGET_CHARS_MAX = 8_192;

export interface RequestTarget {
  /** Path, and in stand-alone the query; also what the origin is asked for. */
  readonly key: string;
  readonly session: string | null;
}

/** `fleet`: the session prefix is stripped and the query is not part of the key; `alone`: the query is. */
export type KeyMode = 'fleet' | 'alone';

/** RFC 9110 4.2.1, 4.2.4: a host that is not empty, perhaps a port, and nobody's name before it. */
const AUTHORITY = /^(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::\d*)?$/;

/** Throws `request_malformed`. */
export function parseTarget(target: string, mode: KeyMode): RequestTarget {
  if (target.length > TARGET_CHARS_MAX) throw malformed(target, `is longer than ${TARGET_CHARS_MAX} characters`);
  // RFC 9112 3.2.2: a server must accept the absolute form.
  const origin = /^https?:\/\/([^/?#]*)/i.exec(target);
  if (origin !== null && !AUTHORITY.test(origin[1]!)) throw malformed(target, 'names no host');
  const rest = origin === null ? target : target.slice(origin[0].length);
  // RFC 9110 4.2.3: an empty path is `/`.
  const local = origin === null || rest.startsWith('/') ? rest : `/${rest}`;
  if (!local.startsWith('/')) throw malformed(target, 'is not a path');
  if (!/^[!-~]*$/.test(local)) throw malformed(target, 'has a character that must be percent-encoded');
  if (/[#\\]/.test(local)) throw malformed(target, 'has a # or \\');

  const question = local.indexOf('?');
  const rawPath = question === -1 ? local : local.slice(0, question);
  const query = question === -1 ? '' : local.slice(question + 1);
  const normal = normalise(rawPath, target);
  const { session, path } = mode === 'fleet' ? splitSession(normal) : { session: null, path: normal };
  return { session, key: mode === 'fleet' ? path : path + keptQuery(query) };
}

/** RFC 3986 6.2.2: unreserved characters unescaped, hexadecimal in upper case. Dot segments in any spelling are refused. */
function normalise(path: string, target: string): string {
  const normal = path.replaceAll(/%(.{0,2})/g, (_, hex: string) => {
    if (!/^[0-9A-Fa-f]{2}$/.test(hex)) throw malformed(target, `has a broken escape %${hex}`);
    const code = Number.parseInt(hex, 16);
    if (code < 0x20 || code === 0x7f) throw malformed(target, `has an escaped control character %${hex}`);
    if (code === 0x5c) throw malformed(target, 'has an escaped backslash');
    const char = String.fromCharCode(code);
    return /[A-Za-z0-9._~-]/.test(char) ? char : `%${hex.toUpperCase()}`;
  });
  // `..%2f` is a dot segment for any server that decodes before it splits.
  if (/(?:^|\/)\.{1,2}(?:\/|$)/.test(normal.replaceAll('%2F', '/'))) throw malformed(target, 'has a . or .. segment');
  return normal;
}

/** CTA-5004: CMCD describes the player, not the asset. */
function keptQuery(query: string): string {
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
