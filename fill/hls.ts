// HLS: a multivariant playlist names media playlists, each of which is a rendition. The line check runs first and keeps the
// place of every URI; the playlist library then reads the same text, and both must have seen the same segments.

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
  shaped,
  type Attributes,
  type Line,
} from './hls-lines.ts';
import {
  clip,
  complain,
  RENDITIONS_MAX,
  resolveName,
  SEGMENTS_MAX,
  type Ground,
  type Place,
  type Reference,
  type RenditionDraft,
} from './manifest.ts';

/** A media playlist still to be read, and what the multivariant playlist says of it. */
export type PlaylistEntry = Pick<RenditionDraft, 'id' | 'kind' | 'bandwidth' | 'width' | 'height' | 'language'> & {
  readonly path: string;
  readonly place: Place;
};

export interface Multivariant {
  readonly entries: readonly PlaylistEntry[];
  readonly shared: readonly Reference[];
  readonly name: string | null;
}

export interface MediaPlaylist {
  readonly durationS: number;
  readonly inits: readonly Reference[];
  readonly segments: readonly Reference[];
  readonly keys: readonly Reference[];
}

const RESOLUTION = /^\d{1,5}x\d{1,5}$/;
const YES_NO = /^(YES|NO)$/;
const MEDIA_KIND = { AUDIO: 'audio', VIDEO: 'video', SUBTITLES: 'text' } as const;
const METHODS = /^(NONE|AES-128|SAMPLE-AES|SAMPLE-AES-CTR)$/;

export function readMultivariant(text: string, path: string, ground: Ground): Multivariant {
  const lines = readLines(text, path);
  assertKind(lines, 'multivariant');
  const named = new Map<string, PlaylistEntry>();
  const shared: Reference[] = [];
  const groups = new Set<string>();
  let name: string | null = null;
  const add = (line: Line, uri: string, entry: Omit<PlaylistEntry, 'id' | 'path' | 'place'>): void => {
    const target = resolveName(uri, path, ground, line.place);
    const before = named.get(target);
    const bandwidth = Math.min(before?.bandwidth ?? Infinity, entry.bandwidth ?? Infinity);
    named.set(target, {
      ...(before ?? { ...entry, id: renditionName(target, ground), path: target, place: line.place }),
      // One media playlist in several variants, as with two audio groups: the leanest variant is closest to its own rate.
      bandwidth: Number.isFinite(bandwidth) ? bandwidth : null,
    });
    if (named.size > RENDITIONS_MAX) throw complain(line.place, `a title has at most ${RENDITIONS_MAX} renditions`);
  };
  for (const [at, line] of lines.entries()) {
    if (line.tag === null && lines[at - 1]?.tag !== 'EXT-X-STREAM-INF')
      throw complain(line.place, `"${clip(line.value)}" follows no #EXT-X-STREAM-INF`);
    if (line.tag === 'EXT-X-STREAM-INF') {
      const uri = lines[at + 1];
      if (uri === undefined || uri.tag !== null)
        throw complain(line.place, '#EXT-X-STREAM-INF has no URI line after it');
      add(uri, uri.value, readVariant(line, 'video'));
    } else if (line.tag === 'EXT-X-I-FRAME-STREAM-INF') {
      const variant = readVariant(line, 'iframe');
      add(line, required(line, 'URI', quoted(line, readAttributes(line), 'URI')), variant);
    } else if (line.tag === 'EXT-X-MEDIA') {
      const media = readMedia(line);
      groups.add(`${media.type}:${media.group}`);
      if (media.uri !== null)
        add(line, media.uri, {
          kind: media.kind,
          bandwidth: null,
          width: null,
          height: null,
          language: media.language,
        });
    } else if (line.tag === 'EXT-X-SESSION-DATA') {
      const data = readSessionData(line);
      if (data.uri !== null) shared.push(reference(resolveName(data.uri, path, ground, line.place), line.place));
      if (data.id === 'com.apple.hls.title' && data.value !== null) name = data.value;
    } else if (line.tag === 'EXT-X-SESSION-KEY') shared.push(...readKey(line, path, ground));
  }
  assertGroups(lines, groups);
  if (!lines.some((line) => line.tag === 'EXT-X-STREAM-INF'))
    throw complain({ path, line: lines.at(-1)?.place.line ?? 1 }, 'the playlist names no variant (#EXT-X-STREAM-INF)');
  parseWhole(text, path);
  return { entries: [...named.values()], shared, name };
}

