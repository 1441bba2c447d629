// The line check in front of the playlist library, which reads `EXTINF:abc` as 0 and reports no line numbers. Every tag and
// attribute that Larder or a player relies on is checked here (RFC 8216 and its second edition), with the line that is wrong.

import { manifestFault, shorten, type SourceLocation } from './manifest.ts';

const LINE_CHARS_MAX = 16_384;
const LINES_MAX = 500_000;

/** A tag or a URI. Comments and blank lines are left out. */
export interface PlaylistLine {
  readonly location: SourceLocation;
  /** Without the `#`; null for a URI. */
  readonly tag: string | null;
  /** The text after the colon, or the URI. */
  readonly value: string;
}

export interface ByteRange {
  readonly lengthBytes: number;
  /** Null if it is left out. */
  readonly offset: number | null;
}

export const DECIMAL = /^\d{1,15}(\.\d{1,15})?$/;
export const INTEGER = /^\d{1,15}$/;

const MULTIVARIANT_TAGS = new Set([
  'EXT-X-MEDIA',
  'EXT-X-STREAM-INF',
  'EXT-X-I-FRAME-STREAM-INF',
  'EXT-X-SESSION-DATA',
  'EXT-X-SESSION-KEY',
  'EXT-X-CONTENT-STEERING',
]);
const MEDIA_TAGS = new Set([
  'EXTINF',
  'EXT-X-BYTERANGE',
  'EXT-X-DISCONTINUITY',
  'EXT-X-KEY',
  'EXT-X-MAP',
  'EXT-X-GAP',
  'EXT-X-BITRATE',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
  'EXT-X-ENDLIST',
  'EXT-X-PLAYLIST-TYPE',
  'EXT-X-I-FRAMES-ONLY',
]);
/** Tags that may occur once in a playlist. */
const UNIQUE_TAGS = new Set([
  'EXT-X-VERSION',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
  'EXT-X-ENDLIST',
  'EXT-X-PLAYLIST-TYPE',
  'EXT-X-I-FRAMES-ONLY',
]);
const UNSUPPORTED_TAGS: Readonly<Record<string, string>> = {
  'EXT-X-DEFINE': 'variables in playlists are not supported; write the names out',
  'EXT-X-PART': 'partial segments belong to live playlists; only whole titles can be imported',
  'EXT-X-PRELOAD-HINT': 'preload hints belong to live playlists; only whole titles can be imported',
  'EXT-X-SKIP': 'a delta update is not a playlist; import the whole one',
  'EXT-X-PREFETCH': 'prefetch segments belong to live playlists; only whole titles can be imported',
};

/** Splits a playlist into lines, with the checks that apply to both kinds of playlist. */
export function parseLines(text: string, path: string): PlaylistLine[] {
  const rows = text.split('\n');
  if (rows.length > LINES_MAX)
    throw manifestFault({ path, line: LINES_MAX }, `the playlist has more than ${LINES_MAX} lines`);
  const first = rows[0] ?? '';
  if (first.replace(/\r$/, '') !== '#EXTM3U')
    throw manifestFault({ path, line: 1 }, `the first line is "${shorten(first.trim())}", but must be #EXTM3U`);
  const lineOfTag = new Map<string, number>();
  const lines: PlaylistLine[] = [];
  for (const [index, row] of rows.entries()) {
    const location = { path, line: index + 1 };
    if (row.length > LINE_CHARS_MAX)
      throw manifestFault(location, `the line has more than ${LINE_CHARS_MAX} characters`);
    const line = row.trim();
    if (line === '' || (line.startsWith('#') && !line.startsWith('#EXT'))) continue;
    const { tag, value } = splitTag(line);
    if (tag !== null) assertTagAllowed(tag, location, lineOfTag);
    lines.push({ location, tag, value });
  }
  return lines;
}

