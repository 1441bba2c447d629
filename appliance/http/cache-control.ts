// Cache directives of requests and answers, read as RFC 9111 5.2 and 9213 say. Pure. What is malformed is never read in
// favour of storing: a number that is none counts as 0.

import { parseDictionary } from 'structured-headers';

/** A directive's argument, '' where it has none. Names are lower case. */
export type Directives = ReadonlyMap<string, string>;

const NONE: Directives = new Map();
const FIELD_CHARS_MAX = 4_096;
/** RFC 9111 1.2.2: what does not fit counts as 2^31. */
const SECONDS_MAX = 2 ** 31;
/** RFC 9111 5.2: `name`, `name=token` or `name="quoted string"`. */
const DIRECTIVE = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,";]*)))?/gy;

/** Null: the field is absent. Of a directive that comes twice with different arguments the stricter reading holds. */
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
    // Something that is no directive: skip to the next comma.
    if (match === null) {
      const comma = text.indexOf(',', at);
      if (comma === -1) break;
      at = comma + 1;
      continue;
    }
    at = DIRECTIVE.lastIndex;
    const name = match[1]!.toLowerCase();
    const argument = match[2]?.replaceAll(/\\(.)/g, '$1') ?? match[3] ?? '';
    const before = directives.get(name);
    // RFC 9111 4.2.1: conflicting values may be taken for stale.
    directives.set(name, before === undefined || before === argument ? argument : 'conflict');
  }
  return directives;
}

/** Seconds of a directive: null where it is absent, 0 where its argument is no number. */
export function secondsOf(directives: Directives, name: string): number | null {
  const argument = directives.get(name);
  if (argument === undefined) return null;
  return /^\d+$/.test(argument) ? Math.min(Number(argument), SECONDS_MAX) : 0;
}

/** The answer's directives for us: RFC 9213 has a targeted field replace `Cache-Control` and `Expires` where it is valid. */
export function responseDirectives(headers: Readonly<Record<string, string>>): {
  readonly directives: Directives;
  readonly targeted: boolean;
} {
  const target = targetedDirectives(headers['cdn-cache-control']);
  return target === null
    ? { directives: parseDirectives(headers['cache-control']), targeted: false }
    : { directives: target, targeted: true };
}

/** A request's: `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 5.4). */
export function requestDirectives(cacheControl: string | undefined, pragma: string | undefined): Directives {
  if (cacheControl !== undefined) return parseDirectives(cacheControl);
  return /\bno-cache\b/i.test(pragma ?? '') ? new Map([['no-cache', '']]) : NONE;
}

/** A structured-field dictionary (RFC 8941 3.2): a bad member and the whole field does not count (RFC 9213 2.1). */
function targetedDirectives(text: string | undefined): Directives | null {
  if (text === undefined || text.trim() === '' || text.length > FIELD_CHARS_MAX) return null;
  try {
    const directives = new Map<string, string>();
    for (const [name, [value]] of parseDictionary(text)) {
      // A boolean false is a directive that is not set.
      if (value === true || typeof value === 'number') directives.set(name, value === true ? '' : String(value));
      // A value of another type than the directive has: it is there, and says nothing.
      else if (value !== false && !NUMERIC.has(name)) directives.set(name, '');
    }
    return directives;
  } catch {
    return null;
  }
}

const NUMERIC = new Set(['max-age', 's-maxage', 'stale-while-revalidate', 'stale-if-error']);
