// Parses the cache directives of requests and responses (RFC 9111 5.2, RFC 9213). Pure. Malformed input is never read in favour
// of storing: an argument that should be a number and is not counts as 0.

import { parseDictionary } from 'structured-headers';

/** Directives by name in lower case, each with its argument, or '' if it has none. */
export type Directives = ReadonlyMap<string, string>;

const NONE: Directives = new Map();
const FIELD_CHARS_MAX = 4_096;
/** RFC 9111 1.2.2: a larger number of seconds counts as 2^31. */
const SECONDS_MAX = 2 ** 31;
/** RFC 9111 5.2: `name`, `name=token` or `name="quoted string"`. */
const DIRECTIVE = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,";]*)))?/gy;

/** Empty if the field is absent. A field that is too long counts as `no-store`. */
export function parseDirectives(text: string | undefined): Directives {
  if (text === undefined || text === '') return NONE;
  if (text.length > FIELD_CHARS_MAX) return new Map([['no-store', '']]);
  const directives = new Map<string, string>();
  DIRECTIVE.lastIndex = 0;
  let at = 0;
  while (at < text.length) {
    if (/[\s,;]/.test(text[at]!)) {
      at += 1;
      continue;
    }
    DIRECTIVE.lastIndex = at;
    const match = DIRECTIVE.exec(text);
    // Skip anything else up to the next comma.
    if (match === null) {
      const comma = text.indexOf(',', at);
      if (comma === -1) break;
      at = comma + 1;
      continue;
    }
    at = DIRECTIVE.lastIndex;
    const name = match[1]!.toLowerCase();
    const argument = match[2]?.replaceAll(/\\(.)/g, '$1') ?? match[3] ?? '';
    const previous = directives.get(name);
    // RFC 9111 4.2.1: with conflicting arguments the response may be considered stale. `conflict` is not a number.
    directives.set(name, previous === undefined || previous === argument ? argument : 'conflict');
  }
  return directives;
}

/** Argument of a directive in seconds: null if the directive is absent, 0 if its argument is not a number. */
export function secondsOf(directives: Directives, name: string): number | null {
  const argument = directives.get(name);
  if (argument === undefined) return null;
  return /^\d+$/.test(argument) ? Math.min(Number(argument), SECONDS_MAX) : 0;
}

/** A response's directives for a CDN. A valid targeted field replaces Cache-Control and Expires (RFC 9213 2.2). */
export function responseDirectives(headers: Readonly<Record<string, string>>): {
  readonly directives: Directives;
  readonly targeted: boolean;
} {
  const targeted = targetedDirectives(headers['cdn-cache-control']);
  return targeted === null
    ? { directives: parseDirectives(headers['cache-control']), targeted: false }
    : { directives: targeted, targeted: true };
}

/** A request's directives. `Pragma: no-cache` counts only without Cache-Control (RFC 9111 5.4). */
export function requestDirectives(cacheControl: string | undefined, pragma: string | undefined): Directives {
  if (cacheControl !== undefined) return parseDirectives(cacheControl);
  return /\bno-cache\b/i.test(pragma ?? '') ? new Map([['no-cache', '']]) : NONE;
}

/** A dictionary (RFC 9651 3.2). One malformed member invalidates the whole field (RFC 9213 2.1), which is then null. */
function targetedDirectives(text: string | undefined): Directives | null {
  if (text === undefined || text.trim() === '' || text.length > FIELD_CHARS_MAX) return null;
  try {
    const directives = new Map<string, string>();
    for (const [name, [value]] of parseDictionary(text)) {
      // A boolean `false` means that the directive is not set.
      if (value === true || typeof value === 'number') directives.set(name, value === true ? '' : String(value));
      // A value of an unexpected type: a flag is set, a number is ignored.
      else if (value !== false && !NUMERIC.has(name)) directives.set(name, '');
    }
    return directives;
  } catch {
    return null;
  }
}

/** Directives whose argument is a number of seconds. */
const NUMERIC = new Set(['max-age', 's-maxage', 'stale-while-revalidate', 'stale-if-error']);
