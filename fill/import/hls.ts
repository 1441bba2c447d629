// HLS: a multivariant playlist references media playlists, each of which is a rendition. The line check runs first and keeps the
// location of every URI; the playlist library then parses the whole document.

import { assertPlaylistKind, AttributeList, DECIMAL, INTEGER, parseLines, type PlaylistLine } from './hls-lines.ts';
import { parseKey, parseWithLibrary, wholeAsset } from './hls-shared.ts';
import {
  manifestFault,
  RENDITIONS_MAX,
  resolveUri,
  shorten,
  type AssetReference,
  type ParsedRendition,
  type SourceLocation,
  type TitleRoot,
} from './manifest.ts';

/** A reference to a media playlist, with the multivariant playlist's description of it. */
type MediaPlaylistEntry = Pick<ParsedRendition, 'id' | 'kind' | 'bandwidth' | 'width' | 'height' | 'language'> & {
  readonly path: string;
  readonly location: SourceLocation;
};

interface MultivariantPlaylist {
  readonly entries: readonly MediaPlaylistEntry[];
  readonly shared: readonly AssetReference[];
  readonly name: string | null;
}

const RESOLUTION = /^\d{1,5}x\d{1,5}$/;
const YES_NO = /^(YES|NO)$/;
const MEDIA_TYPES = /^(AUDIO|VIDEO|SUBTITLES|CLOSED-CAPTIONS)$/;
const AUDIO_CODECS = /^(mp4a|ac-3|ec-3|opus|fLaC)/i;
/** The catalog's limit for a language tag. */
const LANGUAGE_CHARS_MAX = 35;

export function parseMultivariant(text: string, path: string, titleRoot: TitleRoot): MultivariantPlaylist {
  const lines = parseLines(text, path);
  assertPlaylistKind(lines, 'multivariant');
  const entries = new Map<string, MediaPlaylistEntry>();
  const shared: AssetReference[] = [];
  const groups = new Set<string>();
  let name: string | null = null;
  for (const [index, line] of lines.entries()) {
    const { tag, location } = line;
    const named = parseEntry(line, lines[index - 1], lines[index + 1]);
    if (named !== null) addEntry(entries, named, path, titleRoot);
    if (tag === 'EXT-X-MEDIA') groups.add(groupOf(line));
    if (tag === 'EXT-X-SESSION-KEY') shared.push(...parseKey(line, path, titleRoot));
    if (tag !== 'EXT-X-SESSION-DATA') continue;
    const { id, uri, value } = parseSessionData(line);
    if (uri !== null) shared.push(wholeAsset(resolveUri(uri, { baseUrl: path, titleRoot, location }), location));
    if (id === 'com.apple.hls.title') name = value ?? name;
  }
  assertGroupsExist(lines, groups);
  if (!lines.some((line) => line.tag === 'EXT-X-STREAM-INF'))
    throw manifestFault(lines.at(-1)!.location, 'the playlist names no variant (#EXT-X-STREAM-INF)');
  parseWithLibrary(text, path);
  return { entries: [...entries.values()], shared, name };
}

/** A media playlist as one tag names it, before its URI is resolved. */
interface NamedPlaylist extends Omit<MediaPlaylistEntry, 'id' | 'path'> {
  readonly uri: string;
}

/** Null for a line that names no media playlist. */
function parseEntry(
  line: PlaylistLine,
  previous: PlaylistLine | undefined,
  next: PlaylistLine | undefined,
): NamedPlaylist | null {
  const { tag, location, value } = line;
  switch (tag) {
    case null:
      if (previous?.tag === 'EXT-X-STREAM-INF') return null;
      throw manifestFault(location, `"${shorten(value)}" follows no #EXT-X-STREAM-INF`);
    case 'EXT-X-STREAM-INF':
      if (next === undefined || next.tag !== null)
        throw manifestFault(location, '#EXT-X-STREAM-INF has no URI line after it');
      return { ...parseVariant(line, 'video'), uri: next.value, location: next.location };
    case 'EXT-X-I-FRAME-STREAM-INF': {
      const variant = parseVariant(line, 'iframe');
      const attributes = new AttributeList(line);
      return { ...variant, uri: attributes.required('URI', attributes.quoted('URI')), location };
    }
    case 'EXT-X-MEDIA':
      return parseMedia(line);
    default:
      return null;
  }
}

function addEntry(
  entries: Map<string, MediaPlaylistEntry>,
  named: NamedPlaylist,
  baseUrl: string,
  titleRoot: TitleRoot,
): void {
  const { uri, ...description } = named;
  const path = resolveUri(uri, { baseUrl, titleRoot, location: named.location });
  const entry = entries.get(path) ?? { ...description, id: renditionName(path, titleRoot), path };
  // Several variants may share a media playlist, as with two audio groups. The lowest bandwidth is closest to its own.
  const bandwidths = [entry.bandwidth, named.bandwidth].filter((bandwidth) => bandwidth !== null);
  entries.set(path, { ...entry, bandwidth: bandwidths.length === 0 ? null : Math.min(...bandwidths) });
  if (entries.size > RENDITIONS_MAX)
    throw manifestFault(named.location, `a title has at most ${RENDITIONS_MAX} renditions`);
}

