// A strict parser for plain requests, the kind that players send. A request that it declines is not necessarily malformed:
// node:http parses the same bytes again. So it may decline anything, but what it accepts must mean exactly what node:http and
// serve/serve.ts would make of it.

import { parseTarget, type KeyMode } from '../http/asset-key.ts';

/** A longer head takes the slow path. */
export const FAST_HEAD_BYTES_MAX = 4_096;
/** A number of fifteen digits is exact in a double. */
const POSITION_DIGITS_MAX = 15;

const SPACE = 0x20;
const TILDE = 0x7e;
const ZERO = 0x30;
const NINE = 0x39;
const DASH = 0x2d;
const DOT = 0x2e;
const SLASH = 0x2f;

/** `ignored`: the response to a cached asset does not depend on the field. The others are parsed. */
type FieldClass = 'ignored' | 'host' | 'connection' | 'range' | 'referer' | 'user-agent';

/** A request with a field that is neither here nor in `IGNORED_PREFIXES` takes the slow path. */
const FIELDS = withCanonicalCase({
  host: 'host',
  connection: 'connection',
  range: 'range',
  accept: 'ignored',
  'accept-charset': 'ignored',
  'accept-encoding': 'ignored',
  'accept-language': 'ignored',
  cookie: 'ignored',
  dnt: 'ignored',
  from: 'ignored',
  'icy-metadata': 'ignored',
  origin: 'ignored',
  priority: 'ignored',
  referer: 'referer',
  'save-data': 'ignored',
  traceparent: 'ignored',
  tracestate: 'ignored',
  'upgrade-insecure-requests': 'ignored',
  'user-agent': 'user-agent',
});
const IGNORED_PREFIXES = ['sec-fetch-', 'sec-ch-', 'sec-gpc', 'cmcd-', 'x-playback-session-id', 'x-forwarded-'];

/** The request that was parsed last. A process has one of these and reuses it, so that parsing allocates little. */
export class RequestHead {
  method: 'GET' | 'HEAD' = 'GET';
  target = '';
  requestLine = '';
  /** `first` and `last` are valid only if there is a Range. */
  hasRange = false;
  /** First byte position; -1 for a suffix of `last` bytes. */
  first = 0;
  /** Last byte position, inclusive; infinite for an open range. */
  last = 0;
  /** These three are as sent, for the access log; empty if absent. */
  range = '';
  referer = '';
  userAgent = '';

  /** Whether `text` is exactly one plain request. */
  parse(text: string): boolean {
    let at: number;
    if (text.startsWith('GET /')) {
      this.method = 'GET';
      at = 4;
    } else if (text.startsWith('HEAD /')) {
      this.method = 'HEAD';
      at = 5;
    } else return false;
    const targetEnd = text.indexOf(' ', at);
    if (targetEnd === -1 || !text.startsWith('HTTP/1.1\r\n', targetEnd + 1)) return false;
    this.target = text.slice(at, targetEnd);
    this.requestLine = text.slice(0, targetEnd + 9);
    this.hasRange = false;
    this.range = '';
    this.referer = '';
    this.userAgent = '';
    return this.#parseFields(text, targetEnd + 11);
  }

  #parseFields(text: string, from: number): boolean {
    let hosts = 0;
    for (let at = from; ;) {
      const end = text.indexOf('\r\n', at);
      if (end === -1) return false;
      // RFC 9112 3.2: a request must have exactly one Host. Bytes behind the empty line belong to another request.
      if (end === at) return hosts === 1 && end + 2 === text.length;
      const colon = text.indexOf(':', at);
      if (colon === -1 || colon > end || !isPrintable(text, colon + 1, end)) return false;
      switch (classify(text.slice(at, colon))) {
        case 'ignored':
          break;
        case 'host':
          hosts += 1;
          break;
        case 'connection':
          if (!isKeepAlive(text, colon + 1, end)) return false;
          break;
        case 'range':
          if (this.hasRange || !this.#parseRange(text, colon + 1, end)) return false;
          this.range = text.slice(colon + 2, end);
          break;
        case 'referer':
          this.referer = valueOf(text, colon + 1, end);
          break;
        case 'user-agent':
          this.userAgent = valueOf(text, colon + 1, end);
          break;
        case null:
          return false;
      }
      at = end + 2;
    }
  }

  /** One range, ` bytes=a-b`, ` bytes=a-` or ` bytes=-n`, without further white space. */
  #parseRange(text: string, from: number, end: number): boolean {
    if (!text.startsWith(' bytes=', from)) return false;
    const firstFrom = from + 7;
    const dash = text.indexOf('-', firstFrom);
    if (dash === -1 || dash >= end) return false;
    const first = parsePosition(text, firstFrom, dash);
    const last = parsePosition(text, dash + 1, end);
    if (Number.isNaN(first) || Number.isNaN(last) || (first === -1 && last <= 0)) return false;
    this.hasRange = true;
    this.first = first;
    this.last = last === -1 ? Number.POSITIVE_INFINITY : last;
    return first <= this.last;
  }
}