export function readMediaPlaylist(text: string, path: string, ground: Ground): MediaPlaylist {
  const lines = readLines(text, path);
  assertKind(lines, 'media');
  const last = lines.at(-1)?.place ?? { path, line: 1 };
  const segments: Reference[] = [];
  const inits: Reference[] = [];
  const keys: Reference[] = [];
  let open: {
    readonly line: Line;
    readonly range: ReturnType<typeof readByteRange> | null;
    readonly gap: boolean;
  } | null = null;
  let pending: { range: ReturnType<typeof readByteRange> | null; gap: boolean } = { range: null, gap: false };
  let previous: Reference | null = null;
  for (const line of lines) {
    if (line.tag === 'EXTINF') {
      if (open !== null)
        throw complain(open.line.place, `#EXTINF has no URI before the next one on line ${line.place.line}`);
      readDuration(line);
      open = { line, range: null, gap: false };
    } else if (line.tag === 'EXT-X-BYTERANGE') pending = { ...pending, range: readByteRange(line, line.value) };
    else if (line.tag === 'EXT-X-GAP') pending = { ...pending, gap: true };
    else if (line.tag === 'EXT-X-MAP') inits.push(readMap(line, path, ground));
    else if (line.tag === 'EXT-X-KEY') keys.push(...readKey(line, path, ground));
    else if (line.tag === 'EXT-X-TARGETDURATION' || line.tag === 'EXT-X-VERSION') assertInteger(line);
    else if (line.tag === 'EXT-X-MEDIA-SEQUENCE' || line.tag === 'EXT-X-DISCONTINUITY-SEQUENCE') assertInteger(line);
    else if (line.tag === 'EXT-X-PLAYLIST-TYPE' && line.value !== 'VOD' && line.value !== 'EVENT')
      throw complain(line.place, `#EXT-X-PLAYLIST-TYPE is ${clip(line.value)}, but must be VOD or EVENT`);
    else if (line.tag === null) {
      if (open === null) throw complain(line.place, `"${clip(line.value)}" has no #EXTINF before it`);
      const target = resolveName(line.value, path, ground, line.place);
      previous = locate(line, target, pending.range, previous);
      // RFC 8216bis 4.4.4.7: a segment marked as a gap does not exist.
      if (!pending.gap) segments.push(previous);
      if (segments.length > SEGMENTS_MAX) throw complain(line.place, `a playlist has at most ${SEGMENTS_MAX} segments`);
      open = null;
      pending = { range: null, gap: false };
    }
  }
  if (open !== null) throw complain(open.line.place, '#EXTINF has no URI after it');
  for (const tag of ['EXT-X-TARGETDURATION'])
    if (!lines.some((line) => line.tag === tag)) throw complain({ path, line: 1 }, `the playlist has no #${tag}`);
  if (!lines.some((line) => line.tag === 'EXT-X-ENDLIST'))
    throw complain(last, 'the playlist ends without #EXT-X-ENDLIST: it is live, and only whole titles can be imported');
  if (segments.length === 0) throw complain(last, 'the playlist has no segment');
  return { durationS: durationOf(text, path, lines), inits, segments, keys };
}

function readVariant(line: Line, kind: 'video' | 'iframe'): Omit<PlaylistEntry, 'id' | 'path' | 'place'> {
  const attributes = readAttributes(line);
  const bandwidth = shaped(line, attributes, 'BANDWIDTH', INTEGER, 'bits per second in whole numbers');
  required(line, 'BANDWIDTH', bandwidth);
  shaped(line, attributes, 'AVERAGE-BANDWIDTH', INTEGER, 'bits per second in whole numbers');
  shaped(line, attributes, 'FRAME-RATE', DECIMAL, 'a number');
  const codecs = quoted(line, attributes, 'CODECS');
  const resolution = shaped(line, attributes, 'RESOLUTION', RESOLUTION, 'WIDTHxHEIGHT');
  const [width, height] = resolution?.split('x').map(Number) ?? [null, null];
  const sound =
    resolution === null &&
    codecs !== null &&
    codecs.split(',').every((codec) => /^(mp4a|ac-3|ec-3|opus|fLaC)/i.test(codec.trim()));
  return {
    kind: sound && kind === 'video' ? 'audio' : kind,
    bandwidth: Number(bandwidth),
    width: width ?? null,
    height: height ?? null,
    language: null,
  };
}

function readMedia(line: Line): {
  readonly type: string;
  readonly kind: 'audio' | 'video' | 'text';
  readonly group: string;
  readonly uri: string | null;
  readonly language: string | null;
} {
  const attributes = readAttributes(line);
  const type = required(
    line,
    'TYPE',
    shaped(
      line,
      attributes,
      'TYPE',
      /^(AUDIO|VIDEO|SUBTITLES|CLOSED-CAPTIONS)$/,
      'AUDIO, VIDEO, SUBTITLES or CLOSED-CAPTIONS',
    ),
  );
  const group = required(line, 'GROUP-ID', quoted(line, attributes, 'GROUP-ID'));
  required(line, 'NAME', quoted(line, attributes, 'NAME'));
  for (const name of ['DEFAULT', 'AUTOSELECT', 'FORCED']) shaped(line, attributes, name, YES_NO, 'YES or NO');
  const uri = quoted(line, attributes, 'URI');
  if (type === 'CLOSED-CAPTIONS' && uri !== null)
    throw complain(line.place, '#EXT-X-MEDIA: closed captions have no URI');
  if (type === 'SUBTITLES' || uri !== null) required(line, 'URI', uri);
  const language = quoted(line, attributes, 'LANGUAGE');
  if (language !== null && language.length > 35)
    throw complain(line.place, `#EXT-X-MEDIA: LANGUAGE is ${clip(language)}, but has at most 35 characters`);
  return { type, kind: MEDIA_KIND[type as keyof typeof MEDIA_KIND] ?? 'text', group, uri, language };
}

