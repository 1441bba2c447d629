// A media playlist: the segments of one rendition with their byte ranges, initialization sections and keys. The line check runs
// first and keeps the location of every URI; the playlist library then parses the same text, and both must agree on the number
// of segments.

import { strict as assert } from 'node:assert';
import HLS from 'hls-parser';
import {
  assertPlaylistKind,
  AttributeList,
  DECIMAL,
  INTEGER,
  parseByteRange,
  parseLines,
  type ByteRange,
  type PlaylistLine,
} from './hls-lines.ts';
import { parseKey, parseWithLibrary, wholeAsset } from './hls-shared.ts';
import { manifestFault, resolveUri, SEGMENTS_MAX, shorten, type AssetReference, type TitleRoot } from './manifest.ts';

interface MediaPlaylist {
  readonly durationS: number;
  readonly inits: readonly AssetReference[];
  readonly segments: readonly AssetReference[];
  readonly keys: readonly AssetReference[];
}

const INTEGER_TAGS = new Set([
  'EXT-X-VERSION',
  'EXT-X-TARGETDURATION',
  'EXT-X-MEDIA-SEQUENCE',
  'EXT-X-DISCONTINUITY-SEQUENCE',
]);

export function parseMediaPlaylist(text: string, path: string, titleRoot: TitleRoot): MediaPlaylist {
  const lines = parseLines(text, path);
  assertPlaylistKind(lines, 'media');
  const parser = new SegmentParser(path, titleRoot);
  for (const line of lines) parser.add(line);
  const { segments, inits, keys } = parser.end();
  const end = lines.at(-1)!.location;
  if (!hasTag(lines, 'EXT-X-TARGETDURATION'))
    throw manifestFault({ path, line: 1 }, 'the playlist has no #EXT-X-TARGETDURATION');
  if (!hasTag(lines, 'EXT-X-ENDLIST'))
    throw manifestFault(
      end,
      'the playlist ends without #EXT-X-ENDLIST: it is live, and only whole titles can be imported',
    );
  if (segments.length === 0) throw manifestFault(end, 'the playlist has no segment');
  return { durationS: parseDuration(text, path, lines), inits, segments, keys };
}

const hasTag = (lines: readonly PlaylistLine[], tag: string): boolean => lines.some((line) => line.tag === tag);

/** Collects segments line by line: the tags before a URI apply to the segment that the URI names. */
class SegmentParser {
  readonly #path: string;
  readonly #titleRoot: TitleRoot;
  readonly #segments: AssetReference[] = [];
  readonly #inits: AssetReference[] = [];
  readonly #keys: AssetReference[] = [];
  /** The EXTINF whose URI has not come yet. */
  #extinf: PlaylistLine | null = null;
  #range: ByteRange | null = null;
  #isGap = false;
  #previous: AssetReference | null = null;

  constructor(path: string, titleRoot: TitleRoot) {
    this.#path = path;
    this.#titleRoot = titleRoot;
  }

  add(line: PlaylistLine): void {
    const { tag, value, location } = line;
    if (tag === null) this.#addSegment(line);
    else if (tag === 'EXTINF') this.#addDuration(line);
    else if (tag === 'EXT-X-BYTERANGE') this.#range = parseByteRange(line, value);
    else if (tag === 'EXT-X-GAP') this.#isGap = true;
    else if (tag === 'EXT-X-MAP') this.#inits.push(parseMap(line, this.#path, this.#titleRoot));
    else if (tag === 'EXT-X-KEY') this.#keys.push(...parseKey(line, this.#path, this.#titleRoot));
    else if (tag === 'EXT-X-PLAYLIST-TYPE' && value !== 'VOD' && value !== 'EVENT')
      throw manifestFault(location, `#EXT-X-PLAYLIST-TYPE is ${shorten(value)}, but must be VOD or EVENT`);
    else if (INTEGER_TAGS.has(tag) && !INTEGER.test(value))
      throw manifestFault(location, `#${tag} is "${shorten(value)}", but must be a whole number`);
  }

  end(): Pick<MediaPlaylist, 'segments' | 'inits' | 'keys'> {
    if (this.#extinf !== null) throw manifestFault(this.#extinf.location, '#EXTINF has no URI after it');
    return { segments: this.#segments, inits: this.#inits, keys: this.#keys };
  }

  #addDuration(line: PlaylistLine): void {
    const { value, location } = line;
    if (this.#extinf !== null)
      throw manifestFault(this.#extinf.location, `#EXTINF has no URI before the next one on line ${location.line}`);
    const duration = value.split(',', 1)[0]!;
    if (!DECIMAL.test(duration))
      throw manifestFault(
        location,
        `#EXTINF: the duration is "${shorten(duration)}", but must be seconds, as in 4.004`,
      );
    this.#extinf = line;
  }

  #addSegment({ value: uri, location }: PlaylistLine): void {
    if (this.#extinf === null) throw manifestFault(location, `"${shorten(uri)}" has no #EXTINF before it`);
    const path = resolveUri(uri, { baseUrl: this.#path, titleRoot: this.#titleRoot, location });
    this.#previous = withRange(wholeAsset(path, location), this.#range, this.#previous);
    // RFC 8216bis 4.4.4.7: the file of a segment that is marked as a gap need not exist.
    if (!this.#isGap) this.#segments.push(this.#previous);
    if (this.#segments.length > SEGMENTS_MAX)
      throw manifestFault(location, `a playlist has at most ${SEGMENTS_MAX} segments`);
    this.#extinf = null;
    this.#range = null;
    this.#isGap = false;
  }
}

/** RFC 8216 4.3.2.2: a range without an offset begins where that of the previous segment ended, in the same file. */
function withRange(segment: AssetReference, range: ByteRange | null, previous: AssetReference | null): AssetReference {
  if (range === null) return segment;
  const previousEnd = previous?.path === segment.path ? previous.rangeEnd : null;
  const offset = range.offset ?? previousEnd;
  if (offset === null)
    throw manifestFault(
      segment.location,
      '#EXT-X-BYTERANGE has no offset, and the segment before is no range of the same file',
    );
  return { ...segment, rangeEnd: offset + range.lengthBytes };
}

function parseMap(line: PlaylistLine, baseUrl: string, titleRoot: TitleRoot): AssetReference {
  const { location } = line;
  const attributes = new AttributeList(line);
  const uri = attributes.required('URI', attributes.quoted('URI'));
  const range = attributes.quoted('BYTERANGE');
  const init = wholeAsset(resolveUri(uri, { baseUrl, titleRoot, location }), location);
  if (range === null) return init;
  const { lengthBytes, offset } = parseByteRange(line, range);
  return { ...init, rangeEnd: (offset ?? 0) + lengthBytes };
}

/** Seconds, summed from the library's segments. */
function parseDuration(text: string, path: string, lines: readonly PlaylistLine[]): number {
  const playlist = parseWithLibrary(text, path);
  assert(playlist instanceof HLS.types.MediaPlaylist, `${path} is no media playlist to the library`);
  assert.equal(playlist.segments.length, lines.filter((line) => line.tag === null).length, `segments of ${path}`);
  return playlist.segments.reduce((total, segment) => total + segment.duration, 0);
}