/**
 * The cache key of a request target, the same as from `parseTarget`, which is slower. Null if the target is malformed: then the
 * slow path reports the fault.
 */
export function fastKey(target: string, mode: KeyMode): string | null {
  const end = plainPathEnd(target);
  if (end === target.length || (mode === 'fleet' && end > 0 && isPlainQuery(target, end))) {
    if (mode === 'alone' || target.charCodeAt(1) !== TILDE) return target.slice(0, end);
    const slash = sessionEnd(target, end);
    if (slash !== -1) return target.slice(slash, end);
  }
  try {
    return parseTarget(target, mode).key;
  } catch {
    return null;
  }
}

/** Where the path ends; -1 if it has an escape, a segment that starts with a dot, or any character that needs `parseTarget`. */
function plainPathEnd(target: string): number {
  for (let at = 1; at < target.length; at += 1) {
    const code = target.charCodeAt(at);
    if (code === 0x3f) return at;
    if (code === DOT) {
      if (target.charCodeAt(at - 1) === SLASH) return -1;
    } else if (!isUnreserved(code) && code !== SLASH) return -1;
  }
  return target.length <= FAST_HEAD_BYTES_MAX ? target.length : -1;
}

/** In a fleet the query is not part of the key, but it must be well-formed. */
function isPlainQuery(target: string, from: number): boolean {
  for (let at = from; at < target.length; at += 1) {
    const code = target.charCodeAt(at);
    if (code <= SPACE || code > TILDE || code === 0x23 || code === 0x5c) return false;
  }
  return true;
}

/** The second slash of `/~<session>/…`; -1 for any other form. */
function sessionEnd(target: string, end: number): number {
  const slash = target.indexOf('/', 2);
  if (slash < 3 || slash >= end || slash > 500) return -1;
  return target.indexOf('~', 2) === -1 || target.indexOf('~', 2) > slash ? slash : -1;
}

/** RFC 3986 2.3. A session id consists of these without the tilde. */
function isUnreserved(code: number): boolean {
  return (
    (code >= 0x61 && code <= 0x7a) ||
    (code >= ZERO && code <= NINE) ||
    (code >= 0x41 && code <= 0x5a) ||
    code === DASH ||
    code === 0x5f ||
    code === DOT ||
    code === TILDE
  );
}

/** Null for a field that needs the slow path. */
function classify(name: string): FieldClass | null {
  const exact = FIELDS.get(name);
  if (exact !== undefined) return exact;
  const lower = name.toLowerCase();
  const found = FIELDS.get(lower);
  if (found !== undefined) return found;
  return IGNORED_PREFIXES.some((prefix) => lower.startsWith(prefix)) && isToken(lower) ? 'ignored' : null;
}

const isToken = (lower: string): boolean => /^[a-z0-9-]+$/.test(lower);

function isPrintable(text: string, from: number, end: number): boolean {
  for (let at = from; at < end; at += 1) {
    const code = text.charCodeAt(at);
    if (code < SPACE || code > TILDE) return false;
  }
  return true;
}

function isKeepAlive(text: string, from: number, end: number): boolean {
  return end - from === 11 && text.slice(from, end).toLowerCase() === ' keep-alive';
}

/** The digits from `from` to `end` as a number; -1 for no digits, NaN for anything else. */
function parsePosition(text: string, from: number, end: number): number {
  if (from === end) return -1;
  if (end - from > POSITION_DIGITS_MAX) return Number.NaN;
  let value = 0;
  for (let at = from; at < end; at += 1) {
    const code = text.charCodeAt(at);
    if (code < ZERO || code > NINE) return Number.NaN;
    value = value * 10 + (code - ZERO);
  }
  return value;
}

/** The field value without surrounding white space. Nearly always that is one space in front. */
function valueOf(text: string, from: number, end: number): string {
  const hasOneSpace = text.charCodeAt(from) === SPACE && text.charCodeAt(from + 1) !== SPACE;
  return hasOneSpace && text.charCodeAt(end - 1) !== SPACE ? text.slice(from + 1, end) : text.slice(from, end).trim();
}

/** Adds each name in the canonical case of RFCs, so that most requests need no conversion to lower case. */
function withCanonicalCase(fields: Readonly<Record<string, FieldClass>>): ReadonlyMap<string, FieldClass> {
  const canonical = (name: string): string => name.replaceAll(/(?:^|-)[a-z]/g, (start) => start.toUpperCase());
  return new Map(
    Object.entries(fields).flatMap(([name, fieldClass]) => [
      [name, fieldClass],
      [canonical(name), fieldClass],
    ]),
  );
}
