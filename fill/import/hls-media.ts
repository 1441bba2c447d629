// A media playlist: the segments of one rendition, with their byte ranges, initialization sections and keys. The line check
// runs first and keeps the place of every URI; the playlist library then reads the same text, and both must have seen the
// same segments.

import { strict as assert } from 'node:assert';
import HLS from 'hls-parser';
import {
  assertKind,
  DECIMAL,
  INTEGER,
  quoted,
  readAttributes,
  readByteRange,
  readLines,
  required,
  type ByteRange,
  type Line,
} from './hls-lines.ts';
import { parseWhole, readKey, reference } from './hls-shared.ts';
import { clip, complain, resolveName, SEGMENTS_MAX, type Ground, type Reference } from './manifest.ts';

export interface MediaPlaylist {
  readonly durationS: number;
  readonly inits: readonly Reference[];
  readonly segments: readonly Reference[];
  readonly keys: readonly Reference[];
}

const TAGS_INTEGER = new Set([
  'EXT-X-VERSION',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
]);

export function readMediaPlaylist(text: string, path: string, ground: Ground): MediaPlaylist {
  const lines = readLines(text, path);
  assertKind(lines, 'media');
  const reader = new SegmentReader(path, ground);
  for (const line of lines) reader.take(line);
  const { segments, inits, keys } = reader.end();
  const last = lines.at(-1)!.place;
  if (!hasTag(lines, 'EXT-X-TARGETDURATION'))
    throw complain({ path, line: 1 }, 'the playlist has no #EXT-X-TARGETDURATION');
  if (!hasTag(lines, 'EXT-X-ENDLIST'))
    throw complain(last, 'the playlist ends without #EXT-X-ENDLIST: it is live, and only whole titles can be imported');
  if (segments.length === 0) throw complain(last, 'the playlist has no segment');
  return { durationS: durationOf(text, path, lines), inits, segments, keys };
}

const hasTag = (lines: readonly Line[], tag: string): boolean => lines.some((line) => line.tag === tag);

/** Takes lines in order; what stands before a URI belongs to it. */
class SegmentReader {
  readonly #path: string;
  readonly #ground: Ground;
  readonly #segments: Reference[] = [];
  readonly #inits: Reference[] = [];
  readonly #keys: Reference[] = [];
  /** The EXTINF that waits for its URI. */
  #open: Line | null = null;
  #range: ByteRange | null = null;
  #gap = false;
  #previous: Reference | null = null;

  constructor(path: string, ground: Ground) {
    this.#path = path;
    this.#ground = ground;
  }

  take(line: Line): void {
    if (line.tag === null) this.#takeUri(line);
    else if (line.tag === 'EXTINF') this.#takeDuration(line);
    else if (line.tag === 'EXT-X-BYTERANGE') this.#range = readByteRange(line, line.value);
    else if (line.tag === 'EXT-X-GAP') this.#gap = true;
    else if (line.tag === 'EXT-X-MAP') this.#inits.push(readMap(line, this.#path, this.#ground));
    else if (line.tag === 'EXT-X-KEY') this.#keys.push(...readKey(line, this.#path, this.#ground));
    else if (line.tag === 'EXT-X-PLAYLIST-TYPE' && line.value !== 'VOD' && line.value !== 'EVENT')
      throw complain(line.place, `#EXT-X-PLAYLIST-TYPE is ${clip(line.value)}, but must be VOD or EVENT`);
    else if (TAGS_INTEGER.has(line.tag) && !INTEGER.test(line.value))
      throw complain(line.place, `#${line.tag} is "${clip(line.value)}", but must be a whole number`);
  }

  end(): Pick<MediaPlaylist, 'segments' | 'inits' | 'keys'> {
    if (this.#open !== null) throw complain(this.#open.place, '#EXTINF has no URI after it');
    return { segments: this.#segments, inits: this.#inits, keys: this.#keys };
  }

  #takeDuration(line: Line): void {
    if (this.#open !== null)
      throw complain(this.#open.place, `#EXTINF has no URI before the next one on line ${line.place.line}`);
    const duration = line.value.split(',', 1)[0]!;
    if (!DECIMAL.test(duration))
      throw complain(line.place, `#EXTINF: the duration is "${clip(duration)}", but must be seconds, as in 4.004`);
    this.#open = line;
  }

  #takeUri(line: Line): void {
    if (this.#open === null) throw complain(line.place, `"${clip(line.value)}" has no #EXTINF before it`);
    const target = resolveName(line.value, this.#path, this.#ground, line.place);
    this.#previous = locate(line, target, this.#range, this.#previous);
    // RFC 8216bis 4.4.4.7: the file of a segment that is marked as a gap need not exist.
    if (!this.#gap) this.#segments.push(this.#previous);
    if (this.#segments.length > SEGMENTS_MAX)
      throw complain(line.place, `a playlist has at most ${SEGMENTS_MAX} segments`);
    this.#open = null;
    this.#range = null;
    this.#gap = false;
  }
}

/** RFC 8216 4.3.2.2: without an offset, the range begins after that of the segment before, in the same file. */
function locate(line: Line, path: string, range: ByteRange | null, previous: Reference | null): Reference {
  if (range === null) return reference(path, line.place);
  if (range.at === null && (previous === null || previous.path !== path || previous.endBytes === null))
    throw complain(line.place, '#EXT-X-BYTERANGE has no offset, and the segment before is no range of the same file');
  return { ...reference(path, line.place), endBytes: (range.at ?? previous!.endBytes!) + range.bytes };
}

function readMap(line: Line, path: string, ground: Ground): Reference {
  const attributes = readAttributes(line);
  const uri = required(line, 'URI', quoted(line, attributes, 'URI'));
  const range = quoted(line, attributes, 'BYTERANGE');
  const target = resolveName(uri, path, ground, line.place);
  if (range === null) return reference(target, line.place);
  const { bytes, at } = readByteRange(line, range);
  return { ...reference(target, line.place), endBytes: (at ?? 0) + bytes };
}

/** The library's reading of the durations. It must have found the segments that the line check found. */
function durationOf(text: string, path: string, lines: readonly Line[]): number {
  const playlist = parseWhole(text, path);
  assert(playlist instanceof HLS.types.MediaPlaylist, `${path} is no media playlist to the library`);
  assert.equal(playlist.segments.length, lines.filter((line) => line.tag === null).length, `segments of ${path}`);
  return playlist.segments.reduce((total, segment) => total + segment.duration, 0);
}
