// The line check in front of the playlist library, which takes `EXTINF:abc` for 0 and gives no line numbers. Every tag and
// attribute that Larder or a player relies on is checked here (RFC 8216 and its second edition), with the line that breaks it.

import { clip, complain, type Place } from './manifest.ts';

export const LINE_CHARS_MAX = 16_384;
export const LINES_MAX = 500_000;

/** A tag with its parts, or a URI line. Comments and blank lines are gone. */
export interface Line {
  readonly place: Place;
  /** Without the `#`; null for a URI line. */
  readonly tag: string | null;
  /** After the colon; the URI of a URI line. */
  readonly value: string;
}

export interface ByteRange {
  readonly bytes: number;
  readonly at: number | null;
}

export type Attributes = ReadonlyMap<string, string>;

const TAGS_MULTIVARIANT = new Set([
  'EXT-X-MEDIA',
  'EXT-X-STREAM-INF',
  'EXT-X-I-FRAME-STREAM-INF',
  'EXT-X-SESSION-DATA',
  'EXT-X-SESSION-KEY',
  'EXT-X-CONTENT-STEERING',
]);
const TAGS_MEDIA = new Set([
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
const TAGS_ONCE = new Set([
  'EXT-X-VERSION',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
  'EXT-X-ENDLIST',
  'EXT-X-PLAYLIST-TYPE',
  'EXT-X-I-FRAMES-ONLY',
]);
const TAGS_REFUSED: Readonly<Record<string, string>> = {
  'EXT-X-DEFINE': 'variables in playlists are not supported; write the names out',
  'EXT-X-PART': 'partial segments belong to live playlists; only whole titles can be imported',
  'EXT-X-PRELOAD-HINT': 'preload hints belong to live playlists; only whole titles can be imported',
  'EXT-X-SKIP': 'a delta update is not a playlist; import the whole one',
  'EXT-X-PREFETCH': 'prefetch segments belong to live playlists; only whole titles can be imported',
};

/** Splits a playlist and checks what holds for both kinds of it. */
export function readLines(text: string, path: string): Line[] {
  const rows = text.split('\n');
  if (rows.length > LINES_MAX)
    throw complain({ path, line: LINES_MAX }, `the playlist has more than ${LINES_MAX} lines`);
  if ((rows[0] ?? '').replace(/\r$/, '') !== '#EXTM3U')
    throw complain({ path, line: 1 }, `the first line is "${clip((rows[0] ?? '').trim())}", but must be #EXTM3U`);
  const once = new Map<string, number>();
  const lines: Line[] = [];
  for (const [at, row] of rows.entries()) {
    const place = { path, line: at + 1 };
    if (row.length > LINE_CHARS_MAX) throw complain(place, `the line has more than ${LINE_CHARS_MAX} characters`);
    const line = row.trim();
    if (line === '' || (line.startsWith('#') && !line.startsWith('#EXT'))) continue;
    const [tag, value] = splitTag(line);
    if (tag === 'EXTM3U' && at > 0) throw complain(place, '#EXTM3U stands on the first line only');
    if (tag !== null && TAGS_REFUSED[tag] !== undefined) throw complain(place, `#${tag}: ${TAGS_REFUSED[tag]}`);
    if (tag !== null && TAGS_ONCE.has(tag)) {
      if (once.has(tag)) throw complain(place, `#${tag} stands on line ${once.get(tag)} already`);
      once.set(tag, at + 1);
    }
    lines.push({ place, tag, value });
  }
  return lines;
}

/** Throws where tags of the other kind of playlist occur. */
export function assertKind(lines: readonly Line[], kind: 'multivariant' | 'media'): void {
  const [own, foreign] = kind === 'media' ? [TAGS_MEDIA, TAGS_MULTIVARIANT] : [TAGS_MULTIVARIANT, TAGS_MEDIA];
  const stray = lines.find((line) => line.tag !== null && foreign.has(line.tag));
  if (stray === undefined) return;
  const mixed = lines.some((line) => line.tag !== null && own.has(line.tag));
  if (mixed) throw complain(stray.place, `#${stray.tag} does not belong into a ${kind} playlist`);
  throw complain(
    stray.place,
    kind === 'multivariant'
      ? `#${stray.tag}: this is a media playlist; import the multivariant playlist that names it`
      : `#${stray.tag}: this is a multivariant playlist, where a media playlist is expected`,
  );
}

function splitTag(line: string): [string | null, string] {
  if (!line.startsWith('#')) return [null, line];
  const colon = line.indexOf(':');
  return colon < 0 ? [line.slice(1), ''] : [line.slice(1, colon), line.slice(colon + 1)];
}

/** RFC 8216 4.2: names of A-Z 0-9 -, values quoted or without quotes, commas and blanks. Quotes are taken off. */
export function readAttributes(line: Line): Attributes {
  const attributes = new Map<string, string>();
  let rest = line.value;
  while (rest !== '') {
    const match = /^([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^",]*)(?:,\s*|$)/.exec(rest);
    if (match === null) throw complain(line.place, `#${line.tag}: "${clip(rest)}" is no list of NAME=VALUE`);
    const name = match[1]!;
    if (attributes.has(name)) throw complain(line.place, `#${line.tag}: ${name} occurs twice`);
    attributes.set(name, match[2]!);
    rest = rest.slice(match[0].length);
  }
  return attributes;
}

/** The value of a quoted attribute; null where it is absent. */
export function quoted(line: Line, attributes: Attributes, name: string): string | null {
  const value = attributes.get(name);
  if (value === undefined) return null;
  if (!/^".*"$/s.test(value)) throw complain(line.place, `#${line.tag}: ${name} is ${clip(value)}, but must be quoted`);
  return value.slice(1, -1);
}

export function required(line: Line, name: string, value: string | null): string {
  if (value === null || value === '') throw complain(line.place, `#${line.tag} has no ${name}`);
  return value;
}

/** An attribute that must match; null where it is absent. */
export function shaped(line: Line, attributes: Attributes, name: string, shape: RegExp, must: string): string | null {
  const value = attributes.get(name);
  if (value === undefined) return null;
  if (!shape.test(value)) throw complain(line.place, `#${line.tag}: ${name} is ${clip(value)}, but must be ${must}`);
  return value;
}

/** `n[@o]`; the offset is null where it is left out. */
export function readByteRange(line: Line, value: string): ByteRange {
  const match = /^(\d{1,15})(?:@(\d{1,15}))?$/.exec(value);
  if (match === null || Number(match[1]) === 0)
    throw complain(line.place, `#${line.tag}: the byte range is "${clip(value)}", but must be LENGTH or LENGTH@OFFSET`);
  return { bytes: Number(match[1]), at: match[2] === undefined ? null : Number(match[2]) };
}

export const DECIMAL = /^\d{1,15}(\.\d{1,15})?$/;
export const INTEGER = /^\d{1,15}$/;
