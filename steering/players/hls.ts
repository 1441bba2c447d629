// Steers a multivariant playlist by editing its text, so that unknown tags survive. Every pathway lists the same variants in
// the same order, each with its own rendition groups: where pathways share one, hls.js 1.7 fails together with the appliance.

import { resolveUri, uriOn, type ManifestLocation, type ManifestPathway, type ManifestSteering } from './pathway.ts';

export interface HlsSteering extends ManifestSteering {
  /** Bits per second, for the variant that a media playlist is wrapped in. */
  readonly bandwidth: number;
}

const GROUP_ATTRIBUTES = ['AUDIO', 'VIDEO', 'SUBTITLES', 'CLOSED-CAPTIONS'];

export function steerHls(text: string, steering: HlsSteering): string {
  const playlist = parsePlaylist(text, steering);
  // The player starts with the first pathway of the playlist, so it must be the first of the steering list too.
  const first = steering.pathways[0]!;
  const body = steering.pathways.flatMap((pathway) =>
    playlist.entries.flatMap((entry) => formatEntry(entry, pathway, steering)),
  );
  return [
    '#EXTM3U',
    ...playlist.head.map((line) => formatHeadLine(line, first, { steering, variables: playlist.variables })),
    `#EXT-X-CONTENT-STEERING:SERVER-URI="${steering.serverUri}",PATHWAY-ID="${first.id}"`,
    ...body,
    '',
  ].join('\n');
}

/** A tag that names a rendition or variant; it is repeated per pathway. */
interface PlaylistEntry {
  readonly tag: '#EXT-X-MEDIA' | '#EXT-X-STREAM-INF' | '#EXT-X-I-FRAME-STREAM-INF';
  readonly attributes: Attributes;
  /** The line after STREAM-INF; null for tags with a URI attribute. */
  readonly uri: string | null;
  /** Unknown tags and comments between STREAM-INF and its URI. */
  readonly between: readonly string[];
}

interface Playlist {
  /** All other tags, in order. */
  readonly head: readonly string[];
  readonly entries: readonly PlaylistEntry[];
  readonly variables: ReadonlyMap<string, string>;
}

function parsePlaylist(text: string, { manifest, bandwidth }: HlsSteering): Playlist {
  const lines = text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && line !== '#EXTM3U');
  if (!lines.some((line) => line.startsWith('#EXT-X-STREAM-INF:'))) return wrapMediaPlaylist(manifest, bandwidth);
  const variables = new Map<string, string>();
  const head: string[] = [];
  const entries: PlaylistEntry[] = [];
  let between: string[] | null = null;
  let variant: Attributes | null = null;
  for (const line of lines) {
    if (line.startsWith('#EXT-X-STREAM-INF:')) {
      variant = parseAttributes(line);
      between = [];
    } else if (variant !== null && between !== null && !line.startsWith('#')) {
      entries.push({ tag: '#EXT-X-STREAM-INF', attributes: variant, uri: substitute(line, variables), between });
      variant = null;
      between = null;
    } else if (line.startsWith('#EXT-X-MEDIA:') || line.startsWith('#EXT-X-I-FRAME-STREAM-INF:')) {
      const tag = line.startsWith('#EXT-X-MEDIA:') ? '#EXT-X-MEDIA' : '#EXT-X-I-FRAME-STREAM-INF';
      entries.push({ tag, attributes: substituteUri(parseAttributes(line), variables), uri: null, between: [] });
    } else if (line.startsWith('#EXT-X-CONTENT-STEERING:')) {
      // Dropped, because the playlist's own steering would compete with this one.
    } else if (between !== null) {
      between.push(line);
    } else {
      if (line.startsWith('#EXT-X-DEFINE:')) defineVariable(parseAttributes(line), variables);
      head.push(line);
    }
  }
  return { head, entries: withStableIds(onlyFirstPathway(entries)), variables };
}

/** Makes a multivariant playlist whose only variant is the given media playlist. */
function wrapMediaPlaylist(manifest: ManifestLocation, bandwidth: number): Playlist {
  const attributes: Attributes = new Map([['BANDWIDTH', String(Math.max(1, Math.ceil(bandwidth)))]]);
  const entry: PlaylistEntry = {
    tag: '#EXT-X-STREAM-INF',
    attributes,
    uri: manifest.path.split('/').at(-1)!,
    between: [],
  };
  return { head: [], entries: withStableIds([entry]), variables: new Map() };
}