/** Throws if the playlist has tags of the other kind. */
export function assertPlaylistKind(lines: readonly PlaylistLine[], kind: 'multivariant' | 'media'): void {
  const [own, foreign] = kind === 'media' ? [MEDIA_TAGS, MULTIVARIANT_TAGS] : [MULTIVARIANT_TAGS, MEDIA_TAGS];
  const stray = lines.find((line) => line.tag !== null && foreign.has(line.tag));
  if (stray === undefined) return;
  const mixed = lines.some((line) => line.tag !== null && own.has(line.tag));
  if (mixed) throw manifestFault(stray.location, `#${stray.tag} does not belong into a ${kind} playlist`);
  throw manifestFault(
    stray.location,
    kind === 'multivariant'
      ? `#${stray.tag}: this is a media playlist; import the multivariant playlist that names it`
      : `#${stray.tag}: this is a multivariant playlist, where a media playlist is expected`,
  );
}

/** The attribute list of a tag (RFC 8216 4.2). Quotes are part of a value until `quoted` removes them. */
export class AttributeList {
  readonly #line: PlaylistLine;
  readonly #values = new Map<string, string>();

  constructor(line: PlaylistLine) {
    this.#line = line;
    let rest = line.value;
    while (rest !== '') {
      const match = /^([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^",]*)(?:,\s*|$)/.exec(rest);
      if (match === null) throw this.#fault(`"${shorten(rest)}" is no list of NAME=VALUE`);
      const name = match[1]!;
      if (this.#values.has(name)) throw this.#fault(`${name} occurs twice`);
      this.#values.set(name, match[2]!);
      rest = rest.slice(match[0].length);
    }
  }

  get(name: string): string | null {
    return this.#values.get(name) ?? null;
  }

  /** The value of an attribute that must be quoted, without its quotes; null if it is absent. */
  quoted(name: string): string | null {
    const value = this.get(name);
    if (value === null) return null;
    if (!/^".*"$/s.test(value)) throw this.#fault(`${name} is ${shorten(value)}, but must be quoted`);
    return value.slice(1, -1);
  }

  /** The value of an attribute that must match a pattern, described by `expected`; null if it is absent. */
  matching(name: string, pattern: RegExp, expected: string): string | null {
    const value = this.get(name);
    if (value === null) return null;
    if (!pattern.test(value)) throw this.#fault(`${name} is ${shorten(value)}, but must be ${expected}`);
    return value;
  }

  /** Returns a value of `quoted` or `matching` that may be neither absent nor empty. */
  required(name: string, value: string | null): string {
    if (value === null || value === '') throw manifestFault(this.#line.location, `#${this.#line.tag} has no ${name}`);
    return value;
  }

  #fault(reason: string): Error {
    return manifestFault(this.#line.location, `#${this.#line.tag}: ${reason}`);
  }
}

/** Parses `LENGTH[@OFFSET]`. */
export function parseByteRange(line: PlaylistLine, value: string): ByteRange {
  const match = /^(\d{1,15})(?:@(\d{1,15}))?$/.exec(value);
  if (match === null || Number(match[1]) === 0)
    throw manifestFault(
      line.location,
      `#${line.tag}: the byte range is "${shorten(value)}", but must be LENGTH or LENGTH@OFFSET`,
    );
  return { lengthBytes: Number(match[1]), offset: match[2] === undefined ? null : Number(match[2]) };
}

function splitTag(line: string): Pick<PlaylistLine, 'tag' | 'value'> {
  if (!line.startsWith('#')) return { tag: null, value: line };
  const colon = line.indexOf(':');
  if (colon < 0) return { tag: line.slice(1), value: '' };
  return { tag: line.slice(1, colon), value: line.slice(colon + 1) };
}

/** Records the line of a tag that may occur once. */
function assertTagAllowed(tag: string, location: SourceLocation, lineOfTag: Map<string, number>): void {
  if (tag === 'EXTM3U' && location.line > 1) throw manifestFault(location, '#EXTM3U stands on the first line only');
  if (UNSUPPORTED_TAGS[tag] !== undefined) throw manifestFault(location, `#${tag}: ${UNSUPPORTED_TAGS[tag]}`);
  if (!UNIQUE_TAGS.has(tag)) return;
  if (lineOfTag.has(tag)) throw manifestFault(location, `#${tag} stands on line ${lineOfTag.get(tag)} already`);
  lineOfTag.set(tag, location.line);
}
