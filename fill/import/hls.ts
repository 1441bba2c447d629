// HLS: a multivariant playlist names media playlists, each of which is a rendition. The line check runs first, and every
// name keeps its place; the playlist library then reads the whole.

import {
  assertKind,
  DECIMAL,
  INTEGER,
  quoted,
  readAttributes,
  readLines,
  required,
  shaped,
  type Line,
} from './hls-lines.ts';
import { parseWhole, readKey, reference } from './hls-shared.ts';
import {
  clip,
  complain,
  RENDITIONS_MAX,
  resolveName,
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

const RESOLUTION = /^\d{1,5}x\d{1,5}$/;
const YES_NO = /^(YES|NO)$/;
const MEDIA_TYPES = /^(AUDIO|VIDEO|SUBTITLES|CLOSED-CAPTIONS)$/;

export function readMultivariant(text: string, path: string, ground: Ground): Multivariant {
  const lines = readLines(text, path);
  assertKind(lines, 'multivariant');
  const entries = new Map<string, PlaylistEntry>();
  const shared: Reference[] = [];
  const groups = new Set<string>();
  let name: string | null = null;
  for (const [at, line] of lines.entries()) {
    const entry = readEntry(line, lines[at - 1], lines[at + 1]);
    if (entry !== null) addEntry(entries, entry, path, ground);
    if (line.tag === 'EXT-X-MEDIA') groups.add(groupOf(line));
    if (line.tag === 'EXT-X-SESSION-KEY') shared.push(...readKey(line, path, ground));
    if (line.tag !== 'EXT-X-SESSION-DATA') continue;
    const data = readSessionData(line);
    if (data.uri !== null) shared.push(reference(resolveName(data.uri, path, ground, line.place), line.place));
    if (data.id === 'com.apple.hls.title') name = data.value ?? name;
  }
  assertGroups(lines, groups);
  if (!lines.some((line) => line.tag === 'EXT-X-STREAM-INF'))
    throw complain(lines.at(-1)!.place, 'the playlist names no variant (#EXT-X-STREAM-INF)');
  parseWhole(text, path);
  return { entries: [...entries.values()], shared, name };
}

/** A media playlist as one tag names it. */
interface Named extends Omit<PlaylistEntry, 'id' | 'path'> {
  readonly uri: string;
}

/** Null for a line that names no media playlist. */
function readEntry(line: Line, before: Line | undefined, after: Line | undefined): Named | null {
  switch (line.tag) {
    case null:
      if (before?.tag === 'EXT-X-STREAM-INF') return null;
      throw complain(line.place, `"${clip(line.value)}" follows no #EXT-X-STREAM-INF`);
    case 'EXT-X-STREAM-INF':
      if (after === undefined || after.tag !== null)
        throw complain(line.place, '#EXT-X-STREAM-INF has no URI line after it');
      return { ...readVariant(line, 'video'), uri: after.value, place: after.place };
    case 'EXT-X-I-FRAME-STREAM-INF':
      return {
        ...readVariant(line, 'iframe'),
        uri: required(line, 'URI', quoted(line, readAttributes(line), 'URI')),
        place: line.place,
      };
    case 'EXT-X-MEDIA':
      return readMedia(line);
    default:
      return null;
  }
}

function addEntry(entries: Map<string, PlaylistEntry>, entry: Named, path: string, ground: Ground): void {
  const { uri, ...description } = entry;
  const target = resolveName(uri, path, ground, entry.place);
  const before = entries.get(target) ?? { ...description, id: renditionName(target, ground), path: target };
  // One media playlist in several variants, as with two audio groups: the leanest is closest to its own rate.
  const rates = [before.bandwidth, entry.bandwidth].filter((rate) => rate !== null);
  entries.set(target, { ...before, bandwidth: rates.length === 0 ? null : Math.min(...rates) });
  if (entries.size > RENDITIONS_MAX) throw complain(entry.place, `a title has at most ${RENDITIONS_MAX} renditions`);
}

function readVariant(line: Line, kind: 'video' | 'iframe'): Omit<Named, 'uri' | 'place'> {
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

/** Null where the group's media is in the variant itself, or is closed captions. */
function readMedia(line: Line): Named | null {
  const attributes = readAttributes(line);
  const type = required(line, 'TYPE', shaped(line, attributes, 'TYPE', MEDIA_TYPES, 'a media type of RFC 8216'));
  required(line, 'GROUP-ID', quoted(line, attributes, 'GROUP-ID'));
  required(line, 'NAME', quoted(line, attributes, 'NAME'));
  for (const name of ['DEFAULT', 'AUTOSELECT', 'FORCED']) shaped(line, attributes, name, YES_NO, 'YES or NO');
  const uri = quoted(line, attributes, 'URI');
  if (type === 'CLOSED-CAPTIONS' && uri !== null)
    throw complain(line.place, '#EXT-X-MEDIA: closed captions have no URI');
  if (type === 'SUBTITLES' || uri !== null) required(line, 'URI', uri);
  const language = quoted(line, attributes, 'LANGUAGE');
  if (language !== null && language.length > 35)
    throw complain(line.place, `#EXT-X-MEDIA: LANGUAGE is ${clip(language)}, but has at most 35 characters`);
  if (uri === null) return null;
  const kind = type === 'AUDIO' ? 'audio' : type === 'VIDEO' ? 'video' : 'text';
  return { kind, uri, language, bandwidth: null, width: null, height: null, place: line.place };
}

function groupOf(line: Line): string {
  const attributes = readAttributes(line);
  return `${attributes.get('TYPE')}:${quoted(line, attributes, 'GROUP-ID')}`;
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

const PLAIN_NAMES = /^(index|playlist|prog_index|main|media|stream|chunklist)$/i;

/** `video/360p/index.m3u8` and `video/360p.m3u8` are `video/360p`. */
function renditionName(path: string, ground: Ground): string {
  const words = path.slice(ground.base.length).split('/');
  const file = words.pop()!.replace(/\.m3u8?$/i, '');
  const kept = words.length > 0 && PLAIN_NAMES.test(file) ? words : [...words, file];
  return kept.join('/');
}