/** Every AUDIO, VIDEO, SUBTITLES of a variant names a group that exists. */
function assertGroups(lines: readonly Line[], groups: ReadonlySet<string>): void {
  for (const line of lines) {
    if (line.tag !== 'EXT-X-STREAM-INF') continue;
    const attributes = readAttributes(line);
    for (const type of ['AUDIO', 'VIDEO', 'SUBTITLES']) {
      const group = quoted(line, attributes, type);
      if (group !== null && !groups.has(`${type}:${group}`))
        throw complain(line.place, `#EXT-X-STREAM-INF: ${type}="${clip(group)}" is the GROUP-ID of no #EXT-X-MEDIA`);
    }
  }
}

function readSessionData(line: Line): {
  readonly id: string;
  readonly uri: string | null;
  readonly value: string | null;
} {
  const attributes = readAttributes(line);
  const id = required(line, 'DATA-ID', quoted(line, attributes, 'DATA-ID'));
  const value = quoted(line, attributes, 'VALUE');
  const uri = quoted(line, attributes, 'URI');
  if ((value === null) === (uri === null))
    throw complain(line.place, '#EXT-X-SESSION-DATA needs a VALUE or a URI, one of both');
  return { id, uri, value };
}

/**
 * The key file, where it is an asset of the title. A key for a DRM system, or one that a key server on another host hands
 * out, is carried unchanged: players ask for it themselves.
 */
function readKey(line: Line, path: string, ground: Ground): Reference[] {
  const attributes: Attributes = readAttributes(line);
  const method = required(
    line,
    'METHOD',
    shaped(line, attributes, 'METHOD', METHODS, 'NONE, AES-128, SAMPLE-AES or SAMPLE-AES-CTR'),
  );
  shaped(line, attributes, 'IV', /^0[xX][0-9A-Fa-f]{1,32}$/, '0x and up to 32 hexadecimal digits');
  const uri = quoted(line, attributes, 'URI');
  if (method === 'NONE') {
    if (uri !== null) throw complain(line.place, `#${line.tag}: METHOD=NONE has no URI`);
    return [];
  }
  const name = required(line, 'URI', uri);
  const format = quoted(line, attributes, 'KEYFORMAT') ?? 'identity';
  if (format !== 'identity' || /^[A-Za-z][A-Za-z0-9+.-]*:/.test(name)) return [];
  return [reference(resolveName(name, path, ground, line.place), line.place)];
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

function readDuration(line: Line): void {
  const duration = line.value.split(',', 1)[0]!;
  if (!DECIMAL.test(duration))
    throw complain(
      line.place,
      `#EXTINF: the duration is "${clip(duration)}", but must be seconds, as in #EXTINF:4.004,`,
    );
}

function assertInteger(line: Line): void {
  if (!INTEGER.test(line.value))
    throw complain(line.place, `#${line.tag} is "${clip(line.value)}", but must be a whole number`);
}

/** RFC 8216 4.3.2.2: without an offset, the range begins after that of the segment before, in the same file. */
function locate(
  line: Line,
  path: string,
  range: ReturnType<typeof readByteRange> | null,
  previous: Reference | null,
): Reference {
  if (range === null) return reference(path, line.place);
  if (range.at === null && (previous === null || previous.path !== path || previous.endBytes === null))
    throw complain(line.place, '#EXT-X-BYTERANGE has no offset, and the segment before is no range of the same file');
  return { ...reference(path, line.place), endBytes: (range.at ?? previous!.endBytes!) + range.bytes };
}

const reference = (path: string, place: Place): Reference => ({ path, place, endBytes: null, indexAt: null });

/** The library's reading of the durations. It must have found the segments that the line check found. */
function durationOf(text: string, path: string, lines: readonly Line[]): number {
  const playlist = parseWhole(text, path);
  assert(playlist instanceof HLS.types.MediaPlaylist);
  assert.equal(playlist.segments.length, lines.filter((line) => line.tag === null).length, `segments of ${path}`);
  return playlist.segments.reduce((total, segment) => total + segment.duration, 0);
}

function parseWhole(text: string, path: string): ReturnType<typeof HLS.parse> {
  // Silent: it would print what it tolerates; what matters of that, the line check has refused.
  HLS.setOptions({ silent: true, strictMode: false });
  try {
    return HLS.parse(text);
  } catch (error) {
    throw complain(
      { path, line: 1 },
      `the playlist library refuses it: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

const PLAIN_NAMES = /^(index|playlist|prog_index|main|media|stream|chunklist)$/i;

/** `video/360p/index.m3u8` and `video/360p.m3u8` are `video/360p`. */
function renditionName(path: string, ground: Ground): string {
  const words = decodeURIComponent(path.slice(ground.base.length)).split('/');
  const file = words.pop()!.replace(/\.m3u8?$/i, '');
  const kept = words.length > 0 && PLAIN_NAMES.test(file) ? words : [...words, file];
  return kept.join('/');
}
