// The strict half of a request parser: it knows one plain shape of request, the one that players send, and says no to all
// else. What it turns down is not wrong, only somebody else's: node:http reads those very bytes again. So it may refuse
// anything, and must never read a request otherwise than node:http and `server.ts` would.

import { parseTarget, type KeyMode } from '../http/asset-key.ts';

/** A longer head is not plain. */
export const FAST_HEAD_BYTES_MAX = 4_096;
/** Fifteen digits are exact in a double. */
const POSITION_DIGITS_MAX = 15;

const SPACE = 0x20;
const TILDE = 0x7e;
const ZERO = 0x30;
const NINE = 0x39;
const DASH = 0x2d;
const DOT = 0x2e;
const SLASH = 0x2f;

type FieldClass = 'harmless' | 'host' | 'connection' | 'range' | 'referer' | 'agent';

/** Fields that an answer for a located asset does not depend on, and those that are read. */
const FIELDS = spellings({
  host: 'host',
  connection: 'connection',
  range: 'range',
  accept: 'harmless',
  'accept-charset': 'harmless',
  'accept-encoding': 'harmless',
  'accept-language': 'harmless',
  cookie: 'harmless',
  dnt: 'harmless',
  from: 'harmless',
  'icy-metadata': 'harmless',
  origin: 'harmless',
  priority: 'harmless',
  referer: 'referer',
  'save-data': 'harmless',
  traceparent: 'harmless',
  tracestate: 'harmless',
  'upgrade-insecure-requests': 'harmless',
  'user-agent': 'agent',
});
const HARMLESS_FAMILIES = ['sec-fetch-', 'sec-ch-', 'sec-gpc', 'cmcd-', 'x-playback-session-id', 'x-forwarded-'];

/** What the last request that was read asks for; one of these serves a whole process, so that reading allocates little. */
export class RequestHead {
  method: 'GET' | 'HEAD' = 'GET';
  target = '';
  /** The request's first line. */
  line = '';
  /** With `false` the other two mean nothing. */
  ranged = false;
  /** First byte; -1 for a suffix of `last` bytes. */
  first = 0;
  /** Last byte, inclusive; infinite where the range is open. */
  last = 0;
  /** As sent, for the access record; empty where there is none. */
  range = '';
  referer = '';
  agent = '';

  /** Whether `text`, all that has come, is one plain request and nothing more. */
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
    this.line = text.slice(0, targetEnd + 9);
    this.ranged = false;
    this.range = '';
    this.referer = '';
    this.agent = '';
    return this.#readFields(text, targetEnd + 11);
  }

  #readFields(text: string, from: number): boolean {
    let hosts = 0;
    for (let at = from; ;) {
      const end = text.indexOf('\r\n', at);
      if (end === -1) return false;
      // RFC 9112 3.2: an HTTP/1.1 request without Host is 400. What follows the empty line is another request.
      if (end === at) return hosts === 1 && end + 2 === text.length;
      const colon = text.indexOf(':', at);
      if (colon === -1 || colon > end || !isPrintable(text, colon + 1, end)) return false;
      switch (verdictOf(text.slice(at, colon))) {
        case 'harmless':
          break;
        case 'host':
          hosts += 1;
          break;
        case 'connection':
          if (!isKeepAlive(text, colon + 1, end)) return false;
          break;
        case 'range':
          if (this.ranged || !this.#readRange(text, colon + 1, end)) return false;
          this.range = text.slice(colon + 2, end);
          break;
        case 'referer':
          this.referer = valueOf(text, colon + 1, end);
          break;
        case 'agent':
          this.agent = valueOf(text, colon + 1, end);
          break;
        case null:
          return false;
      }
      at = end + 2;
    }
  }

  /** ` bytes=a-b`, ` bytes=a-` or ` bytes=-n`; one range, no spaces. */
  #readRange(text: string, from: number, end: number): boolean {
    if (!text.startsWith(' bytes=', from)) return false;
    const firstFrom = from + 7;
    const dash = text.indexOf('-', firstFrom);
    if (dash === -1 || dash >= end) return false;
    const first = readPosition(text, firstFrom, dash);
    const last = readPosition(text, dash + 1, end);
    if (Number.isNaN(first) || Number.isNaN(last) || (first === -1 && last <= 0)) return false;
    this.ranged = true;
    this.first = first;
    this.last = last === -1 ? Number.POSITIVE_INFINITY : last;
    return first <= this.last;
  }
}

/**
 * The key of a plain target; null where only `parseTarget` should judge, or has refused. Whatever it answers,
 * `parseTarget` answers too.
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

/** Where the query begins, or the end; -1 where the path has an escape, a dot segment or something stranger. */
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

/** In a fleet the query is not part of the key, but has to be well-formed. */
function isPlainQuery(target: string, from: number): boolean {
  for (let at = from; at < target.length; at += 1) {
    const code = target.charCodeAt(at);
    if (code <= SPACE || code > TILDE || code === 0x23 || code === 0x5c) return false;
  }
  return true;
}

/** Of `/~<session>/…` the second slash; -1 for any other form. */
function sessionEnd(target: string, end: number): number {
  const slash = target.indexOf('/', 2);
  if (slash < 3 || slash >= end || slash > 500) return -1;
  return target.indexOf('~', 2) === -1 || target.indexOf('~', 2) > slash ? slash : -1;
}

/** RFC 3986 2.3, all of which a session id may hold but the tilde. */
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

function verdictOf(name: string): FieldClass | null {
  const known = FIELDS.get(name);
  if (known !== undefined) return known;
  const lower = name.toLowerCase();
  const verdict = FIELDS.get(lower);
  if (verdict !== undefined) return verdict;
  return HARMLESS_FAMILIES.some((family) => lower.startsWith(family)) && isToken(lower) ? 'harmless' : null;
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

/** Digits as a number, -1 for none of them, NaN for anything else. */
function readPosition(text: string, from: number, end: number): number {
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

/** As nearly everybody writes it, one blank before it and none behind, or else what is left without them. */
function valueOf(text: string, from: number, end: number): string {
  const plain = text.charCodeAt(from) === SPACE && text.charCodeAt(from + 1) !== SPACE;
  return plain && text.charCodeAt(end - 1) !== SPACE ? text.slice(from + 1, end) : text.slice(from, end).trim();
}

/** As written in RFCs and in lower case: what clients send is found without a conversion. */
function spellings(fields: Readonly<Record<string, FieldClass>>): ReadonlyMap<string, FieldClass> {
  const capital = (name: string): string => name.replaceAll(/(?:^|-)[a-z]/g, (start) => start.toUpperCase());
  return new Map(
    Object.entries(fields).flatMap(([name, verdict]) => [
      [name, verdict],
      [capital(name), verdict],
    ]),
  );
}
