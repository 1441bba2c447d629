// A steered multivariant playlist, written as text so that tags nobody here knows survive. Every pathway lists the same
// variants in the same order, each with its own rendition groups: hls.js 1.7 dies with the edge where they share one.

import type { Base, Place } from './pathway.ts';
import { resolveTarget, targetOn } from './pathway.ts';

export interface HlsSteering {
  readonly place: Place;
  /** First is best; the playlist's own first pathway must be the first of the steering list. */
  readonly pathways: readonly Base[];
  /** Absolute URL of the steering list; it carries the ids of these pathways. */
  readonly serverUri: string;
  /** Bits per second, for a media playlist that must be given a variant. */
  readonly bandwidth: number;
}

const GROUP_ATTRIBUTES = ['AUDIO', 'VIDEO', 'SUBTITLES', 'CLOSED-CAPTIONS'];

export function steerHls(text: string, steering: HlsSteering): string {
  const playlist = readPlaylist(text, steering);
  const first = steering.pathways[0]!;
  const body = steering.pathways.flatMap((pathway) =>
    playlist.entries.flatMap((entry) => write(entry, pathway, steering)),
  );
  return [
    '#EXTM3U',
    ...playlist.head.map((line) => writeHead(line, first, { steering, variables: playlist.variables })),
    `#EXT-X-CONTENT-STEERING:SERVER-URI="${steering.serverUri}",PATHWAY-ID="${first.id}"`,
    ...body,
    '',
  ].join('\n');
}

/** A tag that names a rendition or variant, ready to be written once per pathway. */
interface Entry {
  readonly tag: '#EXT-X-MEDIA' | '#EXT-X-STREAM-INF' | '#EXT-X-I-FRAME-STREAM-INF';
  readonly attributes: Attributes;
  /** The line after STREAM-INF. */
  readonly uri: string | null;
  /** Unknown tags and comments between STREAM-INF and its URI. */
  readonly between: readonly string[];
}

interface Playlist {
  /** All other tags, in order. */
  readonly head: readonly string[];
  readonly entries: readonly Entry[];
  readonly variables: ReadonlyMap<string, string>;
}

function readPlaylist(text: string, { place, bandwidth }: HlsSteering): Playlist {
  const lines = text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && line !== '#EXTM3U');
  if (!lines.some((line) => line.startsWith('#EXT-X-STREAM-INF:'))) return mediaPlaylist(place, bandwidth);
  const variables = new Map<string, string>();
  const head: string[] = [];
  const entries: Entry[] = [];
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
      // Another's steering would fight this one.
    } else if (between !== null) {
      between.push(line);
    } else {
      if (line.startsWith('#EXT-X-DEFINE:')) define(parseAttributes(line), variables);
      head.push(line);
    }
  }
  return { head, entries: withStableIds(onePathway(entries)), variables };
}

/** The title's manifest is itself a media playlist: a multivariant one with it as the only variant. */
function mediaPlaylist(place: Place, bandwidth: number): Playlist {
  const attributes: Attributes = new Map([['BANDWIDTH', String(Math.max(1, Math.ceil(bandwidth)))]]);
  const entry: Entry = { tag: '#EXT-X-STREAM-INF', attributes, uri: place.path.split('/').at(-1)!, between: [] };
  return { head: [], entries: withStableIds([entry]), variables: new Map() };
}

/** A playlist that comes with pathways of its own keeps the first: ours replace the hosts of the others. */
function onePathway(entries: readonly Entry[]): readonly Entry[] {
  const first = entries.find((entry) => entry.tag === '#EXT-X-STREAM-INF')?.attributes.get('PATHWAY-ID');
  const kept = entries.filter((entry) => entry.tag === '#EXT-X-MEDIA' || entry.attributes.get('PATHWAY-ID') === first);
  const groups = new Set(kept.flatMap(({ attributes }) => GROUP_ATTRIBUTES.map((name) => attributes.get(name))));
  return kept.filter(
    ({ tag, attributes }) => tag !== '#EXT-X-MEDIA' || first === undefined || groups.has(attributes.get('GROUP-ID')),
  );
}

function withStableIds(entries: readonly Entry[]): readonly Entry[] {
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

function write(entry: Entry, pathway: Base, { place }: HlsSteering): string[] {
  const attributes = new Map(entry.attributes);
  const uri = unquote(attributes.get('URI'));
  if (uri !== null) attributes.set('URI', `"${targetOn(resolveTarget(uri, place), pathway)}"`);
  if (entry.tag === '#EXT-X-MEDIA') suffixGroup(attributes, 'GROUP-ID', pathway);
  else {
    for (const name of GROUP_ATTRIBUTES) suffixGroup(attributes, name, pathway);
    attributes.set('PATHWAY-ID', `"${pathway.id}"`);
  }
  const tag = `${entry.tag}:${formatAttributes(attributes)}`;
  if (entry.uri === null) return [tag];
  return [tag, ...entry.between, targetOn(resolveTarget(entry.uri, place), pathway)];
}

/** `CLOSED-CAPTIONS=NONE` is a keyword, not a group. */
function suffixGroup(attributes: Map<string, string>, name: string, pathway: Base): void {
  const group = unquote(attributes.get(name));
  if (group !== null) attributes.set(name, `"${group}@${pathway.id}"`);
}

/** Session keys and data are one for all pathways: their URIs lead to the first. */
function writeHead(
  line: string,
  first: Base,
  { steering, variables }: { readonly steering: HlsSteering; readonly variables: ReadonlyMap<string, string> },
): string {
  const tag = /^#EXT-X-SESSION-(?:KEY|DATA)(?=:)/.exec(line)?.[0];
  if (tag === undefined) return line;
  const attributes = new Map(substituteUri(parseAttributes(line), variables));
  const uri = unquote(attributes.get('URI'));
  if (uri === null) return line;
  attributes.set('URI', `"${targetOn(resolveTarget(uri, steering.place), first)}"`);
  return `${tag}:${formatAttributes(attributes)}`;
}

/** Values as written, quotes included. */
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

function define(attributes: Attributes, variables: Map<string, string>): void {
  const name = unquote(attributes.get('NAME'));
  const value = unquote(attributes.get('VALUE'));
  if (name !== null && value !== null) variables.set(name, value);
}

/** Variables in a URI must be put in before it is resolved, or `{$x}` would be escaped. */
const substitute = (text: string, variables: ReadonlyMap<string, string>): string =>
  text.replaceAll(/\{\$([A-Za-z0-9_-]+)\}/g, (whole, name: string) => variables.get(name) ?? whole);

function substituteUri(attributes: Attributes, variables: ReadonlyMap<string, string>): Attributes {
  const uri = attributes.get('URI');
  return uri === undefined ? attributes : new Map([...attributes, ['URI', substitute(uri, variables)]]);
}