/** Keeps the first pathway of a playlist that has its own; the others name hosts that this steering replaces. */
function onlyFirstPathway(entries: readonly PlaylistEntry[]): readonly PlaylistEntry[] {
  const first = entries.find((entry) => entry.tag === '#EXT-X-STREAM-INF')?.attributes.get('PATHWAY-ID');
  const onFirst = entries.filter(
    (entry) => entry.tag === '#EXT-X-MEDIA' || entry.attributes.get('PATHWAY-ID') === first,
  );
  const groups = new Set(onFirst.flatMap(({ attributes }) => GROUP_ATTRIBUTES.map((name) => attributes.get(name))));
  return onFirst.filter(
    ({ tag, attributes }) => tag !== '#EXT-X-MEDIA' || first === undefined || groups.has(attributes.get('GROUP-ID')),
  );
}

/** Adds a STABLE-VARIANT-ID to variants without one, so that players recognise a variant on another pathway. */
function withStableIds(entries: readonly PlaylistEntry[]): readonly PlaylistEntry[] {
  const taken = new Set(entries.map(({ attributes }) => attributes.get('STABLE-VARIANT-ID')));
  let next = 0;
  return entries.map((entry) => {
    if (entry.tag === '#EXT-X-MEDIA' || entry.attributes.has('STABLE-VARIANT-ID')) return entry;
    let stable: string;
    do stable = `"v${(next += 1)}"`;
    while (taken.has(stable));
    return { ...entry, attributes: new Map([...entry.attributes, ['STABLE-VARIANT-ID', stable]]) };
  });
}

function formatEntry(entry: PlaylistEntry, pathway: ManifestPathway, { manifest }: HlsSteering): string[] {
  const attributes = new Map(entry.attributes);
  const uri = unquote(attributes.get('URI'));
  if (uri !== null) attributes.set('URI', `"${uriOn(resolveUri(uri, manifest), pathway)}"`);
  if (entry.tag === '#EXT-X-MEDIA') suffixGroup(attributes, 'GROUP-ID', pathway);
  else {
    for (const name of GROUP_ATTRIBUTES) suffixGroup(attributes, name, pathway);
    attributes.set('PATHWAY-ID', `"${pathway.id}"`);
  }
  const tag = `${entry.tag}:${formatAttributes(attributes)}`;
  if (entry.uri === null) return [tag];
  return [tag, ...entry.between, uriOn(resolveUri(entry.uri, manifest), pathway)];
}

/** Leaves `CLOSED-CAPTIONS=NONE` alone, which is a keyword and not a group. */
function suffixGroup(attributes: Map<string, string>, name: string, pathway: ManifestPathway): void {
  const group = unquote(attributes.get(name));
  if (group !== null) attributes.set(name, `"${group}@${pathway.id}"`);
}

/** Session keys and data cannot differ by pathway, so their URIs point to the first one. */
function formatHeadLine(
  line: string,
  first: ManifestPathway,
  { steering, variables }: { readonly steering: HlsSteering; readonly variables: ReadonlyMap<string, string> },
): string {
  const tag = /^#EXT-X-SESSION-(?:KEY|DATA)(?=:)/.exec(line)?.[0];
  if (tag === undefined) return line;
  const attributes = new Map(substituteUri(parseAttributes(line), variables));
  const uri = unquote(attributes.get('URI'));
  if (uri === null) return line;
  attributes.set('URI', `"${uriOn(resolveUri(uri, steering.manifest), first)}"`);
  return `${tag}:${formatAttributes(attributes)}`;
}

/** By name; values as written, quotes included. */
type Attributes = ReadonlyMap<string, string>;

function parseAttributes(line: string): Attributes {
  const list = line.slice(line.indexOf(':') + 1);
  return new Map(
    [...list.matchAll(/\s*([A-Z0-9-]+)\s*=\s*("[^"]*"|[^",]*)/g)].map((match) => [match[1]!, match[2]!.trim()]),
  );
}

const formatAttributes = (attributes: Attributes): string =>
  [...attributes].map(([name, value]) => `${name}=${value}`).join(',');

const unquote = (value: string | undefined): string | null =>
  value !== undefined && /^".*"$/.test(value) ? value.slice(1, -1) : null;

function defineVariable(attributes: Attributes, variables: Map<string, string>): void {
  const name = unquote(attributes.get('NAME'));
  const value = unquote(attributes.get('VALUE'));
  if (name !== null && value !== null) variables.set(name, value);
}

/** Variables must be substituted before a URI is resolved, which would escape `{$x}`. */
const substitute = (text: string, variables: ReadonlyMap<string, string>): string =>
  text.replaceAll(/\{\$([A-Za-z0-9_-]+)\}/g, (whole, name: string) => variables.get(name) ?? whole);

function substituteUri(attributes: Attributes, variables: ReadonlyMap<string, string>): Attributes {
  const uri = attributes.get('URI');
  return uri === undefined ? attributes : new Map([...attributes, ['URI', substitute(uri, variables)]]);
}