function parseVariant(line: PlaylistLine, kind: 'video' | 'iframe'): Omit<NamedPlaylist, 'uri' | 'location'> {
  const attributes = new AttributeList(line);
  const bandwidth = attributes.matching('BANDWIDTH', INTEGER, 'bits per second in whole numbers');
  attributes.required('BANDWIDTH', bandwidth);
  attributes.matching('AVERAGE-BANDWIDTH', INTEGER, 'bits per second in whole numbers');
  attributes.matching('FRAME-RATE', DECIMAL, 'a number');
  const codecs = attributes.quoted('CODECS');
  const resolution = attributes.matching('RESOLUTION', RESOLUTION, 'WIDTHxHEIGHT');
  const [width, height] = resolution?.split('x').map(Number) ?? [null, null];
  const audioOnly =
    resolution === null && codecs !== null && codecs.split(',').every((codec) => AUDIO_CODECS.test(codec.trim()));
  return {
    kind: audioOnly && kind === 'video' ? 'audio' : kind,
    bandwidth: Number(bandwidth),
    width: width ?? null,
    height: height ?? null,
    language: null,
  };
}

/** Null if the media is part of the variant itself, or is closed captions. */
function parseMedia(line: PlaylistLine): NamedPlaylist | null {
  const { location } = line;
  const attributes = new AttributeList(line);
  const type = attributes.required('TYPE', attributes.matching('TYPE', MEDIA_TYPES, 'a media type of RFC 8216'));
  attributes.required('GROUP-ID', attributes.quoted('GROUP-ID'));
  attributes.required('NAME', attributes.quoted('NAME'));
  for (const name of ['DEFAULT', 'AUTOSELECT', 'FORCED']) attributes.matching(name, YES_NO, 'YES or NO');
  const uri = attributes.quoted('URI');
  if (type === 'CLOSED-CAPTIONS' && uri !== null)
    throw manifestFault(location, '#EXT-X-MEDIA: closed captions have no URI');
  if (type === 'SUBTITLES' || uri !== null) attributes.required('URI', uri);
  const language = attributes.quoted('LANGUAGE');
  if (language !== null && language.length > LANGUAGE_CHARS_MAX)
    throw manifestFault(
      location,
      `#EXT-X-MEDIA: LANGUAGE is ${shorten(language)}, but has at most ${LANGUAGE_CHARS_MAX} characters`,
    );
  if (uri === null) return null;
  const kind = type === 'AUDIO' ? 'audio' : type === 'VIDEO' ? 'video' : 'text';
  return { kind, uri, language, bandwidth: null, width: null, height: null, location };
}

function groupOf(line: PlaylistLine): string {
  const attributes = new AttributeList(line);
  return `${attributes.get('TYPE')}:${attributes.quoted('GROUP-ID')}`;
}

/** The AUDIO, VIDEO and SUBTITLES of every variant must name a group that exists. */
function assertGroupsExist(lines: readonly PlaylistLine[], groups: ReadonlySet<string>): void {
  for (const line of lines) {
    if (line.tag !== 'EXT-X-STREAM-INF') continue;
    const attributes = new AttributeList(line);
    for (const type of ['AUDIO', 'VIDEO', 'SUBTITLES']) {
      const group = attributes.quoted(type);
      if (group !== null && !groups.has(`${type}:${group}`))
        throw manifestFault(
          line.location,
          `#EXT-X-STREAM-INF: ${type}="${shorten(group)}" is the GROUP-ID of no #EXT-X-MEDIA`,
        );
    }
  }
}

interface SessionData {
  readonly id: string;
  readonly uri: string | null;
  readonly value: string | null;
}

function parseSessionData(line: PlaylistLine): SessionData {
  const attributes = new AttributeList(line);
  const id = attributes.required('DATA-ID', attributes.quoted('DATA-ID'));
  const value = attributes.quoted('VALUE');
  const uri = attributes.quoted('URI');
  if ((value === null) === (uri === null))
    throw manifestFault(line.location, '#EXT-X-SESSION-DATA needs a VALUE or a URI, one of both');
  return { id, uri, value };
}

const GENERIC_NAMES = /^(index|playlist|prog_index|main|media|stream|chunklist)$/i;

/** `video/360p` for both `video/360p/index.m3u8` and `video/360p.m3u8`. */
function renditionName(path: string, titleRoot: TitleRoot): string {
  const folders = path.slice(titleRoot.base.length).split('/');
  const file = folders.pop()!.replace(/\.m3u8?$/i, '');
  return folders.length > 0 && GENERIC_NAMES.test(file) ? folders.join('/') : [...folders, file].join('/');
}
